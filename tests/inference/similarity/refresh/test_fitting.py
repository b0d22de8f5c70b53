"""What is fitted to questions, against independent solutions and data where the right choice is known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from similarity.incidents.confidence import MISSED, Confidence
from similarity.incidents.fit import Fit
from similarity.incidents.metrics import METRICS, Metric
from similarity.incidents.ranking import Own, Ranking
from similarity.incidents.state import IncidentState
from similarity.incidents.whitening import DEFAULT_POWER, POWERS, whitening
from similarity.incidents.words import WordIndex
from similarity.refresh import fitting
from similarity.refresh.fitting import FEWEST, asked, calibrate, chosen_power, fitted, weights_of
from similarity.refresh.questions import Kind, Question
from similarity.vectors import Vector

HIDDEN = 6


def question(
    incident_id: int, vector: np.ndarray, mean: np.ndarray, kind: Kind = "title", text: str = "", document: str = ""
) -> Question:
    return Question(kind, text, vector.astype(np.float32), Own(incident_id, mean.astype(np.float32), document))


# The logistic regression.


def by_torch(features: np.ndarray, right: np.ndarray, weights: np.ndarray) -> list[float]:
    """The same regression by another solver: L-BFGS on the loss, with standardised features and a ridge of 1."""
    mean, spread = features.mean(axis=0), features.std(axis=0)
    spread = np.where(spread > 1e-12, spread, 1.0)
    rows = torch.tensor((features - mean) / spread)
    found = torch.zeros(features.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    options = {"max_iter": 2000, "tolerance_grad": 1e-12, "tolerance_change": 0.0}
    solver = torch.optim.LBFGS([found], line_search_fn="strong_wolfe", **options)  # type: ignore[arg-type]
    loss_of = torch.nn.BCEWithLogitsLoss(weight=torch.tensor(weights), reduction="sum")

    def loss() -> torch.Tensor:
        solver.zero_grad()
        value: torch.Tensor = loss_of(rows @ found[:-1] + found[-1], torch.tensor(right))
        value = value + 0.5 * (found[:-1] ** 2).sum() + 0.5e-6 * found[-1] ** 2
        value.backward()  # type: ignore[no-untyped-call]
        return value

    solver.step(loss)  # type: ignore[no-untyped-call]
    standardised = found.detach().numpy()
    plain = standardised[:-1] / spread
    return [*plain.tolist(), float(standardised[-1] - plain @ mean)]


@pytest.mark.parametrize("seed", range(5))
def test_the_regression_is_that_of_another_solver(seed: int) -> None:
    choose = np.random.default_rng(seed)
    features = choose.standard_normal((200, 4)) * [1, 10, 0.01, 3] + [0, 5, 1, -2]
    chance = 1 / (1 + np.exp(-(features[:, 0] + 50 * (features[:, 2] - 1))))
    right = (choose.random(200) < chance).astype(np.float64)
    weights = choose.uniform(0.2, 3, 200)
    found = fitting._ridge_regression(features, right, weights)
    assert found == pytest.approx(by_torch(features, right, weights), rel=1e-4, abs=1e-4)
    assert all(type(each) is float for each in found)


def test_a_feature_that_is_always_the_same_gets_no_weight() -> None:
    features = np.column_stack([np.full(40, 0.1), np.zeros(40)])
    right, weights = np.repeat([1.0, 0.0], [10, 30]), np.repeat([3.0, 1.0], [10, 30])
    *plain, constant = fitting._logistic_regression(features, right, weights)
    assert plain == pytest.approx([0, 0], abs=1e-12)
    # Of a weight of 60, half is right.
    assert constant == pytest.approx(0, abs=1e-9)
    *_, constant = fitting._logistic_regression(features, right, np.ones(40))
    assert constant == pytest.approx(math.log(10 / 30), rel=1e-6)


def test_a_feature_that_differs_by_rounding_alone_gets_no_great_weight() -> None:
    # BM25 of the same words: by the index, in float32, and by hand.
    right = np.repeat([1.0, 0.0], 20)
    noise = np.where(right, float(np.float32(0.7)), 0.7)[:, None]
    [weight, _] = fitting._logistic_regression(noise, right, np.ones(40))
    assert abs(weight) < 1


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_where_all_are_right_or_none_the_numbers_stay_finite(right: float) -> None:
    features = np.random.default_rng(0).standard_normal((50, 3))
    found = fitting._logistic_regression(features, np.full(50, right), np.ones(50))
    assert np.isfinite(found).all()
    assert (found[-1] > 3) is bool(right)


def test_features_that_part_right_from_wrong_get_finite_weights() -> None:
    features = np.linspace(-1, 1, 60)[:, None]
    weight, constant = fitting._logistic_regression(features, (features[:, 0] > 0).astype(np.float64), np.ones(60))
    assert weight > 3
    assert abs(constant) < 0.1


def test_a_feature_with_a_negative_weight_is_left_out() -> None:
    choose = np.random.default_rng(0)
    size = choose.standard_normal(300)
    near, other = size + 0.5 * choose.standard_normal(300), choose.standard_normal(300)
    features = np.column_stack([size, 9 * near, 5 * other])
    right = (choose.random(300) < 1 / (1 + np.exp(-(3 * features[:, 0] - features[:, 1] / 9)))).astype(np.float64)
    weights = choose.uniform(0.2, 3, 300)
    assert fitting._ridge_regression(features, right, weights)[1] < 0
    first, second, third, constant = fitting._logistic_regression(features, right, weights)
    assert (first > 0, second, third >= 0) == (True, 0, True)
    kept = [0, 2] if third else [0]
    expected = by_torch(features[:, kept], right, weights)
    assert [each for each in (first, third) if each] + [constant] == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_where_larger_features_are_less_often_right_only_the_constant_is_left() -> None:
    features = np.repeat([[1.0], [0.0]], 50, axis=0)
    right = np.repeat([0.0, 1.0, 0.0], [40, 40, 20])
    weight, constant = fitting._logistic_regression(features, right, np.ones(100))
    assert weight == 0
    assert constant == pytest.approx(math.log(40 / 60), rel=1e-6)


# The weights of questions.


def test_both_kinds_weigh_the_same() -> None:
    zeros = np.zeros(HIDDEN)
    some = [question(1, zeros, zeros, kind) for kind in ("report", "title", "title", "title")]
    assert weights_of(some).tolist() == pytest.approx([2, 2 / 3, 2 / 3, 2 / 3])
    assert weights_of(some[1:]).tolist() == [1, 1, 1]
    assert weights_of([]).tolist() == []


# The power.


def stretched(sizes: Sequence[float], noise: Sequence[float], count: int = 60) -> tuple[Vector, list[Question]]:
    """Means of these sizes by direction, and questions that are off by so much."""
    choose = np.random.default_rng(0)
    means: Vector = (choose.standard_normal((count, HIDDEN)) * sizes).astype(np.float32)
    off = choose.standard_normal((count, HIDDEN)) * noise
    return means, [question(number + 1, means[number] + off[number], means[number]) for number in range(count)]


def test_where_the_largest_direction_misleads_the_map_makes_it_smaller() -> None:
    means, questions = stretched([30, 1, 1, 1, 1, 1], [30, 0.1, 0.1, 0.1, 0.1, 0.1])
    assert chosen_power(means, np.arange(1, 61), questions) >= 0.375


def test_where_the_small_directions_mislead_the_map_leaves_them_small() -> None:
    means, questions = stretched([5, 5, 5, 0.5, 0.5, 0.5], [0.1, 0.1, 0.1, 1.5, 1.5, 1.5])
    assert chosen_power(means, np.arange(1, 61), questions) == 0


def test_incidents_with_equal_means_do_not_make_the_power_a_matter_of_rounding() -> None:
    choose = np.random.default_rng(0)
    # Each mean twice, as of two incidents with the same report. Each question finds these two first by any power.
    means = np.repeat(choose.standard_normal((100, 384)), 2, axis=0).astype(np.float32)
    for digits in range(5):
        vectors = means + choose.standard_normal(means.shape) * 10.0**-digits / 10
        questions = [question(row + 1, vector, means[row]) for row, vector in enumerate(vectors)]
        assert chosen_power(means, np.arange(200) + 1, questions) == 0.0


def test_of_equal_powers_the_smallest_is_chosen() -> None:
    means, questions = stretched([1] * HIDDEN, [0] * HIDDEN)
    assert chosen_power(means, np.arange(1, 61), questions) == 0


def plain_power(means: Vector, questions: Sequence[Question]) -> float:
    """The power with the best mean reciprocal rank, one question after the other."""
    figures = []
    for power in POWERS:
        center, mapped = means.astype(np.float64).mean(axis=0), whitening(means, power).astype(np.float64)
        figure = 0.0
        for weight, each in zip(weights_of(questions), questions, strict=True):
            rows = means.astype(np.float64).copy()
            rows[each.incident_id - 1] = each.own.mean
            moved, asks = (rows - center) @ mapped, (each.vector - center) @ mapped
            cosines = moved @ asks / np.linalg.norm(moved, axis=1) / np.linalg.norm(asks)
            figure += weight / (1 + (cosines > cosines[each.incident_id - 1] + 1e-7).sum())
        figures.append(figure)
    return POWERS[int(np.argmax(figures))]


@pytest.mark.parametrize("seed", range(6))
def test_the_power_is_the_one_that_ranks_best(seed: int) -> None:
    choose = np.random.default_rng(seed)
    means: Vector = (choose.standard_normal((50, HIDDEN)) * choose.uniform(0.3, 6, HIDDEN)).astype(np.float32)
    off = choose.uniform(0.3, 3, HIDDEN)
    questions = [
        question(number + 1, means[number] + choose.standard_normal(HIDDEN) * off, means[number], kind)
        for number in range(50)
        for kind in (("title", "report") if number % 3 else ("title",))
    ]
    assert chosen_power(means, np.arange(1, 51), questions) == plain_power(means, questions)


def test_without_enough_questions_the_power_is_the_usual_one() -> None:
    means, questions = stretched([30, 1, 1, 1, 1, 1], [30, 0.1, 0.1, 0.1, 0.1, 0.1])
    ids = np.arange(1, 61)
    assert chosen_power(means, ids, questions[: FEWEST - 1]) == DEFAULT_POWER
    assert chosen_power(means, ids, questions[:FEWEST]) > DEFAULT_POWER
    assert chosen_power(means[:1], ids[:1], [questions[0]] * FEWEST) == DEFAULT_POWER


# The calibration.


def state_of(means: Vector, documents: Sequence[str] = (), power: float = 0.25) -> IncidentState:
    fit = Fit(whitening(means, power), power, WordIndex.of(documents))
    titles = [""] * len(means)
    return IncidentState(np.arange(1, len(means) + 1), np.ones(len(means), dtype=np.int64), means, titles, fit=fit)


def some_words(choose: np.random.Generator, count: int = 8) -> list[str]:
    return [f"word{number}" for number in choose.integers(0, 300, count)]


def some_data(incidents: int = 300, seed: int = 0) -> tuple[Vector, list[str], list[Question]]:
    """Questions of both kinds, twice as many titles, some of which find their incident.

    Each incident is as the state knows it, so that the state itself answers as in the calibration.
    """
    choose = np.random.default_rng(seed)
    means: Vector = (choose.standard_normal((incidents, HIDDEN)) + 2).astype(np.float32)
    words = [some_words(choose) for _ in range(incidents)]
    documents = [" ".join(each) for each in words]
    questions = []
    for number in range(incidents):
        off = choose.standard_normal(HIDDEN) * choose.choice([0.1, 0.3, 1.0])
        kind: Kind = "title" if number % 3 else "report"
        text = " ".join([*words[number][: choose.integers(0, 5)], *some_words(choose, 3)])
        questions.append(question(number + 1, means[number] + off, means[number], kind, text, documents[number]))
    return means, documents, questions


def confidences(state: IncidentState, questions: Sequence[Question], metric: Metric) -> tuple[np.ndarray, np.ndarray]:
    """The first match's confidence, and whether it is right: of the state, and of one without the incident."""
    ranking, calibration = Ranking(state), state.fit.calibration[metric]
    found, right = [], []
    for removed in (False, True):
        for each in questions:
            scores = ranking.scores(each.vector, each.text)
            scores = scores.without(each.incident_id) if removed else scores
            best = np.argsort(-scores.of(metric), kind="stable")[:2]
            found.append(calibration.of(scores.evidence(metric, best))[0])
            right.append(float(scores.incident_ids[best[0]] == each.incident_id))
    return np.array(found), np.array(right)


def calibrated(means: Vector, documents: Sequence[str], questions: Sequence[Question]) -> IncidentState:
    state = state_of(means, documents)
    calibration = calibrate(Ranking(state), questions)
    fit = Fit(state.fit.whitening, state.fit.power, state.fit.words, calibration)
    return IncidentState(state.incident_ids, state.report_counts, state.means, state.titles, fit=fit)


@pytest.mark.slow
@pytest.mark.parametrize("metric", METRICS)
def test_on_average_matches_are_as_often_right_as_they_are_sure(metric: Metric) -> None:
    """In the weighted mean of all that was fitted to: both kinds count the same, with their incident and without."""
    means, documents, questions = some_data()
    state = calibrated(means, documents, questions)
    found, right = confidences(state, questions, metric)
    weights = np.tile(weights_of(questions), 2)
    assert not right[len(questions) :].any()
    assert 0.1 < right[: len(questions)].mean() < 0.95
    assert weights @ found / weights.sum() == pytest.approx(weights @ right / weights.sum(), abs=1e-5)
    assert found.mean() != pytest.approx(right.mean(), abs=1e-4), "the kinds must differ, or the weights don't show"


@pytest.mark.slow
@pytest.mark.parametrize("metric", METRICS)
def test_as_few_true_questions_as_allowed_are_below_the_limit(metric: Metric) -> None:
    means, documents, questions = some_data()
    state = calibrated(means, documents, questions)
    found, _ = confidences(state, questions, metric)
    there, weights = found[: len(questions)], weights_of(questions)
    limit = state.fit.calibration[metric].none_below
    below = weights[there < limit - 1e-9].sum() / weights.sum()
    up_to = weights[there <= limit + 1e-9].sum() / weights.sum()
    assert below <= MISSED <= up_to
    ranking = Ranking(state)
    verdicts = [ranking.verdict(ranking.most_similar(q.vector, 1, metric, q.text), metric) for q in questions]
    missed = np.array([verdict == "none" for verdict in verdicts])
    assert weights[missed].sum() / weights.sum() <= MISSED + 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("metric", METRICS)
def test_the_confidence_holds_for_incidents_that_were_not_fitted_to(metric: Metric) -> None:
    means, documents, questions = some_data(600)
    state = calibrated(means, documents, questions[::2])
    found, right = confidences(state, questions[1::2], metric)
    assert abs(found.mean() - right.mean()) < 0.05
    sure, unsure = found >= np.median(found), found < np.median(found)
    assert abs(found[sure].mean() - right[sure].mean()) < 0.08
    assert abs(found[unsure].mean() - right[unsure].mean()) < 0.08
    assert right[sure].mean() > right[unsure].mean() + 0.3


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("metric", METRICS)
def test_no_larger_score_or_distance_makes_a_match_less_sure(metric: Metric, seed: int) -> None:
    means, documents, questions = some_data(40, seed)
    calibration = calibrated(means, documents, questions).fit.calibration[metric]
    assert min(*calibration.first[:-1], *calibration.later[:-1]) >= 0
    assert max(calibration.first[:-1]) > 0


def test_later_matches_are_fitted_to_later_matches() -> None:
    means, documents, questions = some_data()
    state = calibrated(means, documents, questions)
    ranking, found, right = Ranking(state), [], []
    weights = np.repeat(weights_of(questions), 9)
    for removed in (False, True):
        for each in questions:
            scores = ranking.scores(each.vector, each.text)
            answer = asked(scores.without(each.incident_id) if removed else scores, each.incident_id, "cosine")
            assert len(answer.right) == 10
            weights_later = np.array(state.fit.calibration["cosine"].later)
            found += (1 / (1 + np.exp(-(answer.evidence[1:] @ weights_later[:-1] + weights_later[-1])))).tolist()
            right += answer.right[1:].tolist()
    assert 0 < sum(right) < len(questions)
    assert np.tile(weights, 2) @ found == pytest.approx(np.tile(weights, 2) @ right, abs=1e-3)


def test_the_vectors_of_questions_are_not_in_the_means_that_they_are_asked_of() -> None:
    """A state whose means have the questions in them gets the same fit as one whose means haven't."""
    means, documents, questions = some_data(60)
    with_them = means.copy()
    for each in questions:
        with_them[each.incident_id - 1] = (means[each.incident_id - 1] + each.vector) / 2
    ids = np.arange(1, 61)
    assert chosen_power(with_them, ids, questions) == chosen_power(means, ids, questions)
    one, other = (calibrate(Ranking(state_of(each, documents)), questions) for each in (means, with_them))
    for metric in METRICS:
        assert one[metric].first == pytest.approx(other[metric].first, rel=1e-6, abs=1e-9)
        assert one[metric].later == pytest.approx(other[metric].later, rel=1e-6, abs=1e-9)


def test_too_few_questions_or_incidents_give_no_calibration() -> None:
    means, documents, questions = some_data(40)
    ranking = Ranking(state_of(means, documents))
    assert calibrate(ranking, questions[: FEWEST - 1]) == {}
    assert calibrate(ranking, questions[:FEWEST]).keys() == set(METRICS)
    two = Ranking(state_of(means[:2], documents[:2]))
    assert calibrate(two, [questions[number % 2] for number in range(FEWEST)]) == {}
    three = Ranking(state_of(means[:3], documents[:3]))
    assert calibrate(three, [questions[number % 3] for number in range(FEWEST)]).keys() == set(METRICS)


# All of it.


def test_a_state_gets_all_that_can_be_fitted() -> None:
    means, documents, questions = some_data(60)
    plain = IncidentState(np.arange(1, 61), np.ones(60, dtype=np.int64), means, [""] * 60)
    state = fitted(plain, documents, questions)
    power = chosen_power(means, plain.incident_ids, questions)
    assert (state.means.tobytes(), state.fit.power) == (means.tobytes(), power)
    assert state.fit.whitening is not None
    assert state.fit.whitening.tobytes() == whitening(means, power).tobytes()
    assert state.fit.words is not None
    index = WordIndex.of(documents)
    assert index is not None
    assert state.fit.words.weights.tobytes() == index.weights.tobytes()
    assert state.fit.calibration.keys() == set(METRICS)
    assert all(isinstance(each, Confidence) for each in state.fit.calibration.values())
    without_words = fitted(plain, [""] * 60, questions)
    assert without_words.fit.words is None
    assert without_words.fit.calibration.keys() == {"cosine", "centered", "whitened"}
    nobody_asks = fitted(plain, documents, [])
    assert (nobody_asks.fit.power, dict(nobody_asks.fit.calibration)) == (DEFAULT_POWER, {})
    assert nobody_asks.fit.words is not None
