"""Runs a backend of `benchmark.py` in its own process. In one process, its threads would slow down the next backend.

The driver sends requests to all workers in turn, so that other load on the machine affects all of them alike.
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
    """A worker's answer, the seconds that it took, and the peak memory of the process so far in MiB."""

    seconds: float
    answer: Any
    peak_mib: float


def _peak_mib() -> float:
    if sys.platform == "linux":  # here getrusage includes the parent's memory
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)


def _serve(connection: Connection, name: str, subject: object) -> None:
    answer = BACKENDS[name](subject)
    connection.send(None)
    while True:
        try:
            request, repeat = connection.recv()
        except EOFError:  # the worker isn't needed any more
            return
        seconds = []
        for _ in range(repeat):
            start = time.perf_counter()
            result = answer(request)
            seconds.append(time.perf_counter() - start)
        connection.send(Timed(statistics.median(seconds), result, _peak_mib()))


class Worker:
    """A backend in its own process. A context manager.

    subject: what the backend's function takes, e.g. a model folder or a number of incidents.
    """

    # After this time the threads of the last worker have stopped spinning.
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
        """The answer, and its median time. Raises EOFError if the worker's process died."""
        time.sleep(self.SETTLE_S)
        self._connection.send((request, repeat))
        timed: Timed = self._connection.recv()
        return timed

    def __exit__(self, *error: object) -> None:
        self._connection.close()
        self._process.terminate()
        self._process.join()
