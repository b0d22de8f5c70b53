"""A state that may be a mistake is refused: it lacks incidents, is older, or was taken back."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from published import run_job, saved, state
from similarity.inbox.bucket import Bucket
from similarity.inbox.checks import (
    LossError,
    RefusedError,
    require_about_as_many,
    require_most_incidents,
    require_not_held,
    require_not_older,
    served_state,
)
from similarity.inbox.notes import Hold
from similarity.inbox.publications import publish

EARLY, LATE = "2026-11-16T10:00:00Z", "2026-11-23T10:00:00Z"


def test_the_served_state_is_read_whole_or_not_at_all(bucket: Bucket, tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    saved(path, state(1))
    publish(bucket, path)
    served = run_job(bucket)
    assert served
    found = served_state(bucket, served)
    assert found
    assert (found.means == state(1).means).all()
    for other in (
        replace(served, key=""),
        replace(served, key="deployed/other.pt"),
        replace(served, version_id="00000000-0000-0000-0000-000000000000"),
        replace(served, state=replace(served.state, version="0" * 16)),
    ):
        assert served_state(bucket, other) is None


@pytest.mark.parametrize(("lost", "merged", "refused"), [(0, 0, False), (2, 0, False), (3, 0, True), (6, 4, False)])
def test_one_incident_in_ten_may_be_lost(lost: int, merged: int, refused: bool) -> None:
    duplicates = np.array([[number, 20] for number in range(1, merged + 1)], dtype=np.int64).reshape(-1, 2)
    new = state(1, range(lost + 1, 31), duplicates=duplicates)
    with pytest.raises(LossError, match=f"{lost} of the 20") if refused else nullcontext():
        require_most_incidents(new, state(2))
    facts = new.facts()
    if not merged:
        with pytest.raises(LossError, match="has 17 incidents, the served one 20") if refused else nullcontext():
            require_about_as_many(replace(facts, incidents=20 - lost), state(2).facts())


@pytest.mark.parametrize(
    ("date", "before", "refused"),
    [(EARLY, LATE, True), (LATE, EARLY, False), (LATE, LATE, False), ("", LATE, False), (EARLY, "", False)],
)
def test_older_data_is_refused(date: str, before: str, refused: bool) -> None:
    with pytest.raises(RefusedError, match=f"of {EARLY}, .*, of {LATE}") if refused else nullcontext():
        require_not_older(state(date=date).facts(), state(date=before).facts())


@pytest.mark.parametrize(
    ("date", "kind", "hold", "refused"),
    [
        (EARLY, "", Hold(), False),
        (EARLY, "", Hold(LATE), True),
        (LATE, "", Hold(LATE), True),
        (LATE, "", Hold(EARLY), False),
        ("", "aiid-snapshot", Hold(EARLY), True),
        ("", "aiid-snapshot", Hold(), False),
        ("", "csv", Hold(LATE), False),
        ("", "", Hold(LATE), False),
        (LATE, "", Hold(EARLY, frozenset({"v"})), True),
        ("", "csv", Hold("", frozenset({"v"})), True),
        ("", "csv", Hold("", frozenset({"w"})), False),
    ],
)
def test_what_was_taken_back_is_refused(date: str, kind: str, hold: Hold, refused: bool) -> None:
    with pytest.raises(RefusedError, match="rollback") if refused else nullcontext():
        require_not_held(state(date=date, kind=kind).facts("v"), hold)
