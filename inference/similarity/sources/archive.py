"""Finds the files of a snapshot in a folder, a zip, or a tar with any compression.

A tar is read once, from its first byte to its last. Nothing is unpacked to disk. `tables` and `documents` read the
content of the files.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from similarity.sources.problems import SourceError, reading

Content = AbstractContextManager[IO[bytes]]

# AIID's largest file, reports.bson, has about 200 MB. A whole snapshot has about 500 MB when it is unpacked.
MAX_FILE_BYTES = 2 * 1024**3
MAX_UNPACKED_BYTES = 8 * 1024**3
# AIID's snapshot has about 60.
MAX_MEMBERS = 10_000
# tarfile reads a header with a long name into memory whole, and believes the size that the header announces.
MAX_HEADER_BYTES = 1024**2

_LINK = (
    "is a link, and links in an archive aren't followed: pack the files themselves "
    "(tar --dereference --hard-dereference, zip without --symlinks)"
)
_DANGLING = "is a symbolic link that leads nowhere"

_COMPRESSIONS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile,
    b"\x5d\0\0": lzma.LZMAFile,
}


@dataclass(frozen=True)
class Member:
    """A file of a snapshot.

    name: its path in the folder or archive.
    open: opens it for reading. Close it before you ask for the next member. Raises SourceError if it is too large.
    refused: the reason why it isn't read, as the end of a sentence that starts with its name. "" if it is read.
    """

    name: str
    open: Callable[[], Content]
    refused: str = ""

    @property
    def parts(self) -> list[str]:
        """The parts of its path. Some programs on Windows separate them with backslashes."""
        return self.name.replace("\\", "/").split("/")

    @property
    def leads_elsewhere(self) -> bool:
        """Whether a program that unpacks the archive might write the file outside the archive's folder."""
        return not self.parts[0] or ".." in self.parts or bool(re.match("[A-Za-z]:", self.name))


def members(path: Path) -> Iterator[Member]:
    """The files of a folder or archive, and the links that aren't followed. Raises SourceError.

    Symbolic links in a folder are followed. Links in an archive aren't, because they may lead out of it.
    """
    with reading(path.name):
        if path.is_dir():
            yield from _in_folder(path)
        elif not path.exists():
            raise SourceError(f"{path} doesn't exist.")
        elif zipfile.is_zipfile(path) and not _is_plain_tar(path):
            yield from _in_zip(path)
        elif path.is_file():
            yield from _in_tar(path)
        else:
            raise _no_source(path)


def _no_source(path: Path) -> SourceError:
    return SourceError(f"{path} isn't a folder, zip, tar or CSV file (in UTF-8), or it is cut off.")


def _refuse_large(path: Path, name: str, size: int) -> None:
    if not 0 <= size <= MAX_FILE_BYTES:
        raise SourceError(f"{path} has a file {name!r} of {size:,} bytes; at most {MAX_FILE_BYTES:,} are read.")


def _is_plain_tar(path: Path) -> bool:
    """Whether the file is a tar without compression. If its last file is a zip (.xlsx), zipfile takes it for a zip."""
    with path.open("rb") as file:
        return file.read(262)[257:] == b"ustar"


def _no_content() -> Content:
    raise AssertionError("a member that is refused isn't opened")


def _in_folder(path: Path) -> Iterator[Member]:
    found: dict[Path, Path] = {}
    dangling: list[Path] = []
    visited: set[Path] = set()
    for parent, folders, files in os.walk(path, followlinks=True):
        folder = Path(parent).resolve()
        if folder in visited:
            folders.clear()  # A link leads back here.
            continue
        visited.add(folder)
        for file in (Path(parent, file) for file in sorted(files)):
            if file.is_file():
                found[file.resolve()] = file
            elif file.is_symlink() and not file.exists():
                dangling.append(file)
    for file in sorted(found.values()):
        yield Member(str(file.relative_to(path)), lambda file=file: file.open("rb"))  # type: ignore[misc]
    for file in dangling:
        yield Member(str(file.relative_to(path)), _no_content, _DANGLING)


def _in_zip(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():

            def open_it(info: zipfile.ZipInfo = info) -> Content:
                _refuse_large(path, info.filename, info.file_size)
                return archive.open(info)

            if stat.S_ISLNK(info.external_attr >> 16):
                yield Member(info.filename, _no_content, _LINK)
            elif info.filename and not info.is_dir():  # A damaged zip may have an empty name.
                yield Member(info.filename, open_it)


def _in_tar(path: Path) -> Iterator[Member]:
    with _unpacked(path) as stream:
        content = _Bounded(stream, path)
        try:
            archive = tarfile.open(fileobj=content, mode="r|", tarinfo=_Header)  # type: ignore[call-overload] # noqa: SIM115
        except tarfile.ReadError as error:
            raise _no_source(path) from error
        with archive:
            count = 0
            while (info := archive.next()) is not None:
                archive.members.clear()  # tarfile would keep all headers.
                # tarfile looks for the next header block by block, even beyond the end of the file.
                if archive.offset > MAX_UNPACKED_BYTES:
                    raise _too_much(path)
                count += 1
                if count > MAX_MEMBERS:
                    raise SourceError(f"{path} has more than {MAX_MEMBERS:,} files; a snapshot has about 60.")

                def open_it(info: tarfile.TarInfo = info) -> Content:
                    _refuse_large(path, info.name, info.size)
                    return io.BufferedReader(_InTar(archive, info))

                if info.issym() or info.islnk():
                    yield Member(info.name, _no_content, _LINK)
                elif info.isreg():
                    yield Member(info.name, open_it)
            _require_end(archive, path)


def _require_end(archive: Any, path: Path) -> None:
    """Reads the rest of a tar's bytes. Raises SourceError if the tar doesn't end as it must.

    A tar ends with zeros. tarfile doesn't notice if a tar is cut off between two files, or if a header is damaged. The
    compression may have a checksum behind the zeros, so all bytes are read.
    """
    if archive.fileobj.tell() < archive.offset + tarfile.BLOCKSIZE:
        raise SourceError(f"{path} is cut off: a tar ends with zeros, but this one ends with a file.")
    while rest := archive.fileobj.read(1 << 20):
        if rest.count(0) != len(rest):
            raise SourceError(f"{path} is damaged: there is no readable header where a file should begin.")


def _too_much(path: Path) -> SourceError:
    return SourceError(f"{path} has more than {MAX_UNPACKED_BYTES:,} bytes when it is unpacked.")


def _unpacked(path: Path) -> Any:
    """The bytes of a tar without its compression, as a stream.

    tarfile can decompress too. But it skips gzip's checksum. Of a bzip2 file in several parts, it reads only the first.
    """
    with path.open("rb") as file:
        start = file.read(8)
    for magic, open_it in _COMPRESSIONS.items():
        if start.startswith(magic):
            return open_it(path)
    return path.open("rb")


class _InTar(io.RawIOBase):
    """A file in a tar that is read as a stream. TextIOWrapper needs `seekable`, but tarfile's own object lacks it."""

    def __init__(self, archive: tarfile.TarFile, info: tarfile.TarInfo) -> None:
        file = archive.extractfile(info)
        assert file is not None  # It is None for a folder.
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._file.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)


class _Bounded:
    """A stream that raises SourceError after MAX_UNPACKED_BYTES. After an error, each read raises that error again."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream, self._path = stream, path
        self._left = MAX_UNPACKED_BYTES
        self._error: Exception | None = None

    def read(self, size: int) -> bytes:
        if self._error:
            raise self._error
        try:
            content = self._stream.read(size)
            self._left -= len(content)
            if self._left < 0:
                raise _too_much(self._path)
        except Exception as error:
            self._error = error
            raise
        return content


class _Header(tarfile.TarInfo):
    """A header of at most MAX_HEADER_BYTES."""

    _METADATA = (
        tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK
    )  # fmt: skip

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        if self.type in self._METADATA and self.size > MAX_HEADER_BYTES:
            raise tarfile.TarError(f"a header has {self.size:,} bytes; at most {MAX_HEADER_BYTES:,} are read")
        return super()._proc_member(archive)  # type: ignore[misc]
