"""Processes that tests start, and the one way of waiting: for a condition, never for a time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Command = Sequence[str | Path]

# Long enough for any machine, however busy it is.
PATIENCE_S = 600.0


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Returns once `condition` holds; fails where it doesn't within PATIENCE_S. An error of the condition passes."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE_S:g} s"
        time.sleep(0.01)


@contextmanager
def running(command: Command, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process whose pipes carry text. However the test ends, the process is killed and its pipes are closed."""
    with subprocess.Popen(command, text=True, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def run_where_files_stay_small(blocks: int, command: Command) -> subprocess.CompletedProcess[str]:
    """Runs a Python script as on a full disk: a file may grow to so many blocks of 512 bytes.

    Python ignores the signal that says so, and gets an OSError.
    """
    return subprocess.run(
        ["sh", "-c", f'ulimit -f {blocks} && exec "$0" "$@"', sys.executable, *command],
        # Else Python would keep halves of what it has compiled.
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
