"""Cosine top-k over the incidents: pure tensor functions.

`cosine` is the plain cosine of the CLS vector and an incident's mean. `centered` subtracts the mean of all incidents
from both sides first ("all but the top", Mu and Viswanath 2018, first step): raw Longformer vectors share one large
component, which squeezes every cosine into 0.99 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F  # noqa: N812 (the name everyone uses)
from torch import Tensor

from similarity.state import IncidentState

Metric = Literal["cosine", "centered"]
METRICS: tuple[Metric, ...] = get_args(Metric)


@dataclass(frozen=True)
class Match:
    """An incident and its similarity to the query, -1 to 1."""

    incident_id: int
    similarity: float
    title: str


def most_similar(vector: Tensor, state: IncidentState, num: int, metric: Metric = "cosine") -> list[Match]:
    """The `num` incidents most like `vector` (hidden,), best first, ties by incident id; all of them if num < 0.

    Raises ValueError for a vector of another shape than the state's or an unknown metric. A vector of zeros, or one
    equal to the center with `centered`, has no direction: its similarities are 0.
    """
    if vector.shape != (state.dimension,):
        raise ValueError(f"vector has the shape {tuple(vector.shape)}, the state asks for ({state.dimension},)")
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {METRICS}, not {metric!r}")
    vector = vector.float()
    if metric == "centered":
        similarities = state.unit_centered_means @ F.normalize(vector - state.center, dim=0)
    else:
        similarities = state.unit_means @ F.normalize(vector, dim=0)  # (incidents, hidden) @ (hidden,) -> (incidents,)
    similarities = similarities.clamp(-1.0, 1.0)  # rounding may lead past 1
    best = _top(similarities, len(state) if num < 0 else min(num, len(state)))
    return [
        Match(incident_id=incident_id, similarity=similarity, title=state.titles[row])
        for row, incident_id, similarity in zip(
            best.tolist(), state.incident_ids[best].tolist(), similarities[best].tolist(), strict=True
        )
    ]


def _top(values: Tensor, k: int) -> Tensor:
    """(n,) -> (k,): where the k largest values are, largest first, ties in order; topk alone leaves ties to chance."""
    if k == 0:
        return torch.empty(0, dtype=torch.int64)
    threshold = values.topk(k).values[-1]
    candidates = (values >= threshold).nonzero().squeeze(1)  # (n,) -> (k or more,)
    order = values[candidates].sort(descending=True, stable=True).indices
    return candidates[order[:k]]
