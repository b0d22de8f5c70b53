"""Docker: whether it answers, where it runs, and how it is started."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployment.findings import Finding, not_checked, ok, problem
from deployment.machine.programs import Said, ask
from similarity.errors import one_line

# A Docker that is starting, or far away, may take seconds.
TIMEOUT_S = 20.0
NO_ANSWER = "Docker doesn't answer"
DESKTOP = "Docker Desktop"

# The kernel's and Docker's names of processors, to those of LAMBDA_ARCHITECTURE.
_ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
_SYSTEMD = Path("/run/systemd/system")


@dataclass(frozen=True)
class Engine:
    """The answers of Docker's daemon about itself; "" for a missing one.

    architecture: as in LAMBDA_ARCHITECTURE, or Docker's own word for another one. system: the operating system.
    root: the folder of its images. host, kernel: name and kernel of the machine that it runs on.
    """

    version: str
    architecture: str
    system: str
    root: str
    host: str
    kernel: str

    @classmethod
    def from_info(cls, info: dict[str, Any]) -> Engine:
        """info: as `docker info --format '{{json .}}'` prints it. Docker-like programs may print something else."""

        def text(name: str) -> str:
            value = info.get(name)
            return one_line(value) if isinstance(value, str) else ""

        architecture = text("Architecture")
        return cls(
            version=text("ServerVersion"),
            architecture=_ARCHITECTURES.get(architecture, architecture),
            system=text("OperatingSystem"),
            root=text("DockerRootDir"),
            host=text("Name"),
            kernel=text("KernelVersion"),
        )

    @property
    def is_here(self) -> bool:
        """Whether the daemon runs on this machine itself: neither on another one nor in a virtual one."""
        return self.system != DESKTOP and (self.host, self.kernel) == (platform.node(), platform.release())

    @property
    def where(self) -> str:
        """The machine that it runs on, if that isn't this one."""
        return self.system if self.system == DESKTOP else f"another machine ({self.host or 'of an unknown name'})"


def program() -> str:
    """The program that the CDK's command line calls. For the CDK, an empty variable is set."""
    return os.environ.get("CDK_DOCKER", "docker")


def find_engine() -> tuple[Engine | None, Finding]:
    """The engine, None if it doesn't answer, and what was found."""
    name = "Docker"
    called = program()
    if not shutil.which(called):
        return None, problem(
            name,
            f'there is no program "{called}" in PATH'
            + (", which CDK_DOCKER names" if "CDK_DOCKER" in os.environ else ""),
            "unset CDK_DOCKER, or correct it"
            if "CDK_DOCKER" in os.environ
            else "install Docker: https://docs.docker.com/get-started/get-docker/",
        )
    try:
        said = ask([called, "info", "--format", "{{json .}}"], TIMEOUT_S)
    except OSError as error:
        return None, problem(name, f"{called} can't be started: {error.strerror}", "install Docker again")
    if said.code is None:
        return None, problem(name, f"`{called} info` hasn't answered within {TIMEOUT_S:g} s", "restart Docker")
    info = _info(said)
    if trouble := _trouble(said, info):
        remedy = _remedy(trouble)
        return None, problem(name, trouble, remedy) if remedy else not_checked(
            name, f"`{called} info` fails: {trouble}"
        )
    engine = Engine.from_info(info)
    if _lacks_buildx(info):
        return engine, problem(
            name,
            f"DOCKER_BUILDKIT={os.environ['DOCKER_BUILDKIT']} asks for Docker's part buildx, which isn't installed",
            "unset DOCKER_BUILDKIT, or install buildx: https://docs.docker.com/go/buildx/",
        )
    version = f" {engine.version}" if engine.version else ""
    system = f" on {engine.system}" if engine.system else ""
    return engine, ok(name, f"{called}{version} answers{system}")


def _info(said: Said) -> dict[str, Any]:
    with suppress(ValueError):
        info = json.loads(said.stdout)
        if isinstance(info, dict):
            return info
    return {}


def _trouble(said: Said, info: dict[str, Any]) -> str:
    """Why there is no answer, on one line, "" if there is one. Older releases of Docker exit with 0 in either case."""
    errors = info.get("ServerErrors")
    if isinstance(errors, list) and errors:
        return _in_one_line(" ".join(map(str, errors)))
    if said.code:
        return _in_one_line(said.stderr) or _in_one_line(said.stdout) or f"it ended with {said.code}"
    return "" if info else "it printed no JSON"


def _in_one_line(text: str) -> str:
    return one_line(" ".join(text.split())).rstrip(".")


def _remedy(trouble: str) -> str:
    """ "" for trouble that we don't know."""
    known = re.search(r"connect to the docker (daemon|api)|error during connect", trouble, re.IGNORECASE)
    if "could not be found in this WSL" in trouble:
        return "start Docker Desktop in Windows, and switch on this distribution in its settings under WSL integration"
    if not known:
        return ""
    if os.environ.get("DOCKER_HOST"):
        return "unset DOCKER_HOST, or correct it, or start the Docker that it names"
    if "unix://" not in trouble:
        return f"choose another Docker with `{program()} context use NAME` (`{program()} context ls` lists them)"
    if platform.system() == "Darwin":
        return "open -a Docker"
    if "permission denied" in trouble.lower():
        return "sudo usermod -aG docker $USER\nthen log out and in again"
    return _start_command(trouble)


def _start_command(trouble: str) -> str:
    """The command that starts the daemon on Linux. trouble: names its socket."""
    if not _SYSTEMD.is_dir():
        return "sudo service docker start"
    if "docker/desktop" in trouble:
        return "systemctl --user start docker-desktop"
    if "/run/user/" in trouble:
        return "systemctl --user start docker"
    return "sudo systemctl start docker"


def _lacks_buildx(info: dict[str, Any]) -> bool:
    """Whether a build fails because the environment insists on buildx. Otherwise Docker takes its older builder."""
    if os.environ.get("DOCKER_BUILDKIT", "").lower() not in ("1", "t", "true"):
        return False
    client = info.get("ClientInfo")
    plugins = client.get("Plugins") if isinstance(client, dict) else None
    # Docker-like programs have no such list.
    return isinstance(plugins, list) and "buildx" not in [
        each.get("Name") for each in plugins if isinstance(each, dict)
    ]
