"""The incidents' directions, prepared once a metric, so that a query costs one dot product an incident.

`cosine` compares with the means as they are, `centered` with the means less their own mean, the center. Each metric has
a matrix of unit vectors, 4 MB for 1,400 incidents of 768 numbers, which the first query with that metric makes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from similarity.encoding import Vector

Metric = Literal["cosine", "centered"]
METRICS: tuple[Metric, ...] = get_args(Metric)

# Rows that are in memory as float64 at a time: few, so that a small Lambda has room and the processor's cache too.
_CHUNK = 256


def unit(vectors: NDArray[np.floating[Any]]) -> Vector:
    """Vectors, in the last dimension, of length 1; one of zeros stays what it is. Takes what float32 holds."""
    exact = vectors.astype(np.float64)  # which holds the squares of all float32
    return _divide(exact, np.sqrt(np.vecdot(exact, exact)[..., None])).astype(np.float32)


def _divide(vectors: NDArray[np.float64], lengths: NDArray[np.float64]) -> NDArray[np.float64]:
    quotients: NDArray[np.float64] = vectors / (lengths + (lengths == 0))
    return quotients


@dataclass(frozen=True, eq=False)
class Index:
    """For finite means (incidents, hidden). Safe to use from several threads."""

    means: Vector
    _prepared: dict[Metric, tuple[NDArray[np.float64], Vector]] = field(default_factory=dict, init=False)

    def top(self, vector: NDArray[np.floating[Any]], num: int, metric: Metric) -> tuple[NDArray[np.intp], Vector]:
        """The rows of the `num` incidents most like `vector` (hidden,), best first, and their similarities, -1 to 1.

        What has no direction has similarity 0; ties are in the order of the rows.
        """
        if metric not in self._prepared:  # two threads may both make it, and it is the same
            self._prepared[metric] = self._prepare(metric)
        origin, directions = self._prepared[metric]
        difference = vector.astype(np.float64) - origin
        # Its length doesn't matter, and may be one that float64 has no square of.
        direction = unit(_divide(difference, np.abs(difference).max(keepdims=True)))
        # Row by row: a product of matrix and vector may give equal rows different last digits.
        similarities: Vector = np.vecdot(directions, direction)  # (incidents,)
        np.clip(similarities, -1, 1, out=similarities)  # rounding may lead past 1
        best = _largest(similarities, num)
        return best, similarities[best]

    def _prepare(self, metric: Metric) -> tuple[NDArray[np.float64], Vector]:
        """What the metric subtracts, (hidden,), and the directions of the means less that, (incidents, hidden)."""
        origin = np.zeros(self.means.shape[1])
        if metric == "centered" and len(self.means):
            origin = self.means.mean(axis=0, dtype=np.float64)
        directions = np.empty_like(self.means)
        for start in range(0, len(self.means), _CHUNK):
            rows = slice(start, start + _CHUNK)
            directions[rows] = unit(self.means[rows] - origin)
        return origin, directions


def _largest(values: Vector, k: int) -> NDArray[np.intp]:
    """(n,) -> (k,): where the k largest values are, largest first, ties in order."""
    if k == 0:
        return np.empty(0, dtype=np.intp)
    threshold = np.partition(values, len(values) - k)[len(values) - k]
    candidates = np.flatnonzero(values >= threshold)  # (n,) -> (k or more,)
    order = np.argsort(-values[candidates], kind="stable")
    return candidates[order[:k]]
