"""Asks another program something: runs it, with a limit of time."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Said:
    """A program's output and exit code. code: None if the program took too long and was stopped."""

    code: int | None
    stdout: str = ""
    stderr: str = ""


def ask(
    command: Sequence[str], timeout_s: float, *, folder: Path | None = None, more: Mapping[str, str] | None = None
) -> Said:
    """more: variables beside those of this process. Raises OSError if the program can't be started."""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        cwd=folder,
        env={**os.environ, **(more or {})},
        # Without a terminal, so that Docker's ssh can't wait for a password. As a group, which is killed below.
        start_new_session=True,
    ) as child:
        try:
            stdout, stderr = child.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return Said(None)
        finally:
            if child.poll() is None:
                # With its children: npx starts others, which would go on and hold the pipes.
                os.killpg(child.pid, signal.SIGKILL)
    return Said(child.returncode, stdout, stderr)
