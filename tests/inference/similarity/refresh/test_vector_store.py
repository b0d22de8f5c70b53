"""The store of vectors gives back the vectors that it was given, for the same model and the same text only."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing, suppress
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from processes import run_where_files_stay_small
from similarity.refresh.vector_store import KEPT_FOR, DamagedStoreError, MadeWith, StoreError, VectorStore
from tiny import ROOT, cleared

MADE_WITH = MadeWith("0123abcd", "torch", "float32", 2000)
TODAY = date(2026, 11, 26)
ONES, ZEROS = np.ones(2, dtype=np.float32), np.zeros(2, dtype=np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "vectors.sqlite"


def get(path: Path, text: str, made_with: MadeWith = MADE_WITH) -> list[float] | None:
    """The numbers of the text's vector."""
    with VectorStore(path) as store:
        found = store.get([text], made_with)
    assert set(found) <= {text}
    return found[text].tolist() if found else None


def put(path: Path, text: str, vector: np.ndarray = ONES, made_with: MadeWith = MADE_WITH) -> None:
    with VectorStore(path, TODAY) as store:
        store.put({text: vector}, made_with)


def count(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM vectors").fetchone()[0])


def test_vectors_come_back_bit_by_bit_when_the_file_is_opened_again(path: Path) -> None:
    vector = np.array([0.1, -2.5e-38, 3.4e38, 0.0], dtype=np.float32)
    with VectorStore(path) as store:
        store.put({"a text": vector}, MADE_WITH)
        store.put({"another\ntext": -vector, "": ZEROS}, MADE_WITH)
    with VectorStore(path) as store:
        found = store.get(["another\ntext", "no text", "a text", ""], MADE_WITH)
    assert found.keys() == {"a text", "another\ntext", ""}
    assert found["a text"].dtype == np.float32
    assert found["a text"].tobytes() == vector.tobytes()
    assert found["another\ntext"].tobytes() == (-vector).tobytes()


def test_a_text_that_was_not_put_has_no_vector(path: Path) -> None:
    put(path, "a text")
    for other in ("a text ", "A text", "a  text", ""):
        assert get(path, other) is None
    assert get(path, "a text") == [1, 1]


@pytest.mark.slow
def test_many_texts_are_found_at_once(path: Path) -> None:
    # SQLite takes at most 32,766 variables.
    texts = [f"text {number}" for number in range(40_000)]
    with VectorStore(path) as store:
        store.put({text: ONES * number for number, text in enumerate(texts[:3])}, MADE_WITH)
        found = store.get(texts, MADE_WITH)
    assert {text: vector[0] for text, vector in found.items()} == {"text 0": 0, "text 1": 1, "text 2": 2}


def test_the_last_vector_of_a_text_counts(path: Path) -> None:
    put(path, "a text", ONES)
    put(path, "a text", ZEROS)
    assert get(path, "a text") == [0, 0]
    assert count(path) == 1


def test_a_vector_is_on_disk_as_soon_as_it_was_put(path: Path) -> None:
    with VectorStore(path) as store:
        store.put({"a text": ONES}, MADE_WITH)
        assert count(path) == 1


@pytest.mark.parametrize(
    "other",
    [
        replace(MADE_WITH, fingerprint="0123abce"),
        replace(MADE_WITH, engine="onnx"),
        replace(MADE_WITH, precision="bfloat16"),
        replace(MADE_WITH, max_tokens=200),
    ],
    ids=["fingerprint", "engine", "precision", "max_tokens"],
)
def test_vectors_of_two_models_stand_side_by_side(other: MadeWith, path: Path) -> None:
    put(path, "a text", ONES)
    assert get(path, "a text", other) is None
    put(path, "a text", ZEROS, other)
    assert (get(path, "a text"), get(path, "a text", other)) == ([1, 1], [0, 0])


def test_the_parts_of_a_key_can_not_be_taken_for_each_other() -> None:
    keys = [
        MADE_WITH.key("text"),
        MADE_WITH.key("text\n"),
        MADE_WITH.key("\ntext"),
        replace(MADE_WITH, max_tokens=20).key("00\ntext"),
        replace(MADE_WITH, max_tokens=20).key("00 text"),
    ]
    assert len(set(keys)) == len(keys)


# Vectors that nobody uses any more.


@pytest.mark.parametrize(("days", "is_kept"), [(0, True), (KEPT_FOR.days, True), (KEPT_FOR.days + 1, False)])
def test_a_vector_stays_for_half_a_year_after_its_last_use(days: int, is_kept: bool, path: Path) -> None:
    put(path, "used once")
    put(path, "used again")
    other = replace(MADE_WITH, fingerprint="another")
    put(path, "of another model", made_with=other)
    with VectorStore(path, TODAY + timedelta(days)) as store:
        assert store.keep(["used again", "never put"], MADE_WITH) == (0 if is_kept else 2)
        assert store.get(["used again"], MADE_WITH).keys() == {"used again"}
        assert bool(store.get(["used once"], MADE_WITH)) is is_kept
        assert bool(store.get(["of another model"], other)) is is_kept


def test_a_use_counts_from_its_day(path: Path) -> None:
    put(path, "a text")
    for days, removed in ((KEPT_FOR.days, 0), (2 * KEPT_FOR.days, 0), (3 * KEPT_FOR.days + 1, 1)):
        with VectorStore(path, TODAY + timedelta(days)) as store:
            assert store.keep(["a text"] if not removed else [], MADE_WITH) == removed


def test_a_clock_that_was_set_back_takes_no_use_away(path: Path) -> None:
    put(path, "a text")
    with VectorStore(path, TODAY - timedelta(365)) as store:
        assert store.keep(["a text"], MADE_WITH) == 0
    with VectorStore(path, TODAY + KEPT_FOR) as store:
        assert store.keep([], MADE_WITH) == 0
        assert store.get(["a text"], MADE_WITH)


def test_the_file_shrinks_when_vectors_are_removed(path: Path) -> None:
    with VectorStore(path, TODAY) as store:
        store.put({f"text {number}": np.ones(1000, dtype=np.float32) for number in range(500)}, MADE_WITH)
    large = path.stat().st_size
    with VectorStore(path, TODAY + timedelta(365)) as store:
        assert store.keep([], MADE_WITH) == 500
    assert path.stat().st_size < large / 10


# Files that can't be used.


def sqlite_file(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


UNUSABLE = {
    "not SQLite": (),
    "another program's": ("CREATE TABLE notes (text)", "INSERT INTO notes VALUES ('mine')"),
    "another program's, of version 1": ("CREATE TABLE notes (text)", "PRAGMA user_version = 1"),
    "another program's vectors": ("CREATE TABLE vectors (key, vector)", "PRAGMA user_version = 1"),
    "an empty one, of another program": ("PRAGMA user_version = 7",),
    "a later version": ("CREATE TABLE vectors (key, vector)", "PRAGMA user_version = 3"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_a_file_that_is_no_store_is_refused_in_a_sentence_and_stays(kind: str, path: Path) -> None:
    path.parent.mkdir()
    if UNUSABLE[kind]:
        sqlite_file(path, *UNUSABLE[kind])
    else:
        path.write_bytes(b"my notes" * 1000)
    before = path.read_bytes()
    with pytest.raises(StoreError) as error:
        VectorStore(path)
    assert str(error.value).startswith(f"the store of vectors {path} can't be used: ")
    assert "\n" not in str(error.value)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_file_in_place_of_the_folder_is_told(path: Path) -> None:
    path.parent.write_bytes(b"my notes")
    with pytest.raises(StoreError, match=r"vectors\.sqlite can't be used: File exists"):
        VectorStore(path)
    assert path.parent.read_bytes() == b"my notes"


def test_a_folder_in_place_of_the_file_is_told(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(StoreError, match="unable to open database file"):
        VectorStore(path)


# Opens the store that is named, as an ordinary user where that is asked for, and puts texts with so many numbers each.
PUT = f"""
import os, sys
sys.path.insert(0, {str(ROOT / "inference")!r})
from pathlib import Path
import numpy as np
from similarity.refresh.vector_store import MadeWith, StoreError, VectorStore

path, user, texts, numbers = Path(sys.argv[1]), *map(int, sys.argv[2:])
if user:
    os.seteuid(user)
try:
    with VectorStore(path) as store:
        made_with = MadeWith("0123abcd", "torch", "float32", 2000)
        store.put({{f"new {{n}}": np.ones(numbers, dtype=np.float32) for n in range(texts)}}, made_with)
except StoreError as error:
    sys.exit(str(error))
"""


@pytest.mark.slow
@pytest.mark.parametrize("read_only", ["file", "folder"])
def test_a_store_that_can_not_be_written_is_told_and_stays(read_only: str) -> None:
    # Pytest's folders can't be entered by the ordinary user, whom root becomes, since root may write everywhere.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.sqlite"
        put(path, "a text")
        before = path.read_bytes()
        path.chmod(0o444 if read_only == "file" else 0o666)
        path.parent.chmod(0o777 if read_only == "file" else 0o555)
        user = "65534" if os.geteuid() == 0 else "0"
        ended = subprocess.run(
            [sys.executable, "-c", PUT, path, user, "1", "2"], capture_output=True, text=True, check=False
        )
        path.parent.chmod(0o755)
        assert ended.returncode == 1, ended
        [line] = ended.stderr.splitlines()
        assert line.startswith(f"the store of vectors {path} can't be used: ")
        assert path.read_bytes() == before
        assert get(path, "a text") == [1, 1]


@pytest.mark.slow
def test_a_full_disk_is_told_and_all_parts_before_stay(path: Path) -> None:
    put(path, "a text")
    script = path.parent / "put.py"
    script.write_text(PUT)
    ended = run_where_files_stay_small(64, [script, path, "0", "20", "1000"])
    assert ended.returncode == 1, ended
    [line] = ended.stderr.splitlines()
    assert line.startswith(f"the store of vectors {path} can't be used: ")
    assert "delete it" not in line
    assert get(path, "a text") == [1, 1]
    assert count(path) == 1, "a part is written whole or not at all"


def test_a_store_that_another_build_holds_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(path, "a text")
    monkeypatch.setattr("similarity.refresh.vector_store._TIMEOUT_S", 0)
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match=r"locked$"):
            get(path, "a text")
    assert get(path, "a text") == [1, 1]


def test_a_damaged_vector_is_not_given(path: Path) -> None:
    put(path, "a text")
    put(path, "another")
    damage(path, "a text")
    assert get(path, "a text") is None
    assert get(path, "another") == [1, 1]


def test_a_damaged_file_never_gives_another_vector(path: Path) -> None:
    texts = [f"text {number}" for number in range(60)]
    vectors = {text: np.full(32, number + 0.5, dtype=np.float32) for number, text in enumerate(texts)}
    with VectorStore(path, TODAY) as store:
        store.put(vectors, MADE_WITH)
    whole = path.read_bytes()
    chosen = random.Random(0)
    lost = 0
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[chosen.randrange(len(whole))] ^= 1 << chosen.randrange(8)
        path.unlink()
        path.write_bytes(damaged)
        with suppress(StoreError), VectorStore(path) as store:
            found = store.get(texts, MADE_WITH)
            assert all(vector.tobytes() == vectors[text].tobytes() for text, vector in found.items())
            lost += len(found) < len(texts)
    assert lost, "some damage was in a vector"


def test_the_vector_of_another_text_is_not_given(path: Path) -> None:
    put(path, "a text")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE vectors SET key = ?", [MADE_WITH.key("another")])
    assert get(path, "another") is None


def test_a_key_that_a_damaged_file_makes_up_is_ignored(path: Path) -> None:
    texts = [f"text {number}" for number in range(60)]
    with VectorStore(path, TODAY) as store:
        store.put(dict.fromkeys(texts, ONES), MADE_WITH)
    content = path.read_bytes()
    # In the index, text of 64 letters has type 141, 64 bytes have type 140. The first row is stored in another way.
    for text in texts[1:]:
        key = MADE_WITH.key(text).encode()
        damaged = content.replace(b"\x81\x0d\x01" + key, b"\x81\x0c\x01" + key)
        assert damaged != content
        path.unlink()
        path.write_bytes(damaged)
        with VectorStore(path) as store:
            assert set(texts).issuperset(store.get(texts, MADE_WITH))


def test_a_store_that_has_lost_a_vector_is_told(path: Path) -> None:
    put(path, "a text")
    with VectorStore(path) as store:
        assert store.get(["a text"], MADE_WITH, all_are_stored=True).keys() == {"a text"}
        with pytest.raises(StoreError, match=r"it has lost 1 vectors that it was given; delete it to compute"):
            store.get(["a text", "another"], MADE_WITH, all_are_stored=True)


@pytest.mark.parametrize("name", [b"vec\nors", b"vec\xf4ors"])
def test_sqlite_may_quote_what_a_damaged_file_has(name: bytes, path: Path) -> None:
    put(path, "a text")
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content.replace(b"tablevectors", b"table" + name))
    with pytest.raises(StoreError) as error:
        VectorStore(path)
    assert "malformed database schema" in str(error.value) or "can't decode" in str(error.value)
    assert "\n" not in str(error.value)


# Two stores.


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return tmp_path / "other.sqlite"


def merge(path: Path, other: Path, today: date = TODAY) -> int:
    with VectorStore(path, today) as store:
        return store.merge(other)


def used_on(path: Path, text: str) -> str:
    with closing(sqlite3.connect(path)) as connection:
        return str(connection.execute("SELECT used_on FROM vectors WHERE key = ?", [MADE_WITH.key(text)]).fetchone()[0])


def damage(path: Path, text: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE vectors SET vector = x'0000' WHERE key = ?", [MADE_WITH.key(text)])


def test_a_merged_store_has_the_vectors_of_both(path: Path, other: Path) -> None:
    onnx = replace(MADE_WITH, engine="onnx")
    put(path, "mine", ONES)
    put(other, "theirs", ZEROS)
    put(other, "mine", ZEROS, onnx)
    before = other.read_bytes()
    assert merge(path, other) == 2
    assert (get(path, "mine"), get(path, "theirs"), get(path, "mine", onnx)) == ([1, 1], [0, 0], [0, 0])
    assert other.read_bytes() == before
    assert merge(path, other) == 0


def test_a_vector_that_both_have_stays_and_its_last_use_counts(path: Path, other: Path) -> None:
    put(path, "a text", ONES)
    put(other, "a text", ZEROS)
    with VectorStore(other, TODAY + timedelta(3)) as store:
        store.keep(["a text"], MADE_WITH)
    assert merge(path, other) == 1
    assert (get(path, "a text"), used_on(path, "a text")) == ([1, 1], "2026-11-29")
    with VectorStore(path, TODAY + timedelta(9)) as store:
        store.keep(["a text"], MADE_WITH)
    assert merge(path, other) == 0
    assert used_on(path, "a text") == "2026-12-05"


def test_damaged_vectors_heal_and_are_not_passed_on(path: Path, other: Path) -> None:
    for text in ("mine is damaged", "theirs is damaged", "both are"):
        put(path, text, ONES)
        put(other, text, ZEROS)
    put(other, "only theirs, damaged")
    for store, texts in ((path, ["mine is damaged", "both are"]), (other, ["theirs is damaged", "both are"])):
        for text in texts:
            damage(store, text)
    damage(other, "only theirs, damaged")
    assert merge(path, other) == 1
    assert (get(path, "mine is damaged"), get(path, "theirs is damaged")) == ([0, 0], [1, 1])
    assert (get(path, "both are"), count(path)) == (None, 3)


def test_vectors_that_nobody_uses_are_not_brought_back(path: Path, other: Path) -> None:
    put(other, "a text")
    assert merge(path, other, TODAY + KEPT_FOR + timedelta(1)) == 0
    assert merge(path, other, TODAY + KEPT_FOR) == 1


def test_keys_and_days_that_a_damaged_file_makes_up_are_not_taken(path: Path, other: Path) -> None:
    for text in ("a", "b", "c", "d"):
        put(other, text)
    with closing(sqlite3.connect(other)) as connection, connection:
        for text, change in (("a", "key = CAST(key AS BLOB)"), ("b", "used_on = x'ffff'"), ("c", "vector = 'text'")):
            connection.execute(f"UPDATE vectors SET {change} WHERE key = ?", [MADE_WITH.key(text)])
    assert merge(path, other) == 1
    assert get(path, "d") == [1, 1]


@pytest.mark.parametrize("kind", UNUSABLE)
def test_a_file_that_is_no_store_is_not_merged(kind: str, path: Path, other: Path) -> None:
    put(path, "a text")
    if UNUSABLE[kind]:
        sqlite_file(other, *UNUSABLE[kind])
    else:
        other.write_bytes(b"my notes" * 1000)
    with VectorStore(path) as store:
        with pytest.raises(StoreError) as error:
            store.merge(other)
        assert str(error.value).startswith(f"the store of vectors {other} can't be used: ")
        # A store of a later version is whole.
        is_later = kind in ("a later version", "an empty one, of another program")
        assert isinstance(error.value, DamagedStoreError) is not is_later
        # It can be used as before, also with a further store.
        put(cleared(other), "theirs")
        assert store.merge(other) == 1
        assert store.get(["a text", "theirs"], MADE_WITH).keys() == {"a text", "theirs"}


def test_a_store_that_is_not_there_is_not_made(path: Path, other: Path) -> None:
    with pytest.raises(StoreError, match=r"other\.sqlite can't be used: No such file") as error:
        merge(path, other)
    assert not isinstance(error.value, DamagedStoreError)
    assert not other.exists()


@pytest.mark.slow
def test_a_damaged_store_adds_whole_vectors_or_nothing(path: Path, other: Path) -> None:
    texts = [f"text {number}" for number in range(60)]
    vectors = {text: np.full(32, number + 0.5, dtype=np.float32) for number, text in enumerate(texts)}
    with VectorStore(other, TODAY) as store:
        store.put(vectors, MADE_WITH)
    whole = other.read_bytes()
    chosen = random.Random(0)
    refused = 0
    for _ in range(100):
        damaged = bytearray(whole)
        for _ in range(20):
            damaged[chosen.randrange(len(whole))] ^= 1 << chosen.randrange(8)
        cleared(other).write_bytes(damaged)
        put(path, "mine")
        try:
            merge(path, other)
        except StoreError:
            refused += 1
            assert count(path) == 1
        with VectorStore(path) as store:
            found = store.get([*texts, "mine"], MADE_WITH)
            assert found.pop("mine").tolist() == [1, 1]
            assert all(vector.tobytes() == vectors[text].tobytes() for text, vector in found.items())
        cleared(path)
    assert 0 < refused < 100


def test_a_store_that_a_build_is_writing_is_merged_as_it_was(path: Path, other: Path) -> None:
    put(other, "theirs")
    with closing(sqlite3.connect(other)) as build:
        build.execute("BEGIN IMMEDIATE")
        build.execute("INSERT INTO vectors VALUES ('half a part', x'00', '2026-11-26')")
        assert merge(path, other) == 1
        build.rollback()
    assert get(path, "theirs") == [1, 1]
