"""One image for all tests: the real Dockerfile over a copy of inference/ with the quick-start model and the sample."""

from __future__ import annotations

import importlib
import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import build_state
import convert_encoder
from container.engine import Image, base_image, use_base, why_not
from container.instance import MOUNT_PATH, Function
from container.volume import Volume
from similarity.service import service
from tiny import SAMPLE_DIR, copy_inference


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
def functions(context: Path, image: Image, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Function]:
    """By handler module, each as the stack's template has it: command, memory, environment, access point's user."""
    from aws_cdk import Stack
    from aws_cdk.assertions import Template

    from infrastructure.config import Config
    from infrastructure.stack import build_app

    config = Config(account="123456789012", region="us-east-1")
    app = build_app(config, handlers_dir=context, outdir=str(tmp_path_factory.mktemp("cdk")))
    (stack,) = app.node.children
    assert isinstance(stack, Stack)
    template = Template.from_stack(stack)
    access_points = template.find_resources("AWS::EFS::AccessPoint")
    found = {}
    for resource in template.find_resources("AWS::Lambda::Function").values():
        properties = resource["Properties"]
        if "ImageConfig" not in properties:  # the invoker
            continue
        ((command,), (mount,)) = properties["ImageConfig"]["Command"], properties["FileSystemConfigs"]
        assert mount["LocalMountPath"] == MOUNT_PATH
        environment = properties["Environment"]["Variables"]
        # The mount's ARN is joined from parts, one of which refers to the access point.
        (name,) = [name for name in access_points if f'"{name}"' in json.dumps(mount["Arn"])]
        posix = access_points[name]["Properties"]["PosixUser"]
        user = f"{posix['Uid']}:{posix['Gid']}"
        module = command.removesuffix(".handler")
        found[module] = Function(image.name, command, properties["MemorySize"], environment, user=user)
    return found


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
