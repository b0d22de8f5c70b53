"""How much memory a process has, as Linux tells it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from threading import Event, Thread

_A_SECOND = 2
# Two new states come in this time.
LEVEL_S = 10


def resident_kb(pid: int) -> int:
    """The resident set (RSS) in kB, with the parts of files that are mapped into memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError(f"process {pid} has ended")


@contextmanager
def watching(pid: int) -> Iterator[list[int]]:
    """Looks twice a second. Gives what it has seen so far, in kB."""
    seen, end = [resident_kb(pid)], Event()

    def run() -> None:
        while not end.wait(1 / _A_SECOND):
            seen.append(resident_kb(pid))

    thread = Thread(target=run)
    thread.start()
    try:
        yield seen
    finally:
        end.set()
        thread.join()


def levels_kb(seen_kb: Sequence[int]) -> list[int]:
    """The median of each LEVEL_S: the memory that stays, without that which a new state takes while it is loaded."""
    size = LEVEL_S * _A_SECOND
    return [round(median(seen_kb[start : start + size])) for start in range(0, max(len(seen_kb) - size, 0) + 1, size)]
