"""Docker before a deployment: stand-ins of the program print what the real ones print, and a real one is asked too."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from deployment import docker
from deployment.docker import DESKTOP, Engine, emulator, find_engine, platform_finding
from deployment.findings import Outcome, not_checked, ok, problem
from programs import calls_of, leave_path_empty, put_into_path, put_program

# Parts of what `docker info --format '{{json .}}'` prints.
ENGINE = {
    "ServerVersion": "28.2.2",
    "Architecture": "x86_64",
    "OperatingSystem": "Debian GNU/Linux 12 (bookworm)",
    "DockerRootDir": "/var/lib/docker",
    "Name": platform.node(),
    "KernelVersion": platform.release(),
    "ClientInfo": {"Version": "28.2.2", "Context": "default", "Plugins": []},
}
ON_A_MAC = {
    "ServerVersion": "24.0.2",
    "Architecture": "aarch64",
    "OperatingSystem": "Docker Desktop",
    "DockerRootDir": "/var/lib/docker",
    "Name": "docker-desktop",
    "KernelVersion": "5.15.49-linuxkit-pr",
}
NOTHING = {"ServerVersion": "", "Architecture": "", "OperatingSystem": "", "ClientInfo": {"Plugins": []}}

NOT_RUNNING = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
NOT_RUNNING_29 = (
    "failed to connect to the docker API at unix:///var/run/docker.sock; check if the path is correct and if the "
    "daemon is running: dial unix /var/run/docker.sock: connect: no such file or directory"
)
DENIED = (
    "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: "
    'Get "http://%2Fvar%2Frun%2Fdocker.sock/v1.50/info": dial unix /var/run/docker.sock: connect: permission denied'
)
DENIED_29 = "permission denied while trying to connect to the docker API at unix:///var/run/docker.sock"
NO_DESKTOP = (
    "Cannot connect to the Docker daemon at unix:///home/me/.docker/desktop/docker.sock. Is the docker daemon running?"
)
NO_ROOTLESS = "Cannot connect to the Docker daemon at unix:///run/user/1000/docker.sock. Is the docker daemon running?"
FAR_AWAY = (
    'error during connect: Get "http://docker.example.com/v1.50/info": command [ssh -o ConnectTimeout=30 -T -l me -- '
    "builder docker system dial-stdio] has exited with exit status 255, make sure the URL is valid, and Docker 18.09 "
    "or later is installed on the remote host: stderr=ssh: connect to host builder port 22: Connection refused"
)
WSL = (
    "\nThe command 'docker' could not be found in this WSL 2 distro.\n"
    "We recommend to activate the WSL integration in Docker Desktop settings.\n"
)
ADD_TO_GROUP = "sudo usermod -aG docker $USER\nthen log out and in again"

Put = Callable[..., Path]


@pytest.fixture
def put_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Puts a stand-in of docker into PATH. This machine is one with Linux and systemd."""
    for name in ("CDK_DOCKER", "DOCKER_HOST", "DOCKER_BUILDKIT"):
        monkeypatch.delenv(name, raising=False)
    put_into_path(tmp_path / "bin", monkeypatch)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(docker, "_SYSTEMD", tmp_path)
    return lambda *args, **options: put_program(tmp_path / "bin", "docker", *args, **options)


def engine_of(**changes: str) -> Engine:
    return Engine.from_info({**ENGINE, **changes})


def test_an_engine_that_answers_is_ok(put_docker: Put) -> None:
    program = put_docker(json.dumps(ENGINE) + "\n")
    engine, found = find_engine()
    assert found == ok("Docker", "docker 28.2.2 answers on Debian GNU/Linux 12 (bookworm)")
    assert engine is not None
    assert (engine.architecture, engine.root, engine.is_here) == ("x86_64", "/var/lib/docker", True)
    assert calls_of(program) == ["info --format {{json .}}"]


def test_docker_desktop_runs_on_a_machine_of_its_own(put_docker: Put) -> None:
    put_docker(json.dumps(ON_A_MAC))
    engine, found = find_engine()
    assert found == ok("Docker", "docker 24.0.2 answers on Docker Desktop")
    assert engine is not None
    assert (engine.architecture, engine.is_here, engine.where) == ("arm64", False, DESKTOP)


@pytest.mark.parametrize("change", [{"Name": "builder"}, {"KernelVersion": "6.10.14-linuxkit"}])
def test_another_host_or_kernel_is_another_machine(change: dict[str, str]) -> None:
    assert not engine_of(**change).is_here


def test_no_docker_is_a_problem(put_docker: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_path_empty(tmp_path, monkeypatch)
    assert find_engine() == (
        None,
        problem(
            "Docker",
            'there is no program "docker" in PATH',
            "install Docker: https://docs.docker.com/get-started/get-docker/",
        ),
    )


@pytest.mark.parametrize("named", ["finch", ""])
def test_cdk_docker_names_the_program_even_if_it_is_empty(
    named: str, put_docker: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_docker(json.dumps(ENGINE))
    monkeypatch.setenv("CDK_DOCKER", named)
    engine, found = find_engine()
    assert engine is None
    assert found == problem(
        "Docker", f'there is no program "{named}" in PATH, which CDK_DOCKER names', "unset CDK_DOCKER, or correct it"
    )


def test_the_program_of_cdk_docker_is_asked(put_docker: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDK_DOCKER", str(put_program(tmp_path / "other", "finch", json.dumps(ENGINE))))
    assert find_engine()[1].outcome is Outcome.OK


@pytest.mark.parametrize(
    ("printed", "remedy"),
    [
        (NOT_RUNNING, "sudo systemctl start docker"),
        (NOT_RUNNING_29, "sudo systemctl start docker"),
        (NO_DESKTOP, "systemctl --user start docker-desktop"),
        (NO_ROOTLESS, "systemctl --user start docker"),
        (DENIED, ADD_TO_GROUP),
        (DENIED_29, ADD_TO_GROUP),
        (f"Got {DENIED}", ADD_TO_GROUP),
        (FAR_AWAY, "choose another Docker with `docker context use NAME` (`docker context ls` lists them)"),
        (
            WSL,
            "start Docker Desktop in Windows, and switch on this distribution in its settings under WSL integration",
        ),
    ],
)
def test_no_answer_is_a_problem_with_the_remedy_for_its_reason(printed: str, remedy: str, put_docker: Put) -> None:
    put_docker(json.dumps(NOTHING), f"{printed}\n", 1)
    assert find_engine() == (None, problem("Docker", " ".join(printed.split()).rstrip("."), remedy))


def test_older_releases_exit_with_0_and_put_the_error_into_the_answer(put_docker: Put) -> None:
    put_docker(json.dumps({**NOTHING, "ServerErrors": [NOT_RUNNING]}))
    assert find_engine() == (None, problem("Docker", NOT_RUNNING, "sudo systemctl start docker"))


def test_without_systemd_another_command_starts_it(put_docker: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker, "_SYSTEMD", Path("/no such folder"))
    put_docker("", NOT_RUNNING, 1)
    assert find_engine()[1].remedy == "sudo service docker start"


def test_on_a_mac_docker_desktop_is_opened(put_docker: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    put_docker("", NO_DESKTOP.replace("/home/me/.docker/desktop", "/Users/me/.docker/run"), 1)
    assert find_engine()[1].remedy == "open -a Docker"


def test_docker_host_may_be_the_reason(put_docker: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    put_docker("", "Cannot connect to the Docker daemon at tcp://127.0.0.1:9. Is the docker daemon running?", 1)
    assert find_engine()[1].remedy == "unset DOCKER_HOST, or correct it, or start the Docker that it names"


@pytest.mark.skipif(shutil.which("docker") is None, reason="Docker's command line isn't installed")
def test_the_real_program_says_the_same_without_a_daemon(
    put_docker: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    engine, found = find_engine()
    assert engine is None
    assert found.remedy == "unset DOCKER_HOST, or correct it, or start the Docker that it names"
    assert str(tmp_path) in found.detail


@pytest.mark.parametrize(
    ("stdout", "stderr", "code", "why"),
    [
        (
            "",
            "Error response from daemon: Docker Desktop is manually paused.\n",
            1,
            "Docker Desktop is manually paused",
        ),
        ("usage: info\n", "", 2, "usage: info"),
        ("", "", 7, "it ended with 7"),
        ("no JSON\n", "", 0, "it printed no JSON"),
    ],
)
def test_an_unforeseen_answer_is_not_checked_and_its_reason_is_given(
    stdout: str, stderr: str, code: int, why: str, put_docker: Put
) -> None:
    put_docker(stdout, stderr, code)
    engine, found = find_engine()
    assert (engine, found.outcome) == (None, Outcome.NOT_CHECKED)
    assert found.detail.startswith("`docker info` fails: ")
    assert found.detail.endswith(why)


def test_a_docker_that_hangs_is_a_problem(put_docker: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker, "TIMEOUT_S", 0.2)
    put_docker(instead="exec sleep 1000")
    assert find_engine() == (
        None,
        problem("Docker", "`docker info` hasn't answered within 0.2 s", "restart Docker"),
    )


def test_a_docker_that_cannot_be_started_is_a_problem(
    put_docker: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = put_program(tmp_path / "other", "docker")
    program.write_bytes(b"\0not a program")
    monkeypatch.setenv("CDK_DOCKER", str(program))
    assert find_engine() == (
        None,
        problem("Docker", f"{program} can't be started: Exec format error", "install Docker again"),
    )


@pytest.mark.parametrize(
    ("wanted", "plugins", "outcome"),
    [
        ("1", [], Outcome.PROBLEM),
        ("true", [{"Name": "compose"}], Outcome.PROBLEM),
        ("1", [{"Name": "compose"}, {"Name": "buildx"}], Outcome.OK),
        ("0", [], Outcome.OK),
        ("", [], Outcome.OK),
        ("1", None, Outcome.OK),
    ],
)
def test_buildx_is_needed_only_if_the_environment_insists(
    wanted: str,
    plugins: list[dict[str, str]] | None,
    outcome: Outcome,
    put_docker: Put,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_BUILDKIT", wanted)
    put_docker(json.dumps({**ENGINE, "ClientInfo": {"Plugins": plugins}}))
    engine, found = find_engine()
    assert engine is not None
    assert found.outcome is outcome


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
    monkeypatch.setattr(docker, "BINFMT_DIR", folder)
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
    monkeypatch.setattr(docker, "BINFMT_DIR", binfmt / "none")
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


def test_a_program_that_answers_otherwise_says_nothing(put_docker: Put) -> None:
    """As podman, whose info has other names."""
    put_docker(json.dumps({"host": {"arch": "amd64"}, "version": {"Version": "5.4.0"}}))
    engine, found = find_engine()
    assert found == ok("Docker", "docker answers")
    assert platform_finding(engine, "x86_64").outcome is Outcome.NOT_CHECKED
