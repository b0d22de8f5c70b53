"""The job and the bucket: what it takes from there, what it writes there, and what trouble there does."""

from __future__ import annotations

import dataclasses
import errno
import gc
import logging
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.client import BaseClient
from botocore.exceptions import ClientError, EndpointConnectionError, IncompleteReadError, NoRegionError
from botocore.response import StreamingBody
from moto.server import ThreadedMotoServer

from buckets import BUCKET, REGION, SetTime, make_bucket, put_by_hand
from jobs import inbox_steps
from jobs.shelve_state import ShelvingError
from lambdas import OBJECT_CREATED, SCHEDULED, Image, PassTime, days_ago, make_old, start_again, titles, with_titles
from processes import kill_before
from published import content_of, publish_state
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.inbox import publications as inbox_publications
from similarity.inbox.bucket import STATE_KEY, Bucket, InboxError, deployed_key, s3_client
from similarity.inbox.notes import Served, iso
from similarity.inbox.publications import facts_of, publications, publish_again
from similarity.incidents.ranking import Ranking
from similarity.incidents.state import IncidentState, state_version
from similarity.settings import Settings
from similarity.shelf import served as served_states
from similarity.shelf.usable import FolderModel
from similarity.shelf.versions import digest_in, state_names
from tiny import TINY_MAX_TOKENS, TINY_TEXTS, state_of_texts, write_tiny_longformer

pytestmark = pytest.mark.slow

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "jobs")
    return caplog


def problems(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(each.levelname, each.getMessage()) for each in caplog.records if each.levelno > logging.INFO]


@pytest.fixture
def image(image: Image, tiny_state: IncidentState) -> Image:
    """An image whose state was built ten days ago."""
    with_titles(tiny_state, "deployed", days_ago(10)).save(image.state_path)
    return image


@pytest.fixture
def good(tiny_state: IncidentState) -> IncidentState:
    """A state of the same model. Its titles are all `published`."""
    return with_titles(tiny_state, "published", days_ago(20))


@pytest.fixture(scope="module")
def of_another_model(tmp_path_factory: pytest.TempPathFactory) -> IncidentState:
    encoder = TorchEncoder.load(write_tiny_longformer(tmp_path_factory.mktemp("other"), seed=1))
    return with_titles(state_of_texts(encoder, TINY_TEXTS), "of another model", days_ago(20))


def name_at(time: datetime, version: str) -> str:
    return f"{time:%Y%m%dT%H%M%SZ}-{version}"


def note(bucket: Bucket) -> Served:
    served = Served.read(bucket)
    assert served
    return served


def new_file_system(image: Image) -> None:
    shutil.rmtree(image.mount)
    image.mount.mkdir()


def what_is_on(image: Image) -> dict[str, tuple[int, int]]:
    stats = {str(path): path.stat() for path in image.mount.rglob("*")}
    return {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in stats.items()}


# What is taken from the bucket.


def test_a_process_switches_to_a_published_state_which_has_the_time_that_s3_gave_it(
    image: Image, bucket: Bucket, good: IncidentState, pass_time: PassTime, set_s3_time: SetTime
) -> None:
    image.shelve()
    assert titles() == {"deployed"}
    set_s3_time(NOW - timedelta(hours=1, microseconds=-600_000))
    version = publish_state(bucket, good)
    answer = image.call_job(OBJECT_CREATED)
    assert answer["published"] == answer["serves"] == name_at(NOW - timedelta(hours=1), version)
    assert answer["note"] == ""
    pass_time(served_states.STALE_S + 1)
    assert titles() == {"published"}


def test_the_same_event_again_changes_nothing(image: Image, bucket: Bucket, good: IncidentState) -> None:
    publish_state(bucket, good)
    first = image.call_job(OBJECT_CREATED)
    before, versions, said = what_is_on(image), [bucket.versions(p) for p in (STATE_KEY, "deployed/")], note(bucket)
    assert image.call_job(OBJECT_CREATED) == first
    assert what_is_on(image) == before
    assert [bucket.versions(p) for p in (STATE_KEY, "deployed/")] == versions
    assert dataclasses.replace(note(bucket), written_at=said.written_at) == said


@pytest.mark.parametrize("event", [{}, OBJECT_CREATED, SCHEDULED])
def test_any_call_makes_up_for_a_lost_event_and_for_a_lost_file_system(
    event: dict[str, Any], image: Image, bucket: Bucket, good: IncidentState
) -> None:
    publish_state(bucket, good)  # and no event comes
    first = image.call_job(event)
    assert titles() == {"published"}
    new_file_system(image)
    assert image.call_job(event) == first
    start_again()
    assert titles() == {"published"}


@pytest.mark.parametrize(("built", "published", "wins"), [(2, 1, "published"), (1, 2, "deployed")])
def test_the_later_of_build_and_publication_wins(
    built: float,
    published: float,
    wins: str,
    image: Image,
    bucket: Bucket,
    good: IncidentState,
    tiny_state: IncidentState,
    set_s3_time: SetTime,
) -> None:
    set_s3_time(NOW - timedelta(days=published))
    publish_state(bucket, good)
    answer = image.shelve(with_titles(tiny_state, "deployed", days_ago(built)))
    assert titles() == {wins}
    assert answer["serves"] == (answer["published"] if wins == "published" else answer["shelved"])
    remedy = f"python scripts/publish_state.py --rollback {digest_in(answer['shelved'])}"
    assert answer["note"].endswith(remedy) == (wins == "published")
    # It is news for a deployment alone.
    assert image.call_job(SCHEDULED) == {**answer, "note": ""}


def test_an_undated_state_of_the_image_is_older_than_a_published_one(
    image: Image, bucket: Bucket, good: IncidentState, tiny_state: IncidentState
) -> None:
    publish_state(bucket, good)
    image.shelve(with_titles(tiny_state, "undated"))
    assert titles() == {"published"}
    assert note(bucket).published_at


def test_an_earlier_state_that_is_published_again_is_the_newest(
    image: Image, bucket: Bucket, good: IncidentState, set_s3_time: SetTime
) -> None:
    versions = []
    for hours, title in ((5, "good"), (4, "bad")):
        set_s3_time(NOW - timedelta(hours=hours))
        versions.append(publish_state(bucket, with_titles(good, title, days_ago(20))))
        image.call_job(OBJECT_CREATED)
    history = {each.facts.version: each for each in publications(bucket) if each.facts}
    own = digest_in(image.call_job(SCHEDULED)["shelved"])
    for hours, version, title in ((3, versions[0], "good"), (2, own, "deployed"), (1, versions[1], "bad")):
        set_s3_time(NOW - timedelta(hours=hours))
        publish_again(bucket, history[version])
        answer = image.call_job(OBJECT_CREATED)
        assert answer["serves"] == answer["published"] == name_at(NOW - timedelta(hours=hours), version)
        start_again()
        assert titles() == {title}
        said, newest = note(bucket), bucket.look_at(STATE_KEY)
        assert newest
        assert (said.state.version, said.version_id) == (version, newest.version_id)
        assert answer["removed"] == []


@pytest.mark.parametrize("first_is_larger", [True, False])
def test_of_two_that_were_published_in_one_second_the_later_one_is_served(
    first_is_larger: bool, image: Image, bucket: Bucket, good: IncidentState, set_s3_time: SetTime
) -> None:
    states = [with_titles(good, title, days_ago(20)) for title in ("one", "two")]
    image.call_job(SCHEDULED)
    found = {}
    for state in states:  # their hashes, which depend on the day
        set_s3_time(NOW - timedelta(days=5))
        found[publish_state(bucket, state)] = state
    for microsecond, version in enumerate(sorted(found, reverse=first_is_larger), 1):
        set_s3_time(NOW.replace(microsecond=microsecond * 100_000))
        publish_state(bucket, found[version])
        answer = image.call_job(OBJECT_CREATED)
        assert answer["serves"] == name_at(NOW, version)
    start_again()
    assert titles() == set(found[version].titles)
    assert answer["removed"] == ([name_at(NOW, max(found))] if first_is_larger else [])
    said, newest = note(bucket), bucket.look_at(STATE_KEY)
    assert newest
    assert (said.state.version, said.version_id) == (version, newest.version_id)


def test_deleting_the_object_takes_nothing_back(image: Image, bucket: Bucket, good: IncidentState) -> None:
    publish_state(bucket, good)
    first = image.call_job(OBJECT_CREATED)
    bucket._client.delete_object(Bucket=BUCKET, Key=STATE_KEY)
    assert bucket.look_at(STATE_KEY) is None
    assert image.call_job(SCHEDULED) == first
    new_file_system(image)
    assert image.call_job(SCHEDULED) == first


def test_a_version_that_goes_while_it_is_read_is_no_trouble(
    image: Image, bucket: Bucket, good: IncidentState, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_state(bucket, good)
    publish_state(bucket, with_titles(good, "gone", days_ago(20)))
    gone, *_ = bucket.versions(STATE_KEY)
    download = Bucket.download

    def download_late(each: Bucket, key: str, path: Path, version_id: str = "") -> Any:
        if version_id == gone.version_id:
            each._client.delete_object(Bucket=BUCKET, Key=key, VersionId=version_id)
        return download(each, key, path, version_id)

    monkeypatch.setattr(Bucket, "download", download_late)
    assert image.call_job(SCHEDULED)["serves"]
    assert titles() == {"published"}


def test_another_object_beside_the_states_is_none(
    image: Image, bucket: Bucket, good: IncidentState, set_s3_time: SetTime
) -> None:
    set_s3_time(NOW - timedelta(hours=2))
    publish_state(bucket, good)
    set_s3_time(NOW - timedelta(hours=1))
    put_by_hand(b"nonsense", f"{STATE_KEY}.bak")
    assert image.call_job(SCHEDULED)["note"] == ""


# What is written to the bucket.


def test_the_note_has_all_facts_of_the_state_that_is_served(
    image: Image, bucket: Bucket, good: IncidentState, set_s3_time: SetTime
) -> None:
    state = dataclasses.replace(
        good,
        source={"kind": "aiid-snapshot", "name": "backup.tar.bz2", "date": "2026-11-20T10:00:00Z"},
        options={"vectors": "computed", "responses": "left out"},
        model="tiny",
        max_tokens=TINY_MAX_TOKENS,
    )
    set_s3_time(NOW - timedelta(hours=1))
    version = publish_state(bucket, state)
    image.call_job(OBJECT_CREATED)
    said, newest = note(bucket), bucket.look_at(STATE_KEY)
    assert newest
    assert said.state == state.facts(version)
    assert (said.published_at, said.key, said.version_id) == (
        iso(NOW - timedelta(hours=1)),
        STATE_KEY,
        newest.version_id,
    )
    model = FolderModel(Settings.from_environment())
    assert dataclasses.asdict(said.deployed) == {
        "model": "tiny",
        "fingerprint": model.fingerprint,
        "dimension": 32,
        "longest_input": TINY_MAX_TOKENS,
        "max_tokens": TINY_MAX_TOKENS,
        "text_preparation": "unidecode",
    }
    said.deployed.require_usable(said.state)


def test_the_image_s_state_is_copied_once_and_named_where_it_is_served(
    image: Image, bucket: Bucket, tiny_state: IncidentState
) -> None:
    version = digest_in(image.shelve()["shelved"])
    image.shelve()
    [copy] = bucket.versions("deployed/")
    assert copy.key == deployed_key(version)
    looked_at = bucket.look_at(copy.key)
    assert looked_at
    facts = facts_of(bucket, looked_at)
    assert facts == IncidentState.load(image.state_path).facts(version)
    said = note(bucket)
    assert (said.state, said.key, said.version_id) == (facts, copy.key, copy.version_id)
    assert said.published_at == facts.built_at
    # The copy is named as well while a later image with an older state is deployed.
    image.shelve(with_titles(tiny_state, "older", days_ago(30)))
    assert len(bucket.versions("deployed/")) == 2
    assert (note(bucket).key, note(bucket).version_id) == (copy.key, copy.version_id)


def test_a_copy_that_was_deleted_is_made_again(image: Image, bucket: Bucket) -> None:
    key = deployed_key(digest_in(image.shelve()["shelved"]))
    bucket._client.delete_object(Bucket=BUCKET, Key=key)
    image.call_job(SCHEDULED)
    assert bucket.look_at(key)


def test_an_object_that_was_put_there_by_hand_is_served_and_named(
    image: Image, bucket: Bucket, good: IncidentState
) -> None:
    version_id = put_by_hand(content_of(good))
    answer = image.call_job(OBJECT_CREATED)
    assert answer["serves"] == answer["published"]
    said = note(bucket)
    assert (said.key, said.version_id, said.state.version) == (STATE_KEY, version_id, digest_in(answer["serves"]))


def test_without_a_bucket_s3_is_not_asked(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STATE_BUCKET", raising=False)
    monkeypatch.setattr(inbox_steps, "Bucket", None)
    assert image.call_job(SCHEDULED)["published"] is None


# Trouble with the bucket.

Nonsense = Callable[[IncidentState], bytes]
NONSENSE: dict[str, Nonsense] = {
    "empty": lambda good: b"",
    "text": lambda good: b"no state",
    "cut off": lambda good: content_of(good)[:-1000],
    "half": lambda good: content_of(good)[:1000],
}


@pytest.mark.parametrize("nonsense", NONSENSE.values(), ids=NONSENSE)
@pytest.mark.parametrize("fresh", [True, False], ids=["new file system", "same"])
def test_nonsense_in_the_bucket_leaves_the_last_good_state(
    nonsense: Nonsense,
    fresh: bool,
    image: Image,
    bucket: Bucket,
    good: IncidentState,
    set_s3_time: SetTime,
    caplog: pytest.LogCaptureFixture,
) -> None:
    set_s3_time(NOW - timedelta(hours=1))
    version = publish_state(bucket, good)
    name = image.call_job(OBJECT_CREATED)["serves"]
    set_s3_time(NOW)
    version_id = put_by_hand(nonsense(good))
    if fresh:
        new_file_system(image)
    bucket._client.delete_object(Bucket=BUCKET, Key="served.json")
    with pytest.raises(ShelvingError) as caught:
        image.call_job(OBJECT_CREATED)
    said = str(caught.value)
    assert said.startswith(f"The version {version_id} of s3://{BUCKET}/{STATE_KEY} isn't served: it isn't an incident ")
    assert "python scripts/publish_state.py FILE" in said
    assert "python scripts/publish_state.py --rollback)" in said
    assert "/tmp" not in said
    assert problems(caplog) == [("ERROR", "trouble with the bucket")]
    assert note(bucket).state.version == version
    start_again()
    assert titles() == {"published"}
    # A deployment goes on.
    answer = image.shelve()
    assert answer["serves"] == answer["published"] == name
    assert said in answer["note"]
    # Without that version, all is well.
    bucket._client.delete_object(Bucket=BUCKET, Key=STATE_KEY, VersionId=version_id)
    assert image.call_job(SCHEDULED)["published"] == name


def test_a_state_that_can_not_be_ranked_or_is_too_large_is_nonsense(
    image: Image, bucket: Bucket, good: IncidentState, monkeypatch: pytest.MonkeyPatch
) -> None:
    image.call_job(SCHEDULED)
    publish_state(bucket, good)
    most_similar = Ranking.most_similar

    def refuse(ranking: Ranking, *query: Any) -> Any:
        if ranking.state.titles[0] == "published":
            raise ValueError("no direction")
        return most_similar(ranking, *query)

    with monkeypatch.context() as broken:
        broken.setattr(Ranking, "most_similar", refuse)
        with pytest.raises(ShelvingError, match="isn't served: the state can't be ranked: no direction"):
            image.call_job(OBJECT_CREATED)
    with monkeypatch.context() as small:
        small.setattr(inbox_publications, "LARGEST_STATE_BYTES", 100)
        with pytest.raises(ShelvingError, match=r"it has [0-9,]+ bytes, but a published state may have at most 100"):
            image.call_job(OBJECT_CREATED)
    assert len(state_names(image.shelf)) == 1


@pytest.mark.parametrize("what", ["model", "limit"])
def test_a_state_of_another_model_or_limit_is_a_warning_and_the_one_before_it_counts(
    what: str,
    image: Image,
    bucket: Bucket,
    good: IncidentState,
    of_another_model: IncidentState,
    caplog: pytest.LogCaptureFixture,
) -> None:
    publish_state(bucket, good)
    name = image.call_job(OBJECT_CREATED)["published"]
    other = of_another_model if what == "model" else dataclasses.replace(good, max_tokens=20)
    publish_state(bucket, other)
    [newest, _] = bucket.versions(STATE_KEY)
    for _ in range(2):
        answer = image.call_job(OBJECT_CREATED)
        assert answer["serves"] == answer["published"] == name
        assert answer["note"].startswith(f"The version {newest.version_id} of s3://{BUCKET}/{STATE_KEY} isn't served: ")
        assert {"model": "made with another model", "limit": "cut at 20 tokens, but here"}[what] in answer["note"]
        assert problems(caplog) == [("WARNING", "published state not used")]
        caplog.clear()
        new_file_system(image)


def test_older_versions_are_nobody_s_trouble_and_five_are_tried(
    image: Image,
    bucket: Bucket,
    good: IncidentState,
    of_another_model: IncidentState,
    caplog: pytest.LogCaptureFixture,
) -> None:
    publish_state(bucket, good)
    for _ in range(3):
        put_by_hand(b"nonsense")
    publish_state(bucket, of_another_model)
    answer = image.call_job(SCHEDULED)
    assert answer["serves"] == answer["published"]
    assert answer["note"].count("isn't served") == 1
    assert problems(caplog) == [("WARNING", "published state not used")] * 4
    publish_state(bucket, of_another_model)
    new_file_system(image)
    assert image.call_job(SCHEDULED)["published"] is None


def unreachable(operation: str) -> Any:
    return EndpointConnectionError(endpoint_url=f"https://{BUCKET}.s3.{operation}")


def denied(operation: str) -> Any:
    return ClientError({"Error": {"Code": "AccessDenied", "Message": "Access Denied"}}, operation)


OPERATIONS = ("ListObjectVersions", "GetObject", "HeadObject", "PutObject")


@pytest.mark.parametrize("broken", [*OPERATIONS, None])
@pytest.mark.parametrize("error", [unreachable, denied])
def test_where_s3_fails_the_image_s_state_is_shelved_and_the_next_call_does_the_rest(
    broken: str | None,
    error: Callable[[str], Any],
    image: Image,
    bucket: Bucket,
    good: IncidentState,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    publish_state(bucket, good)
    call = BaseClient._make_api_call

    def fail(client: BaseClient, operation: str, parameters: Any) -> Any:
        if broken in (None, operation):
            raise error(operation)
        return call(client, operation, parameters)

    with monkeypatch.context() as down:
        down.setattr(BaseClient, "_make_api_call", fail)
        answer = image.shelve()
        assert answer["shelved"] in state_names(image.shelf)
        assert f"s3://{BUCKET}/" in answer["note"]
        assert "tries again" in answer["note"]
        with pytest.raises(ShelvingError, match=f"s3://{BUCKET}/.* tries again"):
            image.call_job(OBJECT_CREATED)
    assert set(problems(caplog)) - {("WARNING", "older state deployed")} == {("ERROR", "trouble with the bucket")}
    if broken in ("GetObject", "HeadObject"):  # the rest was done
        assert note(bucket).deployed.dimension == 32
    answer = image.call_job(OBJECT_CREATED)
    assert answer["note"] == ""
    assert titles() == {"published"}
    assert note(bucket).key == STATE_KEY
    assert bucket.look_at(deployed_key(digest_in(answer["shelved"])))


def test_a_region_that_is_missing_is_trouble_too(image: Image, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*names: str, **options: Any) -> Any:
        raise NoRegionError

    monkeypatch.setattr("boto3.client", refuse)
    assert "S3 can't be used: You must specify a region." in image.shelve()["note"]


def test_a_download_that_breaks_off_is_trouble_that_the_next_call_heals(
    image: Image, bucket: Bucket, good: IncidentState, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_state(bucket, good)

    def break_off(body: StreamingBody, size: int) -> Iterator[bytes]:
        yield body.read(1000)
        raise IncompleteReadError(actual_bytes=1000, expected_bytes=5000)

    with monkeypatch.context() as slow:
        slow.setattr(StreamingBody, "iter_chunks", break_off)
        with pytest.raises(ShelvingError, match=r"The version .* can't be downloaded: .*1000 read"):
            image.call_job(OBJECT_CREATED)
        assert titles() == {"deployed"}
    assert image.call_job(OBJECT_CREATED)["serves"] == image.call_job(OBJECT_CREATED)["published"]


def test_while_s3_fails_a_state_that_was_taken_back_does_not_come_back(
    image: Image, bucket: Bucket, good: IncidentState, set_s3_time: SetTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_s3_time(NOW - timedelta(hours=2))
    publish_state(bucket, with_titles(good, "bad", days_ago(20)))
    set_s3_time(NOW - timedelta(hours=1))
    publish_state(bucket, good)
    newest, _ = bucket.versions(STATE_KEY)
    download = Bucket.download

    def fail(each: Bucket, key: str, path: Path, version_id: str = "") -> Any:
        if version_id == newest.version_id:
            raise InboxError("S3 failed")
        return download(each, key, path, version_id)

    with monkeypatch.context() as broken:
        broken.setattr(Bucket, "download", fail)
        with pytest.raises(ShelvingError, match=f"The version {newest.version_id} .* can't be downloaded: S3 failed"):
            image.call_job(OBJECT_CREATED)
    assert titles() == {"deployed"}
    image.call_job(OBJECT_CREATED)
    start_again()
    assert titles() == {"published"}


def test_a_full_disk_of_the_job_s_own_is_trouble_and_leaves_no_file(
    image: Image, bucket: Bucket, good: IncidentState, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    publish_state(bucket, good)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    open_file = Path.open

    def refuse(path: Path, mode: str = "r", *options: Any, **more: Any) -> Any:
        if tmp_path / "tmp" in path.parents and mode == "wb":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return open_file(path, mode, *options, **more)

    with monkeypatch.context() as full:
        full.setattr(Path, "open", refuse)
        assert "No space left" in image.shelve()["note"]
        with pytest.raises(ShelvingError, match="No space left"):
            image.call_job(OBJECT_CREATED)
    assert list((tmp_path / "tmp").iterdir()) == []
    image.call_job(OBJECT_CREATED)
    assert titles() == {"published"}


@pytest.mark.parametrize("call", ["fsync", "rename", "mkdir"])
def test_a_full_shelf_keeps_what_it_has(
    call: str, image: Image, bucket: Bucket, good: IncidentState, monkeypatch: pytest.MonkeyPatch
) -> None:
    image.shelve()
    names = state_names(image.shelf)
    publish_state(bucket, good)
    real = getattr(os, call)

    def refuse(*paths: Any, **options: Any) -> Any:
        if call == "fsync" or str(image.states) in str(paths[0]):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*paths, **options)

    with monkeypatch.context() as full:
        full.setattr(os, call, refuse)
        with pytest.raises(OSError, match="No space left"):
            image.call_job(OBJECT_CREATED)
    assert [path.name for path in image.states.iterdir()] == names
    image.call_job(OBJECT_CREATED)
    assert titles() == {"published"}


# Runs that are killed, and runs at once.


def test_two_runs_at_once_leave_the_newest_state_and_a_note_that_names_it(
    image: Image, bucket: Bucket, good: IncidentState, set_s3_time: SetTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one has read the shelf, and is about to write its note, when a whole second one runs."""
    set_s3_time(NOW - timedelta(hours=2))
    publish_state(bucket, good)
    set_s3_time(NOW - timedelta(hours=1))
    write = Served.write
    second: list[str] = []

    def write_late(said: Served, each: Bucket) -> None:
        if not second:
            second.append(publish_state(bucket, with_titles(good, "second", days_ago(20))))
            second.append(image.call_job(OBJECT_CREATED)["serves"])
        write(said, each)

    monkeypatch.setattr(Served, "write", write_late)
    first = image.call_job(OBJECT_CREATED)
    assert first["published"] != first["serves"] == second[1]
    assert note(bucket).state.version == second[0]


def test_runs_of_one_event_at_once_answer_the_same(image: Image, bucket: Bucket, good: IncidentState) -> None:
    publish_state(bucket, good)
    with ThreadPoolExecutor(8) as runs:
        answers = list(runs.map(image.call_job, [OBJECT_CREATED] * 8))
    assert answers == [answers[0]] * 8
    assert len(state_names(image.shelf)) == len(list(image.states.iterdir())) == 2
    assert len({each.key for each in bucket.versions("deployed/")}) == 1
    assert note(bucket).state.version == digest_in(answers[0]["serves"])


@pytest.fixture
def bucket_of_processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """As `bucket`, for other processes too."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name, value in {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": REGION,
        "STATE_BUCKET": BUCKET,
    }.items():
        monkeypatch.setenv(name, value)
    try:
        yield make_bucket(s3_client())
    finally:
        server.stop()


def test_killed_at_every_step_the_next_run_heals(
    image: Image, bucket_of_processes: Bucket, good: IncidentState, tiny_state: IncidentState
) -> None:
    """The steps are the calls that change a file system, and the calls of S3."""
    bucket = bucket_of_processes
    version = publish_state(bucket, good)
    killed, seen = 0, set()
    for step in range(1000):
        new_file_system(image)
        with_titles(tiny_state, f"deployed {step}", days_ago(10)).save(image.state_path)
        before = note(bucket).state.version if killed else None
        child = os.fork()
        if not child:
            gc.disable()
            kill_before(step, [(BaseClient, "_make_api_call")])
            image.call_job(OBJECT_CREATED)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        # What is there is whole, and the note is the one before or the new one.
        seen.add(len(list(image.states.iterdir())) if image.states.exists() else None)
        for name in state_names(image.shelf) if image.states.exists() else []:
            assert state_version(image.states / name / "incident_cls.pt") == digest_in(name)
        said = Served.read(bucket)
        assert (said.state.version if said else None) in (before, version)
        answer = image.call_job(OBJECT_CREATED)
        assert digest_in(answer["serves"]) == note(bucket).state.version == version
        assert state_names(image.shelf) == [answer["serves"], answer["shelved"]]
        assert bucket.look_at(deployed_key(digest_in(answer["shelved"])))
        if code == 0:
            break
        assert code == -signal.SIGKILL
        killed += 1
    assert killed > 30
    assert seen >= {None, 0, 2}


# States that stay.


def test_the_served_and_the_image_s_state_stay_however_many_are_published(
    image: Image, bucket: Bucket, good: IncidentState, set_s3_time: SetTime
) -> None:
    own = image.call_job(SCHEDULED)["shelved"]
    published = []
    for day in range(9, 2, -1):
        set_s3_time(NOW - timedelta(days=day))
        publish_state(bucket, with_titles(good, f"day {day}", days_ago(20)))
        answer = image.call_job(OBJECT_CREATED)
        published.append(answer["serves"])
        make_old(image.states / answer["serves"], 2 * 24 * 3600)
        make_old(image.states / own, 2 * 24 * 3600)
        assert answer["published"] == answer["serves"]
    assert state_names(image.shelf) == [*published[:-4:-1], own]


def test_the_newest_published_state_stays_under_newer_ones_of_images(
    image: Image, bucket: Bucket, good: IncidentState, tiny_state: IncidentState, set_s3_time: SetTime
) -> None:
    """Else each call would put it there again."""
    set_s3_time(NOW - timedelta(days=9))
    publish_state(bucket, good)
    for day in range(8, 3, -1):
        answer = image.shelve(with_titles(tiny_state, f"day {day}", days_ago(day)))
        for name in state_names(image.shelf):
            make_old(image.states / name, 2 * 24 * 3600)
    assert answer["published"] in state_names(image.shelf)
    assert len(state_names(image.shelf)) == 4
    assert image.call_job(SCHEDULED)["removed"] == []
