"""The bucket gives back what it was given, keeps earlier versions, and says in one sentence why it can't."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import Mock

import pytest
from botocore.httpsession import URLLib3SSLError

from buckets import BUCKET, REGION, put_by_hand, raw_client, versions_of
from similarity.inbox.bucket import STATE_KEY, Bucket, ChangedError, InboxError, s3_client


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def upload(bucket: Bucket, path: Path, content: str, **options: str) -> str:
    path.write_text(content)
    return bucket.upload(path, "key", **options)  # type: ignore[arg-type]


def test_what_was_uploaded_comes_back_also_an_earlier_version(bucket: Bucket, path: Path) -> None:
    path.write_text("first")
    first = bucket.upload(path, "key", {"facts": "1"})
    upload(bucket, path, "second")
    found = bucket.download("key", path)
    assert found
    assert (path.read_text(), found.size, found.metadata) == ("second", 6, {})
    found = bucket.download("key", path, first)
    assert found
    assert (path.read_text(), found.version_id, found.metadata) == ("first", first, {"facts": "1"})
    assert abs(found.written_at - datetime.now(UTC)) < timedelta(minutes=5)
    assert bucket.look_at("key", first) == found


def test_what_is_not_there_is_none(bucket: Bucket, path: Path) -> None:
    assert bucket.download("key", path) is None
    assert bucket.look_at("key") is None
    assert bucket.read_note("served.json") is None
    assert not path.exists()
    upload(bucket, path, "content")
    raw_client().delete_object(Bucket=BUCKET, Key="key")  # leaves a delete marker
    assert bucket.look_at("key") is None
    assert [each.key for each in bucket.versions("key")] == ["key"]


def test_a_copy_is_a_new_version_with_metadata_of_its_own(bucket: Bucket, path: Path) -> None:
    path.write_text("first")
    first = bucket.upload(path, "deployed/1.pt", {"facts": "1"})
    source = bucket.look_at("deployed/1.pt", first)
    assert source
    copied = bucket.copy(source, "key", {"facts": "2"})
    found = bucket.download("key", path, copied)
    assert found
    assert (path.read_text(), found.metadata) == ("first", {"facts": "2"})


def test_versions_are_listed_newest_first(bucket: Bucket, path: Path) -> None:
    ids = [upload(bucket, path, str(number)) for number in range(3)]
    assert [each.version_id for each in bucket.versions("key")] == ids[::-1] == versions_of("key")


def test_a_large_file_is_written_with_one_put(bucket: Bucket, path: Path) -> None:
    """boto3's own upload makes several parts of more than 8 MB. S3 dates those by the start."""
    path.write_bytes(bytes(9 << 20))
    bucket.upload(path, "key")
    found = bucket.look_at("key")
    assert found
    # https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html: the ETag of several parts has a "-".
    assert "-" not in found.etag


@pytest.mark.slow
def test_more_versions_than_a_page_of_s3_are_listed(bucket: Bucket) -> None:
    for number in range(7):
        put_by_hand(str(number).encode())
    client = s3_client(REGION)
    # A page of S3 has a thousand.
    client.meta.events.register(
        "provide-client-params.s3.ListObjectVersions", lambda params, **_: {**params, "MaxKeys": 3}
    )
    assert len(client.list_object_versions(Bucket=BUCKET)["Versions"]) == 3
    assert [each.version_id for each in Bucket(BUCKET, client).versions(STATE_KEY)] == versions_of()


def test_an_object_is_replaced_only_if_it_is_the_one_that_is_known(bucket: Bucket, path: Path) -> None:
    upload(bucket, path, "first", instead_of="")
    known = bucket.look_at("key")
    assert known
    with pytest.raises(ChangedError, match=f"s3://{BUCKET}/key has been written meanwhile"):
        upload(bucket, path, "other", instead_of="")
    upload(bucket, path, "second", instead_of=known.etag)
    with pytest.raises(ChangedError):
        upload(bucket, path, "third", instead_of=known.etag)
    raw_client().delete_object(Bucket=BUCKET, Key="key")
    with pytest.raises(ChangedError):
        upload(bucket, path, "third", instead_of=known.etag)


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe", b"[" * 100_000], ids=["cut", "list", "bytes", "deep"])
def test_a_note_that_is_nonsense_is_an_error(bucket: Bucket, content: bytes) -> None:
    put_by_hand(content, "served.json")
    with pytest.raises(InboxError, match=rf"s3://{BUCKET}/served.json isn't (a JSON object|JSON)\."):
        bucket.read_note("served.json")


def test_a_note_that_could_not_be_read_again_is_not_written(bucket: Bucket) -> None:
    """A state may say much of itself. Without served.json, nothing could be published or taken back."""
    bucket.write_note("served.json", {"model": "tiny"})
    with pytest.raises(InboxError, match=rf"s3://{BUCKET}/served.json would have [0-9,]+ bytes"):
        bucket.write_note("served.json", {"model": "x" * 2**20})
    assert bucket.read_note("served.json") == {"model": "tiny"}


@pytest.mark.parametrize(
    "failure",
    [URLLib3SSLError("bad record MAC"), KeyError("LastModified"), ValueError('Invalid timestamp "yesterday"')],
    ids=lambda failure: type(failure).__name__,
)
def test_what_boto3_lets_through_is_an_error_of_the_bucket(failure: Exception, path: Path) -> None:
    """Such trouble mustn't fail a deployment."""
    client = Mock(**{f"{name}_object.side_effect": failure for name in ("get", "head", "put", "copy")})
    client.get_paginator.side_effect = failure
    bucket = Bucket(BUCKET, client)
    path.write_text("content")
    for call in (
        lambda: bucket.download("key", path),
        lambda: bucket.look_at("key"),
        lambda: bucket.upload(path, "key"),
        lambda: bucket.versions("key"),
        lambda: bucket.read_note("key"),
        lambda: bucket.write_note("key", {}),
    ):
        with pytest.raises(InboxError, match=f"^s3://{BUCKET}/key can't be .*: {type(failure).__name__}: "):
            call()


@pytest.mark.usefixtures("bucket")
def test_a_bucket_whose_versions_were_turned_off_can_be_written(path: Path) -> None:
    client = raw_client()
    client.create_bucket(Bucket="unversioned", CreateBucketConfiguration={"LocationConstraint": REGION})
    bucket = Bucket("unversioned", client)
    assert upload(bucket, path, "content") == ""
    stored = bucket.look_at("key")
    assert stored
    assert bucket.copy(stored, "copy") == ""


def test_a_bucket_that_is_not_there_is_an_error(bucket: Bucket, path: Path) -> None:
    other = Bucket("another-bucket", s3_client(REGION))
    path.write_text("content")
    for problem, call in (
        ("can't be written", lambda: other.upload(path, "key")),
        ("can't be read", lambda: other.download("key", path)),
        ("can't be listed", lambda: other.versions("key")),
        ("can't be written", lambda: other.write_note("key", {})),
    ):
        with pytest.raises(InboxError, match=rf"^s3://another-bucket/key {problem}: .*NoSuchBucket"):
            call()
