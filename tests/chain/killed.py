"""Runs jobs and scripts in processes that are killed at a step: right before or right after a call of S3 or a rename.

Reads a line of JSON for each run: `call` is a job's module or a script's name, `given` the event or the arguments, `at`
the number of the step, and `log` the file that takes the output. Answers with a line of JSON: the `steps` that were
begun, and the process's `code`, which is 0, or -9 if it was killed. A run is a fork of this process, which has imported
all.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "inference")]

from botocore.client import BaseClient  # noqa: E402


class InTime:
    """A Lambda's context, as far as jobs ask for it."""

    @staticmethod
    def get_remaining_time_in_millis() -> int:
        return 900_000


class Steps:
    """Counts the steps of this process, and kills it at one of them."""

    def __init__(self, at: int, pipe: int) -> None:
        self._left = at
        self._pipe = pipe

    def step(self, name: str) -> None:
        os.write(self._pipe, f"{name}\n".encode())
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1

    def around(self, call: Callable[..., Any], name: Callable[..., str]) -> Callable[..., Any]:
        def stepping(*args: Any, **options: Any) -> Any:
            self.step(f"before {name(*args)}")
            result = call(*args, **options)
            self.step(f"after {name(*args)}")
            return result

        return stepping


def run(call: str, given: Any, at: int, log: str, pipe: int) -> None:
    """Doesn't return."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    steps = Steps(at, pipe)
    make_call = BaseClient._make_api_call
    BaseClient._make_api_call = steps.around(make_call, lambda _, what, given: f"{what} {given.get('Key', '')}")
    for each in ("rename", "replace"):
        setattr(os, each, steps.around(getattr(os, each), lambda _, target, each=each: f"{each} {Path(target).name}"))
    module = importlib.import_module(call)
    code = 1
    try:
        if call.startswith("jobs."):
            module.handler(given, InTime())
            code = 0
        else:
            code = module.main(given)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    for name in sys.argv[1:]:
        importlib.import_module(name)
    if api := sys.modules.get("publishing.api"):
        # A rollback looks every 2.5 s whether its state answers.
        api._PAUSE_S = 0.05  # type: ignore[attr-defined]
    for line in sys.stdin:
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(reading)
            run(**json.loads(line), pipe=writing)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            steps = pipe.read().splitlines()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps({"code": code, "steps": steps}), flush=True)


if __name__ == "__main__":
    main()
