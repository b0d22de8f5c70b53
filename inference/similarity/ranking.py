"""Cosine top-k over the incidents: pure functions of arrays.

`cosine` is the plain cosine of the CLS vector and an incident's mean. `centered` subtracts the mean of all incidents
from both sides first ("all but the top", Mu and Viswanath 2018, first step): raw Longformer vectors share one large
component, which squeezes every cosine into 0.99 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from similarity.index import METRICS, Metric
from similarity.state import IncidentState


@dataclass(frozen=True)
class Match:
    """An incident and its similarity to the query, -1 to 1."""

    incident_id: int
    similarity: float
    title: str


def most_similar(
    vector: NDArray[np.floating[Any]], state: IncidentState, num: int, metric: Metric = "cosine"
) -> list[Match]:
    """The `num` incidents most like `vector` (hidden,), best first, ties by incident id; all of them if num < 0.

    Raises ValueError for a vector of another shape than the state's or an unknown metric. A vector of zeros, or one
    equal to the center with `centered`, has no direction: its similarities are 0.
    """
    if vector.shape != (state.dimension,):
        raise ValueError(f"vector has the shape {tuple(vector.shape)}, the state asks for ({state.dimension},)")
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {METRICS}, not {metric!r}")
    rows = len(state) if num < 0 else min(num, len(state))
    best, similarities = state.index.top(vector, rows, metric)
    return [
        Match(incident_id=incident_id, similarity=similarity, title=state.titles[row])
        for row, incident_id, similarity in zip(
            best.tolist(), state.incident_ids[best].tolist(), similarities.tolist(), strict=True
        )
    ]
