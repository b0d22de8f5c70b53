"""Keeps the vectors of texts in a SQLite file, so that a build computes only the vectors of new texts.

Each build stores a part of its vectors as soon as the part is computed. SQLite writes a part whole or not at all. So a
stopped build, a killed one or a full disk loses only the current part.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np

from similarity.errors import one_line
from similarity.vectors import Vector

# Vectors that no build has used for so long are removed.
KEPT_FOR = timedelta(days=180)

# Changes with the keys, so that a file of another version is refused.
_VERSION = 1
_TABLE = "CREATE TABLE vectors (key TEXT PRIMARY KEY, vector BLOB NOT NULL, used_on TEXT NOT NULL)"
_CHECKSUM_BYTES = 4
# Keys are cast to bytes, because a damaged one may not be a text.
_MERGE = """
    INSERT INTO main.vectors SELECT key, vector, used_on FROM other.vectors
    WHERE used_on >= ? AND (typeof(used_on), typeof(key)) = ('text', 'text') AND is_whole(CAST(key AS BLOB), vector)
    ON CONFLICT (key) DO UPDATE SET
        used_on = max(used_on, excluded.used_on),
        vector = CASE WHEN is_whole(CAST(key AS BLOB), vector) THEN vector ELSE excluded.vector END
    WHERE excluded.used_on > used_on OR NOT is_whole(CAST(key AS BLOB), vector)
"""
# Another build may be writing a part.
_TIMEOUT_S = 60


class StoreError(Exception):
    """The store can't be used. The message is one sentence."""


class DamagedStoreError(StoreError):
    """The file isn't a store, or it is damaged, so nothing is lost with it."""


@dataclass(frozen=True)
class MadeWith:
    """All that a vector depends on beside its text."""

    fingerprint: str
    engine: str
    precision: str
    max_tokens: int

    def key(self, text: str) -> str:
        """The key of a prepared text's vector."""
        made_with = " ".join(map(str, astuple(self)))
        return hashlib.sha256(f"{made_with}\n{text}".encode()).hexdigest()


class VectorStore:
    """CLS vectors by prepared text. Vectors of several models can be in one store. Every method raises StoreError."""

    def __init__(self, path: Path, today: date | None = None) -> None:
        self._path = path
        self._today = today or datetime.now(UTC).date()
        with self._errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=_TIMEOUT_S)
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise

    def _prepare(self) -> None:
        if not self._tables():
            # These work only before the first table. A page of the usual 4,096 bytes holds one vector of 768 numbers, a
            # page of 16,384 bytes almost five. The file shrinks when vectors are removed.
            self._connection.execute("PRAGMA page_size = 16384")
            self._connection.execute("PRAGMA auto_vacuum = FULL")
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            found = self._connection.execute("PRAGMA user_version").fetchone()[0], self._tables()
            if found == (0, []):
                self._connection.execute(_TABLE)
                self._connection.execute(f"PRAGMA user_version = {_VERSION}")
            elif found != (_VERSION, [_TABLE]):
                raise sqlite3.DatabaseError("it isn't a store of vectors, or it is one of another version")

    def _tables(self, schema: str = "main") -> list[str]:
        """The statements that made the file's tables, and all else that it has."""
        rows = self._connection.execute(f"SELECT sql FROM {schema}.sqlite_master WHERE sql IS NOT NULL")  # noqa: S608
        return [sql for (sql,) in rows]

    @contextmanager
    def _errors(self, path: Path | None = None) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, UnicodeDecodeError) as error:  # of a damaged name
            reason = one_line(str(getattr(error, "strerror", None) or error))
            # An OperationalError has another cause, e.g. a full disk.
            damaged = not isinstance(error, sqlite3.OperationalError | OSError)
            remedy = "; delete it to compute all vectors again" if damaged else ""
            kind = DamagedStoreError if damaged else StoreError
            raise kind(f"the store of vectors {path or self._path} can't be used: {reason}{remedy}") from error

    def __enter__(self) -> VectorStore:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def get(self, texts: Sequence[str], made_with: MadeWith, *, all_are_stored: bool = False) -> dict[str, Vector]:
        """The vectors (hidden,) float32 of those `texts` that are stored, exactly as they were put.

        all_are_stored: all texts have been put, so a missing one raises StoreError.
        """
        text_of = {made_with.key(text): text for text in texts}
        with self._errors():
            rows = self._connection.execute(
                "SELECT key, vector FROM vectors WHERE key IN (SELECT value FROM json_each(?))",
                (json.dumps([*text_of]),),
            )
            # SQLite doesn't notice every damage: it may give other bytes, or the row of another key.
            found = ((key, _unpacked(key, content)) for key, content in rows if key in text_of)
            vectors = {text_of[key]: vector for key, vector in found if vector is not None}
            if all_are_stored and len(vectors) < len(text_of):
                raise sqlite3.DatabaseError(f"it has lost {len(text_of) - len(vectors)} vectors that it was given")
        return vectors

    def put(self, vectors: Mapping[str, Vector], made_with: MadeWith) -> None:
        """Stores the vectors (hidden,), all or none. They are on disk when this returns."""
        today = self._today.isoformat()
        by_key = {made_with.key(text): vector for text, vector in vectors.items()}
        rows = [(key, _packed(key, vector), today) for key, vector in by_key.items()]
        with self._errors(), self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)

    def keep(self, texts: Sequence[str], *made_with: MadeWith) -> int:
        """Marks the vectors of `texts` as used today, and removes those not used for KEPT_FOR. Returns their number."""
        today, oldest = self._today.isoformat(), (self._today - KEPT_FOR).isoformat()
        with self._errors(), self._connection:
            self._connection.executemany(
                "UPDATE vectors SET used_on = ? WHERE key = ? AND used_on < ?",
                ((today, each.key(text), today) for each in made_with for text in texts),
            )
            return self._connection.execute("DELETE FROM vectors WHERE used_on < ?", (oldest,)).rowcount

    def merge(self, path: Path) -> int:
        """Adds the vectors of the store in the file `path`, all or none. Returns how many were added or used later.

        A damaged vector isn't added, and one of this store is replaced by a whole one. Vectors that no build has used
        for KEPT_FOR aren't added. A build may be writing the other store; the vectors are those of one moment. Raises
        DamagedStoreError for a damaged file, and StoreError for another reason, e.g. a store of a later version.
        """
        oldest = (self._today - KEPT_FOR).isoformat()
        with self._errors(path):
            path.stat()  # SQLite would make the file
            self._connection.create_function("is_whole", 2, _is_whole, deterministic=True)
            self._connection.execute("ATTACH DATABASE ? AS other", (str(path),))
            try:
                with self._connection:
                    self._connection.execute("BEGIN IMMEDIATE")
                    self._require_same_version()
                    return self._connection.execute(_MERGE, (oldest,)).rowcount
            finally:
                self._connection.execute("DETACH DATABASE other")

    def _require_same_version(self) -> None:
        [version] = self._connection.execute("PRAGMA other.user_version").fetchone()
        if version > _VERSION:
            raise sqlite3.OperationalError("a later version of this project made it; use that version")
        if (version, self._tables("other")) != (_VERSION, [_TABLE]):
            raise sqlite3.DatabaseError("it isn't a store of vectors, or it is one of an earlier version")


def _packed(key: str, vector: Vector) -> bytes:
    """A vector (hidden,) with a checksum of it and its key."""
    numbers = vector.astype(np.float32).tobytes()
    return _checksum(key.encode(), numbers) + numbers


def _unpacked(key: str, content: object) -> Vector | None:
    """The vector (hidden,) in the bytes that `_packed` made for this key; None if they are damaged."""
    if not isinstance(content, bytes) or not _is_whole(key.encode(), content):
        return None
    return np.frombuffer(content, dtype=np.float32, offset=_CHECKSUM_BYTES)


def _is_whole(key: object, content: object) -> bool:
    if not isinstance(key, bytes) or not isinstance(content, bytes):
        return False
    return content[:_CHECKSUM_BYTES] == _checksum(key, content[_CHECKSUM_BYTES:])


def _checksum(key: bytes, numbers: bytes) -> bytes:
    return zlib.crc32(numbers, zlib.crc32(key)).to_bytes(_CHECKSUM_BYTES, "little")
