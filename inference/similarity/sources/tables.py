"""Rows of CSV tables. What the columns mean is left to `csv_files` and `state_files`."""

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

from similarity.sources.archive import Content
from similarity.sources.problems import Problems, SourceError, reading

Row = dict[str, str]

# Bytes that aren't UTF-8 have been read as lone surrogates, which no UTF-8 text has.
_NOT_UTF8 = re.compile("[\ud800-\udfff]")


def read_rows(
    open_it: Callable[[], Content],
    name: str,
    columns: Sequence[str],
    problems: Problems,
    optional: Sequence[str] = (),
) -> Iterator[tuple[int, Row]]:
    """The rows of a CSV with the line each ends in. Bad ones are reported and left out.

    A row has the `columns`, and those of the `optional` ones that the table has.

    Doubled backslashes are undone in a table of AIID's job, which has written reports.csv since 26 March 2025 with
    `csv.writer(quoting=csv.QUOTE_ALL, escapechar="\\\\")`. That writer quotes every field, the header's too, and writes
    each backslash twice, so no run of backslashes has an odd length. A table counts as the job's when its header is
    quoted and it has no such run. mongoexport doesn't quote a header. Other programs that quote everything (pandas,
    LibreOffice) write a backslash once; the first single one, as in Markdown's `\\_`, gives them away.

    Raises SourceError.
    """
    # The default limit of 131,072 characters a field is less than the longest report.
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
            raise SourceError(f"{name} has no column {', '.join(absent)}; its first line must name them.")
        places = {column: header.index(column) for column in (*columns, *optional) if column in header}
        doubled = first_line.rstrip("\r\n") == ",".join(f'"{column}"' for column in header)
        held: deque[tuple[int, Row]] = deque()
        for line, fields in _whole_rows(reader, len(header), name, problems):
            row = {column: fields[place] for column, place in places.items()}
            if any(map(_NOT_UTF8.search, row.values())):
                problems.report(name, line, "not valid UTF-8")
            elif doubled:
                # Only the whole table tells whether they are doubled.
                held.append((line, row))
                doubled = not any("\\" in field.replace("\\\\", "") for field in fields)
            else:
                while held:
                    yield held.popleft()
                yield line, row
        while held:  # Each is let go as soon as it is passed on: a table takes much memory.
            line, row = held.popleft()
            yield line, {column: value.replace("\\\\", "\\") for column, value in row.items()} if doubled else row


def _whole_rows(reader: Any, size: int, name: str, problems: Problems) -> Iterator[tuple[int, list[str]]]:
    """The rows of a csv.reader that are valid CSV and have `size` fields, with the line each ends in."""
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problems.report(name, reader.line_num, f"not valid CSV: {error}")
            continue
        if len(fields) == size:
            yield reader.line_num, fields
        elif fields:
            problems.report(name, reader.line_num, f"{len(fields)} fields instead of {size}")


def is_text(path: Path) -> bool:
    """Whether a file may be a table: text, going by its first bytes, where archives and tensors have zeros.

    Raises SourceError.
    """
    with reading(path.name), path.open("rb") as file:
        return b"\0" not in file.read(4096)
