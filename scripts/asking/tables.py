"""Reads tables whose rows have a text: CSV, or JSON lines with one object a line.

A table is read twice: first to know that all of it can be read, then to answer it. So nothing is computed for a table
that is broken at its end. What the text of a row is worth is left to `answers`.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from similarity.errors import one_line

Form = Literal["csv", "jsonl"]

# How many columns an error names.
_NAMED = 20
# Bytes that aren't UTF-8 were read as lone surrogates, which valid UTF-8 doesn't contain.
_NOT_UTF8 = re.compile("[\ud800-\udfff]")


class TableError(Exception):
    """The table can't be used. The message is a sentence that names the file, and the line if one is to blame."""


@dataclass(frozen=True)
class Row:
    """A row as it came. text: the value of the column with texts, None if the row lacks it.

    fields: of a CSV. source, record: the line of a JSON lines file, and its object.
    """

    text: object
    fields: Sequence[str] = ()
    source: str = ""
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A table that was read once, to its end. columns: in their order; of JSON lines, the names of all objects."""

    path: Path
    form: Form
    column: str
    columns: Sequence[str]
    rows: int

    @classmethod
    def of(cls, path: Path, column: str) -> Table:
        """Reads a table. Raises TableError or OSError."""
        form = _form(path)
        names: dict[str, None] = {}
        rows = 0
        if form == "csv":
            with _opened(path) as file:
                columns, csv_rows = _csv_rows(path, file, column)
                rows = sum(1 for _ in csv_rows)
        else:
            for row in _json_rows(path, column):
                names.update(dict.fromkeys(row.record))
                rows += 1
            columns = list(names)
            _require_column(path, columns, column)
        return cls(path, form, column, columns, rows)

    def __iter__(self) -> Iterator[Row]:
        """The rows, read anew. Raises TableError or OSError."""
        if self.form == "jsonl":
            yield from _json_rows(self.path, self.column)
            return
        with _opened(self.path) as file:
            columns, rows = _csv_rows(self.path, file, self.column)
            if columns != self.columns:
                raise TableError(f"{self.path} has changed meanwhile.")
            yield from rows

    def require_different_columns(self) -> None:
        """Raises TableError if an object can't have the columns as its keys."""
        twice = [_quoted(name) for name, count in Counter(self.columns).items() if count > 1]
        if twice:
            raise TableError(f"{self.path} has several columns {', '.join(twice)}, and JSON lines can't have them.")


def _opened(path: Path) -> io.TextIOWrapper:
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")


def _form(path: Path) -> Form:
    """JSON lines begin with a brace. No name of a column does."""
    with _opened(path) as file:
        start = ""
        while not start and (piece := file.read(4096)):
            start = piece.lstrip()
    if not start:
        raise TableError(f"{path} is empty.")
    if start[0] == "[":
        raise TableError(f"{path} begins with a bracket, as a JSON list. Write one object a line instead.")
    return "jsonl" if start[0] == "{" else "csv"


def _csv_rows(path: Path, file: io.TextIOWrapper, column: str) -> tuple[list[str], Iterator[Row]]:
    """The columns, and the rows. Empty lines are no rows."""
    # Texts may be longer than the default limit of 131,072 characters.
    csv.field_size_limit(sys.maxsize)
    lines = _csv_lines(path, file)
    _, columns = next(lines, (0, []))
    _require_column(path, columns, column)
    place = columns.index(column)

    def rows() -> Iterator[Row]:
        for line, fields in lines:
            if len(fields) != len(columns):
                raise TableError(f"{path}, line {line}: {len(fields)} fields instead of {len(columns)}.")
            yield Row(fields[place], fields)

    return columns, rows()


def _csv_lines(path: Path, file: io.TextIOWrapper) -> Iterator[tuple[int, list[str]]]:
    """The fields of each line that has any, and the number of the line in which they end."""
    reader = csv.reader(file, strict=True)
    try:
        for fields in reader:
            if any(map(_NOT_UTF8.search, fields)):
                raise _not_utf8(path, reader.line_num)
            if fields:
                yield reader.line_num, fields
    except csv.Error as error:
        raise TableError(f"{path}, line {reader.line_num}: not valid CSV: {one_line(str(error))}.") from error


def _json_rows(path: Path, column: str) -> Iterator[Row]:
    with _opened(path) as file:
        for number, line in enumerate(file, start=1):
            source = line.strip()
            if not source:
                continue
            if _NOT_UTF8.search(source):
                raise _not_utf8(path, number)
            try:
                record = json.loads(source)
            except RecursionError:
                raise TableError(f"{path}, line {number}: not valid JSON: it is nested too deeply.") from None
            except ValueError as error:
                raise TableError(f"{path}, line {number}: not valid JSON: {one_line(str(error))}.") from error
            if not isinstance(record, dict):
                raise TableError(f"{path}, line {number}: not a JSON object.")
            yield Row(record.get(column), source=source, record=record)


def _not_utf8(path: Path, line: int) -> TableError:
    return TableError(f"{path}, line {line}: not valid UTF-8. Save the file as UTF-8.")


def _quoted(name: str) -> str:
    """With quotes, since a name may be empty or begin with a space."""
    return f'"{one_line(name)}"'


def _require_column(path: Path, columns: Sequence[str], column: str) -> None:
    if columns.count(column) == 1:
        return
    if column in columns:
        raise TableError(f"{path} has {columns.count(column)} columns {_quoted(column)}.")
    more = f" and {len(columns) - _NAMED} more" if len(columns) > _NAMED else ""
    has = ", ".join(map(_quoted, columns[:_NAMED]))
    commas = " Commas must separate the columns." if len(columns) == 1 and set(";\t").intersection(columns[0]) else ""
    raise TableError(f"{path} has no column {_quoted(column)}; it has {has}{more}.{commas}")
