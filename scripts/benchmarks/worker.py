"""Runs a backend of `benchmark.py` in its own process. In one process, its threads would slow down the next backend.

The driver sends requests to all workers in turn, so that other load on the machine affects all of them alike.
"""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks import peer
from benchmarks.backends import BACKENDS
from benchmarks.peer import Timed, timed

# sentence-transformers with its own backends, and the package that each needs.
PEERS = {
    "sentence-transformers": ("torch", "sentence_transformers"),
    "sentence-transformers onnx": ("onnx", "optimum.onnxruntime"),
}


def _serve(connection: Connection, name: str, subject: object) -> None:
    answer = BACKENDS[name](subject)
    connection.send(None)
    while True:
        try:
            request, repeat = connection.recv()
        except EOFError:  # the worker isn't needed any more
            return
        connection.send(timed(answer, request, repeat))


class Worker:
    """A backend in its own process. A context manager.

    subject: what the backend's function takes, e.g. a model folder or a number of incidents.
    """

    # After this time the threads of the last worker have stopped spinning.
    SETTLE_S = 0.25
    # A worker that is busy for longer is killed.
    END_S = 5.0

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
        found: Timed = self._connection.recv()
        return found

    def __exit__(self, *error: object) -> None:
        self._connection.close()  # the worker ends by itself; a killed one would leak its semaphores
        self._process.join(self.END_S)
        self._process.terminate()
        self._process.join()


class PeerWorker(Worker):
    """sentence-transformers in its own process, run by `python`, which may be another environment's.

    backend, folder: as for `benchmarks.peer`. A request is the token ids of a text.
    """

    def __init__(self, python: str, backend: str, folder: Path) -> None:
        # -P: the files beside the program aren't its modules.
        command = [python, "-P", peer.__file__, backend, str(folder)]
        self._program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> PeerWorker:
        self._line()
        return self

    def ask(self, request: object, *, repeat: int = 1) -> Timed:
        time.sleep(self.SETTLE_S)
        assert self._program.stdin is not None
        print(json.dumps({"ids": request, "repeat": repeat}), file=self._program.stdin, flush=True)
        return Timed(**json.loads(self._line()))

    def _line(self) -> str:
        assert self._program.stdout is not None
        line = self._program.stdout.readline()
        if not line:
            self.__exit__()
            raise EOFError
        return line

    def __exit__(self, *error: object) -> None:
        self._program.terminate()
        with self._program:  # closes the pipes and waits
            pass


@dataclass(frozen=True)
class Peers:
    """How sentence-transformers runs.

    encoder: the folder of its model; None for the Longformer of the other backends. python: that of its ONNX backend.
    """

    encoder: Path | None = None
    python: str = sys.executable

    def worker(self, name: str, model_dir: Path) -> Worker:
        """The process of a backend, which may be one of ours."""
        if name not in PEERS:
            return Worker(name, model_dir)
        return PeerWorker(self.python_of(name), PEERS[name][0], self.encoder or model_dir)

    def has(self, name: str) -> bool:
        """Whether the Python of a backend of PEERS is there and has its package."""
        find = "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)"
        try:
            done = subprocess.run([self.python_of(name), "-c", find, PEERS[name][1]], capture_output=True, check=False)
        except OSError:
            return False
        return done.returncode == 0

    def python_of(self, name: str) -> str:
        """The Python that runs a backend of PEERS."""
        return self.python if name == "sentence-transformers onnx" else sys.executable
