"""Rankings by the map and the words that a state was fitted, and the confidence of their matches."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from similarity.incidents.confidence import EVIDENCE, Confidence
from similarity.incidents.fit import Fit
from similarity.incidents.metrics import METRICS, VECTOR_METRICS, Metric
from similarity.incidents.ranking import Match, Own, Ranking, Scores, fused
from similarity.incidents.state import IncidentState
from similarity.incidents.vector_index import Index
from similarity.incidents.whitening import whitening
from similarity.incidents.words import WordIndex, words_of
from similarity.vectors import Vector

VOCABULARY = ("robot", "car", "plane", "court", "worker", "chatbot", "market", "drone", "camera", "bank")
TEXT = "a robot and a car in court"


def documents(count: int, seed: int = 0) -> list[str]:
    choose = np.random.default_rng(seed)
    return [" ".join(choose.choice(VOCABULARY, 6)) for _ in range(count)]


def some_means(incidents: int = 40, hidden: int = 8, seed: int = 0) -> Vector:
    """With one large component in common, as the real model's."""
    choose = np.random.default_rng(seed)
    means: Vector = (choose.standard_normal((incidents, hidden)) * np.linspace(1, 5, hidden)).astype(np.float32)
    means[:, 2] += 20
    return means


def calibration(seed: int = 0) -> dict[Metric, Confidence]:
    choose = np.random.default_rng(seed)

    def weights(metric: Metric) -> tuple[float, ...]:
        return tuple(choose.standard_normal(2 * len(EVIDENCE[metric]) + 1).tolist())

    return {metric: Confidence(weights(metric), weights(metric), 0.3) for metric in METRICS}


def state_of(means: Vector, texts: list[str] | None = None, **parts: Any) -> IncidentState:
    """A state with all that can be fitted. Its incidents are 10, 20, 30 and so on."""
    fit: dict[str, Any] = {
        "whitening": whitening(means, 0.25),
        "power": 0.25,
        "words": WordIndex.of(texts or documents(len(means))),
        "calibration": calibration(),
    }
    return IncidentState(
        np.arange(1, len(means) + 1) * 10,
        np.ones(len(means), dtype=np.int64),
        means,
        [f"t{number}" for number in range(len(means))],
        fit=Fit(**{**fit, **parts}),
    )


def query(hidden: int = 8, seed: int = 1) -> Vector:
    [vector] = some_means(1, hidden, seed)
    found: Vector = vector
    return found


def by_numpy(vector: np.ndarray, means: np.ndarray, mapped: np.ndarray) -> np.ndarray:
    """The cosines of what the map makes of the differences to the center."""
    center = means.astype(np.float64).mean(axis=0)
    one, others = (vector.astype(np.float64) - center) @ mapped, (means.astype(np.float64) - center) @ mapped
    found: np.ndarray = others @ one / np.linalg.norm(others, axis=1) / np.linalg.norm(one)
    return found


# Whitened.


@pytest.mark.parametrize("incidents", [3, 40, 700])
def test_whitened_similarities_are_those_of_numpy(incidents: int) -> None:
    state, vector = state_of(some_means(incidents)), query()
    assert state.fit.whitening is not None
    expected = by_numpy(vector, state.means, state.fit.whitening.astype(np.float64))
    matches = Ranking(state).most_similar(vector, -1, "whitened")
    order = np.argsort(-expected)
    assert [match.similarity for match in matches] == pytest.approx(expected[order].tolist(), abs=1e-6)
    assert [match.incident_id for match in matches] == state.incident_ids[order].tolist()
    assert not np.allclose(expected, Ranking(state).scores(vector).centered, atol=1e-2), "the map must matter"


def test_the_map_of_the_power_0_ranks_as_centered() -> None:
    means, vector = some_means(), query()
    ranking = Ranking(state_of(means, whitening=whitening(means, 0.0)))
    assert ranking.most_similar(vector, -1, "whitened")[0].similarity == pytest.approx(
        ranking.most_similar(vector, 1, "centered")[0].similarity, abs=1e-7
    )


@pytest.mark.parametrize("length", [1e-42, 1e-30, 1e20, 3e38])
def test_a_vector_of_any_length_is_whitened(length: float) -> None:
    means = some_means()
    vector = (means[7].astype(np.float64) * length / np.abs(means[7]).max()).astype(np.float32)
    index = Index(means, whitening(means, 0.5))
    found = index.similarities(vector, "whitened")
    assert found == pytest.approx(by_numpy(vector, means, whitening(means, 0.5).astype(np.float64)), abs=1e-4)


@pytest.mark.parametrize("metric", VECTOR_METRICS)
def test_some_means_are_compared_as_all_are(metric: Any) -> None:
    means = some_means(600)
    index, rows = Index(means, whitening(means, 0.25)), [599, 3, 300]
    np.testing.assert_allclose(
        index.between(query(), means[rows], metric), index.similarities(query(), metric)[rows], rtol=0, atol=1e-6
    )


def test_incidents_that_are_alike_stay_in_order_by_every_metric() -> None:
    means = np.tile(some_means(2), (251, 1))
    ranking = Ranking(state_of(means, ["robot car", "plane"] * 251))
    for metric in METRICS:
        found = [match.incident_id for match in ranking.most_similar(query(), -1, metric, TEXT)]
        odd = [each for each in found if each // 10 % 2]
        even = [each for each in found if not each // 10 % 2]
        assert found in ([*odd, *even], [*even, *odd])
        assert (odd, even) == (sorted(odd), sorted(even))


# Hybrid.


@pytest.mark.parametrize(
    ("text", "terms", "order", "deviation_of_words"),
    [
        # A single word in two documents: their scores have a deviation below 0.5, which counts as 0.5.
        ("the robots", 1, [10, 20, 30], None),
        # Three words of one document: 1.55 * sqrt(2) / 3.
        ("dogs, cats and a mouse", 3, [20, 10, 30], 0.730),
    ],
)
def test_hybrid_is_the_sum_computed_by_hand(
    text: str, terms: int, order: list[int], deviation_of_words: float | None
) -> None:
    # The center is (10, 1), as in the test of centered cosines, which are sqrt(1/2), 0 and -1.
    means = np.array([[9.0, 2.0], [11.0, 1.0], [10.0, 0.0]], dtype=np.float32)
    texts = ["plane crash drone wing", "robot dog cat mouse", "robot arm bolt nut"]
    cosines = np.array([math.sqrt(0.5), 0.0, -1.0])
    in_two, in_one = math.log(1 + 1.5 / 2.5) / (1 + 0.9), math.log(1 + 2.5 / 1.5) / (1 + 0.9)
    words = np.array([0, in_two, in_two] if terms == 1 else [0, 3 * in_one, 0])
    if deviation_of_words:
        assert words.std() == pytest.approx(deviation_of_words, abs=1e-3)
    else:
        assert words.std() < 0.5
    by_words = (words - words.mean()) / (words.std() if deviation_of_words else 0.5)
    expected = 0.6 * (cosines - cosines.mean()) / cosines.std() + 0.4 * by_words
    ranking = Ranking(state_of(means, texts))
    found = ranking.most_similar(np.array([10.0, 2.0]), -1, "hybrid", text)
    assert [match.incident_id for match in found] == order
    assert [match.similarity for match in found] == pytest.approx(np.sort(expected)[::-1].tolist(), abs=1e-6)
    scores = ranking.scores(np.array([10.0, 2.0]), text)
    assert scores.words is not None
    assert scores.words.tolist() == pytest.approx(words.tolist(), rel=1e-6)
    assert scores.terms == terms


@pytest.mark.parametrize("text", ["", "unknown words", "the"])
def test_without_a_known_word_hybrid_ranks_as_centered(text: str) -> None:
    ranking = Ranking(state_of(some_means()))
    by_words = [match.incident_id for match in ranking.most_similar(query(), -1, "hybrid", text)]
    assert by_words == [match.incident_id for match in ranking.most_similar(query(), -1, "centered")]


def test_a_vector_without_a_direction_is_ranked_by_its_words() -> None:
    means = np.array([[3.0, 1.0], [1.0, 3.0], [2.0, 2.0]], dtype=np.float32)
    ranking = Ranking(state_of(means, ["plane", "plane", "robot"]))
    found = ranking.most_similar(np.array([2.0, 2.0]), -1, "hybrid", "robot")
    assert [match.incident_id for match in found] == [30, 10, 20]
    score = math.log(1 + 2.5 / 1.5) / (1 + 0.9)
    # From (0, 0, s), whose deviation is below 0.5.
    expected = [0.4 * 2 / 3 * score / 0.5, -0.4 / 3 * score / 0.5, -0.4 / 3 * score / 0.5]
    assert [match.similarity for match in found] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("vector", [np.zeros(8), query()], ids=["zeros", "a vector"])
def test_a_single_incident_is_found_by_every_metric(metric: Metric, vector: np.ndarray) -> None:
    [match] = Ranking(state_of(some_means(1), ["robot"])).most_similar(vector, 3, metric, "robot")
    assert match.incident_id == 10
    assert match.similarity == pytest.approx(0.0 if metric != "cosine" or not vector.any() else match.similarity)
    assert match.confidence is not None
    assert 0 <= match.confidence <= 1


@given(st.integers(0, 2**32), st.sampled_from([0.0, 1e-30, 1.0, 1e4]), st.text(max_size=30), st.integers(1, 9))
def test_similarities_and_confidences_are_always_numbers(seed: int, size: float, text: str, incidents: int) -> None:
    means: Vector = (some_means(incidents, 4, seed) * size).astype(np.float32)
    ranking = Ranking(state_of(means))
    for metric in METRICS:
        for vector in (query(4, seed), np.zeros(4), means[0]):
            for match in ranking.most_similar(vector, -1, metric, text):
                assert math.isfinite(match.similarity)
                assert match.confidence is not None
                assert 0 <= match.confidence <= 1


# What a state can't be searched by.


def test_a_state_can_be_searched_by_what_it_has() -> None:
    state = state_of(some_means())
    assert Ranking(state).metrics == METRICS
    assert Ranking(replace(state, fit=replace(state.fit, words=None))).metrics == ("cosine", "centered", "whitened")
    assert Ranking(replace(state, fit=replace(state.fit, whitening=None))).metrics == ("cosine", "centered", "hybrid")
    plain = Ranking(replace(state, fit=Fit()))
    assert plain.metrics == ("cosine", "centered")
    for metric in ("whitened", "hybrid"):
        with pytest.raises(ValueError, match="metric must be one of"):
            plain.most_similar(query(), 1, metric, TEXT)
        with pytest.raises(ValueError, match=f"the state can't be searched by {metric}"):
            plain.scores(query(), TEXT).of(metric)
    scores = plain.scores(query(), TEXT)
    assert scores.whitened is scores.words is scores.hybrid is None


# Scores.


@pytest.mark.parametrize("metric", METRICS)
def test_the_scores_are_the_similarities_of_matches(metric: Metric) -> None:
    ranking = Ranking(state_of(some_means()))
    scores = ranking.scores(query(), TEXT)
    found = {match.incident_id: match.similarity for match in ranking.most_similar(query(), -1, metric, TEXT)}
    assert [found[incident_id] for incident_id in scores.incident_ids.tolist()] == scores.of(metric).tolist()
    assert scores.of(metric).dtype == np.float64


def replaced(state: IncidentState, texts: list[str], own: Own) -> tuple[Ranking, Ranking]:
    """The state in which the incident was really replaced; also with the words and the map of the state as it is."""
    row = state.incident_ids.tolist().index(own.incident_id)
    means, others = state.means.copy(), list(texts)
    means[row], others[row] = own.mean, own.document
    whole = state_of(means, others)
    return Ranking(whole), Ranking(replace(whole, fit=replace(whole.fit, whitening=state.fit.whitening)))


def test_scores_with_an_own_incident_are_those_of_a_state_in_which_it_was_replaced() -> None:
    texts = documents(200)
    state = state_of(some_means(200), texts)
    own = Own(70, query(seed=5), "robot robot court")
    plain, scores = Ranking(state).scores(query(), TEXT), Ranking(state).scores(query(), TEXT, own)
    really, with_the_map = (each.scores(query(), TEXT) for each in replaced(state, texts, own))
    row = 6
    np.testing.assert_allclose(scores.cosine, really.cosine, rtol=0, atol=1e-7)
    # The center is that of the state with the incident as it is. One incident in 200 hardly moves it.
    np.testing.assert_allclose(scores.centered, really.centered, rtol=0, atol=0.02)
    assert scores.whitened is not None
    assert with_the_map.whitened is not None
    np.testing.assert_allclose(scores.whitened, with_the_map.whitened, rtol=0, atol=0.02)
    # So is the number of documents that have a word.
    assert scores.words is not None
    assert really.words is not None
    np.testing.assert_allclose(scores.words, really.words, rtol=0.05, atol=1e-6)
    for each in ("cosine", "centered", "whitened", "words"):
        one, other = getattr(scores, each), getattr(plain, each)
        assert np.flatnonzero(one != other).tolist() == [row], f"{each} of other incidents stays"
        exact = getattr(really, each)[row]
        assert abs(getattr(scores, each)[row] - exact) < abs(other[row] - exact)


def test_the_own_incident_of_a_state_changes_nothing() -> None:
    texts = documents(40)
    state = state_of(some_means(), texts)
    ranking = Ranking(state)
    plain, same = ranking.scores(query(), TEXT), ranking.scores(query(), TEXT, Own(70, state.means[6], texts[6]))
    for each in ("cosine", "centered", "whitened", "words", "hybrid"):
        np.testing.assert_allclose(getattr(same, each), getattr(plain, each), rtol=0, atol=1e-6)


def test_scores_without_an_incident_are_those_of_the_others() -> None:
    scores = Ranking(state_of(some_means())).scores(query(), TEXT)
    left = scores.without(70)
    kept = scores.incident_ids != 70
    assert left.incident_ids.tolist() == scores.incident_ids[kept].tolist()
    assert len(left.incident_ids) == 39
    for each in ("cosine", "centered", "whitened", "words"):
        assert getattr(left, each).tolist() == getattr(scores, each)[kept].tolist()
    assert scores.words is not None
    assert left.hybrid is not None
    expected = fused(scores.centered[kept], scores.words[kept])
    assert left.hybrid.tolist() == expected.tolist(), "the z-scores are those of the others"
    assert left.terms == scores.terms == 3
    plain = Ranking(state_of(some_means(), words=None)).scores(query(), TEXT).without(70)
    assert plain.words is plain.hybrid is None
    assert {each.name for each in fields(Scores)} >= {"cosine", "centered", "whitened", "words", "terms"}


# Confidence.


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("incidents", [1, 2, 3, 40])
def test_the_evidence_of_scores_is_that_of_matches(metric: Metric, incidents: int) -> None:
    state = state_of(some_means(incidents))
    ranking = Ranking(state)
    matches = ranking.most_similar(query(), -1, metric, TEXT)
    scores = ranking.scores(query(), TEXT)
    rows = np.array([state.incident_ids.tolist().index(match.incident_id) for match in matches])
    expected = state.fit.calibration[metric].of(scores.evidence(metric, rows))
    # One takes cosines of float32, the other of float64.
    assert [match.confidence for match in matches] == pytest.approx(expected.tolist(), abs=1e-5)


def test_the_evidence_of_hybrid_is_that_computed_by_hand() -> None:
    texts = ["robot arm", "robot dog", "plane crash"]
    scores = Ranking(state_of(some_means(3), texts)).scores(query(), "robots, cars and a plane")
    rows = np.array([2, 0])
    found = scores.evidence("hybrid", rows)
    assert scores.words is not None
    assert scores.hybrid is not None
    # 3 different words: robot, car, plane.
    parts = [scores.cosine, scores.centered, np.log(1 + scores.words), scores.words / 3, scores.hybrid]
    plain = np.stack([each[rows] for each in parts], axis=1)
    np.testing.assert_allclose(found, np.hstack([plain, plain - plain[::-1]]), atol=1e-12)
    assert len(EVIDENCE["hybrid"]) == 5


@pytest.mark.parametrize("metric", METRICS)
def test_confidence_never_rises_and_does_not_depend_on_num(metric: Metric) -> None:
    for seed in range(20):
        ranking = Ranking(state_of(some_means(seed=seed), calibration=calibration(seed)))
        every = ranking.most_similar(query(seed=seed + 100), -1, metric, TEXT)
        confidences = [match.confidence or 0.0 for match in every]
        assert confidences == sorted(confidences, reverse=True)
        for num in (0, 1, 2, 5, 99):
            some = ranking.most_similar(query(seed=seed + 100), num, metric, TEXT)
            assert len(some) == min(num, 40)
            assert [match.incident_id for match in some] == [match.incident_id for match in every[:num]]
            assert [match.confidence for match in some] == pytest.approx(confidences[:num], abs=1e-12)
            if num:
                assert ranking.verdict(some, metric) == ranking.verdict(every, metric)


def test_a_confidence_is_the_one_computed_by_hand() -> None:
    # Cosines with (1, 0): 1 and 0.6. From the center (0.8, 0.4), the incidents are opposite to each other.
    means = np.array([[1.0, 0.0], [0.6, 0.8]], dtype=np.float32)
    weights = Confidence((1.0, 2.0, 3.0, 4.0, 0.25), (5.0, 0.0, 0.0, -1.0, -4.0), 0.5)
    first, second = Ranking(state_of(means, calibration={"cosine": weights})).most_similar(np.array([1.0, 0.0]), 2)
    # Of (0.2, -0.4) and itself, the centered cosine is 1; of it and the other, -1.
    one = 1 / (1 + math.exp(-(1 + 2 + 3 * 0.4 + 4 * 2 + 0.25)))
    other = 1 / (1 + math.exp(-(5 * 0.6 + 2 - 4)))
    assert [first.confidence, second.confidence] == pytest.approx([one, other], abs=1e-6)


@pytest.mark.parametrize("calibrated", [[], ["centered"]])
def test_a_metric_without_calibration_gives_no_confidence_and_no_verdict(calibrated: list[Metric]) -> None:
    ranking = Ranking(state_of(some_means(), calibration={each: calibration()[each] for each in calibrated}))
    matches = ranking.most_similar(query(), 3)
    assert [match.confidence for match in matches] == [None] * 3
    assert ranking.verdict(matches, "cosine") is None


def test_the_verdict_is_that_of_the_first_match() -> None:
    ranking = Ranking(state_of(some_means()))
    assert ranking.verdict([], "cosine") is None
    for confidence, verdict in ((0.9, "likely"), (0.4, "possible"), (0.1, "none")):
        matches = [Match(10, 0.5, "", confidence), Match(20, 0.4, "", 0.0)]
        assert ranking.verdict(matches, "cosine") == verdict


def test_words_of_the_query_are_counted_once() -> None:
    ranking = Ranking(state_of(some_means()))
    once, often = ranking.scores(query(), "robot car"), ranking.scores(query(), "robot car Robots the cars")
    assert (once.terms, often.terms) == (2, 2)
    assert words_of("robot car Robots the cars") == ["robot", "car", "robot", "car"]
    assert once.words is not None
    assert often.words is not None
    assert once.words.tolist() == often.words.tolist()
