"""Ranking against cosines computed by hand and by numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from similarity.index import METRICS, Index, IndexDtype, Metric
from similarity.ranking import most_similar
from similarity.state import IncidentState


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
    matches = most_similar(np.array([5.0, 0.0]), state, -1)
    assert [match.incident_id for match in matches] == [1, 2, 3, 4]
    assert [match.similarity for match in matches] == pytest.approx([1.0, math.sqrt(0.5), 0.0, -1.0], abs=1e-7)
    assert [match.title for match in matches] == ["t1", "t2", "t3", "t4"]


def test_centered_cosines_are_those_computed_by_hand() -> None:
    # The mean is (10, 1), what is left of the incidents is (1, 0), (-1, 1), (0, -1); of the query (0, 1).
    state = state_of(np.array([[11.0, 1.0], [9.0, 2.0], [10.0, 0.0]]))
    matches = most_similar(np.array([10.0, 2.0]), state, -1, "centered")
    assert [match.incident_id for match in matches] == [2, 1, 3]
    assert [match.similarity for match in matches] == pytest.approx([math.sqrt(0.5), 0.0, -1.0], abs=1e-7)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("length", [1e-30, 1e-10, 1e18, 1e20, 3e38])
def test_a_vector_of_any_length_that_float32_holds_finds_its_like(
    length: float, metric: Metric, dtype: IndexDtype
) -> None:
    means = np.random.default_rng(0).standard_normal((300, 64), np.float32) + np.float32(0.5)
    vector = means[7] * np.float32(length / np.abs(means[7]).max())
    best, similarities = Index.of(means, dtype).top(vector, 3, metric)
    expected = numpy_ranking(vector.astype(np.float64), means.astype(np.float64), metric)[:3]
    assert [row + 1 for row in best.tolist()] == [number for _, number in expected]
    assert similarities.tolist() == pytest.approx([cosine for cosine, _ in expected], abs=1e-5)


def numpy_ranking(vector: np.ndarray, means: np.ndarray, metric: Metric) -> list[tuple[float, int]]:
    if metric == "centered":
        center = means.mean(axis=0)
        vector, means = vector - center, means - center
    cosines = means @ vector / np.linalg.norm(means, axis=1) / np.linalg.norm(vector)
    return sorted(((float(cosine), index + 1) for index, cosine in enumerate(cosines)), reverse=True)


@pytest.mark.parametrize("metric", METRICS)
def test_the_ranking_is_that_of_numpy_in_double_precision(metric: Metric) -> None:
    choose = np.random.default_rng(0)
    means = choose.standard_normal((1400, 768), np.float32)
    means[:, 588] += 12  # as in the real model
    vector = choose.standard_normal(768, np.float32)
    vector[588] += 12
    expected = numpy_ranking(vector.astype(np.float64), means.astype(np.float64), metric)
    matches = most_similar(vector, state_of(means), -1, metric)
    assert [match.similarity for match in matches] == pytest.approx([cosine for cosine, _ in expected], abs=1e-6)
    assert [match.incident_id for match in matches[:20]] == [number for _, number in expected[:20]]


@pytest.mark.parametrize(("num", "found"), [(0, 0), (1, 1), (2, 2), (3, 3), (99, 3), (-1, 3), (-7, 3)])
def test_num_says_how_many(num: int, found: int) -> None:
    state = state_of(np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]]))
    assert [match.incident_id for match in most_similar(np.array([1.0, 0.0]), state, num)] == [2, 1, 3][:found]


def test_ties_go_by_incident_id() -> None:
    means = np.ones((500, 3))
    means[250] = np.array([1.0, 1.0, 1.1])
    matches = most_similar(np.array([0.0, 0.0, 1.0]), state_of(means), 100)
    assert [match.incident_id for match in matches] == [251, *range(1, 100)]


def test_no_similarity_is_above_1() -> None:
    means = np.random.default_rng(0).standard_normal((2000, 7), np.float32)
    state = state_of(means)
    assert max(most_similar(mean, state, 1)[0].similarity for mean in means) <= 1.0


@pytest.mark.parametrize("metric", METRICS)
def test_what_has_no_direction_has_similarity_0(metric: Metric) -> None:
    state = state_of(np.array([[0.0, 0.0], [0.0, 0.0]]))
    assert [match.similarity for match in most_similar(np.zeros(2), state, -1, metric)] == [0.0, 0.0]


def test_a_lone_incident_is_its_own_center() -> None:
    state = state_of(np.array([[3.0, 4.0]]))
    assert most_similar(np.array([1.0, 0.0]), state, 1, "centered")[0].similarity == 0.0


def test_a_vector_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3,\), the state asks for \(2,\)"):
        most_similar(np.ones(3), state_of(np.ones((2, 2))), 1)


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(ValueError, match="metric"):
        most_similar(np.ones(2), state_of(np.ones((2, 2))), 1, "foo")  # type: ignore[arg-type]


def test_an_incident_without_direction_has_similarity_0_among_others() -> None:
    state = state_of(np.array([[3.0, 4.0], [0.0, 0.0], [4.0, 3.0]]))
    found = {match.incident_id: match.similarity for match in most_similar(np.array([3.0, 4.0]), state, -1)}
    assert found == pytest.approx({1: 1.0, 2: 0.0, 3: 0.96}, abs=1e-6)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_less_memory_gives_the_same_first_three(dtype: IndexDtype, metric: Metric) -> None:
    choose = np.random.default_rng(0)
    means = choose.standard_normal((5000, 768), np.float32)
    means[:, 588] += 12  # as in the real model
    index = Index.of(means, dtype)
    for _ in range(20):
        vector = choose.standard_normal(768, np.float32)
        vector[588] += 12
        expected = numpy_ranking(vector.astype(np.float64), means.astype(np.float64), metric)
        rows, similarities = index.top(vector, 3, metric)
        assert [row + 1 for row in rows] == [number for _, number in expected[:3]]
        assert similarities.tolist() == pytest.approx([cosine for cosine, _ in expected[:3]], abs=1e-6)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_less_memory_ranks_all_where_all_are_asked_for(dtype: IndexDtype, metric: Metric) -> None:
    means = np.random.default_rng(1).standard_normal((300, 16), np.float32)
    expected, _ = Index.of(means).top(means[7], 300, metric)
    found, _ = Index.of(means, dtype).top(means[7], 300, metric)
    assert found.tolist() == expected.tolist()
