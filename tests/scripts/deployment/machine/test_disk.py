"""Free disk before a deployment: of the project's drive, and of Docker's."""

from __future__ import annotations

import os
import platform
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from deployment.findings import Finding, Outcome, not_checked
from deployment.given import Given
from deployment.machine.disk import disk_findings, size_of
from deployment.machine.docker import Engine

Usage = namedtuple("Usage", ["total", "used", "free"])
ACCOUNT = {"AWS_ACCOUNT_ID": "123456789012", "AWS_REGION": "eu-west-1"}
# On each system that this project runs on, a drive of its own.
OTHER_DRIVE = "/dev"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a model of 600 MB that takes no disk."""
    monkeypatch.delenv("CDK_DOCKER", raising=False)
    model = tmp_path / "inference" / "model"
    model.mkdir(parents=True)
    (model / "model.safetensors").touch()
    os.truncate(model / "model.safetensors", 600_000_000)
    return tmp_path


def engine_in(folder: Path | str, **changes: str) -> Engine:
    here = {"Name": platform.node(), "KernelVersion": platform.release()}
    return Engine.from_info({**here, "DockerRootDir": str(folder), **changes})


def set_free(monkeypatch: pytest.MonkeyPatch, gigabytes: float, elsewhere: float | None = None) -> None:
    """elsewhere: on Docker's drive, if that is another one."""

    def usage(path: Path) -> Usage:
        free = elsewhere if elsewhere is not None and str(path) == OTHER_DRIVE else gigabytes
        return Usage(0, 0, int(free * 1e9))

    monkeypatch.setattr(shutil, "disk_usage", usage)


def findings(root: Path, engine: Engine | None, **settings: str) -> list[Finding]:
    return list(disk_findings(Given.read({**ACCOUNT, **settings}, root), engine))


@pytest.mark.parametrize(("engine", "for_docker"), [("onnx", 2.8), ("torch", 3.7)])
def test_one_drive_must_have_room_for_both(
    engine: str, for_docker: float, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = engine_in(root)
    set_free(monkeypatch, 1.1 + for_docker)
    [found] = findings(root, here, ENCODER_ENGINE=engine)
    assert found.outcome is Outcome.OK
    assert f"needs about 1.1 GB for cdk.out and about {for_docker} GB for Docker" in found.detail
    set_free(monkeypatch, 1.0 + for_docker)
    [found] = findings(root, here, ENCODER_ENGINE=engine)
    assert found.outcome is Outcome.NOTE
    assert found.detail.startswith(f"{1.0 + for_docker} GB are free where {root} is, ")
    assert found.remedy == "docker system prune\nor free space"
    # Not even the copy and what is sent to Docker.
    set_free(monkeypatch, 1.1)
    [found] = findings(root, here, ENCODER_ENGINE=engine)
    assert (found.outcome, found.remedy) == (Outcome.PROBLEM, "docker system prune\nor free space")


def test_two_drives_are_looked_at_one_by_one(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Path(OTHER_DRIVE).stat().st_dev != root.stat().st_dev
    set_free(monkeypatch, 1.2, elsewhere=0.5)
    project, docker = findings(root, engine_in(OTHER_DRIVE))
    assert (project.name, project.outcome) == ("Disk", Outcome.OK)
    assert (docker.name, docker.outcome) == ("Docker's disk", Outcome.PROBLEM)
    assert docker.remedy == "docker system prune\nor free space"
    set_free(monkeypatch, 0.5, elsewhere=3.0)
    project, docker = findings(root, engine_in(OTHER_DRIVE))
    assert (project.outcome, project.remedy) == (Outcome.PROBLEM, "free space")
    assert docker.outcome is Outcome.OK


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to("nowhere")])
def test_cdk_out_must_be_a_folder(make: Callable[[Path], None], root: Path) -> None:
    make(root / "cdk.out")
    found = findings(root, None)[0]
    assert (found.outcome, found.detail, found.remedy) == (Outcome.PROBLEM, "cdk.out isn't a folder", "rm cdk.out")


@pytest.mark.parametrize("there", [True, False])
def test_the_copy_must_be_allowed(there: bool, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests may run as root, who may write anywhere."""
    folder = root / "cdk.out" if there else root
    folder.mkdir(exist_ok=True)
    monkeypatch.setattr(os, "access", lambda path, mode: path != folder)
    found = findings(root, None)[0]
    assert (found.outcome, found.detail) == (Outcome.PROBLEM, f"{folder} can't be written")


def test_copies_of_earlier_deployments_can_go(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "cdk.out").mkdir()
    set_free(monkeypatch, 1.0)
    assert findings(root, None)[0].remedy == "rm -r cdk.out\nor free space otherwise"


@pytest.mark.parametrize(
    ("engine", "why"),
    [
        (None, "Docker doesn't answer"),
        (
            engine_in("/", OperatingSystem="Docker Desktop"),
            "Docker keeps its images on Docker Desktop, and doesn't tell how much is free there",
        ),
        (
            engine_in("/", Name="builder"),
            "Docker keeps its images on another machine (builder), and doesn't tell how much is free there",
        ),
        (engine_in("/no such folder"), "Docker doesn't tell where on this machine it keeps its images"),
        (engine_in(""), "Docker doesn't tell where on this machine it keeps its images"),
    ],
)
def test_a_drive_that_cannot_be_seen_is_not_checked(
    engine: Engine | None, why: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_free(monkeypatch, 2)
    project, docker = findings(root, engine)
    assert project.outcome is Outcome.OK
    assert docker == not_checked("Docker's disk", why)


def test_a_model_that_is_to_come_is_counted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(root / "inference" / "model")
    set_free(monkeypatch, 0.5)
    assert findings(root, None)[0].outcome is Outcome.PROBLEM


def test_a_link_around_is_not_followed(root: Path) -> None:
    (root / "inference" / "model" / "more").symlink_to("/")
    assert findings(root, None) == [
        not_checked("Disk", "a link in inference/model leads around it, so its size isn't known")
    ]


def test_links_count_as_what_they_lead_to_and_hidden_files_do_not_count(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "inference", tmp_path / "elsewhere"
    for made in (folder / ".cache", elsewhere):
        made.mkdir(parents=True)
    for path, size in {
        folder / "similar.py": 1,
        folder / ".DS_Store": 10,
        folder / ".cache" / "part": 100,
        elsewhere / "model.safetensors": 1000,
        tmp_path / "graph": 10000,
    }.items():
        path.write_bytes(bytes(size))
    (folder / "model").symlink_to(elsewhere)
    (elsewhere / "encoder.onnx").symlink_to(tmp_path / "graph")
    (elsewhere / "again").symlink_to(".")
    (elsewhere / "gone").symlink_to("nowhere")
    assert size_of(folder) == 11001
