"""Rows of CSV tables, wherever they are: by themselves, or in a folder, zip or tar.

What the columns mean is left to `sources`.
"""

from __future__ import annotations

import csv
import io
import lzma
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, TypeVar

Row = dict[str, str]
Content = AbstractContextManager[IO[bytes]]
T = TypeVar("T")


class SourceError(Exception):
    """The source can't be used, in one sentence."""


class Problems:
    """Counts the bad rows and says of each where it is."""

    def __init__(self) -> None:
        self.count = 0

    def report(self, file: str, line: int, what: str) -> None:
        self.count += 1
        print(f"{file}, line {line}: {what}; skipped", file=sys.stderr)


def read_rows(
    open_it: Callable[[], Content], name: str, columns: Sequence[str], problems: Problems
) -> Iterator[tuple[int, Row]]:
    """The rows of a CSV with the line each ends in, `columns` only. Bad ones are reported and left out."""
    # The default limit of 131,072 characters a field is less than the longest report.
    csv.field_size_limit(sys.maxsize)
    with (
        reading(name),
        open_it() as content,
        io.TextIOWrapper(content, encoding="utf-8-sig", errors="surrogateescape", newline="") as file,
    ):
        reader = csv.reader(file, strict=True)
        header = next(reader, [])
        absent = [column for column in columns if column not in header]
        if absent:
            raise SourceError(f"{name} has no column {', '.join(absent)}; its first line has to name them.")
        places = {column: header.index(column) for column in columns}
        while True:
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                problems.report(name, reader.line_num, f"not valid CSV: {error}")
                continue
            if not fields:
                continue
            if len(fields) != len(header):
                problems.report(name, reader.line_num, f"{len(fields)} fields instead of {len(header)}")
                continue
            row = {column: fields[place] for column, place in places.items()}
            # What is no UTF-8 has been read as lone surrogates, which no UTF-8 text has.
            if any("\ud800" <= character <= "\udfff" for value in row.values() for character in value):
                problems.report(name, reader.line_num, "not valid UTF-8")
                continue
            yield reader.line_num, row


@contextmanager
def reading(name: str) -> Iterator[None]:
    try:
        yield
    # RuntimeError: a zip with a password or packed in a way that zipfile doesn't know.
    except (
        OSError, EOFError, csv.Error, zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, RuntimeError
    ) as error:  # fmt: skip
        raise SourceError(f"{name} can't be read: {error}") from error


def is_text(path: Path) -> bool:
    """Whether a file may be a table: text, going by its first bytes, where archives and tensors have zeros.

    Raises SourceError.
    """
    with reading(path.name), path.open("rb") as file:
        return b"\0" not in file.read(4096)


def snapshot_opener(path: Path) -> Callable[[str], Content]:
    """What opens a file of the snapshot by its name, wherever in folder or archive it is. Raises SourceError."""
    with reading(path.name):
        if path.is_dir():
            return lambda name: _only(sorted(path.rglob(name)), name, path).open("rb")
        if zipfile.is_zipfile(path):
            return lambda name: _open_in_zip(path, name)
        if path.exists() and tarfile.is_tarfile(path):
            return lambda name: _open_in_tar(path, name)
    raise SourceError(f"{path} isn't a folder, zip, tar or CSV file (in UTF-8), or it is cut off.")


@contextmanager
def _open_in_zip(path: Path, name: str) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(path) as archive:
        member = _only([n for n in archive.namelist() if _is(n, name)], name, path)
        with archive.open(member) as file:
            yield file


@contextmanager
def _open_in_tar(path: Path, name: str) -> Iterator[IO[bytes]]:
    with tarfile.open(path) as archive:
        member = _only([m for m in archive if m.isfile() and _is(m.name, name)], name, path)
        # gzip's checksum stands at its very end, behind what tarfile reads by itself.
        while archive.fileobj and archive.fileobj.read(1 << 20):
            pass
        file = archive.extractfile(member)
        assert file is not None
        yield file


def _is(member: str, name: str) -> bool:
    return member == name or member.endswith("/" + name)


def _only(found: Sequence[T], name: str, path: Path) -> T:
    if len(found) != 1:
        raise SourceError(f"{path} has {len(found)} files named {name}, not one.")
    return found[0]
