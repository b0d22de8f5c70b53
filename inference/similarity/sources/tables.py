"""Reads the rows of CSV tables. `csv_files` and `state_files` know the meaning of the columns."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from similarity.errors import one_line
from similarity.sources.archive import Content
from similarity.sources.problems import Problems, SourceError, reading

Row = dict[str, str]

# Bytes that aren't UTF-8 were read as lone surrogates, which valid UTF-8 doesn't contain.
_SURROGATE = re.compile("[\ud800-\udfff]")
# So many columns are named.
_NAMED = 20


def read_rows(
    open_it: Callable[[], Content],
    name: str,
    columns: Sequence[str],
    problems: Problems,
    optional: Sequence[str] = (),
    *,
    doubled_backslashes: bool = True,
) -> Iterator[tuple[int, Row]]:
    """The rows of a CSV, each with the line in which it ends. Bad rows are reported and left out.

    A row has only `columns`, and those `optional` columns that the table has. Empty fields behind those that the header
    names don't count: MITRE's CSVs end each row with a comma.
    doubled_backslashes: whether the table may be one of AIID's job, see below.

    AIID's job has written reports.csv since 26 March 2025 with `csv.writer(quoting=csv.QUOTE_ALL, escapechar="\\\\")`.
    That writer quotes every field, also of the header, and doubles each backslash. In such a table, doubled backslashes
    become single ones again. It is recognised by its quoted header, and because no run of backslashes has an odd
    length. mongoexport doesn't quote the header. Other programs that quote everything (pandas, LibreOffice) don't
    double backslashes, so a single one, as in Markdown's `\\_`, tells them apart.

    Raises SourceError.
    """
    # The longest report exceeds the default limit of 131,072 characters per field.
    csv.field_size_limit(sys.maxsize)
    with (
        reading(name),
        open_it() as content,
        io.TextIOWrapper(content, encoding="utf-8-sig", errors="surrogateescape", newline="") as file,
    ):
        first_line = file.readline()
        reader = csv.reader(chain([first_line], file), strict=True)
        header = next(reader, [])
        absent = [column for column in columns if column not in header]
        if absent:
            raise SourceError(
                f"{name} has no column {', '.join(absent)}; its first line must name them, separated by commas. It "
                f"names: {one_line(', '.join(header[:_NAMED])) or 'none'}."
            )
        twice = [column for column in columns if header.count(column) > 1]
        if twice:
            raise SourceError(f"{name} has several columns named {', '.join(twice)}; it must have one.")
        places = {column: header.index(column) for column in (*columns, *optional) if column in header}
        quoted = first_line.rstrip("\r\n") == ",".join(f'"{column}"' for column in header)
        doubled = doubled_backslashes and quoted
        held: deque[tuple[int, Row]] = deque()
        for line, fields in _whole_rows(reader, len(header), name, problems):
            row = {column: fields[place] for column, place in places.items()}
            if any(map(not_unicode, row.values())):
                problems.report(name, line, "not valid UTF-8")
            elif doubled:
                # Whether backslashes are doubled is known only at the end of the table.
                held.append((line, row))
                doubled = not any("\\" in field.replace("\\\\", "") for field in fields)
            else:
                while held:
                    yield held.popleft()
                yield line, row
        while held:  # Removed one by one, because a table takes much memory.
            line, row = held.popleft()
            yield line, {column: value.replace("\\\\", "\\") for column, value in row.items()} if doubled else row


def _whole_rows(reader: Any, size: int, name: str, problems: Problems) -> Iterator[tuple[int, list[str]]]:
    """The rows of a csv.reader that are valid and have `size` fields, each with the line in which it ends."""
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problems.report(name, reader.line_num, f"not valid CSV: {error}")
            continue
        while len(fields) > size and not fields[-1]:
            del fields[-1]
        if len(fields) == size:
            yield reader.line_num, fields
        elif fields:
            problems.report(name, reader.line_num, f"{len(fields)} fields instead of {size}")


def not_unicode(text: str) -> bool:
    """Whether a text has lone surrogates, which can't be written as UTF-8."""
    return bool(_SURROGATE.search(text))


def is_text(path: Path) -> bool:
    """Whether a file may be a table: the start of an archive or state has zero bytes, text doesn't.

    Raises SourceError.
    """
    with reading(path.name), path.open("rb") as file:
        return b"\0" not in file.read(4096)
