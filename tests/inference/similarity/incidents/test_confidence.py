"""The confidence of matches against values computed by hand, and what is refused as a calibration."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from similarity.incidents.confidence import EVIDENCE, Confidence, features, logistic
from similarity.incidents.metrics import METRICS, Metric

SCORES = {"cosine": np.array([0.9, 0.7, 0.6]), "centered": np.array([0.5, 0.6, -0.2])}


def test_features_are_scores_and_their_distances_to_the_rival() -> None:
    found = features(SCORES, "cosine")
    # The first match's rival is the second one, and the rival of all others is the first one.
    expected = [[0.9, 0.5, 0.2, -0.1], [0.7, 0.6, -0.2, 0.1], [0.6, -0.2, -0.3, -0.7]]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_match_without_a_rival_has_no_distance() -> None:
    found = features({name: values[:1] for name, values in SCORES.items()}, "centered")
    assert found.tolist() == [[0.9, 0.5, 0, 0]]


def test_the_confidence_is_the_logistic_function_of_the_features() -> None:
    confidence = Confidence((2.0, 1.0, 3.0, -1.0, 0.5), (1.0, 0.0, 1.0, 0.0, -1.0), 0.1)
    found = confidence.of(features(SCORES, "cosine"))
    sums = [2 * 0.9 + 0.5 + 3 * 0.2 + 0.1 + 0.5, 0.7 - 0.2 - 1, 0.6 - 0.3 - 1]
    assert found.tolist() == pytest.approx([1 / (1 + math.exp(-each)) for each in sums])
    assert confidence.of(features(SCORES, "cosine")[:1]).tolist() == found[:1].tolist()


def test_a_later_match_is_never_surer_than_the_one_before() -> None:
    always = Confidence((0.0,) * 5, (0.0, 0.0, 0.0, 0.0, 9.0), 0.0)
    assert always.of(features(SCORES, "cosine")).tolist() == [0.5] * 3
    rising = Confidence((0.0, 0.0, 0.0, 0.0, 9.0), (0.0, 0.0, -1.0, 0.0, 0.0), 0.0)
    first, second, third = rising.of(features(SCORES, "cosine")).tolist()
    assert first > second == third == 1 / (1 + math.exp(-0.2))


def test_no_matches_have_no_confidence() -> None:
    confidence = Confidence((1.0,) * 5, (1.0,) * 5, 0.0)
    assert confidence.of(np.empty((0, 4))).tolist() == []


@pytest.mark.parametrize(
    ("confidence", "verdict"),
    [(1.0, "likely"), (0.5, "likely"), (0.4999, "possible"), (0.2, "possible"), (0.1999, "none"), (0.0, "none")],
)
def test_the_verdict_depends_on_two_values(confidence: float, verdict: str) -> None:
    assert Confidence((), (), 0.2).verdict(confidence) == verdict


def test_a_match_below_none_below_is_none_however_sure() -> None:
    assert Confidence((), (), 0.7).verdict(0.6) == "none"


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=9))
def test_the_logistic_function_never_overflows(values: list[float]) -> None:
    with np.errstate(all="raise", under="ignore"):
        found = logistic(np.array(values)).tolist()
    for value, probability in zip(values, found, strict=True):
        expected = 1 / (1 + math.exp(-value)) if value > -700 else 0.0
        assert probability == pytest.approx(expected, abs=1e-15)


NUMBERS = st.floats(-1e6, 1e6)


@given(arrays(np.float64, (5, 4), elements=NUMBERS), arrays(np.float64, (2, 5), elements=NUMBERS))
def test_any_confidences_are_probabilities_that_never_rise(evidence: np.ndarray, weights: np.ndarray) -> None:
    found = Confidence(tuple(weights[0].tolist()), tuple(weights[1].tolist()), 0.0).of(evidence)
    assert ((found >= 0) & (found <= 1)).all()
    assert (np.diff(found) <= 0).all()


@pytest.mark.parametrize("metric", METRICS)
def test_the_largest_weights_that_are_read_give_no_nan(metric: Metric) -> None:
    size = 2 * len(EVIDENCE[metric]) + 1
    weights = [1e30 * (-1) ** place for place in range(size)]
    found = Confidence.from_plain(metric, {"first": weights, "later": weights, "none_below": 0.0})
    scores = {name: np.array([3e38, 0.0, -3e38]) for name in EVIDENCE[metric]}  # BM25 of float32 isn't larger.
    with np.errstate(all="raise", under="ignore"):
        assert np.isfinite(found.of(features(scores, metric))).all()


@pytest.mark.parametrize("metric", METRICS)
def test_a_calibration_is_the_same_when_read_again(metric: Metric) -> None:
    size = 2 * len(EVIDENCE[metric]) + 1
    given_ = Confidence(tuple(map(float, range(size))), (0.1,) * size, 0.03)
    assert Confidence.from_plain(metric, given_.to_plain()) == given_


PLAIN: dict[str, Any] = {"first": [0.0] * 5, "later": [0.0] * 5, "none_below": 0.1}
WRONG = {
    "a list": [1],
    "no later": {"first": [0.0] * 5, "none_below": 0.1},
    "a weight too few": {**PLAIN, "first": [0.0] * 4},
    "a weight too many": {**PLAIN, "later": [0.0] * 6},
    "weights in a tuple": {**PLAIN, "first": (0.0,) * 5},
    "weights in an array": {**PLAIN, "first": np.zeros(5)},
    "a weight that is a text": {**PLAIN, "first": [*[0.0] * 4, "1"]},
    "a weight that is a truth": {**PLAIN, "first": [*[0.0] * 4, True]},
    "a weight that is NaN": {**PLAIN, "later": [*[0.0] * 4, math.nan]},
    "a weight that is infinite": {**PLAIN, "later": [*[0.0] * 4, math.inf]},
    "a weight that is too large": {**PLAIN, "first": [*[0.0] * 4, -1e31]},
    "a limit above 1": {**PLAIN, "none_below": 1.5},
    "a limit below 0": {**PLAIN, "none_below": -0.5},
    "a limit that is NaN": {**PLAIN, "none_below": math.nan},
    "a limit that is None": {**PLAIN, "none_below": None},
}


@pytest.mark.parametrize("name", WRONG)
def test_another_calibration_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"^the calibration of cosine must have "):
        Confidence.from_plain("cosine", WRONG[name])
