"""The CDK's command line is run in the terminal of the command, and Ctrl-C waits for it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from deployment import cdk
from processes import running, wait_until
from tiny import ROOT


def stand_in(folder: Path, script: str) -> str:
    """A PATH whose npx does this."""
    npx = folder / "npx"
    npx.write_text(f"#!/usr/bin/env bash\n{script}\n")
    npx.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def test_it_is_run_in_the_folder_with_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", stand_in(tmp_path, 'echo "$PWD $STACK_NAME $*"; exit 3'))
    assert cdk.run(["deploy", "Ours"], tmp_path, {"STACK_NAME": "Ours"}) == 3
    assert capfd.readouterr().out == f"{tmp_path} Ours --yes {cdk.CDK} deploy Ours\n"


def test_ctrl_c_waits_for_what_the_child_cleans_up(tmp_path: Path) -> None:
    began, ended = tmp_path / "began", tmp_path / "ended"
    clean_up = f"trap 'sleep 0.2; touch {ended}; exit 130' INT; touch {began}; while :; do sleep 0.05; done"
    program = "from pathlib import Path; from deployment import cdk; cdk.run([], Path('.'), {}); print('not reached')"
    environment = {**os.environ, "PATH": stand_in(tmp_path, clean_up), "PYTHONPATH": str(ROOT / "scripts")}
    with running(
        [sys.executable, "-c", program], env=environment, start_new_session=True, stdout=-1, stderr=-1
    ) as process:
        wait_until(began.exists, "the start of the child")
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate()
    assert ended.exists()
    assert (out, err.splitlines()[-1]) == ("", "KeyboardInterrupt")


def test_the_pin_is_a_release_that_the_documented_range_has() -> None:
    assert cdk.CDK.startswith("aws-cdk@2.")
    assert cdk.command("diff") == ["npx", "--yes", cdk.CDK, "diff"]
