"""Stand-ins of programs: scripts in a folder of PATH that print what the real ones print."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def put_program(
    folder: Path, name: str, stdout: str = "", stderr: str = "", code: int = 0, *, instead: str = ""
) -> Path:
    """A program that notes its arguments, prints, and exits with a code. instead: a shell's commands to do that."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    Path(f"{path}.stdout").write_text(stdout, encoding="utf-8")
    Path(f"{path}.stderr").write_text(stderr, encoding="utf-8")
    doing = instead or f'cat "$0.stdout"; cat "$0.stderr" >&2; exit {code}'
    path.write_text(f'#!/bin/sh\necho "$@" >> "$0.calls"\n{doing}\n', encoding="utf-8")
    path.chmod(0o755)
    return path


def calls_of(program: Path) -> list[str]:
    """The arguments of each call."""
    return Path(f"{program}.calls").read_text(encoding="utf-8").splitlines()


def put_into_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs of the folder come first."""
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def leave_path_empty(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no program in PATH."""
    (folder / "empty").mkdir()
    monkeypatch.setenv("PATH", str(folder / "empty"))
