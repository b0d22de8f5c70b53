"""The figures are those worked out by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from evaluation.figures import (
    COVERED,
    LENGTH_NAMES,
    Estimate,
    auc,
    calibration_error,
    estimates,
    false_alarms,
    gini,
    length,
    rank_figures,
    reliability,
    spearman,
    threshold,
    unevenness,
)


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
def test_auc_and_false_alarms_of_nothing_are_nan(positive: list[float], negative: list[float]) -> None:
    assert math.isnan(auc(positive, negative))
    assert math.isnan(false_alarms(positive, negative))


def test_auc_is_that_of_a_count_of_all_pairs() -> None:
    random = np.random.default_rng(25)
    positive, negative = random.integers(0, 20, 60) + 3.0, random.integers(0, 20, 45) * 1.0
    above, equal = (compare(positive[:, None], negative).sum() for compare in (np.greater, np.equal))
    assert auc(positive.tolist(), negative.tolist()) == pytest.approx((above + equal / 2) / (60 * 45), abs=1e-12)


def test_rank_figures_are_the_shares_of_known_ranks() -> None:
    found = rank_figures([1, 2, 4, 1, 5], [1, 2, 3, 4, 5])
    assert (found.queries, found.incidents) == (5, 5)
    assert {limit: each.value for limit, each in found.recall.items()} == {1: 2 / 5, 3: 3 / 5, 10: 1.0}
    assert found.mean_reciprocal_rank.value == pytest.approx((1 + 1 / 2 + 1 / 4 + 1 + 1 / 5) / 5)
    assert found.recall[10] == Estimate(1.0, 1.0, 1.0)
    assert found.recall[1].low < 2 / 5 < found.recall[1].high


def test_no_rank_gives_no_figure() -> None:
    found = rank_figures([], [])
    assert (found.queries, found.incidents) == (0, 0)
    for each in (*found.recall.values(), found.mean_reciprocal_rank):
        assert all(map(math.isnan, (each.value, each.low, each.high)))


def test_an_interval_is_that_of_all_draws() -> None:
    # Of three incidents, 3 x 3 x 3 draws are equally likely. The means are 0, 1/3, 2/3 and 1: 1, 6, 12 and 8 times.
    values = [0.0, 1.0, 1.0]
    exact = np.sort([np.mean(drawn) for drawn in itertools.product(values, repeat=3)])
    [found] = estimates(np.array(values)[:, None], [1, 2, 3])
    assert found.value == pytest.approx(2 / 3)
    assert found.low == pytest.approx(np.quantile(exact, (1 - COVERED) / 2, method="inverted_cdf"))
    assert found.high == pytest.approx(np.quantile(exact, (1 + COVERED) / 2, method="inverted_cdf"))


def test_intervals_of_a_share_are_those_of_the_binomial_distribution() -> None:
    # 300 of 400: sqrt(0.75 * 0.25 / 400) = 0.02165, times 1.96 = 0.0424.
    values = np.repeat([1.0, 0.0], [300, 100])
    [found] = estimates(values[:, None], np.arange(400))
    assert found.value - found.low == pytest.approx(0.0424, abs=0.005)
    assert found.high - found.value == pytest.approx(0.0424, abs=0.005)


def test_texts_of_one_incident_are_drawn_together() -> None:
    # 10 incidents with 40 equal texts each: as uncertain as 10 texts, not as 400.
    values = np.repeat([1.0, 0.0], 200)[:, None]
    [alone] = estimates(values, np.arange(400))
    [together] = estimates(values, np.repeat(np.arange(10), 40))
    assert together.value == alone.value == 0.5
    # sqrt(0.25 / 10) * 1.96 = 0.31, sqrt(0.25 / 400) * 1.96 = 0.049.
    assert together.high - together.value == pytest.approx(0.31, abs=0.05)
    assert alone.high - alone.value == pytest.approx(0.049, abs=0.01)


def test_an_incident_with_many_texts_weighs_more() -> None:
    # Drawn are (a, a), (a, b), (b, a) or (b, b), with 3 texts of a and 1 of b: means 1, 3/4, 3/4 and 0.
    [found] = estimates([[1.0], [1.0], [1.0], [0.0]], [1, 1, 1, 2])
    assert found == Estimate(0.75, 0.0, 1.0)


def test_intervals_are_the_same_each_time_and_in_any_order_of_the_texts() -> None:
    random = np.random.default_rng(1)
    values, ids = random.random((50, 2)), random.integers(1, 20, 50)
    order = random.permutation(50)
    assert estimates(values, ids) == estimates(values, ids)
    for first, second in zip(estimates(values, ids), estimates(values[order], ids[order]), strict=True):
        assert (first.low, first.high) == pytest.approx((second.low, second.high))


def test_a_threshold_keeps_the_share_of_the_positive_values() -> None:
    values = [float(number) for number in range(100)]
    # 99 of 100 reach 1, all reach 0; of 50, ceil(49.5) = 50 must be kept.
    assert threshold(values) == 1.0
    assert threshold(values[:50]) == 0.0
    assert threshold(values, kept=0.5) == 50.0
    assert threshold([3.0, 3.0, 3.0]) == 3.0


def test_false_alarms_reach_the_threshold() -> None:
    values = [float(number) for number in range(100)]
    # The threshold is 1: 1 and 2 reach it, 0 and 0.5 don't.
    assert false_alarms(values, [0.0, 0.5, 1.0, 2.0]) == 0.5
    assert false_alarms([0.9], [0.1, 0.2]) == 0.0


def test_probabilities_are_binned_with_their_upper_ends() -> None:
    found = reliability([0.0, 0.1, 0.11, 0.95, 1.0], [False, True, False, True, True])
    assert [(each.low, each.high, each.count, each.share) for each in found] == [
        (0.0, 0.1, 2, 0.5),
        (0.1, 0.2, 1, 0.0),
        (0.9, 1.0, 2, 1.0),
    ]
    assert [each.mean for each in found] == pytest.approx([0.05, 0.11, 0.975])


def test_a_calibration_error_is_the_mean_distance_of_the_bins() -> None:
    # Bins: 0.05 and 0.1 (mean 0.075, none true), 0.42 and 0.48 (mean 0.45, both true), 0.9 (up to 0.9, true).
    error = calibration_error([0.05, 0.1, 0.42, 0.48, 0.9], [0, 0, 1, 1, 1])
    assert error == pytest.approx((2 * 0.075 + 2 * 0.55 + 1 * 0.1) / 5)


def test_perfect_probabilities_have_no_calibration_error() -> None:
    assert calibration_error([0.0, 1.0, 1.0], [0, 1, 1]) == 0.0
    assert calibration_error([0.25] * 4, [1, 0, 0, 0]) == 0.0
    assert calibration_error([1.0, 1.0], [0, 0]) == 1.0
    assert math.isnan(calibration_error([], []))


def test_gini_is_half_the_mean_difference_by_the_mean() -> None:
    assert gini([2, 2, 2]) == 0.0
    assert gini([0, 0, 0, 5]) == 0.75  # (n - 1) / n
    counts = [1, 2, 3, 10]
    differences = [abs(a - b) for a, b in itertools.product(counts, repeat=2)]
    assert gini(counts) == pytest.approx(np.mean(differences) / (2 * np.mean(counts)))
    assert math.isnan(gini([0, 0]))


def test_spearman_is_the_correlation_of_ranks() -> None:
    assert spearman([1, 2, 3], [10, 100, 1000]) == pytest.approx(1.0)
    assert spearman([1, 2, 3], [9, 4, 1]) == pytest.approx(-1.0)
    # Without ties: 1 - 6 sum(d^2) / (n (n^2 - 1)); d = 1, 1, 1, 1 -> 1 - 24 / 60.
    assert spearman([1, 2, 3, 4], [2, 1, 4, 3]) == pytest.approx(0.6)
    # Ties: the ranks are 1.5, 1.5, 3 and 1, 2, 3; Pearson's is 1.5 / sqrt(1.5 * 2).
    assert spearman([1, 1, 5], [0, 1, 2]) == pytest.approx(1.5 / math.sqrt(3))
    assert math.isnan(spearman([1, 2, 3], [4, 4, 4]))


def test_unevenness_counts_how_often_each_incident_is_recommended() -> None:
    # Incident 0 is in all three answers, 1 in two, 2 in one, 3 in none. An answer of two lacks the third place.
    found = unevenness([[0, 1, 2], [0, 1, -1], [0, -1, -1]], [9, 5, 3, 1])
    assert (found.largest, found.never) == (3, 0.25)
    assert found.gini == pytest.approx(gini([3, 2, 1, 0]))
    assert found.reports == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        *((0, "under 5"), (4, "under 5"), (5, "5 to 19"), (19, "5 to 19"), (20, "20 to 99"), (99, "20 to 99")),
        *((100, "100 to 999"), (999, "100 to 999"), (1000, "1000 and more"), (10**6, "1000 and more")),
    ],
)
def test_texts_are_grouped_by_their_words(words: int, name: str) -> None:
    assert length(words) == name
    assert LENGTH_NAMES == ("under 5", "5 to 19", "20 to 99", "100 to 999", "1000 and more")
