"""One image for all tests: the real Dockerfile over a copy of inference/ with the quick-start model and the sample."""

from __future__ import annotations

import importlib
import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import build_state
import convert_encoder
from chain.cloud import BUCKET
from container.engine import Image, base_image, use_base, why_not
from container.instance import LAMBDAS_USER, MOUNT_PATH, Function
from container.volume import Volume
from models.export import export
from similarity.encoder.cpu import lack_of
from similarity.incidents.state import IncidentState
from similarity.service import service
from tiny import SAMPLE_DIR, copy_inference

if TYPE_CHECKING:
    from stack import Synthesised


@pytest.fixture(scope="session")
def engine() -> None:
    if reason := why_not():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def context(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the image is built from. Shared: don't write to it."""
    folder = copy_inference(tmp_path_factory.mktemp("context") / "inference")
    use_base(folder, base_image())
    model = folder / "model"
    assert convert_encoder.main(["--quick-start", "--out", str(model)]) == 0
    paths = ["--model", str(model), "--out", str(model / "incident_cls.pt"), "--cache", str(folder.parent / "cache")]
    assert build_state.main([str(SAMPLE_DIR), *paths]) == 0
    return folder


@pytest.fixture(scope="session")
def image(context: Path) -> Iterator[Image]:
    built = Image.build(f"similar-incidents-test:{uuid.uuid4().hex[:12]}", context)
    yield built
    built.remove()


@pytest.fixture(scope="session")
def image_of_int8(context: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """With the export of int8, which agrees with float32."""
    if reason := lack_of("int8"):
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("int8") / "inference"
    shutil.copytree(context, folder)
    report = export(folder / "model", "int8", state=IncidentState.load(folder / "model" / "incident_cls.pt"))
    assert report.agreement
    assert report.agreement.is_enough
    built = Image.build(f"similar-incidents-test:{uuid.uuid4().hex[:12]}", folder)
    yield built
    built.remove()


@pytest.fixture(scope="session")
def synthesised(context: Path, tmp_path_factory: pytest.TempPathFactory) -> Synthesised:
    """The stack of the image's handlers."""
    from stack import synthesise_from  # which takes seconds, even where nothing of this is run

    return synthesise_from(context, tmp_path_factory.mktemp("cdk"))


@pytest.fixture(scope="session")
def functions(image: Image, synthesised: Synthesised) -> dict[str, Function]:
    """By handler module, each as the stack's template has it: command, limits, environment, access point's user."""
    access_points = synthesised.resources("AWS::EFS::AccessPoint")
    return {
        module: Function(
            image.name,
            f"{module}.handler",
            properties["MemorySize"],
            _resolved(properties["Environment"]["Variables"]),
            user=_user(properties.get("FileSystemConfigs", []), access_points),
            tmp_mib=properties.get("EphemeralStorage", {"Size": 512})["Size"],
            timeout_s=properties["Timeout"],
        )
        for module, properties in synthesised.functions().items()
    }


def _resolved(environment: dict[str, Any]) -> dict[str, str]:
    """The variables, with a name in place of the reference to the bucket."""
    references = {name: value for name, value in environment.items() if not isinstance(value, str)}
    assert set(references) <= {"STATE_BUCKET"}
    assert all(set(value) == {"Ref"} for value in references.values())
    return {**environment, **dict.fromkeys(references, BUCKET)}


def _user(mounts: list[dict[str, Any]], access_points: dict[str, dict[str, Any]]) -> str:
    """The access point's, or Lambda's where there is none."""
    if not mounts:
        return LAMBDAS_USER
    (mount,) = mounts
    assert mount["LocalMountPath"] == MOUNT_PATH
    # The mount's ARN is joined from parts, one of which refers to the access point.
    (name,) = [name for name in access_points if f'"{name}"' in json.dumps(mount["Arn"])]
    posix = access_points[name]["Properties"]["PosixUser"]
    return f"{posix['Uid']}:{posix['Gid']}"


@pytest.fixture
def volume(image: Image) -> Iterator[Volume]:
    with Volume.create(image.name) as empty:
        yield empty


@pytest.fixture
def similar(functions: dict[str, Function], volume: Volume) -> Function:
    """The function /similar with an empty volume."""
    return replace(functions["similar"], volume=volume.name)


@pytest.fixture(scope="session")
def in_process(context: Path) -> Iterator[Callable[[str, object], dict[str, Any]]]:
    """Asks a handler of this process, on the model and state of the image."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODEL_DIR", str(context / "model"))
        for name in ("MODEL_FILENAME", "INCIDENTS_FILENAME", "HF_MODEL_URI", "SHELF_DIR", "ENCODER_ENGINE"):
            patch.delenv(name, raising=False)
        service.cache_clear()
        yield lambda module, event: importlib.import_module(module).handler(event, None)
    service.cache_clear()
