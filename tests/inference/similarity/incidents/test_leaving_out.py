"""Rankings without some incidents, and of the incidents like one, against plain numpy and against smaller states."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from similarity.incidents.confidence import EVIDENCE, Confidence
from similarity.incidents.fit import Fit
from similarity.incidents.metrics import METRICS, VECTOR_METRICS, Metric, VectorMetric
from similarity.incidents.ranking import Match, Ranking, fused
from similarity.incidents.state import MAX_ID, IncidentState
from similarity.incidents.whitening import whitening
from similarity.incidents.words import WordIndex
from similarity.vectors import Vector

WORDS = ("robot", "car", "plane", "court", "worker", "bank")
TEXT = "a robot, a car and a court"
HIDDEN = 6


def some_means(count: int, seed: int = 0) -> Vector:
    """Whole numbers, so that sums of them are exact."""
    means: Vector = np.random.default_rng(seed).integers(-9, 10, (count, HIDDEN)).astype(np.float32)
    return means


def state_of(means: Vector, ids: Sequence[int], duplicates: Sequence[tuple[int, int]] = ()) -> IncidentState:
    """With data for all metrics."""
    choose = np.random.default_rng(1)
    texts = [" ".join(choose.choice(WORDS, 4)) for _ in ids]

    def weights(metric: Metric, constant: float) -> tuple[float, ...]:
        return (*choose.uniform(0, 2, 2 * len(EVIDENCE[metric])).tolist(), constant)

    calibration = {metric: Confidence(weights(metric, -0.5), weights(metric, -1.0), 0.2) for metric in METRICS}
    return IncidentState(
        incident_ids=np.array(ids),
        report_counts=np.ones(len(ids), dtype=np.int64),
        means=means,
        titles=[f"t{each}" for each in ids],
        duplicates=np.array(duplicates, dtype=np.int64).reshape(-1, 2),
        fit=Fit(whitening(means, 0.25), 0.25, WordIndex.of(texts), calibration),
    )


def similarities(state: IncidentState, vector: np.ndarray, metric: Metric, text: str = TEXT) -> np.ndarray:
    """Of all incidents, in double precision."""
    means, one = state.means.astype(np.float64), vector.astype(np.float64)
    if metric != "cosine":
        one, means = one - means.mean(axis=0), means - means.mean(axis=0)
    if metric == "whitened":
        assert state.fit.whitening is not None
        one, means = one @ state.fit.whitening, means @ state.fit.whitening
    lengths = np.sqrt((means * means).sum(axis=1) * (one @ one))
    found: np.ndarray = means @ one / np.where(lengths, lengths, 1)
    if metric == "hybrid":
        assert state.fit.words is not None
        found = fused(found, state.fit.words.scores([word for word in WORDS if word in text]))
    return found


def reference(state: IncidentState, scores: np.ndarray, out: Collection[int]) -> list[tuple[int, float]]:
    """The incidents that aren't `out`, best first, ties by id."""
    pairs = zip(state.incident_ids.tolist(), scores.tolist(), strict=True)
    return sorted((pair for pair in pairs if pair[0] not in out), key=lambda pair: (-round(pair[1], 6), pair[0]))


def require_alike(matches: Sequence[Match], expected: Sequence[tuple[int, float]]) -> None:
    assert [match.incident_id for match in matches] == [incident_id for incident_id, _ in expected]
    assert [match.similarity for match in matches] == pytest.approx([score for _, score in expected], abs=1e-5)


# 40 was merged into 30 and is still in the state; 45 and 70 were, and aren't; 99 became one that isn't.
IDS = [each for each in range(10, 90, 5) if each not in (45, 70)]
DUPLICATES = [(40, 30), (45, 30), (70, 20), (99, 1000)]
MERGED_STATE = state_of(some_means(len(IDS)), IDS, DUPLICATES)
MERGED = Ranking(MERGED_STATE)
VECTOR = some_means(1, seed=7)[0]

OUT: list[tuple[Collection[int], set[int]]] = [
    ((), set()),
    ([10], {10}),
    ((80, 10, 10, 85), {10, 80, 85}),
    ({30}, {30, 40, 45}),
    ({40}, {30, 40, 45}),
    (frozenset({45}), {30, 40, 45}),
    ({70}, {20, 70}),
    ({20}, {20, 70}),
    ({99, 1000, 11, 1, MAX_ID, MAX_ID + 1, 10**40}, set()),
    (IDS, set(IDS)),
    ([each for each in IDS if each != 50], set(IDS) - {50}),
]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("exclude", "out"), OUT)
def test_the_others_are_ranked_as_ever(exclude: Collection[int], out: set[int], metric: Metric) -> None:
    expected = reference(MERGED_STATE, similarities(MERGED_STATE, VECTOR, metric), out)
    for num in (-1, 0, 1, 2, 3, 99):
        matches = MERGED.most_similar(VECTOR, num, metric, TEXT, exclude)
        require_alike(matches, expected if num < 0 else expected[:num])
    every = {match.incident_id: match for match in MERGED.most_similar(VECTOR, -1, metric, TEXT)}
    for match in MERGED.most_similar(VECTOR, -1, metric, TEXT, exclude):
        assert match.similarity == every[match.incident_id].similarity, "a similarity stays to the last digit"


@pytest.mark.parametrize("metric", VECTOR_METRICS)
@pytest.mark.parametrize(("exclude", "out"), OUT)
def test_the_incidents_like_one_are_those_like_its_mean(
    exclude: Collection[int], out: set[int], metric: VectorMetric
) -> None:
    for incident_id, same in ((10, {10}), (30, {30, 40, 45}), (50, {50}), (20, {20, 70})):
        row = MERGED_STATE.incident_ids.tolist().index(incident_id)
        scores = similarities(MERGED_STATE, MERGED_STATE.means[row], metric)
        expected = reference(MERGED_STATE, scores, out | same)
        for num in (-1, 0, 1, 3, 99):
            matches = MERGED.most_like(incident_id, num, metric, exclude)
            require_alike(matches, expected if num < 0 else expected[:num])
            assert {match.confidence for match in matches} <= {None}


def test_the_only_incident_has_none_like_it() -> None:
    ranking = Ranking(state_of(some_means(1), [5]))
    for metric in VECTOR_METRICS:
        assert ranking.most_like(5, -1, metric) == ranking.most_like(5, 3, metric) == []
        assert ranking.most_similar(VECTOR, 3, metric, exclude={5}) == []
    assert ranking.most_similar(VECTOR, 3, "hybrid", TEXT, {5}) == []
    assert ranking.verdict([], "hybrid") is None


def test_incidents_alike_stay_in_order() -> None:
    means = np.tile(some_means(2), (150, 1))
    ranking = Ranking(state_of(means, range(1, 301)))
    found = [match.incident_id for match in ranking.most_like(7, -1, exclude={9, 10})]
    odd, even = ([each for each in range(1, 301) if each % 2 == rest and each not in (7, 9, 10)] for rest in (1, 0))
    assert found == odd + even
    assert [match.incident_id for match in ranking.most_like(7, 4, exclude={9, 10})] == [1, 3, 5, 11]
    assert [match.incident_id for match in ranking.most_similar(means[0], 4, exclude={1, 5})] == [3, 7, 9, 11]


def test_what_cannot_be_asked_is_refused() -> None:
    for unknown in (11, 45, 0, -3, MAX_ID + 1, 10**40):
        with pytest.raises(ValueError, match=f"the state has no incident {unknown}"):
            MERGED.most_like(unknown, 3)
    with pytest.raises(ValueError, match="the mean of an incident has none"):
        MERGED.most_like(10, 3, "hybrid")
    plain = Ranking(replace(MERGED_STATE, fit=Fit()))
    with pytest.raises(ValueError, match="metric must be one of"):
        plain.most_like(10, 3, "whitened")


# Confidence.


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("exclude", "out"), OUT)
def test_confidence_is_that_of_the_scores_that_are_left(
    exclude: Collection[int], out: set[int], metric: Metric
) -> None:
    scores = MERGED.scores(VECTOR, TEXT)
    expected = reference(MERGED_STATE, scores.of(metric), out)
    rows = np.searchsorted(MERGED_STATE.incident_ids, [incident_id for incident_id, _ in expected])
    fitted = MERGED_STATE.fit.calibration[metric]
    confidences = fitted.of(scores.evidence(metric, rows)).tolist() if len(rows) else []
    for num in (-1, 1, 2):
        matches = MERGED.most_similar(VECTOR, num, metric, TEXT, exclude)
        assert [match.confidence for match in matches] == pytest.approx(
            confidences if num < 0 else confidences[:num], abs=1e-6
        )
        assert MERGED.verdict(matches, metric) == (fitted.verdict(confidences[0]) if confidences else None)


@pytest.mark.parametrize("metric", VECTOR_METRICS)
def test_confidence_without_incidents_is_that_of_a_state_that_never_had_them(metric: VectorMetric) -> None:
    # Pairs of opposites, so that the center stays where it is: at 0.
    half = some_means(12, seed=3)
    whole = state_of(np.concatenate([half, -half]), range(1, 25))
    out = [2, 14, 5, 17]
    kept = ~np.isin(whole.incident_ids, out)
    smaller = state_of(whole.means[kept], whole.incident_ids[kept].tolist())
    assert not smaller.means.sum(axis=0).any()
    smaller = replace(smaller, fit=replace(whole.fit, words=None))
    for seed in range(5):
        vector = some_means(1, seed=50 + seed)[0]
        expected = Ranking(smaller).most_similar(vector, -1, metric)
        found = Ranking(whole).most_similar(vector, -1, metric, exclude=out)
        require_alike(found, [(match.incident_id, match.similarity) for match in expected])
        assert [match.confidence for match in found] == pytest.approx(
            [match.confidence for match in expected], abs=1e-6
        )
    first = Ranking(whole).most_similar(half[1], 1, metric)[0]
    assert first.incident_id == 2
    assert first.confidence is not None
    left = Ranking(whole).most_similar(half[1], 1, metric, exclude=out)[0]
    assert left.confidence is not None
    assert left.confidence < first.confidence, "the right one is missing"


@pytest.mark.parametrize("metric", VECTOR_METRICS)
@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16])
def test_vectors_of_any_precision_may_leave_out(metric: VectorMetric, kind: type) -> None:
    found = MERGED.most_similar(VECTOR.astype(kind), 5, metric, exclude={30})
    require_alike(found, reference(MERGED_STATE, similarities(MERGED_STATE, VECTOR, metric), {30, 40, 45})[:5])


@pytest.mark.slow
@given(
    st.integers(0, 2**32),
    st.sets(st.integers(1, 30), min_size=1, max_size=20),
    st.dictionaries(st.integers(1, 15), st.integers(16, 30), max_size=6),
    st.sets(st.integers(1, 30) | st.sampled_from([MAX_ID, MAX_ID + 1, 2**64, 10**30]), max_size=12),
    st.integers(-2, 25),
    st.sampled_from(VECTOR_METRICS),
)
def test_any_incidents_may_be_left_out(
    seed: int, ids: set[int], became: dict[int, int], exclude: set[int], num: int, metric: VectorMetric
) -> None:
    # Two of three means are alike.
    means = some_means(7, seed)[np.arange(len(ids)) % 7]
    state = state_of(means, sorted(ids), sorted(became.items()))
    ranking, vector = Ranking(state), some_means(1, seed + 1)[0]
    out = set(exclude)
    for each in exclude:
        one = became.get(each, each)
        out |= {one, *(merged for merged, other in became.items() if other == one)}
    expected = reference(state, similarities(state, vector, metric), out)
    require_alike(ranking.most_similar(vector, num, metric, "", exclude), expected if num < 0 else expected[:num])
    incident_id = min(ids)
    out |= {incident_id, *(merged for merged, other in became.items() if other == incident_id)}
    if incident_id in became:
        one = became[incident_id]
        out |= {one, *(merged for merged, other in became.items() if other == one)}
    expected = reference(state, similarities(state, state.means[0], metric), out)
    require_alike(ranking.most_like(incident_id, num, metric, exclude), expected if num < 0 else expected[:num])


def test_titles_dates_and_pages_are_those_of_the_incident() -> None:
    state = replace(
        MERGED_STATE,
        dates=[f"2026-01-{number + 1:02}" if number % 2 else "" for number in range(len(IDS))],
        record_url="https://example.org/{id}/{id}",
        urls=["https://example.org/page" if number % 3 == 0 else "" for number in range(len(IDS))],
    )
    for matches in (Ranking(state).most_like(50, -1), Ranking(state).most_similar(VECTOR, -1)):
        for match in matches:
            row = IDS.index(match.incident_id)
            assert match.title == f"t{match.incident_id}"
            assert match.date == (f"2026-01-{row + 1:02}" if row % 2 else "")
            page = f"https://example.org/{match.incident_id}/{match.incident_id}"
            assert match.url == (page if row % 3 else "https://example.org/page")
    bare = Ranking(replace(state, dates=[], record_url="", urls=[])).most_like(50, 1)[0]
    assert (bare.date, bare.url) == ("", None)


# Reasons.


def test_matches_are_explained_in_their_order() -> None:
    matches = MERGED.most_similar(VECTOR, -1, "hybrid", TEXT, {30})
    explained = MERGED.explained(matches, "Plane! A ROBOT. It is a car.", str)
    assert [replace(match, why=None) for match in explained] == matches
    words = MERGED_STATE.fit.words
    assert words is not None
    for match in explained:
        row = IDS.index(match.incident_id)
        weights = {word: words.scores([word.lower()])[row] for word in ("Plane", "ROBOT", "car")}
        assert match.why is not None
        expected = [word for word in weights if weights[word] > 0]
        assert match.why.words == tuple(sorted(expected, key=lambda word: -weights[word]))
    assert MERGED.explained([], "robot", str) == []
    plain = Ranking(replace(MERGED_STATE, fit=Fit()))
    assert {match.why for match in plain.explained(plain.most_similar(VECTOR, -1), "robot", str)} == {None}
