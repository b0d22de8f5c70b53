"""Databases for builds, without a file that they would be read from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from similarity.encoder.text_encoder import TextEncoder
from similarity.refresh.compute import Computer
from similarity.refresh.vector_store import VectorStore
from similarity.sources.database import Database, Incident, Report, Source
from similarity.vectors import Vector

SNAPSHOT = Source("aiid-snapshot", "backup-20261123100000.tar.bz2", "2026-11-23T10:00:00Z")
IN_MEMORY = Path(":memory:")


def database(
    texts: Mapping[int, Sequence[str]],
    published: Mapping[str, Vector] | None = None,
    *,
    duplicates: Mapping[int, int] | None = None,
    dissimilar: Sequence[tuple[int, int]] = (),
) -> Database:
    """Incidents with these texts as reports; `published` are AIID's vectors of some."""
    numbers: dict[str, int] = {}
    vectors = published or {}

    def report(text: str) -> Report:
        return Report(numbers.setdefault(text, 101 + len(numbers)), text, "en", vectors.get(text))

    incidents = [
        Incident(each, f"Incident {each}", f"2026-01-{each % 28 + 1:02}", tuple(map(report, texts[each])))
        for each in sorted(texts)
    ]
    return Database(tuple(incidents), dict(duplicates or {}), frozenset(dissimilar), SNAPSHOT)


@contextmanager
def computer(encoder: TextEncoder, path: Path = IN_MEMORY) -> Iterator[Computer]:
    with VectorStore(path) as store:
        yield Computer(encoder, store)
