"""Finds the incidents that are most similar to a vector, by cosine.

`cosine` is the plain cosine of the CLS vector and an incident's mean. `centered` first subtracts the mean of all
incidents from both ("all but the top", Mu and Viswanath 2018, first step). Raw Longformer vectors share one large
component, so their plain cosines all lie between 0.99 and 1.

Each metric has a matrix of unit vectors, 4 MB for 1,400 incidents of 768 numbers. The first query with the metric makes
it. Then a query costs one dot product per incident.
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

# Rows that are converted to float64 at a time. So few fit into the processor's cache and a small Lambda's memory.
_CHUNK = 256


@dataclass(frozen=True)
class Match:
    """An incident and its similarity to the query, -1 to 1."""

    incident_id: int
    similarity: float
    title: str


class Ranking:
    """A state with its facts and its index. Safe to use from several threads.

    version: from `state_version`, "" if the state isn't from a file.
    """

    def __init__(self, state: IncidentState, version: str = "") -> None:
        self.state = state
        self.version = version
        self.facts = state.facts(version)
        self._index = Index(state.means)

    def most_similar(self, vector: NDArray[np.floating[Any]], num: int, metric: Metric = "cosine") -> list[Match]:
        """The `num` incidents most like `vector` (hidden,), best first, ties by incident id; all incidents if num < 0.

        A vector of zeros has no direction, so its similarities are 0. With `centered`, so has the center. Raises
        ValueError if the vector has another shape than the state's, or the metric is unknown.
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
    """Searches means (incidents, hidden), which must be finite. Safe to use from several threads."""

    means: Vector
    _prepared: dict[Metric, tuple[NDArray[np.float64], Vector]] = field(default_factory=dict, init=False)

    def top(self, vector: NDArray[np.floating[Any]], num: int, metric: Metric) -> tuple[NDArray[np.intp], Vector]:
        """The rows of the `num` incidents most like `vector` (hidden,), best first, and their similarities, -1 to 1.

        A vector without a direction has similarity 0. Ties are in the order of the rows.
        """
        if metric not in self._prepared:  # two threads may both make it, with the same result
            self._prepared[metric] = self._prepare(metric)
        origin, directions = self._prepared[metric]
        difference = vector.astype(np.float64) - origin
        # Scaled first, because the squares of its numbers may be too large for float64.
        direction = unit(divide(difference, np.abs(difference).max(keepdims=True)))
        # vecdot goes row by row. A matrix product may give equal rows different last digits.
        similarities: Vector = np.vecdot(directions, direction)  # (incidents,)
        np.clip(similarities, -1, 1, out=similarities)  # rounding may exceed 1
        best = largest(similarities, num)
        return best, similarities[best]

    def _prepare(self, metric: Metric) -> tuple[NDArray[np.float64], Vector]:
        """The metric's origin (hidden,), and the unit vectors from it to the means (incidents, hidden)."""
        origin = origin_of(self.means, metric)
        directions = np.empty_like(self.means)
        for start in range(0, len(self.means), _CHUNK):
            rows = slice(start, start + _CHUNK)
            directions[rows] = unit(self.means[rows] - origin)
        return origin, directions


def origin_of(means: Vector, metric: Metric) -> NDArray[np.float64]:
    """The vector that the metric subtracts from every other: (incidents, hidden) -> (hidden,)."""
    origin = np.zeros(means.shape[1])
    if metric == "centered" and len(means):
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
