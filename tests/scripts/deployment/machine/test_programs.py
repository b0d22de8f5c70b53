"""Programs that are asked something: what they print, and what happens if they don't end."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from deployment.machine.programs import Said, ask
from processes import wait_until
from programs import put_program


def test_it_gives_output_errors_and_exit_code(tmp_path: Path) -> None:
    program = put_program(tmp_path / "bin", "some", "out\n", "err\n", 3)
    assert ask([str(program)], 60) == Said(3, "out\n", "err\n")


def test_it_adds_variables_and_runs_in_a_folder(tmp_path: Path) -> None:
    program = put_program(tmp_path / "bin", "some", instead='pwd; echo "$MORE"')
    assert ask([str(program)], 60, folder=tmp_path, more={"MORE": "more"}).stdout == f"{tmp_path}\nmore\n"


def test_a_program_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ask([str(tmp_path / "none")], 60)


def test_one_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    """As npx, which starts others that hold its pipes."""
    program = put_program(tmp_path / "bin", "some", instead='sleep 1000 & echo "$!" > "$0.child"; wait')
    named, timeout_s = Path(f"{program}.child"), 0.2
    while not (named.exists() and named.read_text().strip()):
        # On a busy machine, time may be over before the child has started.
        assert ask([str(program)], timeout_s) == Said(None)
        timeout_s *= 2
    child = int(named.read_text())

    def has_ended() -> bool:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return True
        # Where nobody waits for a child whose parent has ended, it stays as a zombie.
        return Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z"

    try:
        wait_until(has_ended, "the end of the child")
    finally:
        if not has_ended():
            os.kill(child, signal.SIGKILL)
