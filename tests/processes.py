"""Processes that tests start, and the one way of waiting: for a condition, never for a time."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

Command = Sequence[str | Path]

# Long enough for any machine, however busy it is.
PATIENCE_S = 300.0

# Every call that changes what is on disk.
_CALLS = ("mkdir", "open", "chmod", "fsync", "rename", "utime", "unlink", "rmdir")


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Returns once `condition` holds; fails where it doesn't within PATIENCE_S. An error of the condition passes."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE_S:g} s"
        time.sleep(0.01)


def node() -> str:
    """The program Node. It comes as a Python package, so it lies beside Python."""
    found = shutil.which("node", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    assert found, "requirements.txt installs Node"
    return found


@contextmanager
def repeating(call: Callable[[], object]) -> Iterator[None]:
    """Meanwhile, a thread makes this call again and again."""
    end = Event()

    def run() -> None:
        while not end.wait(0.05):
            call()

    thread = Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


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


def kill_before(step: int, further: Sequence[tuple[Any, str]] = ()) -> None:
    """From here on this process is killed right before its step with that number.

    Its steps are the calls that change what is on disk, and those of `further`: owners and names of functions.
    """
    left = [step]

    def dying(call: Callable[..., Any]) -> Callable[..., Any]:
        def call_or_die(*args: Any, **options: Any) -> Any:
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return call(*args, **options)

        return call_or_die

    for owner, name in (*((os, name) for name in _CALLS), *further):
        setattr(owner, name, dying(getattr(owner, name)))
