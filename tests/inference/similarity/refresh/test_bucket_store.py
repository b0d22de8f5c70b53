"""Vectors go to the bucket and come from it. None that is good gets lost there, whoever writes meanwhile."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from buckets import put_by_hand, versions_of
from similarity.inbox.bucket import STORE_KEY, Bucket, ChangedError, InboxError
from similarity.refresh.bucket_store import Exchange, fetch_vectors, share_vectors
from similarity.refresh.vector_store import MadeWith, StoreError, VectorStore
from tiny import cleared

MADE_WITH = MadeWith("0123abcd", "torch", "float32", 2000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vectors.sqlite"


def put(path: Path, *texts: str) -> Path:
    with VectorStore(path) as store:
        store.put(dict.fromkeys(texts, np.ones(2, dtype=np.float32)), MADE_WITH)
    return path


def in_bucket(bucket: Bucket, folder: Path) -> set[str]:
    """The texts of a to e whose vectors the bucket has."""
    path = folder / "downloaded.sqlite"
    assert bucket.download(STORE_KEY, path)
    with VectorStore(path) as store:
        return set(store.get([*"abcde"], MADE_WITH))


def test_the_bucket_gets_what_it_lacks(bucket: Bucket, path: Path, tmp_path: Path) -> None:
    assert share_vectors(bucket, put(path, "a", "b")) == Exchange(False, 2)
    assert share_vectors(bucket, put(tmp_path / "other", "b", "c")) == Exchange(True, 1)
    assert in_bucket(bucket, tmp_path) == {"a", "b", "c"}
    assert share_vectors(bucket, path) == Exchange(True, 0)
    assert len(versions_of(STORE_KEY)) == 2, "nothing is uploaded that the bucket has"


def test_this_machine_gets_what_it_lacks(bucket: Bucket, path: Path, tmp_path: Path) -> None:
    assert fetch_vectors(bucket, path) == Exchange(False, 0)
    share_vectors(bucket, put(tmp_path / "other", "a", "b"))
    assert fetch_vectors(bucket, put(path, "b", "c")) == Exchange(True, 1)
    with VectorStore(path) as store:
        assert store.get([*"abc"], MADE_WITH).keys() == {*"abc"}


@pytest.mark.parametrize("content", [b"", b"nonsense" * 1000, None], ids=["empty", "nonsense", "cut"])
def test_a_damaged_store_in_the_bucket_is_replaced(
    bucket: Bucket, content: bytes | None, path: Path, tmp_path: Path
) -> None:
    put_by_hand(put(path, "a").read_bytes()[:-20_000] if content is None else content, STORE_KEY)
    fetched = fetch_vectors(bucket, path)
    assert (fetched.vectors, bool(fetched.damage)) == (0, True)
    shared = share_vectors(bucket, put(path, "a"))
    assert (shared.vectors, bool(shared.damage)) == (1, True)
    assert in_bucket(bucket, tmp_path) == {"a"}
    assert len(versions_of(STORE_KEY)) == 2


def test_the_store_of_a_later_version_is_not_replaced(
    bucket: Bucket, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as later:
        later.setattr("similarity.refresh.vector_store._VERSION", 2)
        share_vectors(bucket, put(tmp_path / "other", "a"))
    put(path, "b")
    for exchange in (share_vectors, fetch_vectors):
        with pytest.raises(StoreError, match="a later version of this project made it; use that version"):
            exchange(bucket, path)
    assert len(versions_of(STORE_KEY)) == 1
    # The later version has no use for the store of the earlier one.
    put_by_hand(path.read_bytes(), STORE_KEY)
    monkeypatch.setattr("similarity.refresh.vector_store._VERSION", 2)
    assert share_vectors(bucket, put(cleared(path), "a")).damage


def test_what_a_damaged_store_says_is_one_printable_line(bucket: Bucket, path: Path, tmp_path: Path) -> None:
    """SQLite repeats the name of a table that it can't read."""
    with closing(sqlite3.connect(put(tmp_path / "other", "a"))) as connection, connection:
        connection.execute("PRAGMA writable_schema = 1")
        connection.execute("UPDATE sqlite_master SET name = ?, sql = 'CREATE nonsense'", ("\x1b[2J\nforged",))
    put_by_hand((tmp_path / "other").read_bytes(), STORE_KEY)
    for exchange in (fetch_vectors, share_vectors):
        damage = exchange(bucket, put(path, "b")).damage
        assert "forged" in damage
        assert damage.isprintable()


def test_a_damaged_store_of_this_machine_is_not_shared(bucket: Bucket, path: Path, tmp_path: Path) -> None:
    share_vectors(bucket, put(tmp_path / "other", "a"))
    path.write_bytes(b"nonsense" * 1000)
    with pytest.raises(StoreError, match=r"vectors\.sqlite can't be used"):
        share_vectors(bucket, path)
    assert in_bucket(bucket, tmp_path) == {"a"}


@pytest.mark.parametrize("times", [1, 2, 3])
def test_vectors_that_somebody_else_adds_meanwhile_are_kept(
    bucket: Bucket, times: int, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the bucket has no store at first."""
    upload = bucket.upload
    others = iter([*"abc"][:times])

    def somebody_is_faster(*args: object, **options: object) -> str:
        if text := next(others, ""):
            with monkeypatch.context() as other:
                other.setattr(bucket, "upload", upload)
                share_vectors(bucket, put(tmp_path / text, text))
        return upload(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(bucket, "upload", somebody_is_faster)
    put(path, "e")
    if times == 3:
        with pytest.raises(ChangedError):
            share_vectors(bucket, path)
    else:
        assert share_vectors(bucket, path) == Exchange(True, 1)
    assert in_bucket(bucket, tmp_path) == {*"abc"[:times], *("e" if times < 3 else "")}


def test_a_download_that_fails_leaves_this_machine_as_it_was(
    bucket: Bucket, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share_vectors(bucket, put(tmp_path / "other", "a"))
    before = put(path, "b").read_bytes()

    def cut(key: str, target: Path) -> None:
        target.write_bytes(b"the start")
        raise InboxError("cut")

    monkeypatch.setattr(bucket, "download", cut)
    with pytest.raises(InboxError):
        fetch_vectors(bucket, path)
    assert path.read_bytes() == before
