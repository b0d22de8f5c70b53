"""What a caller asked for beside the text, vector or incident that is compared."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from similarity.incidents.metrics import METRICS, Metric

DEFAULT_NUM = 3


@dataclass(frozen=True)
class Asked:
    """The parameters of a ranking. docs/api.md explains them.

    num: number of incidents, all if negative. exclude: ids of incidents that are left out.
    explain: whether each match says why. embedding: whether the answer has the text's vector too.
    """

    num: int = DEFAULT_NUM
    metric: Metric = METRICS[0]
    exclude: Collection[int] = ()
    explain: bool = False
    embedding: bool = False
