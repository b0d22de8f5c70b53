"""Docker, by its command line: whether there is an engine, base images, and the image that inference/Dockerfile makes.

Which base: the variable BASE_IMAGE where it is set, else the Dockerfile's own where its registry can be reached, else a
stand-in made with debootstrap. Tests write its name into their copy of the Dockerfile. What runs in the images is
instance.py's concern.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiny import ROOT

STAND_IN = "similar-incidents-base:bookworm"
# Not a build argument: Dependabot doesn't follow one.
BASE = re.compile(r"^FROM (\S+) AS base$", re.MULTILINE)
COMMAND_S = 120.0
BUILD_S = 600.0

CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")


class DockerError(RuntimeError):
    """A command that failed, with what it said."""


def docker(*arguments: str | Path, timeout_s: float | None = COMMAND_S, stdin: str | None = None) -> str:
    """What `docker ARGUMENTS` prints. Raises DockerError."""
    command = ["docker", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, input=stdin)
    if done.returncode:
        raise DockerError(f"{' '.join(command)}: exit {done.returncode}: {(done.stderr or done.stdout)[-4000:]}")
    return done.stdout.strip()


def logs(container: str) -> str:
    """All that a container has said, on either stream."""
    command = ["docker", "logs", container]
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=COMMAND_S
    ).stdout


def why_not() -> str | None:
    """Why containers can't be run here, None where they can."""
    if not os.environ.get("RUN_CONTAINER"):
        return "containers are tested where RUN_CONTAINER=1 is set, as .ci/run does"
    if shutil.which("docker") is None:
        return "there is no docker command"
    try:
        system = docker("version", "--format", "{{.Server.Os}}")
    except (DockerError, subprocess.TimeoutExpired) as error:
        return f"no Docker Engine answers: {str(error).splitlines()[-1]}"
    return None if system == "linux" else f"the Docker Engine runs {system} containers"


def base_image() -> str:
    """The name of an image to build on. Raises DockerError where none can be had."""
    if given := os.environ.get("BASE_IMAGE"):
        return given
    (default,) = BASE.findall((ROOT / "inference" / "Dockerfile").read_text())
    for image in (default, STAND_IN):
        with suppress(DockerError):
            docker("image", "inspect", image)
            return str(image)
    try:
        docker("pull", "--quiet", default)
    except (DockerError, subprocess.TimeoutExpired):
        make_stand_in()
        return STAND_IN
    return str(default)


def use_base(context: Path, base: str) -> None:
    """Makes the Dockerfile in `context`, a copy, build on another image."""
    dockerfile = context / "Dockerfile"
    changed, count = BASE.subn(f"FROM {base} AS base", dockerfile.read_text())
    assert count == 1
    dockerfile.write_text(changed)


def make_stand_in() -> None:
    """Debian with its Python, as the default base is, and with this machine's certificates, which pip may need."""
    if shutil.which("debootstrap") is None or os.geteuid() != 0:
        raise DockerError("no registry can be reached, and a stand-in base image takes debootstrap and root")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name, "root")
        packages = "python3,python3-venv,ca-certificates"
        subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", root, *_mirror()],
            check=True,
            capture_output=True,
            timeout=BUILD_S,
        )
        for path in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc"):
            shutil.rmtree(root / path)
        # The official Python image holds no bytecode of the standard library either.
        for bytecode in (root / "usr/lib/python3.11").rglob("*.pyc"):
            bytecode.unlink()
        if CA_BUNDLE.exists():
            shutil.copyfile(CA_BUNDLE, root / CA_BUNDLE.relative_to("/"))
        archive = Path(name, "root.tar")
        subprocess.run(["tar", "-C", root, "-cf", archive, "."], check=True, timeout=COMMAND_S)
        changes = [f"--change=ENV {name}={CA_BUNDLE}" for name in ("PIP_CERT", "SSL_CERT_FILE")]
        changes += [f"--change=ENV PIP_INDEX_URL={url}" for url in [os.environ.get("PIP_INDEX_URL")] if url]
        docker("import", *changes, archive, STAND_IN)


def _mirror() -> list[str]:
    """The Debian mirror that this machine's own packages come from; none where debootstrap has to know one."""
    for path in [*sorted(Path("/etc/apt/sources.list.d").glob("*")), Path("/etc/apt/sources.list")]:
        if path.is_file() and (
            found := re.search(r"^(?:URIs:|deb(?: \[.*\])?) *(\S+/debian)/?\s", path.read_text(), re.M)
        ):
            return [found[1]]
    return []


@dataclass(frozen=True)
class Layer:
    """A layer of an image: its digest, the bytes of its files, and the instruction that made it."""

    digest: str
    size: int
    made_by: str


@dataclass(frozen=True)
class Image:
    name: str

    @classmethod
    def build(cls, name: str, context: Path, **arguments: str) -> Image:
        """Builds the Dockerfile in `context`; `arguments` are its ARGs. Raises DockerError."""
        given = [f"--build-arg={key}={value}" for key, value in arguments.items()]
        # The host's network, because a container's own may know no name server or be kept from the registry.
        docker("build", "--network=host", "--tag", name, *given, context, timeout_s=BUILD_S)
        return cls(name)

    def inspect(self) -> dict[str, Any]:
        return dict(json.loads(docker("image", "inspect", self.name))[0])

    def layers(self) -> list[Layer]:
        """From the base image's up."""
        digests = self.inspect()["RootFS"]["Layers"]
        # `history` knows instructions and sizes, newest first, among them those that made no layer.
        rows = docker("history", "--no-trunc", "--human=false", "--format", "{{.Size}}\t{{.CreatedBy}}", self.name)
        made = [row.partition("\t") for row in reversed(rows.splitlines())]
        with_files = [(int(size), by) for size, _, by in made if makes_a_layer(by)]
        # A pulled base brings a history of its own; what comes last is ours either way.
        sizes = with_files[-len(digests) :]
        if len(sizes) != len(digests):
            raise DockerError(f"{self.name}: {len(digests)} layers, but {len(with_files)} instructions that make one")
        return [Layer(digest, size, by) for digest, (size, by) in zip(digests, sizes, strict=True)]

    def remove(self) -> None:
        docker("image", "rm", "--force", self.name)


def makes_a_layer(instruction: str) -> bool:
    """Whether a line of `docker history` stands for a layer; those of metadata begin with their name."""
    words = instruction.replace("/bin/sh -c #(nop)", "").split()
    return not words or words[0] not in {
        *("ARG", "CMD", "ENTRYPOINT", "ENV", "EXPOSE", "LABEL", "SHELL", "STOPSIGNAL", "USER", "VOLUME"),
        "MAINTAINER",
    }
