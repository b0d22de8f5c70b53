"""The neighbours of all incidents at once are those that looking at every pair gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from similarity.incidents import neighbours as module
from similarity.incidents.fit import Fit
from similarity.incidents.metrics import VectorMetric
from similarity.incidents.neighbours import neighbours
from similarity.incidents.ranking import Ranking
from similarity.incidents.state import IncidentState
from similarity.incidents.whitening import whitening

# Those that need no more than the means.
UNFITTED: tuple[VectorMetric, ...] = ("cosine", "centered")


def make_state(means: np.ndarray, **more: Any) -> IncidentState:
    ids = np.arange(1, len(means) + 1) * 10
    titles = [f"Incident {incident_id}" for incident_id in ids]
    return IncidentState(ids, np.ones(len(ids), dtype=np.int64), means.astype(np.float32), titles, **more)


def pairs(*rows: tuple[int, int]) -> np.ndarray:
    return np.array(sorted(rows), dtype=np.int64).reshape(-1, 2)


def of_every_pair(state: IncidentState, num: int, metric: VectorMetric) -> dict[int, list[tuple[int, float]]]:
    """The reference: the cosine of each pair in float64, sorted with the ids."""
    means = state.means.astype(np.float64)
    if metric == "centered":
        means = means - means.mean(axis=0)
    lengths = [float(np.sqrt(mean @ mean)) or 1.0 for mean in means]
    became = dict(state.duplicates.tolist())
    marked = {frozenset(pair) for pair in state.dissimilar.tolist()}
    ids = state.incident_ids.tolist()
    found = {}
    for one, mean, length in zip(ids, means, lengths, strict=True):
        others = [
            (-round(float(mean @ other_mean) / length / other_length, 12), other)
            for other, other_mean, other_length in zip(ids, means, lengths, strict=True)
            if became.get(one, one) != became.get(other, other) and frozenset((one, other)) not in marked
        ]
        found[one] = [(other, -negative) for negative, other in sorted(others)[:num]]
    return found


def assert_equal(state: IncidentState, num: int, metric: VectorMetric) -> None:
    expected = of_every_pair(state, num, metric)
    found = dict(neighbours(state, num, metric))
    assert list(found) == state.incident_ids.tolist()
    for incident_id, matches in found.items():
        assert [match.incident_id for match in matches] == [other for other, _ in expected[incident_id]], incident_id
        similarities = [similarity for _, similarity in expected[incident_id]]
        assert [match.similarity for match in matches] == pytest.approx(similarities, abs=1e-6)


ID = st.integers(1, 16).map(lambda number: number * 10)


@pytest.mark.parametrize("metric", UNFITTED)
@given(
    seed=st.integers(0, 2**16),
    rows=st.lists(st.integers(0, 8), min_size=1, max_size=14),  # incidents with the same number have the same mean
    num=st.integers(1, 16),
    duplicates=st.dictionaries(ID, ID, max_size=5),
    dissimilar=st.sets(st.tuples(ID, ID).filter(lambda pair: pair[0] < pair[1]), max_size=8),
)
def test_neighbours_are_those_of_every_pair_and_ties_are_in_the_order_of_ids(
    metric: VectorMetric,
    seed: int,
    rows: list[int],
    num: int,
    duplicates: dict[int, int],
    dissimilar: set[tuple[int, int]],
) -> None:
    means = np.random.default_rng(seed).standard_normal((9, 24)) + 1
    resolved = {merged: became for merged, became in duplicates.items() if became not in duplicates}
    state = make_state(means[rows], duplicates=pairs(*resolved.items()), dissimilar=pairs(*dissimilar))
    if metric == "centered" and len(set(rows)) == 1:
        return  # all are the center itself, but for rounding
    assert_equal(state, num, metric)


@pytest.mark.parametrize("metric", UNFITTED)
def test_many_incidents_are_compared_block_by_block(metric: VectorMetric, monkeypatch: pytest.MonkeyPatch) -> None:
    means = np.random.default_rng(0).standard_normal((100, 24)) + 3
    means[50:] = means[:50]
    assert_equal(make_state(means), 5, metric)
    monkeypatch.setattr(module, "_BLOCK", 700)
    assert_equal(make_state(means), 5, metric)
    monkeypatch.setattr(module, "_BLOCK", 1)
    assert_equal(make_state(means), 5, metric)


@pytest.mark.parametrize("metric", UNFITTED)
def test_incidents_that_float32_can_not_tell_apart_are_in_the_right_order(metric: VectorMetric) -> None:
    means = np.random.default_rng(0).standard_normal((300, 16)) * 0.05
    means[:, 5] += 12
    assert_equal(make_state(means), 5, metric)


@pytest.mark.parametrize("metric", UNFITTED)
def test_similarities_are_those_that_the_api_answers_with(metric: VectorMetric) -> None:
    # As alike as the vectors of the real model: cosines of 0.99 and more.
    means = np.random.default_rng(0).standard_normal((60, 768)) * 0.1
    means[:, 588] += 12
    state = make_state(means)
    ranking = Ranking(state)
    for (incident_id, matches), mean in zip(neighbours(state, -1, metric), state.means, strict=True):
        answered = {match.incident_id: match for match in ranking.most_similar(mean, -1, metric)}
        assert incident_id not in {match.incident_id for match in matches}
        assert len(matches) == 59
        for match in matches:
            assert match.similarity == pytest.approx(answered[match.incident_id].similarity, abs=1e-6)
            assert match.title == answered[match.incident_id].title


def test_merged_incidents_are_no_neighbours_of_each_other_nor_of_what_they_became() -> None:
    state = make_state(np.eye(5) + 1, duplicates=pairs((10, 30), (20, 30), (40, 99)))
    found = {incident_id: [match.incident_id for match in matches] for incident_id, matches in neighbours(state, 9)}
    assert found == {10: [40, 50], 20: [40, 50], 30: [40, 50], 40: [10, 20, 30, 50], 50: [10, 20, 30, 40]}


def test_pairs_that_were_marked_as_dissimilar_are_left_out_on_both_sides() -> None:
    state = make_state(np.eye(3) + 1, dissimilar=pairs((10, 20), (30, 999)))
    found = {incident_id: [match.incident_id for match in matches] for incident_id, matches in neighbours(state, 9)}
    assert found == {10: [30], 20: [30], 30: [10, 20]}


def test_an_incident_without_others_has_no_neighbours() -> None:
    assert list(neighbours(make_state(np.ones((1, 4))), 3)) == [(10, [])]
    both = make_state(np.eye(2), dissimilar=pairs((10, 20)))
    assert list(neighbours(both, 3)) == [(10, []), (20, [])]


def test_what_has_no_direction_is_like_nothing() -> None:
    state = make_state(np.array([[0, 0], [1, 0], [0, 2]]))
    found = {
        incident_id: [(match.incident_id, match.similarity) for match in matches]
        for incident_id, matches in neighbours(state, 2)
    }
    assert found == {10: [(20, 0.0), (30, 0.0)], 20: [(10, 0.0), (30, 0.0)], 30: [(10, 0.0), (20, 0.0)]}


def test_whitened_neighbours_are_those_of_the_mapped_means() -> None:
    means = (np.random.default_rng(0).standard_normal((60, 6)) * [9, 1, 3, 1, 1, 1] + 2).astype(np.float32)
    state = make_state(means, fit=Fit(whitening(means, 0.5), 0.5))
    assert state.fit.whitening is not None
    mapped = (means.astype(np.float64) - means.astype(np.float64).mean(axis=0)) @ state.fit.whitening.astype(np.float64)
    found = {one: [match.incident_id for match in matches] for one, matches in neighbours(state, 5, "whitened")}

    def nearest(of: np.ndarray, metric: VectorMetric) -> dict[int, list[int]]:
        return {one: [other for other, _ in each] for one, each in of_every_pair(make_state(of), 5, metric).items()}

    # The mapped means have their center at zero.
    assert found == nearest(mapped, "cosine") != nearest(means, "centered")
    with pytest.raises(ValueError, match="has no whitening map"):
        list(neighbours(make_state(means), 5, "whitened"))
