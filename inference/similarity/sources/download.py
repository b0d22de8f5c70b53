"""Downloads a snapshot into a folder, and keeps it there for the next run. A download that was cut off is resumed.

Until the file is whole, there is FILE.partial with its first bytes, and FILE.partial.json with its URL and version.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from similarity.sources.page import Snapshot
from similarity.sources.problems import SourceError
from similarity.sources.web import UnreachableError, get, read

# Takes the bytes that have come, and the bytes of the whole file; None if the server doesn't say.
Progress = Callable[[int, int | None], None]

# AIID's snapshots have about 100 MB.
MAX_DOWNLOAD_BYTES = 2 * 1024**3

# The pause before each further try.
PAUSES_S = (1, 2, 4, 8, 16)

_BZIP2 = b"BZh"
_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]+/([0-9]{1,18})", re.ASCII)


def download(
    snapshot: Snapshot,
    folder: Path,
    progress: Progress | None = None,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> Path:
    """The path of the snapshot's file in `folder`. An earlier run has left it there, or it is downloaded.

    progress: is called with each piece that comes. sleep: waits some seconds before a further try.
    Raises SourceError if the server can't be reached or sends something else, if the file is larger than
    MAX_DOWNLOAD_BYTES or can't be written, or if another process is downloading it.
    """
    path = folder / snapshot.name
    if path.is_file():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _Partial(path) as partial:
            if path.is_file():  # Another process was quicker.
                return path
            for pause_s in (*PAUSES_S, None):
                try:
                    partial.fetch(snapshot.url, progress)
                    break
                except UnreachableError:
                    if pause_s is None:
                        raise
                    sleep(pause_s)
            partial.finish()
    except OSError as error:
        raise SourceError(f"{path} can't be written: {error.strerror or error}.") from error
    return path


class _Partial:
    """The first bytes of a file. One process at a time adds more."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(path.name + ".partial")
        self._about = path.with_name(path.name + ".partial.json")

    def __enter__(self) -> _Partial:
        self._file: IO[bytes] = self._partial.open("ab")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # The lock ends with the process.
        except BlockingIOError as error:
            self._file.close()
            raise SourceError(f"another process is downloading {self._path}; wait until it ends.") from error
        return self

    def __exit__(self, *_: object) -> None:
        with self._file:
            if not self._size():
                self._discard()

    def fetch(self, url: str, progress: Progress | None) -> None:
        """Requests the missing bytes and adds them to the file.

        Raises UnreachableError if bytes are still missing, SourceError if another request wouldn't help.
        """
        start = self._size()
        version = self._version(url) if start else ""
        # With If-Range, a server sends the rest if the file hasn't changed, and otherwise the whole file.
        headers = {"Range": f"bytes={start}-", "If-Range": version} if version else {}
        with self._answer(url, headers) as response:
            total = self._place(response, url, start, version)
            done = self._size()
            if progress:
                progress(done, total)
            while piece := read(response, 1 << 16):
                done += len(piece)
                self._require_size(url, done)
                self._file.write(piece)
                if progress:
                    progress(done, total)
            self._file.flush()
        if total is not None and done != total:
            raise UnreachableError(f"{url} was cut off: {done:,} of {total:,} bytes came.")

    def finish(self) -> None:
        """Renames the whole file to its final name. Raises SourceError if it isn't a bzip2 file, OSError."""
        with self._partial.open("rb") as file:
            if file.read(len(_BZIP2)) != _BZIP2:
                self._discard()
                raise SourceError(f"{self._path.name} isn't a bzip2 file; the server sent another file instead.")
        os.fsync(self._file.fileno())
        self._partial.replace(self._path)
        self._about.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _answer(self, url: str, headers: dict[str, str]) -> Iterator[Any]:
        try:
            with get(url, headers) as response:
                yield response
        except SourceError as error:
            # 416: the file on the server has no bytes beyond ours. So our bytes aren't from that file.
            if headers and getattr(error.__cause__, "code", None) == 416:
                self._file.truncate(0)
                raise UnreachableError(str(error)) from error
            raise

    def _place(self, response: Any, url: str, start: int, version: str) -> int | None:
        """Cuts the partial file to the start of the answer. Returns the size of the whole file, None if unknown."""
        if response.status == 206:
            found = _RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
            same = _version_of(response.headers) in (version, "")
            if not version or not found or int(found[1]) != start or not same:
                self._file.truncate(0)
                raise UnreachableError(
                    f"{url} can't be resumed: its server sent another part of the file than the missing one."
                )
            total: int | None = int(found[2])
        else:
            self._file.truncate(0)
            self._about.write_text(json.dumps({"url": url, "version": _version_of(response.headers)}))
            total = response.length
            if total is None and not response.chunked:
                raise SourceError(f"{url} can't be fetched: its server doesn't say how long the file is.")
        self._require_size(url, total or 0)
        return total

    def _require_size(self, url: str, size: int) -> None:
        if size > MAX_DOWNLOAD_BYTES:
            self._discard()
            raise SourceError(f"{url} has more than {MAX_DOWNLOAD_BYTES:,} bytes, too many for a snapshot.")

    def _size(self) -> int:
        self._file.flush()
        return os.fstat(self._file.fileno()).st_size

    def _version(self, url: str) -> str:
        """The server's name for the version of the partial file; "" if the download can't be resumed."""
        try:
            about = json.loads(self._about.read_bytes())
        except (OSError, ValueError, RecursionError):
            return ""
        version = about.get("version") if isinstance(about, dict) and about.get("url") == url else ""
        return version if isinstance(version, str) and version.isascii() and version.isprintable() else ""

    def _discard(self) -> None:
        self._partial.unlink(missing_ok=True)
        self._about.unlink(missing_ok=True)


def _version_of(headers: Any) -> str:
    """The ETag, or the time of the last change. A weak ETag isn't used: files with the same one may differ in bytes."""
    tag: str = headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")
