"""A lock that many machines share through a network file system, so that of many writers one does the work.

Only that: what they write is safe without it (`similarity.cache`). It rests on O_CREAT | O_EXCL, which NFS does on the
server, and on no flock. The lock's folder holds a file with a number; the file with the highest number is the lock.
Its holder touches it while it makes progress. Whoever finds it untouched for STALE_S, because its holder died or was
frozen, as Lambda does between two requests, takes the next number. Of two that do so at once one gets it, and a holder
that thaws finds its file gone. Numbers are not used again, since the highest is never removed; a holder that is done
sets the time of its file to 0.

Ages are differences between times of files there: clocks of machines differ.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Longer than a write of one chunk takes on a slow file system.
STALE_S = 30.0
_POLL_S = 0.5


class LockError(OSError):
    """The lock is another's, or has become so."""


class Lock:
    """The lock in `folder`, which must exist."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def hold(self, wait_s: float) -> Iterator[Callable[[], None]]:
        """Holds the lock; to be called at least every STALE_S is what it gives.

        That call raises LockError where the lock has been lost. Raises LockError where another has it for longer than
        `wait_s`, and OSError.
        """
        path = self._acquire(wait_s)

        def beat() -> None:
            try:
                os.utime(path)
            except FileNotFoundError as error:
                raise LockError(f"the lock {path.name} was taken over") from error

        try:
            yield beat
        finally:
            with suppress(OSError):
                os.utime(path, (0, 0))

    def _acquire(self, wait_s: float) -> Path:
        deadline = time.monotonic() + wait_s
        while True:
            highest = max(self._numbers(), default=0)
            if highest == 0 or self._is_free(self._path(highest)):
                path = self._path(highest + 1)
                if _create(path):
                    # A listing may come from the client's memory: with ours in it, it is new.
                    numbers = self._numbers()
                    if max(numbers) == highest + 1:
                        self._remove_below(highest + 1, numbers)
                        return path
                    path.unlink(missing_ok=True)
                continue
            if time.monotonic() >= deadline:
                raise LockError(f"the lock {highest} is another's")
            time.sleep(min(_POLL_S, max(0.0, deadline - time.monotonic())))

    def _path(self, number: int) -> Path:
        return self._folder / str(number)

    def _numbers(self) -> list[int]:
        return [int(name) for name in os.listdir(self._folder) if name.isdecimal()]  # noqa: PTH208 (names alone)

    def _remove_below(self, number: int, numbers: list[int]) -> None:
        for lower in numbers:
            if lower < number:
                self._path(lower).unlink(missing_ok=True)

    def _is_free(self, path: Path) -> bool:
        try:
            # Opening makes an NFS client ask the server; a stat alone may be answered from memory.
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            touched = os.fstat(descriptor).st_mtime
        finally:
            os.close(descriptor)
        return touched <= 0 or server_time(self._folder) - touched > STALE_S


def server_time(folder: Path) -> float:
    """Now, in seconds since 1970, by the clock of the file server, which a new file in `folder` tells."""
    path = folder / f".time-{uuid.uuid4().hex}"
    _create(path)
    try:
        return path.stat().st_mtime
    finally:
        path.unlink(missing_ok=True)


def _create(path: Path) -> bool:
    """Makes an empty file; False where there is one."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    except FileExistsError:
        return False
    return True
