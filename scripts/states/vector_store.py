"""Keeps the vectors of encoded texts in a SQLite file, so that a stopped build can resume.

SQLite makes each commit whole. So a kill or a full disk loses only the texts of the current batch.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from similarity.vectors import Vector


class VectorStore:
    """Maps texts to CLS vectors of one model. Opening the file with another model's fingerprint drops all vectors."""

    def __init__(self, path: Path, fingerprint: str) -> None:
        """Raises sqlite3.Error if `path` isn't a SQLite file, can't be written or is in use by another build."""
        self._connection = sqlite3.connect(path)
        try:
            self._prepare(fingerprint)
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self, fingerprint: str) -> None:
        with self._connection:
            self._connection.execute("CREATE TABLE IF NOT EXISTS model (fingerprint TEXT NOT NULL)")
            self._connection.execute("CREATE TABLE IF NOT EXISTS vectors (sha256 BLOB PRIMARY KEY, vector BLOB)")
            if self._connection.execute("SELECT fingerprint FROM model").fetchall() != [(fingerprint,)]:
                self._connection.execute("DELETE FROM vectors")
                self._connection.execute("DELETE FROM model")
                self._connection.execute("INSERT INTO model VALUES (?)", (fingerprint,))

    def get(self, text: str) -> Vector | None:
        """The vector (hidden,) float32 of `text`, or None if it isn't stored."""
        row = self._connection.execute("SELECT vector FROM vectors WHERE sha256 = ?", (_key(text),)).fetchone()
        if row is None:
            return None
        return np.frombuffer(row[0], dtype=np.float32)

    def put(self, vectors: Mapping[str, Vector]) -> None:
        """Stores the vectors (hidden,), all or none. They are on disk when this returns."""
        rows = [(_key(text), vector.astype(np.float32).tobytes()) for text, vector in vectors.items()]
        with self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)

    def close(self) -> None:
        self._connection.close()


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
