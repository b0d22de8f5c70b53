"""Reads rows of CSV tables: single files, or files in a folder, zip or tar.

`similarity.sources.snapshot` knows the meaning of the columns.
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
    """The source can't be used. The message is one sentence."""


class Problems:
    """Counts the bad rows, and reports each on stderr with its line."""

    def __init__(self) -> None:
        self.count = 0

    def report(self, file: str, line: int, what: str) -> None:
        self.count += 1
        print(f"{file}, line {line}: {what}; skipped", file=sys.stderr)


def read_rows(
    open_it: Callable[[], Content], name: str, columns: Sequence[str], problems: Problems
) -> Iterator[tuple[int, Row]]:
    """The rows of a CSV, each with the line in which it ends. They have only `columns`. Bad rows are reported.

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
            raise SourceError(f"{name} has no column {', '.join(absent)}; its first line must name them.")
        places = {column: header.index(column) for column in columns}
        doubled = first_line.rstrip("\r\n") == ",".join(f'"{column}"' for column in header)
        held: list[tuple[int, Row]] = []
        for line, fields in _whole_rows(reader, len(header), name, problems):
            row = {column: fields[place] for column, place in places.items()}
            # Bytes that aren't UTF-8 were read as lone surrogates, which valid UTF-8 doesn't contain.
            if any("\ud800" <= character <= "\udfff" for value in row.values() for character in value):
                problems.report(name, line, "not valid UTF-8")
            elif doubled:
                # Whether backslashes are doubled is known only at the end of the table.
                held.append((line, row))
                doubled = not any("\\" in field.replace("\\\\", "") for field in fields)
            else:
                yield from held
                held.clear()
                yield line, row
        for line, row in held:
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
        if len(fields) == size:
            yield reader.line_num, fields
        elif fields:
            problems.report(name, reader.line_num, f"{len(fields)} fields instead of {size}")


@contextmanager
def reading(name: str) -> Iterator[None]:
    try:
        yield
    # RuntimeError: a zip has a password, or a compression that zipfile doesn't know.
    except (
        OSError, EOFError, csv.Error, zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, RuntimeError
    ) as error:  # fmt: skip
        raise SourceError(f"{name} can't be read: {error}") from error


def is_text(path: Path) -> bool:
    """Whether a file may be a table: the start of an archive or state has zero bytes, text doesn't.

    Raises SourceError.
    """
    with reading(path.name), path.open("rb") as file:
        return b"\0" not in file.read(4096)


def snapshot_opener(path: Path) -> Callable[[str], Content]:
    """A function that opens a file of the snapshot by its name, at any depth of the folder or archive.

    Symbolic links in a folder are followed. Links in an archive aren't, because they may lead out of it. Nothing is
    unpacked, so hostile paths in an archive do no harm. Raises SourceError.
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
            folders.clear()  # a link leads back to this folder
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
        # tarfile stops before gzip's checksum at the end. Reading the rest checks it.
        while archive.fileobj and archive.fileobj.read(1 << 20):
            pass
        content = archive.extractfile(member)
        assert content is not None
        yield content


def _is(member: str, name: str) -> bool:
    """Whether the last part of a member's path is `name`. Some Windows programs separate the parts by backslashes."""
    return member.replace("\\", "/").rpartition("/")[2] == name


def _only(found: Sequence[tuple[str, T]], name: str, path: Path, links: Sequence[str], about_link: str) -> T:
    """The only file that was found. If there is none, the error names a link, because that may be the cause."""
    if len(found) > 1:
        first, second, *_ = (member for member, _ in found)
        raise SourceError(
            f"{path} has {len(found)} files named {name}, e.g. {first!r} and {second!r}; it must have one."
        )
    if found:
        return found[0][1]
    reason = [f"{link!r} {about_link}" for link in sorted(links, key=lambda link: not _is(link, name))[:1]]
    raise SourceError("; ".join([f"{path} has no file named {name}", *reason]) + ".")
