"""What a new state has that the state before hadn't."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from similarity.incidents.state import IncidentState
from similarity.refresh.changes import Changes, changes


def state(*ids: int, **parts: object) -> IncidentState:
    return replace(
        IncidentState(
            incident_ids=np.array(ids),
            report_counts=np.array(ids) + 1,
            means=np.array([[each, 1] for each in ids], dtype=np.float32),
            titles=[f"Incident {each}" for each in ids],
            model="a model",
            model_fingerprint="0123",
            dates=[f"2026-01-{each:02}" for each in ids],
            max_tokens=2000,
        ),
        **parts,  # type: ignore[arg-type]
    )


BEFORE = state(2, 4, 6)


def test_a_state_that_was_built_again_has_no_changes() -> None:
    again = replace(BEFORE, built_at="2026-11-26T07:04:05Z", means=BEFORE.means + np.float32(1e-6))
    assert changes(BEFORE, again) == Changes((), (), ())


def test_incidents_are_added_and_removed() -> None:
    assert changes(BEFORE, state(1, 4, 6, 9)) == Changes(added=(1, 9), changed=(), removed=(2,))
    assert changes(BEFORE, state(1)) == Changes(added=(1,), changed=(), removed=(2, 4, 6))


CHANGED: dict[str, Callable[[IncidentState], dict[str, object]]] = {
    "mean": lambda s: {"means": s.means + np.array([[0, 0], [0, 0.001], [0, 0]], dtype=np.float32)},
    "number of reports": lambda s: {"report_counts": np.array([3, 9, 7])},
    "title": lambda s: {"titles": ["Incident 2", "", "Incident 6"]},
    "date": lambda s: {"dates": ["2026-01-02", "2026-12-31", "2026-01-06"]},
    "own URL": lambda s: {"urls": ["", "https://records.example/4", ""]},
}


@pytest.mark.parametrize("what", CHANGED)
def test_an_incident_is_changed_by_its(what: str) -> None:
    now = replace(BEFORE, **CHANGED[what](BEFORE))  # type: ignore[arg-type]
    assert changes(BEFORE, now) == Changes(added=(), changed=(4,), removed=())
    # Rows are found by the incidents' ids.
    assert changes(state(4), now) == Changes(added=(2, 6), changed=(4,), removed=())


def test_dates_that_a_state_lacks_are_unknown() -> None:
    without = replace(BEFORE, dates=[])
    assert changes(without, BEFORE) == Changes(added=(), changed=(2, 4, 6), removed=())
    assert changes(without, replace(without, built_at="2026-11-26T07:04:05Z")) == Changes((), (), ())


@pytest.mark.parametrize(
    "other",
    [
        {"model": "another model", "model_fingerprint": ""},
        {"model_fingerprint": "4567"},
        {"precision": "bfloat16"},
        {"max_tokens": 4096},
        {"means": np.ones((3, 3), dtype=np.float32)},
    ],
    ids=lambda other: next(iter(other)),
)
def test_states_of_other_models_can_not_be_compared(other: dict[str, object]) -> None:
    assert changes(BEFORE, replace(BEFORE, **other)) is None  # type: ignore[arg-type]


def test_a_fingerprint_counts_before_a_name_and_is_unknown_for_published_vectors() -> None:
    for other in ({"model": "another name"}, {"model_fingerprint": ""}):
        assert changes(BEFORE, replace(BEFORE, **other)) == Changes((), (), ())  # type: ignore[arg-type]
