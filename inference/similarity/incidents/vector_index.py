"""Compares a vector with all incidents, by the metrics that need no text. `similarity.incidents.ranking` explains them.

Each metric has a matrix of unit vectors, 4 MB for 1,400 incidents of 768 numbers. The first query with the metric makes
it. Then a query costs one dot product per incident.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from similarity.incidents.metrics import VectorMetric
from similarity.vectors import Vector, divide, unit

# Rows that are converted to float64 at a time. So few fit into the processor's cache and a small Lambda's memory.
_CHUNK = 256


@dataclass(frozen=True, eq=False)
class Index:
    """Searches means (incidents, hidden), which must be finite. Safe to use from several threads.

    whitening: the map (hidden, hidden) for `whitened`.
    """

    means: Vector
    whitening: Vector | None = None
    # Two threads may make the same one, with the same result.
    _directions: dict[VectorMetric, Vector] = field(default_factory=dict, init=False)
    _origins: dict[VectorMetric, NDArray[np.float64]] = field(default_factory=dict, init=False)

    def top(self, vector: NDArray[np.floating[Any]], num: int, metric: VectorMetric) -> tuple[NDArray[np.intp], Vector]:
        """The rows of the `num` incidents most like `vector` (hidden,), best first, and their similarities, -1 to 1.

        A vector without a direction has similarity 0. Ties are in the order of the rows.
        """
        similarities = self.similarities(vector, metric)
        best = largest(similarities, num)
        return best, similarities[best]

    def similarities(self, vector: NDArray[np.floating[Any]], metric: VectorMetric) -> Vector:
        """The similarity of each incident to `vector`: (hidden,) -> (incidents,), -1 to 1."""
        if metric not in self._directions:
            self._directions[metric] = self._prepare(metric)
        return _compared(self._directions[metric], self._direction(vector, metric))

    def between(self, vector: NDArray[np.floating[Any]], means: Vector, metric: VectorMetric) -> NDArray[np.float64]:
        """The similarities of `vector` and some means: (hidden,), (n, hidden) -> (n,). Makes no matrix."""
        return _compared(unit(self.moved(means, metric)), self._direction(vector, metric)).astype(np.float64)

    def moved(self, vectors: NDArray[np.floating[Any]], metric: VectorMetric) -> NDArray[np.float64]:
        """The vectors (n, hidden) whose cosines the metric takes: from its origin, and whitened for `whitened`."""
        return self._mapped(vectors - self._origin(metric), metric)

    def _direction(self, vector: NDArray[np.floating[Any]], metric: VectorMetric) -> Vector:
        difference = vector.astype(np.float64) - self._origin(metric)
        # Scaled first, because the squares of its numbers may be too large for float64.
        return unit(self._mapped(divide(difference, np.abs(difference).max(keepdims=True)), metric))

    def _mapped(self, vectors: NDArray[np.float64], metric: VectorMetric) -> NDArray[np.float64]:
        if metric != "whitened":
            return vectors
        if self.whitening is None:
            raise ValueError("the state has no whitening map")
        return vectors @ self.whitening.astype(np.float64)

    def _origin(self, metric: VectorMetric) -> NDArray[np.float64]:
        if metric not in self._origins:
            self._origins[metric] = origin_of(self.means, metric)
        return self._origins[metric]

    def _prepare(self, metric: VectorMetric) -> Vector:
        """The unit vectors from the metric's origin to the means (incidents, hidden)."""
        directions = np.empty_like(self.means)
        for start in range(0, len(self.means), _CHUNK):
            rows = slice(start, start + _CHUNK)
            directions[rows] = unit(self.moved(self.means[rows], metric))
        return directions


def _compared(directions: Vector, direction: Vector) -> Vector:
    """Cosines of unit vectors: (n, hidden), (hidden,) -> (n,)."""
    # vecdot goes row by row. A matrix product may give equal rows different last digits.
    similarities: Vector = np.vecdot(directions, direction)
    return np.clip(similarities, -1, 1)  # rounding may exceed 1


def origin_of(means: Vector, metric: VectorMetric) -> NDArray[np.float64]:
    """The vector that the metric subtracts from every other: (incidents, hidden) -> (hidden,)."""
    origin = np.zeros(means.shape[1])
    if metric != "cosine" and len(means):
        origin = means.mean(axis=0, dtype=np.float64)
    return origin


def largest(values: NDArray[np.floating[Any]], k: int) -> NDArray[np.intp]:
    """(n,) -> (k,): the indices of the k largest values, largest first, ties in order."""
    if k == 0:
        return np.empty(0, dtype=np.intp)
    threshold = np.partition(values, len(values) - k)[len(values) - k]
    candidates = np.flatnonzero(values >= threshold)  # (n,) -> (k or more,)
    order = np.argsort(-values[candidates], kind="stable")
    return candidates[order[:k]]
