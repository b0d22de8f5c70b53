"""Figures of how well queries find their incidents, and how well scores tell whether there is one to find.

A query is a vector. Its only right answer is one incident of the state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from similarity.incidents.metrics import Metric
from similarity.incidents.ranking import Ranking
from similarity.vectors import Vector

RANKS = (1, 3, 10)


@dataclass(frozen=True)
class Answer:
    """A query's answer.

    rank: of the right incident: 1, and one more for each incident that is more similar. So two incidents with the same
        text share a rank. The API puts the smaller id first.
    best: the largest similarity of any incident. best_without: the largest of the other incidents; NaN without others.
    """

    rank: int
    best: float
    best_without: float


@dataclass(frozen=True)
class Scores:
    """recall: share of queries (0 to 1) with the right answer at rank r or better, for each r of RANKS."""

    queries: int
    recall: dict[int, float]
    mean_reciprocal_rank: float


def answer(vector: Vector, incident_id: int, ranking: Ranking, metric: Metric) -> Answer:
    """The answer to a query (hidden,) for an incident that the state has."""
    found = ranking.most_similar(vector, -1, metric)
    [right] = [match.similarity for match in found if match.incident_id == incident_id]
    others = [match.similarity for match in found if match.incident_id != incident_id]
    rank = 1 + sum(similarity > right for similarity in others)
    return Answer(rank, best=found[0].similarity, best_without=others[0] if others else math.nan)


def scores(answers: Sequence[Answer]) -> Scores:
    """All are 0 without any answer."""
    queries = max(len(answers), 1)
    return Scores(
        queries=len(answers),
        recall={limit: sum(each.rank <= limit for each in answers) / queries for limit in RANKS},
        mean_reciprocal_rank=sum(1 / each.rank for each in answers) / queries,
    )


def auc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """The share of pairs in which the positive value is the larger one; a tie counts half. NaN without any pair.

    This is the area under the ROC curve (Mann and Whitney 1947). 1: a threshold parts all. 0.5: the values say nothing.
    """
    if not len(positive) or not len(negative) or np.isnan([*positive, *negative]).any():
        return math.nan
    lows = np.sort(negative)
    below, not_above = (np.searchsorted(lows, positive, side=side) for side in ("left", "right"))
    return float((below + not_above).sum() / (2 * len(positive) * len(negative)))
