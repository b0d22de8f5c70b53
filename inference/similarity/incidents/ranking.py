"""Cosine top-k over the incidents.

`cosine` is the plain cosine of the CLS vector and an incident's mean. `centered` subtracts the mean of all incidents
from both sides first ("all but the top", Mu and Viswanath 2018, first step): raw Longformer vectors share one large
component, which squeezes every cosine into 0.99 to 1.

Each metric has a matrix of unit vectors, 4 MB for 1,400 incidents of 768 numbers, which the first query with that
metric makes. A query then costs one dot product an incident.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from similarity.incidents.state import IncidentState
from similarity.vectors import Vector, divide, unit

Metric = Literal["cosine", "centered"]
METRICS: tuple[Metric, ...] = get_args(Metric)

# Rows that are in memory as float64 at a time: few, so that a small Lambda has room and the processor's cache too.
_CHUNK = 256


@dataclass(frozen=True)
class Match:
    """An incident and its similarity to the query, -1 to 1."""

    incident_id: int
    similarity: float
    title: str


class Ranking:
    """A state, ready to be searched. Safe to use from several threads.

    version: as `state_version` gives it, "" where the state comes from no file.
    """

    def __init__(self, state: IncidentState, version: str = "") -> None:
        self.state = state
        self.version = version
        self._index = Index(state.means)

    def most_similar(self, vector: NDArray[np.floating[Any]], num: int, metric: Metric = "cosine") -> list[Match]:
        """The `num` incidents most like `vector` (hidden,), best first, ties by incident id; all of them if num < 0.

        Raises ValueError for a vector of another shape than the state's or an unknown metric. A vector of zeros, or one
        equal to the center with `centered`, has no direction: its similarities are 0.
        """
        state = self.state
        if vector.shape != (state.dimension,):
            raise ValueError(f"vector has the shape {tuple(vector.shape)}; the state needs ({state.dimension},)")
        if metric not in METRICS:
            raise ValueError(f"metric must be one of {METRICS}, not {metric!r}")
        rows = len(state) if num < 0 else min(num, len(state))
        best, similarities = self._index.top(vector, rows, metric)
        return [
            Match(incident_id=incident_id, similarity=similarity, title=state.titles[row])
            for row, incident_id, similarity in zip(
                best.tolist(), state.incident_ids[best].tolist(), similarities.tolist(), strict=True
            )
        ]


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
        direction = unit(divide(difference, np.abs(difference).max(keepdims=True)))
        # Row by row: a product of matrix and vector may give equal rows different last digits.
        similarities: Vector = np.vecdot(directions, direction)  # (incidents,)
        np.clip(similarities, -1, 1, out=similarities)  # rounding may lead past 1
        best = largest(similarities, num)
        return best, similarities[best]

    def _prepare(self, metric: Metric) -> tuple[NDArray[np.float64], Vector]:
        """The metric's origin, and the directions of the means seen from there, (incidents, hidden)."""
        origin = origin_of(self.means, metric)
        directions = np.empty_like(self.means)
        for start in range(0, len(self.means), _CHUNK):
            rows = slice(start, start + _CHUNK)
            directions[rows] = unit(self.means[rows] - origin)
        return origin, directions


def origin_of(means: Vector, metric: Metric) -> NDArray[np.float64]:
    """What the metric subtracts from every vector: (incidents, hidden) -> (hidden,)."""
    origin = np.zeros(means.shape[1])
    if metric == "centered" and len(means):
        origin = means.mean(axis=0, dtype=np.float64)
    return origin


def largest(values: NDArray[np.floating[Any]], k: int) -> NDArray[np.intp]:
    """(n,) -> (k,): where the k largest values are, largest first, ties in order."""
    if k == 0:
        return np.empty(0, dtype=np.intp)
    threshold = np.partition(values, len(values) - k)[len(values) - k]
    candidates = np.flatnonzero(values >= threshold)  # (n,) -> (k or more,)
    order = np.argsort(-values[candidates], kind="stable")
    return candidates[order[:k]]
