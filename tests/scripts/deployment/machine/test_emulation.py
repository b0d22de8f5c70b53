"""Whether Docker can build for the Lambdas' processor, against lists of emulators as the kernel keeps them."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployment.findings import Outcome, not_checked, ok, problem
from deployment.machine import emulation
from deployment.machine.docker import Engine
from deployment.machine.emulation import emulator, platform_finding
from docker_answers import ON_A_MAC, engine_of

# Entries as Debian's qemu-user-static and tonistiigi/binfmt make them, and one of another kind.
QEMU = """enabled
interpreter /usr/libexec/qemu-binfmt/{name}-binfmt-P
flags: {flags}
offset 0
magic 7f454c460201010000000000000000000200{machine}
mask {mask}
"""
AARCH64 = {"name": "aarch64", "machine": "b700", "mask": "ffffffffffffff00fffffffffffffffffeffffff"}
X86_64 = {"name": "x86_64", "machine": "3e00", "mask": "fffffffffffefe00fffffffffffffffffeffffff"}
JAVA = "enabled\ninterpreter /usr/bin/jexec\nflags: \noffset 0\nmagic 504b0304\n"
EXTENSION = "enabled\ninterpreter /usr/bin/run-some\nflags: \nextension .some\n"


@pytest.fixture
def binfmt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The kernel's list of interpreters, which is empty."""
    folder = tmp_path / "binfmt_misc"
    folder.mkdir()
    (folder / "register").touch(mode=0o200)
    (folder / "status").write_text("enabled\n")
    monkeypatch.setattr(emulation, "BINFMT_DIR", folder)
    monkeypatch.delenv("CDK_DOCKER", raising=False)
    return folder


@pytest.mark.parametrize(
    ("architecture", "wanted"), [("x86_64", "x86_64"), ("amd64", "x86_64"), ("aarch64", "arm64"), ("arm64", "arm64")]
)
def test_the_same_processor_is_ok(architecture: str, wanted: str) -> None:
    found = platform_finding(engine_of(Architecture=architecture), wanted)
    assert found == ok("Platform", f"Docker runs on {wanted}, for which the image is built")


def test_without_docker_the_platform_is_not_checked() -> None:
    assert platform_finding(None, "x86_64") == not_checked("Platform", "Docker doesn't answer")


def test_docker_desktop_emulates() -> None:
    found = platform_finding(Engine.from_info(ON_A_MAC), "x86_64")
    assert found.outcome is Outcome.NOTE
    assert "Docker Desktop emulates x86_64, which takes longer" in found.detail
    assert found.remedy == "LAMBDA_ARCHITECTURE=arm64 in .env"


def test_an_engine_without_emulator_is_a_problem(binfmt: Path) -> None:
    (binfmt / "jar").write_text(JAVA)
    (binfmt / "some").write_text(EXTENSION)
    (binfmt / "qemu-aarch64").write_text(QEMU.format(**AARCH64, flags="POCF"))
    assert platform_finding(engine_of(Architecture="aarch64"), "x86_64") == problem(
        "Platform",
        "the image is for x86_64, but Docker runs on arm64, which can't emulate x86_64",
        "docker run --privileged --rm tonistiigi/binfmt --install amd64\nand again after each restart of the machine\n"
        "or LAMBDA_ARCHITECTURE=arm64 in .env",
    )


def test_no_setting_helps_a_processor_that_no_lambda_has(binfmt: Path) -> None:
    found = platform_finding(engine_of(Architecture="riscv64"), "arm64")
    assert found.outcome is Outcome.PROBLEM
    assert "--install arm64" in found.remedy
    assert "LAMBDA_ARCHITECTURE" not in found.remedy


@pytest.mark.parametrize(
    ("entry", "of", "runs_on", "wanted"),
    [("qemu-aarch64", AARCH64, "x86_64", "arm64"), ("FEX-x86_64", X86_64, "aarch64", "x86_64")],
)
def test_an_engine_with_an_emulator_takes_longer(
    entry: str, of: dict[str, str], runs_on: str, wanted: str, binfmt: Path
) -> None:
    (binfmt / "jar").write_text(JAVA)
    (binfmt / entry).write_text(QEMU.format(**of, flags="OCF"))
    found = platform_finding(engine_of(Architecture=runs_on), wanted)
    assert found.outcome is Outcome.NOTE
    assert f"{entry} emulates {wanted}, which takes longer" in found.detail
    assert found.remedy.startswith("LAMBDA_ARCHITECTURE=")


@pytest.mark.parametrize(
    ("entry", "status"),
    [
        (QEMU.format(**AARCH64, flags="OC"), "enabled\n"),
        (QEMU.format(**AARCH64, flags="OCF").replace("enabled", "disabled"), "enabled\n"),
        (QEMU.format(**AARCH64, flags="OCF").replace("b700", "no hex"), "enabled\n"),
        (QEMU.format(**AARCH64, flags="OCF"), "disabled\n"),
        (QEMU.format(**X86_64, flags="OCF"), "enabled\n"),
    ],
)
def test_an_emulator_that_containers_cannot_use_is_none(entry: str, status: str, binfmt: Path) -> None:
    (binfmt / "qemu-aarch64").write_text(entry)
    (binfmt / "status").write_text(status)
    assert emulator("arm64") == ""


def test_a_kernel_without_such_a_list_has_no_emulator(binfmt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulation, "BINFMT_DIR", binfmt / "none")
    assert platform_finding(engine_of(), "arm64").outcome is Outcome.PROBLEM


def test_a_list_that_is_not_mounted_says_nothing(binfmt: Path) -> None:
    for path in binfmt.iterdir():
        path.unlink()
    found = platform_finding(engine_of(), "arm64")
    assert found.outcome is Outcome.NOT_CHECKED
    assert str(binfmt) in found.detail


def test_the_emulators_of_another_machine_are_not_known() -> None:
    found = platform_finding(engine_of(Name="builder"), "arm64")
    assert found.outcome is Outcome.NOT_CHECKED
    assert found.detail.endswith("and it doesn't tell whether it can emulate arm64")


def test_a_program_that_does_not_tell_its_processor_is_not_checked() -> None:
    assert platform_finding(engine_of(Architecture=""), "x86_64").outcome is Outcome.NOT_CHECKED
