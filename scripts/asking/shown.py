"""How answers look: for a person, as CSV, as JSON lines. And files that are written whole or not at all."""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from asking.answers import Body
from asking.tables import Form, Row, Table
from similarity.errors import one_line

MATCHES = ("rank", "incident_id", "similarity", "confidence", "match", "title", "date", "url")
REASONS = ("words", "sentence")
# Of a row: what was unexpected, and why it has no answer.
NOTES = ("warnings", "error")

# The key of an answer beside those of a line's object.
ANSWER = "similar"

_VERDICTS = {
    "likely": "A likely match:",
    "possible": "A possible match:",
    "none": "Probably no match. The nearest incidents:",
}


def lines_of(body: Body) -> Iterator[str]:
    """A ranking for a person."""
    if not body["incidents"]:
        yield "No incidents."
        return
    yield _VERDICTS.get(body["match"], "The most similar incidents:")
    for rank, found in enumerate(body["incidents"], start=1):
        confidence = "" if found["confidence"] is None else f", confidence {found['confidence']:.0%}"
        yield ""
        yield f"{rank}. {one_line(found['title'] or 'untitled')}"
        date = f", {found['date']}" if found["date"] else ""
        yield f"   incident {found['incident_id']}{date}: similarity {found['similarity']:.4f}{confidence}"
        if found["url"]:
            yield f"   {found['url']}"
        if why := found.get("why"):
            words = ", ".join(map(one_line, why["words"]))
            if words:
                yield f"   words: {words}"
            if why["sentence"]:
                yield f"   sentence: {one_line(why['sentence'])}"


class CsvWriter:
    """A line for each match: the row's columns, then those of the match. A row without a match has a line too."""

    def __init__(self, file: TextIO, table: Table, *, explain: bool) -> None:
        self._writer = csv.writer(file, lineterminator="\n")
        self._table = table
        self._names = (*MATCHES, *(REASONS if explain else ()), *NOTES)
        self._writer.writerow([*table.columns, *(_free(name, table.columns) for name in self._names)])

    def write(self, row: Row, body: Body) -> None:
        given = row.fields if self._table.form == "csv" else [_cell(row.record.get(c)) for c in self._table.columns]
        notes = {"warnings": " ".join(body["warnings"]), "match": body.get("match")}
        if "code" in body:
            notes["error"] = body["msg"]
        for rank, found in enumerate(body.get("incidents") or [{}], start=1):
            why = found.get("why") or {"words": [], "sentence": None}
            cells = {**found, **notes, "words": " ".join(why["words"]), "sentence": why["sentence"]}
            if found:
                cells["rank"] = rank
            self._writer.writerow([*given, *(cells.get(name) for name in self._names)])


class JsonLinesWriter:
    """A line for each row: its object, with the answer under a further key."""

    def __init__(self, file: TextIO, table: Table) -> None:
        self._file = file
        self._table = table
        self._key = _free(ANSWER, table.columns)

    def write(self, row: Row, body: Body) -> None:
        # A line of JSON stays as it came, since numbers may look otherwise once they are read and written.
        given = row.source or json.dumps(dict(zip(self._table.columns, row.fields, strict=True)))
        separator = "" if row.source and not row.record else ", "
        self._file.write(f"{given[:-1]}{separator}{json.dumps(self._key)}: {json.dumps(body, allow_nan=False)}}}\n")


def writer(file: TextIO, form: Form, table: Table, *, explain: bool) -> CsvWriter | JsonLinesWriter:
    return CsvWriter(file, table, explain=explain) if form == "csv" else JsonLinesWriter(file, table)


def _free(name: str, taken: Collection[str]) -> str:
    """`name`, or with a prefix if a column has that name already."""
    while name in taken:
        name = f"similar_{name}"
    return name


def _cell(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


@contextmanager
def written_whole(path: Path) -> Iterator[TextIO]:
    """A text file, UTF-8, that gets its name once all is written. If anything is raised, an older file stays.

    A link stays too: it's the file that the link leads to.
    """
    path = Path(os.path.realpath(path))
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with open_text(descriptor) as file:
            yield file
            file.flush()
            os.fsync(descriptor)
        umask = os.umask(0)
        os.umask(umask)
        # mkstemp makes a file that only its owner can read.
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def open_text(descriptor: int) -> TextIO:
    """UTF-8; a lone surrogate, which JSON may have, becomes an escape."""
    return os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace", newline="")
