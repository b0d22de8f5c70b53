"""Reads the records of another database into a Database: a CSV or JSON lines, with any columns.

A file whose first character is `{` is JSON lines: an object a line. Any other file is a CSV with commas, whose first
line names the columns. Both are UTF-8. Only the columns that `Columns` names are read, of an object only its own keys.

- Rows with the same id are the reports of one record. A text that repeats within a record counts once. The order of the
  rows is kept.
- Title, description, URL and date are those of the first row that has them.
- null, NaN, an empty value and a missing key are the same: there is no value. In JSON, a number, true or false stands
  for its text. A list or an object can't be used.
- A row without a usable id or text is left out. A URL or date that can't be used is left out, and the row counts.

`build_state.py` decides on the collection's name and the template of its URLs.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from similarity.errors import one_line
from similarity.incidents.collection import require_url
from similarity.sources.database import Database, Incident, Report, Source
from similarity.sources.parts import day, whole_number
from similarity.sources.problems import GroupedProblems, Problems, SourceError, reading
from similarity.sources.tables import not_unicode, read_rows

Part = Literal["id", "text", "title", "description", "url", "date"]
# The column of each part of a record; always of id and text.
Columns = Mapping[Part, str]
_REQUIRED: tuple[Part, ...] = ("id", "text")

# A row: its line, and the values of those columns that it has.
_Row = tuple[int, Mapping[str, Any]]

_BOM = "\ufeff".encode()
# Enough rows to tell that a column has no ids that can be used.
_ENOUGH = 100
# So many columns or forms of dates are named.
_NAMED = 20


def columns_option(value: str) -> Columns:
    """The columns in `id=event_id,text=narrative,…`. A name with a comma stands in double quotes with its part.

    Raises ValueError, whose message is a sentence without its subject.
    """
    columns: dict[Part, str] = {}
    try:
        names = next(csv.reader([value]), [])
    except csv.Error:  # of a line break
        raise ValueError(f"must stand on one line, not {value!r}") from None
    for given in names:
        name, equals, column = given.partition("=")
        part = next((each for each in get_args(Part) if each == name.strip()), None)
        if part is None or not equals or not column:
            raise ValueError(f"must be a list such as id=…,text=… of {', '.join(get_args(Part))}, not {given!r}")
        if part in columns:
            raise ValueError(f"must have {part} once")
        if column in columns.values():
            raise ValueError(f"must use the column {column!r} once")
        columns[part] = column
    for part in _REQUIRED:
        if part not in columns:
            raise ValueError(f"must say which column is the {part}: {part}=…")
    return columns


def read_records(
    path: Path, columns: Columns, problems: Problems, *, collection: str, record_url: str = "", licence: str = ""
) -> Database:
    """All records in `path` with a usable id and text, in ascending order of id.

    Rows that can't be used are reported to `problems`: a sentence for each reason. Raises SourceError if the file can't
    be read, lacks one of the columns, or has no usable record.
    """
    name = path.name
    grouped = GroupedProblems()
    try:
        rows = _json_rows if _is_json_lines(path) else _csv_rows
        found = _Found(name, columns, grouped)
        for line, row in rows(path, columns, grouped):
            found.add(line, row)
        incidents = found.incidents()
    finally:
        grouped.release(problems)
    return Database(
        incidents,
        {},
        frozenset(),
        Source("other", name),
        collection=collection,
        record_url=record_url,
        licence=licence,
    )


def _is_json_lines(path: Path) -> bool:
    """Raises SourceError for a file that is neither JSON lines nor a table."""
    with reading(path.name), path.open("rb") as file:
        start = file.read(4096).removeprefix(_BOM).lstrip()
    if b"\0" in start.partition(b"\n")[0]:  # A zero byte further on may be a slip in a text.
        raise SourceError(
            f"{path.name} isn't text in UTF-8: unpack an archive, and save a spreadsheet as CSV in UTF-8."
        )
    if re.match(rb"\[\s*(\{|$)", start):
        raise SourceError(
            f"{path.name} is one JSON list; write each of its objects on a line, e.g. with: jq -c '.[]' {path.name}"
        )
    return start.startswith(b"{")


def _csv_rows(path: Path, columns: Columns, problems: Problems) -> Iterator[_Row]:
    return read_rows(lambda: path.open("rb"), path.name, list(columns.values()), problems, doubled_backslashes=False)


def _json_rows(path: Path, columns: Columns, problems: Problems) -> Iterator[_Row]:
    absent = set(columns.values())
    keys: dict[str, None] = {}
    with reading(path.name), path.open("rb") as file:
        for line, content in enumerate(file, start=1):
            content = (content.removeprefix(_BOM) if line == 1 else content).strip()
            if not content:
                continue
            try:
                row = json.loads(content.decode(), parse_constant=lambda _: None)
            except UnicodeDecodeError:
                problems.report(path.name, line, "not valid UTF-8")
            except json.JSONDecodeError as error:
                problems.report(path.name, line, f"not valid JSON: {error.msg}, character {error.pos + 1:,}")
            except (ValueError, RecursionError) as error:  # a number of thousands of digits, deep nesting
                problems.report(path.name, line, f"not usable JSON: {error}")
            else:
                if not isinstance(row, dict):
                    problems.report(path.name, line, f"{_kind(row)} instead of an object")
                    continue
                absent.difference_update(row)
                if len(keys) < _NAMED:
                    keys |= dict.fromkeys(row)
                yield line, row
    if absent:
        lacking = ", ".join(column for column in columns.values() if column in absent)
        has = one_line(", ".join(list(keys)[:_NAMED])) or "none"
        raise SourceError(f"no object of {path.name} has the key {lacking}; the keys of its first objects: {has}.")


@dataclass(slots=True)
class _Record:
    """A record, as far as it was read. texts: those of the reports, once there are two."""

    title: str = ""
    description: str = ""
    url: str = ""
    date: str = ""
    reports: list[Report] = field(default_factory=list)
    texts: set[str] | None = None

    def add(self, report: Report) -> None:
        if self.reports and self.texts is None:
            self.texts = {each.text for each in self.reports}
        if self.texts is not None:
            if report.text in self.texts:
                return
            self.texts.add(report.text)
        self.reports.append(report)


class _UnusableError(ValueError):
    """A value that isn't a text. The message says its kind."""


class _Found:
    """The records of a file."""

    def __init__(self, name: str, columns: Columns, problems: Problems) -> None:
        self._name, self._columns, self._problems = name, columns, problems
        self._records: dict[int, _Record] = {}
        # Lines of rows with another kind of id, and the first such id.
        self._other_ids: list[int] = []
        self._other_id = ""

    def add(self, line: int, row: Mapping[str, Any]) -> None:
        """Raises SourceError if the ids are of another kind."""
        try:
            given, text = self._text(row, "id").strip(), self._text(row, "text")
        except _UnusableError as error:
            return self._problems.report(self._name, line, str(error))
        if not given:
            return self._problems.report(self._name, line, "there is no id")
        # pandas writes whole numbers in this way once a value is missing in their column.
        incident_id = whole_number(given.removesuffix(".0"))
        if incident_id is None:
            self._other_id = self._other_id or given
            self._other_ids.append(line)
            if not self._records and len(self._other_ids) == _ENOUGH:
                raise self._ids_are_of_another_kind()
            return None
        if not text.strip():
            return self._problems.report(self._name, line, "there is no text")
        record = self._records.setdefault(incident_id, _Record())
        record.add(Report(line, text, ""))
        record.title = record.title or self._optional(line, row, "title", _title)
        record.description = record.description or self._optional(line, row, "description", str.strip)
        record.url = record.url or self._optional(line, row, "url", _url)
        record.date = record.date or self._optional(line, row, "date", _date)
        return None

    def incidents(self) -> tuple[Incident, ...]:
        """Raises SourceError if there are none."""
        if not self._records:
            nothing = SourceError(f"{self._name} has no usable record.")
            raise self._ids_are_of_another_kind() if self._other_ids else nothing
        for line in self._other_ids:
            reason = f"the id isn't a whole number above 0 of up to 18 digits, e.g. {self._other_id!r}"
            self._problems.report(self._name, line, reason)
        incidents = []
        for incident_id in sorted(self._records):
            each = self._records.pop(incident_id)
            incidents.append(
                Incident(incident_id, each.title, each.date, tuple(each.reports), each.description, each.url)
            )
        return tuple(incidents)

    def _text(self, row: Mapping[str, Any], part: Part) -> str:
        """The value of a part; "" without one. Raises _UnusableError."""
        value = row.get(self._columns[part]) if part in self._columns else None
        if value is None:
            return ""
        if isinstance(value, list | dict):
            raise _UnusableError(f"the {part} is {_kind(value)}")
        text = value if isinstance(value, str) else json.dumps(value)
        if not_unicode(text):
            raise _UnusableError(f"the {part} isn't valid Unicode")
        return text

    def _optional(self, line: int, row: Mapping[str, Any], part: Part, read: Callable[[str], str]) -> str:
        """The same of an optional part, read; "" if it can't be used, which is reported."""
        try:
            text = self._text(row, part)
            return read(text) if text.strip() else ""
        except _UnusableError as error:
            self._problems.report(self._name, line, str(error), then=f"the row counts without its {part}")
            return ""

    def _ids_are_of_another_kind(self) -> SourceError:
        return SourceError(
            f"the ids in the column {self._columns['id']!r} of {self._name} aren't whole numbers above 0 of up to 18 "
            f"digits, e.g. {one_line(self._other_id)!r}: number the records, and put their own ids into the column of "
            "their URLs."
        )


def _title(text: str) -> str:
    return " ".join(text.split())


def _url(text: str) -> str:
    url = text.strip()
    try:
        require_url(url)
    except ValueError as error:
        raise _UnusableError(f"the URL {error}") from error
    return url


def _date(text: str) -> str:
    found = day(text)
    if not found:
        # March 4 and May 15 are of one form. GroupedProblems sees to the digits.
        form = re.sub(r"[^\W\d_]+", "a", text.strip()[:30])
        raise _UnusableError(f"the date isn't YYYY-MM-DD or an ISO date-time, but like {form!r}")
    return found


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
