"""Scripts say what they have to say on every terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tiny import ROOT, SAMPLE_DIR

SCRIPTS = ROOT / "scripts"
# Terminals whose encoding lacks letters, or refuses bytes that are no text in it.
ENCODINGS = ("ascii", "latin-1", "utf-8:strict", "cp437")
# A Cyrillic letter, and a byte that is no UTF-8, as a file name from an old disk may have.
NAME = "ж" + os.fsdecode(b"caf\xe9")


def run(*command: str | Path, encoding: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, *command], capture_output=True, env=environment, timeout=120, **options)


def runnable_scripts() -> list[str]:
    return sorted(path.stem for path in SCRIPTS.glob("*.py") if "argument_parser(__doc__" in path.read_text())


def test_every_script_that_is_run_has_the_common_command_line() -> None:
    with_main = {path.stem for path in SCRIPTS.glob("*.py") if "def main(argv" in path.read_text()}
    assert {"build_state", "evaluate", "export_onnx", "fetch_model", "smoke_test"} <= with_main
    assert set(runnable_scripts()) == with_main


@pytest.mark.parametrize("script", ["build_state.py", "convert_encoder.py", "fetch_model.py", "publish_state.py"])
def test_a_python_without_the_packages_is_told_which_command_comes_first(script: str) -> None:
    # -S: without any packages, as where the environment isn't active.
    python: list[str | Path] = [os.path.realpath(sys.executable), "-S", SCRIPTS / script, "--help"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run(python, capture_output=True, text=True, env=environment, timeout=120)
    assert ended.returncode == 1
    assert ended.stderr.startswith("No module named '")
    assert f"source {ROOT / '.venv' / 'bin' / 'activate'}\n" in ended.stderr
    assert "Traceback" not in ended.stderr


PRINT_IN_EACH = """
import importlib, io, json, sys
for name in json.loads(sys.argv[1]):
    sys.stdout.reconfigure(errors="strict")
    try:
        importlib.import_module(name).main(["--help"])
    except SystemExit as ended:
        assert ended.code == 0
    print(name, sys.argv[2])
"""


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_no_script_fails_over_a_letter_that_the_terminal_lacks(encoding: str) -> None:
    ended = run("-c", PRINT_IN_EACH, json.dumps(runnable_scripts()), NAME, encoding=encoding, cwd=SCRIPTS)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout.count(rb"caf\udce9") == len(runnable_scripts())


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_state_can_be_written_to_a_path_that_the_terminal_can_not_print(
    encoding: str, tiny_model_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / NAME / "state.pt"
    out.parent.mkdir()
    cache = tmp_path / "cache"
    ended = run(
        SCRIPTS / "build_state.py", SAMPLE_DIR, "--model", tiny_model_dir, "--out", out, "--cache", cache,
        encoding=encoding,
    )  # fmt: skip
    assert ended.returncode == 0
    assert b"Traceback" not in ended.stderr
    assert b"52 incidents" in ended.stdout
    assert [path.name for path in out.parent.iterdir()] == ["state.pt"]
