"""The figures of a task are computed from the right answers, and thresholds come from other folds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from evaluation.asking import FOLDS, Answers, Sure, Unmatched, fold_of
from evaluation.results import MetricResult, plotted, result_of
from evaluation.texts import Query, Unrelated
from similarity.incidents.confidence import Verdict

# Two incidents of two folds.
ONE, OTHER = 1, next(number for number in range(2, 100) if fold_of(number) != fold_of(1))
QUERIES = [Query(ONE, "A car hit a man", "en"), Query(OTHER, "Ein Auto", "de"), Query(OTHER, "one two", "en")]
UNRELATED = [Unrelated("news", "en", "Snow fell."), Unrelated("short", "", ".")]


def sure(confidence: Sequence[float], is_right: Sequence[bool], verdicts: Sequence[Verdict | None]) -> Sure:
    """Only first matches."""
    rest = [[math.nan, math.nan]] * len(confidence)
    return Sure(
        np.column_stack([confidence, rest]), np.column_stack([is_right, np.zeros((len(is_right), 2), bool)]), verdicts
    )


ANSWERS = Answers(
    rank=np.array([1, 2, 4]),
    right=np.array([0.9, 0.5, 0.3]),
    best=np.array([0.9, 0.6, 0.8]),
    rival=np.array([0.4, 0.6, 0.8]),
    others=np.array([[1, 2, -1], [0, 2, -1], [0, 2, -1]]),
    there=sure([0.95, 0.4, 0.1], [True, False, False], ["likely", "possible", "none"]),
    removed=sure([0.1, 0.4, 0.1], [False, False, False], ["none", "possible", "none"]),
)
# The news scores 0.7 in each fold; the full stop scores 0.95 in the fold of the first query, else 0.1.
NO_MATCH = Unmatched(
    best=np.array([[0.7, 0.95 if fold == fold_of(ONE) else 0.1] for fold in range(FOLDS)]),
    verdicts=[["none", "possible" if fold == fold_of(ONE) else "none"] for fold in range(FOLDS)],
)


@pytest.fixture
def result() -> MetricResult:
    return result_of(
        QUERIES, {"cosine": ANSWERS}, UNRELATED, {"cosine": NO_MATCH}, np.array([5, 2, 2]), [0.25] * FOLDS
    ).metrics["cosine"]


def test_ranks_are_given_for_all_and_for_each_group(result: MetricResult) -> None:
    assert (result.ranks.queries, result.ranks.incidents) == (3, 2)
    assert result.ranks.recall[1].value == pytest.approx(1 / 3)
    assert {name: each.recall[1].value for name, each in result.by_length.items()} == {"under 5": 0.0, "5 to 19": 1.0}
    assert list(result.by_length) == ["under 5", "5 to 19"]
    assert {name: each.queries for name, each in result.by_language.items()} == {"de": 1, "en": 2}


def test_scores_are_compared_within_a_fold(result: MetricResult) -> None:
    # Query 1 (0.9): above the news, below the full stop. Queries 2 and 3 (0.6, 0.8): half are above the news, all above
    # the full stop.
    assert result.auc["queries, 1 unrelated news"] == pytest.approx((1 + 0 + 1) / 3)
    assert result.auc["queries, all 2 unrelated texts"] == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert result.auc["without their incident, 1 unrelated news"] == pytest.approx((0 + 0 + 1) / 3)
    # 0.9, 0.6, 0.8 against 0.4, 0.6, 0.8: 3 + 1.5 + 2.5 of 9.
    assert result.auc["queries, the same without their incident"] == pytest.approx(7 / 9)


def test_a_threshold_comes_from_the_other_folds(result: MetricResult) -> None:
    # For the first query's fold the threshold is 0.6, for the other's it is 0.9; without both it is 0.6.
    # The news (0.7) is a false alarm in all folds but that of the others.
    assert result.false_alarms["1 unrelated news"] == pytest.approx(4 / 5)
    # The full stop is one in the first fold alone.
    assert result.false_alarms["all 2 unrelated texts"] == pytest.approx((2 + 0 + 1 + 1 + 1) / 10)
    # 0.4 doesn't reach 0.6, and 0.6 and 0.8 don't reach 0.9.
    assert result.false_alarms["queries without their incident"] == 0


def test_confidence_is_measured_with_and_without_the_incident(result: MetricResult) -> None:
    # Bins: 0.95 (right); 0.4 twice (wrong); 0.1 three times (wrong).
    assert result.calibration_error == pytest.approx((0.05 + 2 * 0.4 + 3 * 0.1) / 6)
    assert [each.count for each in result.reliability] == [3, 2, 1]
    assert math.isnan(result.later_calibration_error)
    assert result.verdicts["queries"] == pytest.approx({"likely": 1 / 3, "possible": 1 / 3, "none": 1 / 3})
    assert result.verdicts["without their incident"] == pytest.approx({"likely": 0, "possible": 1 / 3, "none": 2 / 3})
    assert result.verdicts["unrelated: short"] == pytest.approx({"likely": 0, "possible": 0.2, "none": 0.8})
    assert result.verdicts["all unrelated"] == pytest.approx({"likely": 0, "possible": 0.1, "none": 0.9})


def test_recommendations_are_counted_with_the_right_incident_removed(result: MetricResult) -> None:
    # Incident 0 is in two answers, 1 in one, 2 in three.
    assert (result.unevenness.largest, result.unevenness.never) == (3, 0)


def test_an_unrelated_text_is_named_if_one_state_does_not_say_none() -> None:
    result = result_of(
        QUERIES,
        {"cosine": ANSWERS, "words": ANSWERS},
        UNRELATED,
        {"cosine": NO_MATCH, "words": Unmatched(NO_MATCH.best, [[None, None]] * FOLDS)},
        np.array([1, 1, 1]),
        [],
    )
    [named] = result.not_none
    assert (named.kind, named.language, named.text, named.metrics) == ("short", "", ".", ["cosine"])


def test_without_calibration_there_is_nothing_to_say_of_confidence() -> None:
    none = sure([math.nan] * 3, [False] * 3, [None] * 3)
    answers = replace(ANSWERS, there=none, removed=none)
    no_match = Unmatched(np.empty((FOLDS, 0)), [[]] * FOLDS)
    counts = np.array([1, 1, 1])
    [result] = result_of(QUERIES, {"words": answers}, [], {"words": no_match}, counts, []).metrics.values()
    assert math.isnan(result.calibration_error)
    assert (result.verdicts, result.reliability) == ({}, [])
    assert math.isnan(result.auc["queries, all 0 unrelated texts"])


def test_the_plots_show_right_wrong_and_unrelated_scores(result: MetricResult) -> None:
    found = plotted(ANSWERS, NO_MATCH, result)
    assert (found.right, found.wrong) == ([0.9, 0.5, 0.3], [0.4, 0.6, 0.8])
    assert found.unrelated == pytest.approx([0.7, (0.95 + 4 * 0.1) / 5])
    assert [(group.name, group.queries) for group in found.groups] == [("under 5", 2), ("5 to 19", 1)]
    assert [each.count for each in found.bins] == [3, 2, 1]
