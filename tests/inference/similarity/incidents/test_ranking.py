"""Ranking against cosines computed by hand and by numpy."""

from __future__ import annotations

import math
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import hypothesis.strategies
import numpy as np
import pytest
from hypothesis.extra.numpy import arrays

from similarity.incidents import vector_index
from similarity.incidents.metrics import VectorMetric
from similarity.incidents.ranking import Ranking
from similarity.incidents.state import IncidentState
from similarity.incidents.vector_index import Index, largest

# Those that need no more than the means.
UNFITTED: tuple[VectorMetric, ...] = ("cosine", "centered")


def state_of(means: np.ndarray) -> IncidentState:
    incidents = len(means)
    return IncidentState(
        incident_ids=np.arange(incidents) + 1,
        report_counts=np.ones(incidents, dtype=np.int64),
        means=means.astype(np.float32),
        titles=[f"t{number + 1}" for number in range(incidents)],
    )


def test_cosines_are_those_computed_by_hand() -> None:
    state = state_of(np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0], [-3.0, 0.0]]))
    matches = Ranking(state).most_similar(np.array([5.0, 0.0]), -1)
    assert [match.incident_id for match in matches] == [1, 2, 3, 4]
    assert [match.similarity for match in matches] == pytest.approx([1.0, math.sqrt(0.5), 0.0, -1.0], abs=1e-7)
    assert [match.title for match in matches] == ["t1", "t2", "t3", "t4"]


def test_centered_cosines_are_those_computed_by_hand() -> None:
    # The mean is (10, 1), what is left of the incidents is (1, 0), (-1, 1), (0, -1); of the query (0, 1).
    state = state_of(np.array([[11.0, 1.0], [9.0, 2.0], [10.0, 0.0]]))
    matches = Ranking(state).most_similar(np.array([10.0, 2.0]), -1, "centered")
    assert [match.incident_id for match in matches] == [2, 1, 3]
    assert [match.similarity for match in matches] == pytest.approx([math.sqrt(0.5), 0.0, -1.0], abs=1e-7)


@pytest.mark.parametrize("metric", UNFITTED)
@pytest.mark.parametrize("length", [1e-42, 1e-39, 1e-30, 1e-10, 1e18, 1e20, 3e38])
def test_a_vector_of_any_length_that_float32_holds_finds_its_like(length: float, metric: VectorMetric) -> None:
    means = np.random.default_rng(0).standard_normal((300, 64), np.float32) + np.float32(0.5)
    vector = (means[7].astype(np.float64) * length / np.abs(means[7]).max()).astype(np.float32)
    best, similarities = Index(means).top(vector, 3, metric)
    expected = numpy_ranking(vector.astype(np.float64), means.astype(np.float64), metric)[:3]
    assert [row + 1 for row in best.tolist()] == [number for _, number in expected]
    assert similarities.tolist() == pytest.approx([cosine for cosine, _ in expected], abs=1e-5)


def test_a_vector_too_small_for_float32_finds_its_like() -> None:
    means = np.random.default_rng(0).standard_normal((300, 64), np.float32)
    best, [similarity] = Index(means).top(means[7].astype(np.float64) * 1e-318, 1, "cosine")
    assert best.tolist() == [7]
    assert similarity == pytest.approx(1, abs=1e-3)  # what is left of the digits of so small a number


@pytest.mark.parametrize("metric", UNFITTED)
@pytest.mark.parametrize("length", [0.0, 1e-39, 3e38])
def test_a_center_of_zero_leaves_every_incident(length: float, metric: VectorMetric) -> None:
    means = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]], dtype=np.float32)
    best, similarities = Index(means).top(np.array([0.0, length], dtype=np.float32), 4, metric)
    assert best.tolist() == ([2, 0, 1, 3] if length else [0, 1, 2, 3])
    assert similarities.tolist() == pytest.approx([1, 0, 0, -1] if length else [0] * 4, abs=1e-6)


@pytest.mark.parametrize("metric", UNFITTED)
def test_means_whose_lengths_differ_widely_have_exact_cosines(metric: VectorMetric) -> None:
    choose = np.random.default_rng(0)
    means = (choose.standard_normal((200, 64)) * 10 ** choose.uniform(-6, 6, (200, 1))).astype(np.float32)
    vector = choose.standard_normal(64, np.float32)
    rows, similarities = Index(means).top(vector, 200, metric)
    assert similarities == pytest.approx(plain_similarities(vector, means, metric)[rows], abs=1e-5)


# Of every size that float32 holds: zeros, subnormal numbers, 3e38.
ANY_FLOAT32 = hypothesis.strategies.floats(width=32, allow_nan=False, allow_infinity=False)
# Rows with little in common but their number.
SIZES = hypothesis.strategies.sampled_from([0.0, 1e-44, 1e-20, 1.0, 1e10, 1e30])


@hypothesis.strategies.composite
def means_and_vector(draw: hypothesis.strategies.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Means (incidents, hidden), some of them alike, and a vector (hidden,), all float32."""
    incidents, hidden = draw(hypothesis.strategies.integers(1, 9)), draw(hypothesis.strategies.integers(1, 9))
    if draw(hypothesis.strategies.booleans()):
        rows = draw(arrays(np.float32, (incidents + 1, hidden), elements=ANY_FLOAT32))
    else:
        choose = np.random.default_rng(draw(hypothesis.strategies.integers(0, 2**32)))
        sizes = draw(hypothesis.strategies.lists(SIZES, min_size=incidents + 1, max_size=incidents + 1))
        rows = (choose.standard_normal((incidents + 1, hidden)) * np.array(sizes)[:, None]).astype(np.float32)
    means, vector = rows[:-1], rows[-1]
    return means[draw(arrays(np.intp, incidents, elements=hypothesis.strategies.integers(0, incidents - 1)))], vector


def plain_similarities(vector: np.ndarray, means: np.ndarray, metric: VectorMetric) -> np.ndarray:
    """In double precision, which holds the squares of all that float32 holds; 0 for what has no direction."""
    vector, means = vector.astype(np.float64), means.astype(np.float64)
    if metric == "centered":
        vector, means = vector - means.mean(axis=0), means - means.mean(axis=0)
    lengths, length = np.sqrt((means * means).sum(axis=1)), np.sqrt((vector * vector).sum())
    return (means / np.where(lengths, lengths, 1)[:, None]) @ (vector / (length or 1))


@pytest.mark.slow
@hypothesis.settings(derandomize=True, deadline=None, max_examples=500)
@hypothesis.given(means_and_vector(), hypothesis.strategies.integers(0, 10))
@pytest.mark.parametrize("metric", UNFITTED)
def test_any_finite_numbers_are_ranked_as_in_double_precision(
    metric: VectorMetric, given: tuple[np.ndarray, np.ndarray], num: int
) -> None:
    means, vector = given
    index = Index(means)
    rows, similarities = index.top(vector, len(means), metric)
    # A similarity is off by a rounding of float32, 6e-8, for each of the numbers that it is a sum of, at most.
    assert similarities == pytest.approx(plain_similarities(vector, means, metric)[rows], abs=1e-5)
    assert (np.abs(similarities) <= 1).all()
    pairs = list(zip((-similarities).tolist(), rows.tolist(), strict=True))
    assert pairs == sorted(pairs)
    alike = {mean.tobytes(): set[float]() for mean in means}
    for row, similarity in zip(rows, similarities.tolist(), strict=True):
        alike[means[row].tobytes()].add(similarity)
    assert all(len(found) == 1 for found in alike.values())
    first, first_similarities = index.top(vector, min(num, len(means)), metric)
    assert first.tolist() == rows[:num].tolist()
    assert first_similarities.tolist() == similarities[:num].tolist()


@pytest.mark.parametrize("incidents", [3, 5, 7, 1403])
@pytest.mark.parametrize("hidden", [7, 33, 768])
def test_incidents_that_are_alike_are_in_order_wherever_they_stand(incidents: int, hidden: int) -> None:
    choose = np.random.default_rng(0)
    means = np.tile(choose.standard_normal(hidden), (incidents, 1))
    for metric in UNFITTED:
        vector = choose.standard_normal(hidden)
        state = state_of(np.vstack([means, np.zeros((2, hidden))]))
        alike = [m.incident_id for m in Ranking(state).most_similar(vector, -1, metric) if m.incident_id <= incidents]
        assert alike == list(range(1, incidents + 1))


@pytest.mark.parametrize("cores", [1, 2, 5])
@pytest.mark.parametrize("metric", UNFITTED)
def test_threads_multiply_parts_as_one_thread_multiplies_all(
    cores: int, metric: VectorMetric, monkeypatch: pytest.MonkeyPatch
) -> None:
    means = np.random.default_rng(0).standard_normal((500, 64), np.float32)
    whole = Index(means).similarities(means[3], metric)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    for part in (7, 250, 499, 500):
        monkeypatch.setattr(vector_index, "_PART", part)
        found = Index(means).similarities(means[3], metric)
        assert found.tolist() == whole.tolist()
    assert whole == pytest.approx(plain_similarities(means[3], means, metric), abs=1e-5)


@pytest.mark.parametrize("cached", [0, 1 << 30])
@pytest.mark.parametrize("hidden", [1, 7, 64, 768])
def test_similarities_do_not_depend_on_places_in_memory(
    cached: int, hidden: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_index, "_CACHED", cached)
    means = np.random.default_rng(0).standard_normal((30, hidden), np.float32)
    index = Index(means)
    assert index.similarities(means[3], "cosine") == pytest.approx(
        plain_similarities(means[3], means, "cosine"), abs=1e-5
    )
    assert index.directions("cosine").ctypes.data % 64 == 0


VALUES = hypothesis.strategies.lists(hypothesis.strategies.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0]), max_size=60)


@hypothesis.given(VALUES, hypothesis.strategies.integers(0, 60), hypothesis.strategies.sampled_from(["f4", "f8"]))
def test_the_largest_values_are_those_of_a_stable_sort(numbers: list[float], k: int, kind: str) -> None:
    values = np.array(numbers, dtype=kind)
    before = values.tolist()
    k = min(k, len(values))
    expected = sorted(range(len(numbers)), key=lambda place: (-numbers[place], place))[:k]
    assert largest(values, k).tolist() == expected
    assert values.tolist() == before


def test_a_metric_is_prepared_when_it_is_first_asked_for() -> None:
    index = Index(np.ones((2, 2), dtype=np.float32))
    assert index._directions == {}
    index.top(np.ones(2), 1, "centered")
    assert set(index._directions) == {"centered"}


def test_threads_that_ask_first_get_the_same() -> None:
    means = np.random.default_rng(0).standard_normal((500, 64), np.float32)
    expected = [found.tolist() for found in Index(means).top(means[3], 500, "centered")]
    index, barrier = Index(means), threading.Barrier(8)

    def ask() -> list[list[float]]:
        barrier.wait()
        return [found.tolist() for found in index.top(means[3], 500, "centered")]

    with ThreadPoolExecutor(8) as pool:
        assert [answer.result() for answer in [pool.submit(ask) for _ in range(8)]] == [expected] * 8


def numpy_ranking(vector: np.ndarray, means: np.ndarray, metric: VectorMetric) -> list[tuple[float, int]]:
    if metric == "centered":
        center = means.mean(axis=0)
        vector, means = vector - center, means - center
    cosines = means @ vector / np.linalg.norm(means, axis=1) / np.linalg.norm(vector)
    return sorted(((float(cosine), index + 1) for index, cosine in enumerate(cosines)), reverse=True)


@pytest.mark.parametrize("metric", UNFITTED)
def test_the_ranking_is_that_of_numpy_in_double_precision(metric: VectorMetric) -> None:
    choose = np.random.default_rng(0)
    means = choose.standard_normal((1400, 768), np.float32)
    means[:, 588] += 12  # as in the real model
    vector = choose.standard_normal(768, np.float32)
    vector[588] += 12
    expected = numpy_ranking(vector.astype(np.float64), means.astype(np.float64), metric)
    matches = Ranking(state_of(means)).most_similar(vector, -1, metric)
    assert [match.similarity for match in matches] == pytest.approx([cosine for cosine, _ in expected], abs=1e-6)
    assert [match.incident_id for match in matches[:20]] == [number for _, number in expected[:20]]


@pytest.mark.parametrize(("num", "found"), [(0, 0), (1, 1), (2, 2), (3, 3), (99, 3), (-1, 3), (-7, 3)])
def test_num_says_how_many(num: int, found: int) -> None:
    state = state_of(np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]]))
    assert [match.incident_id for match in Ranking(state).most_similar(np.array([1.0, 0.0]), num)] == [2, 1, 3][:found]


def test_ties_go_by_incident_id() -> None:
    means = np.ones((500, 3))
    means[250] = np.array([1.0, 1.0, 1.1])
    matches = Ranking(state_of(means)).most_similar(np.array([0.0, 0.0, 1.0]), 100)
    assert [match.incident_id for match in matches] == [251, *range(1, 100)]


@pytest.mark.slow
def test_no_similarity_is_above_1() -> None:
    means = np.random.default_rng(0).standard_normal((2000, 7), np.float32)
    state = state_of(means)
    assert max(Ranking(state).most_similar(mean, 1)[0].similarity for mean in means) <= 1.0


@pytest.mark.parametrize("metric", UNFITTED)
def test_what_has_no_direction_has_similarity_0(metric: VectorMetric) -> None:
    state = state_of(np.array([[0.0, 0.0], [0.0, 0.0]]))
    assert [match.similarity for match in Ranking(state).most_similar(np.zeros(2), -1, metric)] == [0.0, 0.0]


def test_a_lone_incident_is_its_own_center() -> None:
    state = state_of(np.array([[3.0, 4.0]]))
    assert Ranking(state).most_similar(np.array([1.0, 0.0]), 1, "centered")[0].similarity == 0.0


def test_a_vector_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3,\); the state needs \(2,\)"):
        Ranking(state_of(np.ones((2, 2)))).most_similar(np.ones(3), 1)


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(ValueError, match="metric"):
        Ranking(state_of(np.ones((2, 2)))).most_similar(np.ones(2), 1, "foo")  # type: ignore[arg-type]


def test_an_incident_without_direction_has_similarity_0_among_others() -> None:
    state = state_of(np.array([[3.0, 4.0], [0.0, 0.0], [4.0, 3.0]]))
    found = {match.incident_id: match.similarity for match in Ranking(state).most_similar(np.array([3.0, 4.0]), -1)}
    assert found == pytest.approx({1: 1.0, 2: 0.0, 3: 0.96}, abs=1e-6)
