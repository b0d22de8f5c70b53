"""The map of a refreshed state. `tests/inference/jobs/test_refresh.py` tests the whole run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from published import state
from similarity.incidents.fit import Fit
from similarity.incidents.points import no_points, pca
from similarity.incidents.state import IncidentState
from similarity.incidents.vector_index import Index
from similarity.incidents.whitening import whitening
from similarity.refresh.refresher import with_points
from similarity.vectors import Vector


def fitted(made: IncidentState) -> IncidentState:
    return replace(made, fit=Fit(whitening(made.means, 0.25), 0.25))


def plain(made: IncidentState) -> Vector:
    return pca(Index(made.means, made.fit.whitening))


@pytest.fixture
def before() -> IncidentState:
    points = np.random.default_rng(0).uniform(-1, 1, (20, 2)).astype(np.float32)
    return fitted(state(0, range(1, 21), points=points))


def test_a_merged_incident_is_gone_and_the_others_stay(before: IncidentState) -> None:
    ids = [each for each in range(1, 21) if each not in (5, 12)]
    now = fitted(state(1, ids, duplicates=np.array([[5, 4]])))
    found = with_points(now, before)
    assert found.points.tobytes() == before.points[np.isin(before.incident_ids, ids)].tobytes()
    assert found.means is now.means


def test_a_changed_incident_stays_too(before: IncidentState) -> None:
    now = fitted(replace(before, means=before.means[::-1].copy(), points=no_points()))
    assert with_points(now, before).points.tobytes() == before.points.tobytes()


def test_an_incident_that_comes_back_is_a_new_one(before: IncidentState) -> None:
    without = with_points(fitted(state(0, range(2, 21))), before)
    again = with_points(fitted(state(0, range(1, 21))), without)
    assert again.points[1:].tobytes() == before.points[1:].tobytes()
    low, high = before.points[1:].min(axis=0), before.points[1:].max(axis=0)
    assert (again.points[0] >= low).all()
    assert (again.points[0] <= high).all()


def test_new_points_lie_within_those_of_their_nearest(before: IncidentState) -> None:
    now = fitted(state(2, range(1, 60)))
    points = with_points(now, before).points
    assert points[:20].tobytes() == before.points.tobytes()
    index = Index(now.means, now.fit.whitening)
    for row in range(20, 59):
        similarities = index.similarities(now.means[row], "whitened")[:20]
        nearest = before.points[np.argsort(-similarities, kind="stable")[:5]]
        assert (points[row] >= nearest.min(axis=0) - 1e-6).all()
        assert (points[row] <= nearest.max(axis=0) + 1e-6).all()


def test_without_a_state_before_or_its_map_there_is_one_all_the_same(before: IncidentState) -> None:
    now = fitted(state(1, range(1, 25)))
    others = {
        "none": None,
        "no map": replace(before, points=no_points()),
        "another model": replace(before, model_fingerprint="f2"),
        "other incidents": replace(before, incident_ids=before.incident_ids + 100),
    }
    for name, each in others.items():
        assert np.array_equal(with_points(now, each).points, plain(now)), name
    assert not np.array_equal(with_points(now, before).points, plain(now))


def test_a_state_of_one_incident_has_a_point() -> None:
    assert with_points(fitted(state(0, [7])), None).points.tolist() == [[0, 0]]
