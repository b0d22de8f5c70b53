"""scripts/test runs what it says, and its quick tests reach every folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from processes import PATIENCE_S
from tiny import ROOT

# Stands in for the Python of .venv: says which module it is asked to run, and with which arguments.
NOTING_PYTHON = """#!/bin/sh
[ "$2" = pip ] && exit 0
[ "$1" = -m ] && shift && printf '%s|' "$@" && echo
exit 0
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what scripts/test needs, in which it installs and runs nothing."""
    folder = tmp_path / "a project"
    (folder / "scripts" / "local").mkdir(parents=True)
    for name in ("inference", "scripts/states"):
        (folder / name).mkdir()
    requirements = ("scripts/states/requirements-ray.txt", *(path.name for path in ROOT.glob("requirements*.txt")))
    for name in ("scripts/test", "scripts/local/venv.sh", *requirements):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "scripts" / "locks", folder / "scripts" / "locks")
    for path in (ROOT / "inference").glob("requirements*.txt"):
        shutil.copy(path, folder / "inference")
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(NOTING_PYTHON)
    python.chmod(0o755)
    return folder


def ran(project: Path, *arguments: str) -> list[str]:
    """The command lines of the modules that scripts/test runs, arguments ended by `|`."""
    done = subprocess.run(
        [project / "scripts" / "test", *arguments], capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


RUFF = ["ruff|check|.|", "ruff|format|--check|.|"]


def test_it_runs_everything_and_passes_its_arguments_on_to_pytest(project: Path) -> None:
    assert ran(project) == [*RUFF, "mypy|", "pytest|"]
    assert ran(project, "tests/a b.py", "-k", "x") == [*RUFF, "mypy|", "pytest|tests/a b.py|-k|x|"]


@pytest.mark.parametrize("arguments", [["--quick", "-x", "a b"], ["-x", "--quick", "a b"], ["-x", "a b", "--quick"]])
def test_quick_leaves_out_slow_tests_and_the_first_run_of_mypy(arguments: list[str], project: Path) -> None:
    assert ran(project, *arguments) == [*RUFF, "pytest|-m|not slow|-x|a b|"]
    (project / ".mypy_cache").mkdir()
    assert ran(project, *arguments) == [*RUFF, "mypy|", "pytest|-m|not slow|-x|a b|"]


@pytest.mark.slow
def test_every_folder_has_quick_tests() -> None:
    folders = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "-q",
        "-m",
        "not slow",
        "-p",
        "no:cacheprovider",
        "tests",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout
    found = {line.partition("::")[0].rpartition("/")[0] for line in done.stdout.splitlines() if "::" in line}
    assert found == folders
