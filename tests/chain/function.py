"""A Lambda as a process of its own: Lambda's client for Python runs the function, and the stand-in hands it events."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

from container.runtime_api import RuntimeApi
from lambdas import log_lines
from processes import PATIENCE_S, running
from serving import environment
from tiny import ROOT


class FunctionError(Exception):
    """The function raised an error. The message is the error's."""


@dataclass
class Function:
    """Answers one event after the other. It isn't invoked again if it raises an error, as Lambda would."""

    api: RuntimeApi
    log_path: Path

    def invoke(self, event: object) -> dict[str, Any]:
        """Raises FunctionError."""
        answer = self.api.invoke(event, PATIENCE_S).answer
        if answer.is_error:
            raise FunctionError(answer.json()["errorMessage"])
        return dict(answer.json())

    def log(self) -> list[dict[str, Any]]:
        return log_lines(self.log_path.read_text())

    def problems(self) -> list[dict[str, Any]]:
        """The lines of the log that say more than that all went well."""
        return [line for line in self.log() if line["level"] not in ("INFO", "DEBUG")]


@contextmanager
def running_function(module: str, folder: Path, variables: Mapping[str, str]) -> Iterator[Function]:
    """folder: takes the log. variables: beside those of this process that handlers don't read."""
    log_path = folder / f"{module}.log"
    with RuntimeApi(("127.0.0.1", 0)) as api, log_path.open("wb") as log:
        own = {
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{api.port}",
            "AWS_LAMBDA_LOG_FORMAT": "JSON",
            "AWS_LAMBDA_LOG_LEVEL": "INFO",
            "LAMBDA_TASK_ROOT": str(ROOT / "inference"),
        }
        with running(
            [sys.executable, "-m", "awslambdaric", f"{module}.handler"],
            cwd=ROOT / "inference",
            env=environment() | own | dict(variables),
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as process:
            Thread(target=_give_up_at_its_end, args=(process, api), daemon=True).start()
            yield Function(api, log_path)


def _give_up_at_its_end(process: subprocess.Popen[str], api: RuntimeApi) -> None:
    process.wait()
    api.give_up()
