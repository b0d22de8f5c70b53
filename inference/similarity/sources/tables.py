"""Rows of CSV tables, wherever they are: by themselves, or in a folder, zip or tar.

What the columns mean is left to `sources`.
"""

from __future__ import annotations

import csv
import io
import lzma
import os
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, Any, TypeVar

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
    """The rows of a CSV with the line each ends in, `columns` only. Bad ones are reported and left out.

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
        places = {column: header.index(column) for column in columns}
        doubled = first_line.rstrip("\r\n") == ",".join(f'"{column}"' for column in header)
        held: list[tuple[int, Row]] = []
        for line, fields in _whole_rows(reader, len(header), name, problems):
            row = {column: fields[place] for column, place in places.items()}
            # Bytes that aren't UTF-8 have been read as lone surrogates, which no UTF-8 text has.
            if any("\ud800" <= character <= "\udfff" for value in row.values() for character in value):
                problems.report(name, line, "not valid UTF-8")
            elif doubled:
                # Only the whole table tells whether they are doubled.
                held.append((line, row))
                doubled = not any("\\" in field.replace("\\\\", "") for field in fields)
            else:
                yield from held
                held.clear()
                yield line, row
        for line, row in held:
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
    """What opens a file of the snapshot by its name, wherever in folder or archive it is. Raises SourceError.

    Symbolic links in a folder are followed; links in an archive aren't, since they may lead out of it. Nothing is
    unpacked, so it doesn't matter where an archive says that its files belong.
    """
    with reading(path.name):
        if path.is_dir():
            return lambda name: _open_in_folder(path, name)
        if zipfile.is_zipfile(path):
            return lambda name: _open_in_zip(path, name)
        if path.exists() and tarfile.is_tarfile(path):
            return lambda name: _open_in_tar(path, name)
    raise SourceError(f"{path} isn't a folder, zip, tar or CSV file (in UTF-8), or it is cut off.")


def _open_in_folder(path: Path, name: str) -> IO[bytes]:
    found: dict[Path, tuple[str, Path]] = {}
    dangling: list[str] = []
    visited: set[Path] = set()
    for parent, folders, files in os.walk(path, followlinks=True):
        folder = Path(parent).resolve()
        if folder in visited:
            folders.clear()  # A link leads back here.
            continue
        visited.add(folder)
        for file in (Path(parent, file) for file in sorted(files)):
            if _is(file.name, name) and file.is_file():
                found[file.resolve()] = (str(file.relative_to(path)), file)
            elif file.is_symlink() and not file.exists():
                dangling.append(str(file.relative_to(path)))
    return _only(sorted(found.values()), name, path, dangling, "is a symbolic link that leads nowhere").open("rb")


_LINK_IN_ARCHIVE = (
    "is a link, and links in an archive aren't followed: pack the files themselves "
    "(tar --dereference --hard-dereference, zip without --symlinks)"
)


@contextmanager
def _open_in_zip(path: Path, name: str) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(path) as archive:
        links = [member.filename for member in archive.infolist() if stat.S_ISLNK(member.external_attr >> 16)]
        files = [(n, n) for n in archive.namelist() if _is(n, name) and n not in links]
        with archive.open(_only(files, name, path, links, _LINK_IN_ARCHIVE)) as file:
            yield file


@contextmanager
def _open_in_tar(path: Path, name: str) -> Iterator[IO[bytes]]:
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        links = [member.name for member in members if member.issym() or member.islnk()]
        files = [(member.name, member) for member in members if member.isreg() and _is(member.name, name)]
        member = _only(files, name, path, links, _LINK_IN_ARCHIVE)
        # gzip's checksum stands at its very end, behind what tarfile reads by itself.
        while archive.fileobj and archive.fileobj.read(1 << 20):
            pass
        content = archive.extractfile(member)
        assert content is not None
        yield content


def _is(member: str, name: str) -> bool:
    """Whether a member's last part is `name`. Some programs on Windows put backslashes between the parts."""
    return member.replace("\\", "/").rpartition("/")[2] == name


def _only(found: Sequence[tuple[str, T]], name: str, path: Path, links: Sequence[str], about_link: str) -> T:
    """The one file that was found. Where there is none, a link that wasn't followed may be the reason."""
    if len(found) > 1:
        first, second, *_ = (member for member, _ in found)
        raise SourceError(
            f"{path} has {len(found)} files named {name}, e.g. {first!r} and {second!r}; it must have one."
        )
    if found:
        return found[0][1]
    reason = [f"{link!r} {about_link}" for link in sorted(links, key=lambda link: not _is(link, name))[:1]]
    raise SourceError("; ".join([f"{path} has no file named {name}", *reason]) + ".")
