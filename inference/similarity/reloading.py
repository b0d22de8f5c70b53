"""A value loaded from files: at first use, and again when the files change, so that a new file needs no restart.

As long as nothing good has been loaded, a file that can't be loaded is an error. Later the last good value serves on,
unless it is asked for the present files alone.
How to load is left to the caller.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from traceback import clear_frames
from types import TracebackType
from typing import Generic, TypeVar

from similarity.errors import SimilarityError, reason_of

log = logging.getLogger(__name__)

T = TypeVar("T")

# Files that can't be loaded are tried again although they haven't changed: a network file system may have hung. The
# pause between two tries doubles from the first number to the second.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 300.0

_Stat = tuple[int, int, int] | None


class FromFiles(Generic[T]):
    """Safe to use from several threads.

    Threads that ask during the first load wait for it. Those that ask while another thread loads a replacement get the
    value from before.

    keeps_last: the last good value serves on if newer files can't be loaded. Without it, that is an error.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        load: Callable[[], T],
        *,
        keeps_last: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._paths = paths
        self._load = load
        self._keeps_last = keeps_last
        self._clock = clock
        self._lock = Lock()
        self._seen: tuple[_Stat, ...] | None = None
        self._value: T | None = None
        self._error: Exception | None = None
        self._traceback: TracebackType | None = None
        self._reason_logged = ""
        self._pause_s = FIRST_PAUSE_S
        self._next_try_s = 0.0

    @property
    def last(self) -> T | None:
        """The value that was loaded last, without a look at the files; None before the first."""
        return self._value

    def get(self) -> T:
        """The value of the newest files that could be loaded. Raises the error of loading if none could be so far."""
        value = self._value
        if not self._lock.acquire(blocking=value is None):
            assert value is not None
            return value
        try:
            now = tuple(_stat(path) for path in self._paths)
            if now != self._seen:
                self._pause_s, self._reason_logged = FIRST_PAUSE_S, ""
                self._try_load()
                self._seen = now
            elif self._error is not None and self._clock() >= self._next_try_s:
                self._try_load()
            if self._value is None:
                assert self._error is not None
                # The error is raised again and again, and each time it would collect more frames.
                raise self._error.with_traceback(self._traceback)
            return self._value
        finally:
            self._lock.release()

    def _try_load(self) -> None:
        try:
            self._value = self._load()
            self._error = self._traceback = None
        except Exception as error:
            self._next_try_s = self._clock() + self._pause_s
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
            if not self._keeps_last:
                self._value = None
            elif self._value is not None:
                self._log_refusal(error)
            _forget_locals(error)
            self._error, self._traceback = error, error.__traceback__

    def _log_refusal(self, error: Exception) -> None:
        """Logs each reason once for the same files."""
        reason = reason_of(error)
        if reason != self._reason_logged:
            self._reason_logged = reason
            unforeseen = None if isinstance(error, SimilarityError) else error
            log.error("keeping what was loaded before", extra={"reason": reason}, exc_info=unforeseen)


def _forget_locals(error: BaseException | None) -> None:
    """Frees what the frames of an error's traceback hold, perhaps hundreds of MB of weights. Their lines stay."""
    while error is not None:
        clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _stat(path: Path) -> _Stat:
    """Differs whenever the file is replaced, rewritten, made or removed."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
