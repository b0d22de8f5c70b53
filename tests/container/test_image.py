"""The image by itself: what is in it, what it is made of, and what a new state or handler adds to an upload."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import build_state
from container.engine import Image, Layer, docker
from local.locks import canonical, pins
from similarity.api.routes import find_handlers
from tiny import SAMPLE_DIR

MIB = 1 << 20


def python(image: Image, code: str) -> str:
    """What a script prints in the image, started as its handlers are but with another program."""
    options = ["--rm", "--read-only", "--network=none", "--ipc=none", "--entrypoint=/opt/venv/bin/python"]
    return docker("run", *options, image.name, "-c", code)


def test_it_starts_lambdas_client_as_a_user_that_is_not_root(image: Image) -> None:
    config = image.inspect()["Config"]
    assert config["Entrypoint"] == ["/opt/venv/bin/python", "-m", "awslambdaric"]
    assert config["User"] == "1001:1001"
    assert config["WorkingDir"] == "/var/task"


def test_it_has_no_torch_and_no_cuda(image: Image) -> None:
    names = json.loads(
        python(image, "import importlib.metadata as m, json; print(json.dumps([d.name for d in m.distributions()]))")
    )
    assert {"awslambdaric", "onnxruntime", "tokenizers"} <= set(names)
    assert not [name for name in names if re.match(r"torch|nvidia|triton|cuda|transformers", name)]


def test_it_has_the_versions_of_the_lock_and_no_other_packages(image: Image, context: Path) -> None:
    code = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    installed = {canonical(name): version for name, version in json.loads(python(image, code)).items()}
    locked = pins(context / "locks" / "requirements.txt")
    assert installed == {name: locked.get(name) for name in installed}
    assert set(pins(context / "requirements.txt")) < set(installed)


def test_what_the_handlers_import_is_there_as_bytecode(image: Image, context: Path) -> None:
    modules = [handler.module for handler in find_handlers(context)]
    missing = python(
        image,
        "import awslambdaric.bootstrap, importlib, os, sys\n"
        f"for name in {modules}: importlib.import_module(name)\n"
        "import similarity.service\n"
        "paths = [getattr(m, '__cached__', None) for m in list(sys.modules.values())]\n"
        "assert len([path for path in paths if path]) > 100\n"
        "print(*[path for path in paths if path and not os.path.exists(path)])",
    )
    assert missing == ""


def test_its_files_can_be_read_by_any_user(context: Path, tmp_path: Path) -> None:
    """A laptop whose umask keeps files to their owner builds an image that works."""
    private = tmp_path / "private"
    shutil.copytree(context, private)
    for path in [private, *private.rglob("*")]:
        path.chmod(0o700 if path.is_dir() else 0o600)
    image = Image.build("similar-incidents-test:private", private)
    try:
        unreadable = docker(
            *("run", "--rm", "--user=993:990", "--entrypoint=find", image.name),
            *("/var/task", "(", "-not", "-readable", "-o", "-type", "d", "-not", "-executable", ")"),
        )
    finally:
        image.remove()
    assert unreadable == ""


def test_it_is_for_one_platform_and_no_larger_than_needed(image: Image) -> None:
    inspected = image.inspect()
    assert (inspected["Os"], inspected["Architecture"]) == ("linux", {"x86_64": "amd64"}.get(machine(), "arm64"))
    (installed,) = [layer.size for layer in image.layers() if "pip install" in layer.made_by]
    assert 50 * MIB < installed < 300 * MIB


def machine() -> str:
    import platform

    return platform.machine()


def with_a_new_state(context: Path) -> None:
    reports = context.parent / "reports"
    shutil.copytree(SAMPLE_DIR, reports)
    rows = (reports / "reports.csv").read_text().splitlines(keepends=True)
    (reports / "reports.csv").write_text("".join(rows).replace("driver", "motorist"))
    state = context / "model" / "incident_cls.pt"
    state.unlink()
    paths = ["--model", str(state.parent), "--out", str(state), "--cache", str(context.parent / "cache")]
    assert build_state.main([str(reports), *paths]) == 0


def with_a_new_handler(context: Path) -> None:
    (context / "hello.py").write_text("def handler(event, context):\n    return {}\n")


def with_a_new_agreement(context: Path) -> None:
    """As an export leaves it that measures the agreement anew."""
    (context / "model" / "encoder.int8.json").write_text("{}")
    provenance = json.loads((context / "model" / "provenance.json").read_text())
    (context / "model" / "provenance.json").write_text(json.dumps({**provenance, "note": "changed"}))


def with_changed_library_code(context: Path) -> None:
    with (context / "similarity" / "api" / "events.py").open("a") as file:
        file.write("# changed\n")


@pytest.mark.parametrize(
    "change", [with_a_new_state, with_a_new_agreement, with_a_new_handler, with_changed_library_code]
)
def test_a_change_uploads_megabytes_not_the_image(
    change: Callable[[Path], None], image: Image, context: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "inference"
    shutil.copytree(context, changed)
    change(changed)
    rebuilt = Image.build(f"similar-incidents-test:{change.__name__}", changed)
    try:
        before, after = image.layers(), rebuilt.layers()
    finally:
        rebuilt.remove()
    digests = {layer.digest for layer in before}
    new: list[Layer] = [layer for layer in after if layer.digest not in digests]
    assert 0 < len(new) < len(after)
    assert sum(layer.size for layer in new) < 5 * MIB
    assert sum(layer.size for layer in after) > 100 * MIB
