"""The metrics: how a text or a vector can be compared with the incidents. `ranking` computes them."""

from __future__ import annotations

from typing import Literal, get_args

Metric = Literal["cosine", "centered", "whitened", "hybrid"]
METRICS: tuple[Metric, ...] = get_args(Metric)
# Those that need no text.
VectorMetric = Literal["cosine", "centered", "whitened"]
VECTOR_METRICS: tuple[VectorMetric, ...] = get_args(VectorMetric)
