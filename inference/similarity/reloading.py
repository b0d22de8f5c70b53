"""A value loaded from files: at first use, and again when the files change, so that no new file needs a restart.

A file that can't be loaded is an error for as long as nothing good has been loaded; afterwards what was loaded before
serves on. What loading means is the caller's to say.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

# A failure may pass without the file changing (a network file system that hangs), but is not worth a try per request.
RETRY_S = 1.0

_Stat = tuple[int, int, int] | None


class FromFiles(Generic[T]):
    """Safe to use from several threads: those that ask while it loads wait for that one load."""

    def __init__(self, paths: Sequence[Path], load: Callable[[], T]) -> None:
        self._paths = paths
        self._load = load
        self._lock = Lock()
        self._seen: tuple[_Stat, ...] | None = None
        self._value: T | None = None
        self._error: Exception | None = None
        self._failed_at = 0.0

    def get(self) -> T:
        """The value of the newest files that could be loaded. Raises what loading raised where none could be yet."""
        with self._lock:
            now = tuple(_stat(path) for path in self._paths)
            may_retry = self._error is not None and time.monotonic() - self._failed_at > RETRY_S
            if now != self._seen or may_retry:
                self._seen = now
                self._try_load()
            if self._value is None:
                assert self._error is not None
                raise self._error.with_traceback(None)
            return self._value

    def _try_load(self) -> None:
        try:
            self._value = self._load()
            self._error = None
        except Exception as error:
            self._error = error
            self._failed_at = time.monotonic()
            if self._value is not None:
                cause = getattr(error, "detail", error)
                log.error("keeping what was loaded before: %s: %s", type(error).__name__, cause)


def _stat(path: Path) -> _Stat:
    """Differs whenever the file is replaced, rewritten, made or removed."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
