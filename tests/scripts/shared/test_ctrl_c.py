"""Ctrl-C ends every script with one line, wherever it is: in its imports, or at work."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from processes import PATIENCE_S, running, wait_until
from tiny import ROOT, SAMPLE_DIR

SCRIPTS_DIR = ROOT / "scripts"
SCRIPTS = sorted(
    path.relative_to(SCRIPTS_DIR).as_posix()
    for path in SCRIPTS_DIR.rglob("*.py")
    if "command.run(main)" in path.read_text(encoding="utf-8")
)

# Runs a script as its command would, but stays in the import of its first module that isn't Python's own until a signal
# comes. An import through a C library may turn KeyboardInterrupt into another error; so does this one.
HELD_IN_AN_IMPORT = """
import runpy, sys, time

class Holding:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or top == "shared":
            return None
        print("held", flush=True)
        try:
            while True:
                time.sleep(0.05)
        except BaseException as error:
            raise ImportError(name) from error

sys.argv = sys.argv[1:]
sys.path[0] = sys.argv[0].rpartition("/")[0]
sys.meta_path.insert(0, Holding())
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def python(*command: str | Path) -> AbstractContextManager[subprocess.Popen[str]]:
    return running([sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)


def test_the_scripts_were_found() -> None:
    assert {"build_state.py", "fetch_model.py", "local/server.py", "smoke_test.py"} < set(SCRIPTS)


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_ctrl_c_in_the_imports_is_one_line(script: str) -> None:
    with python("-c", HELD_IN_AN_IMPORT, SCRIPTS_DIR / script, "--help") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=PATIENCE_S)
    assert (stderr.split("\n"), process.returncode) == (["", "Stopped.", ""], -signal.SIGINT)


def arguments(script: str, model_dir: Path, out: Path) -> list[str]:
    """With which a script reads config.json of a model's folder."""
    model = str(model_dir)
    return {
        "build_state.py": [str(SAMPLE_DIR), "--model", model, "--out", str(out), "--cache", str(out.parent / "cache")],
        "convert_encoder.py": [model, "--out", str(out)],
        "evaluate.py": [str(SAMPLE_DIR / "incidents.csv"), "--model", model],
        "export_onnx.py": [model],
        "fetch_model.py": ["--from", model, "--out", str(out)],
        "local/server.py": ["--port", "0", "--model", model],
    }[script]


@pytest.mark.slow
@pytest.mark.parametrize(
    "script",
    ["build_state.py", "convert_encoder.py", "evaluate.py", "export_onnx.py", "fetch_model.py", "local/server.py"],
)
def test_ctrl_c_at_work_is_one_line(script: str, tmp_path: Path, tiny_model_dir: Path, tiny_state_path: Path) -> None:
    model_dir = tmp_path / "model"
    shutil.copytree(tiny_model_dir, model_dir)
    shutil.copy(tiny_state_path, model_dir)
    # Who reads from a pipe is stopped there until somebody writes.
    config = model_dir / "config.json"
    config.unlink()
    os.mkfifo(config)
    with python(SCRIPTS_DIR / script, *arguments(script, model_dir, tmp_path / "out")) as process:
        writing = open_when_it_reads(config, process)
        process.send_signal(signal.SIGINT)
        # Ends the reading of a process that the signal has met just before it began to wait.
        os.close(writing)
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert stdout == ""
    lines = [line for line in stderr.splitlines() if line]
    assert len(lines) == 1, stderr
    assert "topped" in lines[0]
    assert process.returncode != 0


def open_when_it_reads(pipe: Path, process: subprocess.Popen[str]) -> int:
    """Opens the pipe for writing, once it has a reader, who then waits for content."""
    opened: list[int] = []

    def opens() -> bool:
        try:
            opened.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:  # nobody reads yet
            assert process.poll() is None, process.communicate()
        return bool(opened)

    wait_until(opens, "the reading of the model's config")
    return opened[0]
