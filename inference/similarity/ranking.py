"""Cosine top-k over the incidents: pure functions of arrays.

`cosine` is the plain cosine of the CLS vector and an incident's mean. `centered` subtracts the mean of all incidents
from both sides first ("all but the top", Mu and Viswanath 2018, first step): raw Longformer vectors share one large
component, which squeezes every cosine into 0.99 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from similarity.encoding import Vector
from similarity.state import IncidentState, unit

Metric = Literal["cosine", "centered"]
METRICS: tuple[Metric, ...] = get_args(Metric)


@dataclass(frozen=True)
class Match:
    """An incident and its similarity to the query, -1 to 1."""

    incident_id: int
    similarity: float
    title: str


def most_similar(vector: Vector, state: IncidentState, num: int, metric: Metric = "cosine") -> list[Match]:
    """The `num` incidents most like `vector` (hidden,), best first, ties by incident id; all of them if num < 0.

    Raises ValueError for a vector of another shape than the state's or an unknown metric. A vector of zeros, or one
    equal to the center with `centered`, has no direction: its similarities are 0.
    """
    if vector.shape != (state.dimension,):
        raise ValueError(f"vector has the shape {tuple(vector.shape)}, the state asks for ({state.dimension},)")
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {METRICS}, not {metric!r}")
    vector = np.asarray(vector, dtype=np.float32)
    if metric == "centered":
        similarities = state.unit_centered_means @ unit(vector - state.center)
    else:
        similarities = state.unit_means @ unit(vector)  # (incidents, hidden) @ (hidden,) -> (incidents,)
    np.clip(similarities, -1.0, 1.0, out=similarities)  # rounding may lead past 1
    best = _top(similarities, len(state) if num < 0 else min(num, len(state)))
    return [
        Match(incident_id=incident_id, similarity=similarity, title=state.titles[row])
        for row, incident_id, similarity in zip(
            best.tolist(), state.incident_ids[best].tolist(), similarities[best].tolist(), strict=True
        )
    ]


def _top(values: Vector, k: int) -> NDArray[np.intp]:
    """(n,) -> (k,): where the k largest values are, largest first, ties in order."""
    if k == 0:
        return np.empty(0, dtype=np.intp)
    threshold = np.partition(values, len(values) - k)[len(values) - k]
    candidates = np.flatnonzero(values >= threshold)  # (n,) -> (k or more,)
    order = np.argsort(-values[candidates], kind="stable")
    return candidates[order[:k]]
