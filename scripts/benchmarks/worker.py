"""A backend of `benchmark.py` in a process of its own: threads of one would spin into the time of the next.

The driver sends requests to all workers in turn, so that what else the machine does strikes all of them alike.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.backends import BACKENDS


@dataclass(frozen=True)
class Timed:
    """What a worker answered, how long that took it, and the most memory that its process has had in use so far."""

    seconds: float
    answer: Any
    peak_mib: float


def _peak_mib() -> float:
    if sys.platform == "linux":  # where getrusage counts what the parent used too
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)


def _serve(connection: Connection, name: str, subject: object) -> None:
    answer = BACKENDS[name](subject)
    connection.send(None)
    while True:
        request, repeat = connection.recv()
        seconds = []
        for _ in range(repeat):
            start = time.perf_counter()
            result = answer(request)
            seconds.append(time.perf_counter() - start)
        connection.send(Timed(statistics.median(seconds), result, _peak_mib()))


class Worker:
    """A backend in a process of its own, which gets its model folder or its number of incidents. A context manager."""

    # Time for the last worker's threads to stop waiting busily for more work.
    SETTLE_S = 0.25

    def __init__(self, name: str, subject: object) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, name, subject), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Worker:
        self._connection.recv()
        return self

    def ask(self, request: object, *, repeat: int = 1) -> Timed:
        """The answer, and the median of the times that it took. Raises EOFError where the worker's process died."""
        time.sleep(self.SETTLE_S)
        self._connection.send((request, repeat))
        timed: Timed = self._connection.recv()
        return timed

    def __exit__(self, *error: object) -> None:
        self._connection.close()
        self._process.terminate()
        self._process.join()
