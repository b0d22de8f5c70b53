"""scripts/test runs what it says, and its quick tests reach every folder."""

from __future__ import annotations

import os
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


def test_it_runs_everything_on_all_cores(project: Path) -> None:
    assert ran(project) == [*RUFF, "mypy|", "pytest|-n|auto|"]
    assert ran(project, "--quick") == [*RUFF, "pytest|-m|not slow|-n|auto|"]


@pytest.mark.parametrize("arguments", [["tests/a b.py", "-k", "x"], ["-x"], ["--pdb"], ["-s"], ["-n", "2"]])
def test_it_passes_arguments_on_to_pytest_and_leaves_the_number_of_processes_to_them(
    arguments: list[str], project: Path
) -> None:
    assert ran(project, *arguments) == [*RUFF, "mypy|", f"pytest|{'|'.join(arguments)}|"]


@pytest.mark.parametrize("arguments", [["--quick", "-x", "a b"], ["-x", "--quick", "a b"], ["-x", "a b", "--quick"]])
def test_quick_leaves_out_slow_tests_and_the_first_run_of_mypy(arguments: list[str], project: Path) -> None:
    assert ran(project, *arguments) == [*RUFF, "pytest|-m|not slow|-x|a b|"]
    (project / ".mypy_cache").mkdir()
    assert ran(project, *arguments) == [*RUFF, "mypy|", "pytest|-m|not slow|-x|a b|"]


# Notes which process ran it, with how many threads.
NOTING_TEST = """
import os
from pathlib import Path

import pytest
import torch

@pytest.mark.parametrize("number", range(5))
def test_something(number):
    with Path("ran").open("a") as file:
        file.write(f"{__file__} {os.getpid()} {torch.get_num_threads()}\\n")
"""


@pytest.mark.slow
def test_a_process_runs_all_tests_of_a_file_and_one_of_them_all_that_use_docker(tmp_path: Path) -> None:
    """With the project's own settings and conftest.py."""
    docker = ["tests/container/test_a.py", "tests/container/test_b.py", "tests/deploy/test_c.py"]
    others = ["tests/inference/test_d.py", "tests/test_e.py", "tests/test_f.py"]
    for name in (*docker, *others):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(NOTING_TEST)
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path / "tests")
    roots = " ".join(str(ROOT / name) for name in ("inference", "scripts", "tests"))
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pytest",
        "-n",
        "2",
        "-c",
        ROOT / ".pytest.ini",
        "--rootdir",
        tmp_path,
    ]
    command += ["-o", f"pythonpath={roots}", "-p", "no:cacheprovider"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "PYTEST_"))}
    done = subprocess.run(
        [*command, "tests"], capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.rsplit(" ", 2) for line in (tmp_path / "ran").read_text().splitlines()]
    assert len(lines) == 5 * len([*docker, *others])
    processes: dict[str, set[str]] = {}
    for path, process, _ in lines:
        processes.setdefault(Path(path).relative_to(tmp_path).as_posix(), set()).add(process)
    assert [name for name, its in processes.items() if len(its) != 1] == []
    assert len(set.union(*(processes[name] for name in docker))) == 1
    assert len(set.union(*processes.values())) == 2
    assert {threads for *_, threads in lines} == {"1"}


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
