"""The local server as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from processes import PATIENCE_S, Command, running, wait_until
from tiny import ROOT, VARIABLES

SCRIPT = ROOT / "scripts" / "local" / "server.py"


def environment() -> dict[str, str]:
    """That of the tests without the variables that handlers read, and with output that isn't held back."""
    return {name: value for name, value in os.environ.items() if name not in VARIABLES} | {"PYTHONUNBUFFERED": "1"}


@dataclass(frozen=True)
class Server:
    """A server that runs, and what it has said so far."""

    process: subprocess.Popen[str]
    url: str
    stdout_path: Path
    stderr_path: Path

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def output(self) -> str:
        return self.stdout_path.read_text() + self.stderr_path.read_text()

    def get(self, path: str, **parameters: str) -> requests.Response:
        return requests.get(self.url + path, params=parameters, timeout=PATIENCE_S)

    def post(self, path: str, **body: object) -> requests.Response:
        return requests.post(self.url + path, json=body, timeout=PATIENCE_S)


@contextmanager
def serving(
    folder: Path, *arguments: str | Path, program: Command = (SCRIPT,), variables: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Runs the server on a port that the system picks. `folder` takes its output. variables: further ones."""
    stdout_path, stderr_path = folder / "stdout.txt", folder / "stderr.txt"
    command = [sys.executable, *program, "--port", "0", *arguments]
    with (
        stdout_path.open("wb") as stdout,
        stderr_path.open("wb") as stderr,
        running(
            command, stdout=stdout, stderr=stderr, env=environment() | dict(variables or {}), cwd=folder
        ) as process,
    ):
        wait_until(lambda: "Serving on" in stdout_path.read_text() or process.poll() is not None, "the server's start")
        assert process.poll() is None, stderr_path.read_text()
        url = stdout_path.read_text().split("Serving on ")[1].split("/similar")[0]
        yield Server(process, url, stdout_path, stderr_path)
