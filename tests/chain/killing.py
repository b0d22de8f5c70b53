"""Kills jobs and scripts halfway, in processes of their own. `killed.py` is what runs in them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import running
from serving import environment

PROGRAM = Path(__file__).with_name("killed.py")


@dataclass
class Killing:
    """steps: those that the last run began. It was killed at the last one."""

    call: str
    process: subprocess.Popen[str]
    log_path: Path
    steps: list[str]

    def run(self, given: object, at: int) -> bool:
        """Whether the run was killed at its step number `at`. Otherwise it must have come to a good end."""
        assert self.process.stdin
        assert self.process.stdout
        asked = {"call": self.call, "given": given, "at": at, "log": str(self.log_path)}
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        self.steps = answer["steps"]
        assert answer["code"] in (0, -signal.SIGKILL), self.log_path.read_text()[-3000:]
        return bool(answer["code"])


@contextmanager
def killing(call: str, folder: Path, variables: Mapping[str, str]) -> Iterator[Killing]:
    log_path = folder / f"killed-{call}.log"
    with running(
        [sys.executable, PROGRAM, call],
        # Threads don't outlive a fork.
        env=environment() | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"} | dict(variables),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        yield Killing(call, process, log_path, [])
