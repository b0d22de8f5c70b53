"""The notes in the bucket come back as they were written. Nonsense in them is an error that names the note."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from buckets import put_by_hand
from published import DEPLOYED, state
from similarity.errors import StateError
from similarity.inbox.bucket import HOLD_KEY, SERVED_KEY, Bucket, InboxError
from similarity.inbox.notes import Hold, Served

SERVED = Served(
    state=state(date="2026-11-23T10:00:00Z", options={"vectors": "auto"}).facts("0123456789abcdef"),
    published_at="2026-11-24T10:00:00Z",
    key="states/incident_cls.pt",
    version_id="v",
    deployed=DEPLOYED,
    written_at="2026-11-24T10:00:03Z",
)


def test_they_come_back(bucket: Bucket) -> None:
    assert Served.read(bucket) is None
    assert Hold.read(bucket) == Hold()
    SERVED.write(bucket)
    hold = Hold("2026-11-23T10:00:00Z", frozenset({"a", "b"}))
    hold.write(bucket)
    assert Served.read(bucket) == SERVED
    assert Hold.read(bucket) == hold


def test_fields_that_a_later_version_adds_to_the_state_are_ignored(bucket: Bucket) -> None:
    SERVED.write(bucket)
    note = bucket.read_note(SERVED_KEY)
    assert note
    bucket.write_note(SERVED_KEY, {**note, "new": 1, "state": {**note["state"], "new": 1}})
    assert Served.read(bucket) == SERVED


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("published_at", None),
        ("state", []),
        ("state", {"version": "a"}),
        ("deployed", {}),
        ("deployed", None),
        ("deployed", {**DEPLOYED.__dict__, "max_tokens": "128"}),
        ("deployed", {**DEPLOYED.__dict__, "dimension": True}),
    ],
)
def test_a_served_json_that_is_nonsense_is_an_error(bucket: Bucket, name: str, value: object) -> None:
    SERVED.write(bucket)
    note = bucket.read_note(SERVED_KEY)
    assert note
    put_by_hand(json.dumps({**note, name: value}).encode(), SERVED_KEY)
    with pytest.raises(InboxError, match=r"served\.json isn't a note .*; the next run of the job shelve_state"):
        Served.read(bucket)


@pytest.mark.parametrize(
    "note", [{}, {"source_date": None, "versions": []}, {"source_date": "", "versions": [1]}, {"source_date": ""}]
)
def test_a_hold_json_that_is_nonsense_is_an_error(bucket: Bucket, note: object) -> None:
    put_by_hand(json.dumps(note).encode(), HOLD_KEY)
    with pytest.raises(InboxError, match=r"hold\.json isn't a note about states taken back.*restore its earlier"):
        Hold.read(bucket)


def test_the_deployed_image_says_which_states_it_can_use() -> None:
    facts = SERVED.state
    DEPLOYED.require_usable(facts)
    DEPLOYED.require_usable(replace(facts, max_tokens=128))
    for changes, problem in (
        ({"model_fingerprint": "f2"}, "another model"),
        ({"model_fingerprint": "", "model": "other"}, "another model|the model other"),
        ({"dimension": 5}, "5 dimensions"),
        ({"text_preparation": ""}, "prepared with nothing"),
        ({"max_tokens": 64}, "cut at 64 tokens"),
    ):
        other = replace(facts, **changes)
        assert not DEPLOYED.can_use(other)
        with pytest.raises(StateError) as caught:
            DEPLOYED.require_usable(other)
        assert any(each in caught.value.detail for each in problem.split("|"))
