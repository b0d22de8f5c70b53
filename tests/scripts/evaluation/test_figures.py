"""AUC, ranks and best similarities are those worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evaluation.figures import Answer, Scores, answer, auc, scores
from similarity.incidents.ranking import Ranking
from similarity.incidents.state import IncidentState


def test_auc_is_the_share_of_pairs_in_the_right_order() -> None:
    # 3 x 4 pairs. 0.9 beats all four, 0.5 beats 0.1 and 0.2 and ties with 0.5, 0.2 beats 0.1 and ties with 0.2.
    assert auc([0.5, 0.9, 0.2], [0.1, 0.5, 0.7, 0.2]) == (4 + 2.5 + 1.5) / 12


@pytest.mark.parametrize(
    ("positive", "negative", "expected"),
    [([2, 3], [0, 1], 1.0), ([0, 1], [2, 3], 0.0), ([1, 1], [1, 1, 1], 0.5)],
)
def test_auc_of_all_none_and_chance(positive: list[float], negative: list[float], expected: float) -> None:
    assert auc(positive, negative) == expected


@pytest.mark.parametrize(("positive", "negative"), [([], [1.0]), ([1.0], []), ([math.nan], [1.0])])
def test_auc_of_nothing_is_nan(positive: list[float], negative: list[float]) -> None:
    assert math.isnan(auc(positive, negative))


def test_auc_is_that_of_a_count_of_all_pairs() -> None:
    random = np.random.default_rng(25)
    positive, negative = random.integers(0, 20, 60) + 3.0, random.integers(0, 20, 45) * 1.0
    above, equal = (compare(positive[:, None], negative).sum() for compare in (np.greater, np.equal))
    assert auc(positive.tolist(), negative.tolist()) == pytest.approx((above + equal / 2) / (60 * 45), abs=1e-12)


def state_of(*means: tuple[float, float]) -> Ranking:
    count = len(means)
    return Ranking(
        IncidentState(
            incident_ids=np.arange(1, count + 1),
            report_counts=np.ones(count, dtype=np.int64),
            means=np.array(means, dtype=np.float32),
            titles=[""] * count,
        )
    )


def test_an_answer_has_the_rank_and_the_best_similarity_with_and_without_the_incident() -> None:
    ranking = state_of((3, 4), (1, 0), (0, 1))  # cosines with (1, 0): 0.6, 1, 0
    query = np.array([1.0, 0.0], dtype=np.float32)
    assert answer(query, 1, ranking, "cosine") == Answer(2, best=1.0, best_without=1.0)
    found = answer(query, 2, ranking, "cosine")
    assert (found.rank, found.best) == (1, 1.0)
    assert found.best_without == pytest.approx(0.6)


def test_incidents_with_the_same_vector_share_a_rank() -> None:
    ranking = state_of((3, 4), (3, 4), (1, 0))
    query = np.array([1.0, 0.0], dtype=np.float32)
    assert [answer(query, incident_id, ranking, "cosine").rank for incident_id in (1, 2, 3)] == [2, 2, 1]


def test_without_its_only_incident_a_state_has_no_best() -> None:
    assert math.isnan(answer(np.array([1.0, 0.0], dtype=np.float32), 1, state_of((1, 0)), "cosine").best_without)


def test_no_answer_scores_nothing() -> None:
    assert scores([]) == Scores(queries=0, recall={1: 0.0, 3: 0.0, 10: 0.0}, mean_reciprocal_rank=0.0)
