"""Docker before a deployment: stand-ins of the program print what the real ones print, and a real one is asked too."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from deployment.findings import Outcome, ok, problem
from deployment.machine import docker
from deployment.machine.docker import DESKTOP, Engine, find_engine
from docker_answers import ENGINE, ON_A_MAC, engine_of
from programs import calls_of, leave_path_empty, put_into_path, put_program

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


def test_a_program_that_answers_otherwise_says_nothing(put_docker: Put) -> None:
    """As podman, whose info has other names."""
    put_docker(json.dumps({"host": {"arch": "amd64"}, "version": {"Version": "5.4.0"}}))
    assert find_engine() == (Engine("", "", "", "", "", ""), ok("Docker", "docker answers"))
