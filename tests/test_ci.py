"""The packages that .ci/run installs on a fresh machine, with programs that stand in for Debian's."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from browser.chromium import NAMES
from processes import PATIENCE_S
from programs import calls_of, put_program
from tiny import ROOT


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """The folder that is all of PATH: root's, without Docker, an emulator and a browser."""
    folder = tmp_path / "bin"
    put_program(folder, "id", instead="echo 0")
    put_program(folder, "apt-get", instead=":")
    return folder


def installed(machine: Path) -> list[str]:
    """The calls of apt-get."""
    bash = shutil.which("bash", path=os.defpath)
    assert bash
    subprocess.run(
        [bash, "-euc", ". .ci/packages.sh; ensure_packages"],
        cwd=ROOT,
        env={"PATH": str(machine)},
        check=True,
        timeout=PATIENCE_S,
    )
    return calls_of(machine / "apt-get") if (machine / "apt-get.calls").exists() else []


def test_docker_an_emulator_and_a_browser_are_installed_by_one_call(machine: Path) -> None:
    assert installed(machine) == [
        "update -qq",
        "install -y -qq --no-install-recommends docker.io debootstrap qemu-user chromium",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_any_browser_that_the_tests_find_will_do(name: str, machine: Path) -> None:
    put_program(machine, name, instead=":")
    assert installed(machine)[1:] == ["install -y -qq --no-install-recommends docker.io debootstrap qemu-user"]


def test_a_machine_that_has_all_stays_as_it_is(machine: Path) -> None:
    put_program(machine, "docker", instead=":")  # an engine answers
    put_program(machine, "google-chrome", instead=":")
    put_program(machine, "qemu-x86_64", instead=":")
    assert installed(machine) == []


def test_a_package_that_cannot_be_had_ends_the_run(machine: Path) -> None:
    put_program(machine, "apt-get", instead="exit 100")
    with pytest.raises(subprocess.CalledProcessError):
        installed(machine)
