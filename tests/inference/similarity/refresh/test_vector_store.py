"""The store of vectors gives back what it was given, to the same model only."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from states.vector_store import VectorStore


@contextmanager
def opened(path: Path, fingerprint: str = "a model") -> Iterator[VectorStore]:
    with closing(VectorStore(path, fingerprint)) as store:
        yield store


def test_vectors_come_back_bit_by_bit_when_the_file_is_opened_again(tmp_path: Path) -> None:
    vector = np.array([0.1, -2.5e-38, 3.4e38, 0.0], dtype=np.float32)
    with opened(tmp_path / "store") as store:
        store.put({"a text": vector})
        store.put({"ein Täxt 🤖\ud800": -vector})
    with opened(tmp_path / "store") as store:
        first, second = store.get("a text"), store.get("ein Täxt 🤖\ud800")
    assert first is not None
    assert second is not None
    assert first.dtype == np.float32
    assert np.array_equal(first, vector)
    assert np.array_equal(second, -vector)


def test_a_text_that_was_not_put_has_no_vector(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        store.put({"a text": np.ones(2, dtype=np.float32)})
        assert store.get("a text ") is None


def test_an_empty_vector_is_another_thing_than_none(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        store.put({"🤖": np.empty(0, dtype=np.float32)})
        found = store.get("🤖")
    assert found is not None
    assert found.shape == (0,)


def test_the_last_vector_of_a_text_counts(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        store.put({"a text": np.ones(2, dtype=np.float32)})
        store.put({"a text": np.zeros(2, dtype=np.float32)})
        found = store.get("a text")
    assert found is not None
    assert found.tolist() == [0.0, 0.0]


def test_a_vector_is_on_disk_as_soon_as_it_was_put(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        store.put({"a text": np.ones(2, dtype=np.float32)})
        with closing(sqlite3.connect(tmp_path / "store")) as other:
            assert other.execute("SELECT count(*) FROM vectors").fetchone() == (1,)


def test_another_model_finds_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "store", "a model") as store:
        store.put({"a text": np.ones(2, dtype=np.float32)})
    with opened(tmp_path / "store", "another model") as store:
        assert store.get("a text") is None
    with opened(tmp_path / "store", "a model") as store:
        assert store.get("a text") is None


def test_a_file_that_is_no_store_is_refused_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "store"
    path.write_bytes(b"my notes" * 1000)
    with pytest.raises(sqlite3.DatabaseError):
        VectorStore(path, "a model")
    assert path.read_bytes() == b"my notes" * 1000
