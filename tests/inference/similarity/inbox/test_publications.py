"""What was published can be listed in the shelf's order with its facts, whoever put it there, and published again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from buckets import BUCKET, put_by_hand, raw_client, versions_of
from published import saved, state
from similarity.errors import StateError
from similarity.inbox.bucket import DEPLOYED_PREFIX, STATE_KEY, Bucket, deployed_key
from similarity.inbox.notes import iso
from similarity.inbox.publications import keep_deployed, publications, publish, publish_again
from similarity.incidents.facts import StateFacts


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.pt"


def published(bucket: Bucket, path: Path, number: int, **options: object) -> StateFacts:
    facts = saved(path, state(number, **options))  # type: ignore[arg-type]
    assert publish(bucket, path) == facts.version
    return facts


def test_the_newest_comes_first_with_all_its_facts(bucket: Bucket, path: Path) -> None:
    assert publications(bucket) == []
    options = {"vectors": "auto", "responses": "include"}
    first = published(bucket, path, 1, date="2026-11-23T10:00:00Z", built_at="2026-11-24T00:00:00Z", options=options)
    second = published(bucket, path, 2, model="имя")  # metadata are ASCII
    found = publications(bucket)
    assert [each.facts for each in found] == [second, first]
    assert [each.stored.version_id for each in found] == versions_of()
    assert [each.time for each in found] == [iso(each.stored.written_at) for each in found]
    assert not any(each.is_deployed for each in found)


def test_only_usable_states_are_published(bucket: Bucket, path: Path) -> None:
    path.write_bytes(b"nonsense")
    with pytest.raises(StateError):
        publish(bucket, path)
    assert versions_of() == []


def test_deployed_states_stand_where_the_shelf_has_them(bucket: Bucket, path: Path) -> None:
    now = published(bucket, path, 1)
    [written_at] = [each.time for each in publications(bucket)]
    deployed = {}
    for number, built_at in enumerate(("2026-01-01T00:00:00Z", "", "2100-01-01T00:00:00Z", written_at), start=2):
        deployed[built_at] = saved(path, state(number, built_at=built_at))
        keep_deployed(bucket, path, deployed[built_at])
        keep_deployed(bucket, path, deployed[built_at])
    assert all(len(versions_of(deployed_key(each.version))) == 1 for each in deployed.values())
    found = publications(bucket)
    assert [each.facts for each in found] == [
        deployed["2100-01-01T00:00:00Z"], now, deployed[written_at], deployed["2026-01-01T00:00:00Z"], deployed[""]
    ]  # fmt: skip
    assert [each.is_deployed for each in found] == [True, False, True, True, True]


def test_states_put_there_by_hand_are_read(bucket: Bucket, path: Path) -> None:
    facts = saved(path, state(1, date="2026-11-23T10:00:00Z"))
    put_by_hand(path.read_bytes())
    put_by_hand(path.read_bytes(), Metadata={"facts": "{"})
    put_by_hand(path.read_bytes(), Metadata={"facts": '{"version": 1}'})
    put_by_hand(path.read_bytes()[:-100])
    put_by_hand(b"")
    put_by_hand(b"nonsense", f"{DEPLOYED_PREFIX}0123456789abcdef.pt")
    put_by_hand(path.read_bytes(), f"{STATE_KEY}.backup")
    found = publications(bucket)
    assert [each.facts for each in found] == [None, None, facts, facts, facts, None]
    assert found[-1].time == ""


def test_what_is_too_large_is_not_downloaded(bucket: Bucket, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job doesn't shelve it, and it might fill the disk."""
    facts = published(bucket, path, 1)
    put_by_hand(path.read_bytes(), f"{DEPLOYED_PREFIX}by-hand.pt")
    keep_deployed(bucket, path, facts)
    put_by_hand(path.read_bytes())
    monkeypatch.setattr("similarity.inbox.publications.LARGEST_STATE_BYTES", 100)
    monkeypatch.delattr(Bucket, "download")
    found = publications(bucket)
    assert len(found) == 4
    # Which comes first depends on when a second ends.
    [known] = [each for each in found if each.facts]
    assert known.facts == facts
    assert known.is_deployed, "an image's state may be larger"


@pytest.mark.parametrize(
    "lie",
    [{"version": "\x1b[2J"}, {"version": "../../etc"}, {"built_at": "9"}, {"source": {"date": "2026\n"}}],
    ids=lambda lie: next(iter(lie)),
)
def test_metadata_that_are_not_ours_are_not_believed(lie: dict[str, object], bucket: Bucket, path: Path) -> None:
    """The times order the history, and the list shows times and versions."""
    facts = saved(path, state(1, built_at="2026-11-24T00:00:00Z"))
    metadata = {"facts": json.dumps({**facts.to_json(), **lie})}
    for key in (STATE_KEY, deployed_key(facts.version)):
        put_by_hand(path.read_bytes(), key, Metadata=metadata)
    assert [each.facts for each in publications(bucket)] == [facts, facts]


def test_facts_that_are_too_long_for_s3_are_read_from_the_state(bucket: Bucket, path: Path) -> None:
    facts = published(bucket, path, 1, options={"note": "x" * 3000})
    [found] = publications(bucket)
    assert (found.facts, found.stored.metadata) == (facts, {})


def test_a_delete_marker_hides_nothing(bucket: Bucket, path: Path) -> None:
    facts = published(bucket, path, 1)
    raw_client().delete_object(Bucket=BUCKET, Key=STATE_KEY)
    assert [each.facts for each in publications(bucket)] == [facts]


def test_a_version_that_is_deleted_meanwhile_is_left_out(
    bucket: Bucket, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = published(bucket, path, 1)
    published(bucket, path, 2)
    listed = bucket.versions(STATE_KEY)
    raw_client().delete_object(Bucket=BUCKET, Key=STATE_KEY, VersionId=listed[0].version_id)
    monkeypatch.setattr(bucket, "versions", lambda prefix: listed if prefix == STATE_KEY else [])
    assert [each.facts for each in publications(bucket)] == [facts]


def test_an_earlier_state_can_be_published_again(bucket: Bucket, path: Path) -> None:
    first = published(bucket, path, 1)
    content = path.read_bytes()
    published(bucket, path, 2)
    publish_again(bucket, publications(bucket)[1])
    assert [each.facts for each in publications(bucket)][::2] == [first, first]
    assert bucket.download(STATE_KEY, path)
    assert path.read_bytes() == content
    put_by_hand(b"")
    with pytest.raises(StateError):
        publish_again(bucket, publications(bucket)[0])
