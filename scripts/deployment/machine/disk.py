"""Free disk: for the CDK's copy of `inference/`, and for Docker's image."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from deployment.findings import Finding, not_checked, note, ok, problem
from deployment.given import Given
from deployment.machine.docker import NO_ANSWER, Engine, program
from infrastructure.build_context import require_no_link_around
from infrastructure.config import ConfigError

# Templates, the code of two small Lambdas, and room.
_SPARE_BYTES = 500_000_000
# Those of the default model, for a folder without a model.
_MODEL_BYTES = 510_000_000
# While Docker builds, it has inference/ four times: as it was sent, in the Dockerfile's stage `files`, there once more
# because a change of modes stores a file again, and in the image.
_COPIES = 4
# Base and dependencies, by engine: docs/deploying.md#the-image.
_IMAGE_BYTES = {"onnx": 400_000_000, "torch": 1_300_000_000}


@dataclass(frozen=True)
class Need:
    """Bytes. With less than `least`, a deployment fails. With `enough`, it doesn't."""

    least: int
    enough: int


def disk_findings(given: Given, engine: Engine | None) -> Iterator[Finding]:
    """The free space of the project's drive and of Docker's. Both may be the same drive."""
    name, of_docker = "Disk", "Docker's disk"
    inference = given.root / "inference"
    yield from _writable_findings(given.root, given.root / "cdk.out")
    try:
        require_no_link_around(inference)
    except ConfigError:
        yield not_checked(name, "a link in inference/model leads around it, so its size isn't known")
        return
    size = size_of(inference) + (0 if given.model_dir.exists() else _MODEL_BYTES)
    # Where the CDK's command line writes. It may be a link to another drive.
    cdk_out = given.root / "cdk.out"
    project = cdk_out if cdk_out.is_dir() else given.root
    # With a cache, Docker may need no more than the files that it gets.
    for_project = Need(size, size + _SPARE_BYTES)
    for_docker = Need(size, _COPIES * size + _IMAGE_BYTES[given.config.encoder_engine])
    prune = f"{program()} system prune"
    clear = "rm -r cdk.out\nor free space otherwise" if project == cdk_out else "free space"
    if unknown := _why_unknown(engine):
        yield _finding(name, project, {"cdk.out": for_project}, clear)
        yield not_checked(of_docker, unknown)
        return
    assert engine
    root = Path(engine.root)
    if root.stat().st_dev == project.stat().st_dev:
        yield _finding(name, project, {"cdk.out": for_project, "Docker": for_docker}, f"{prune}\nor {clear}")
    else:
        yield _finding(name, project, {"cdk.out": for_project}, clear)
        yield _finding(of_docker, root, {"Docker": for_docker}, f"{prune}\nor free space")


def _writable_findings(root: Path, cdk_out: Path) -> Iterator[Finding]:
    """Whether the CDK's command line can write to cdk.out."""
    if os.path.lexists(cdk_out) and not cdk_out.is_dir():
        yield problem("Disk", "cdk.out isn't a folder", "rm cdk.out")
    else:
        folder = cdk_out if cdk_out.is_dir() else root
        if not os.access(folder, os.W_OK | os.X_OK):
            yield problem("Disk", f"{folder} can't be written", f"sudo chown -R $USER '{folder}', or another drive")


def _finding(name: str, path: Path, needs: dict[str, Need], remedy: str) -> Finding:
    free = shutil.disk_usage(path).free
    each = " and ".join(f"about {_gigabytes(need.enough)} for {user}" for user, need in needs.items())
    detail = f"{_gigabytes(free)} are free where {path} is, and a deployment needs {each}"
    if free >= sum(need.enough for need in needs.values()):
        return ok(name, detail)
    if free >= sum(need.least for need in needs.values()):
        return note(name, detail, remedy)
    return problem(name, detail, remedy)


def _why_unknown(engine: Engine | None) -> str:
    """Why Docker's free disk isn't known, "" if it is."""
    if engine is None:
        return NO_ANSWER
    if not engine.is_here:
        return f"Docker keeps its images on {engine.where}, and doesn't tell how much is free there"
    try:
        if engine.root and Path(engine.root).is_dir():
            return ""
    except OSError:
        pass
    return "Docker doesn't tell where on this machine it keeps its images"


def size_of(folder: Path) -> int:
    """The bytes of a folder's files. Links are followed. Hidden files aren't counted: they don't go into the image."""
    total, seen = 0, set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith("."):
                with suppress(OSError):
                    total += Path(parent, name).stat().st_size
    return total


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
