"""The image: what it is built from, when it is another one, and what is said where it can't be built."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest

from infrastructure.config import Config, ConfigError
from infrastructure.stack import build_app
from similarity.encoder.model_folder import EXPORTED_FILENAMES, REPORT_FILENAMES
from similarity.encoder.reports import Agreement, Report
from similarity.settings import Engine, Precision, PrecisionSetting
from stack import DEFAULT, HANDLERS, JOBS, Synthesised, asset_hash, only, warnings_in
from tiny import ROOT, copy_inference


def test_all_functions_share_one_image_built_from_the_handlers_folder(each: Synthesised) -> None:
    image, functions = only(each.docker_images()), list(each.functions().values())
    assert len(functions) == len(each.expected | JOBS)
    assert len({json.dumps(function["Code"]["ImageUri"]) for function in functions}) == 1
    (destination,) = image["destinations"].values()
    assert f":{destination['imageTag']}" in json.dumps(functions[0]["Code"]["ImageUri"])
    # scripts/destroy knows it by this tag, in a repository that all CDK apps share.
    assert destination["imageTag"] == f"similar-incidents-{image['source']['directory'].removeprefix('asset.')}"
    built_from = each.outdir / image["source"]["directory"]
    assert {path.name for path in built_from.iterdir() if path.suffix == ".py"} == {f"{name}.py" for name in HANDLERS}
    assert (built_from / "similarity" / "service.py").is_file()
    assert (built_from / "jobs" / "shelve_state.py").is_file()
    assert (built_from / "requirements.txt").is_file()


@pytest.mark.parametrize(("synthesised", "engine"), [("default", "onnx"), ("other", "torch")])
def test_the_image_is_built_for_one_platform_and_one_engine(
    synthesised: str, engine: str, request: pytest.FixtureRequest
) -> None:
    source = only(request.getfixturevalue(synthesised).docker_images())["source"]
    assert source["dockerBuildArgs"] == {"ENCODER_ENGINE": engine}
    assert source["platform"].count("/") == 1
    assert "," not in source["platform"]


TORCH = replace(DEFAULT, encoder_engine="torch")


def warnings_of(folder: Path, *, files: tuple[str, ...], config: Config = DEFAULT) -> list[str]:
    handlers_dir = copy_inference(folder / "inference")
    (handlers_dir / "model").mkdir()
    for name in files:
        (handlers_dir / "model" / name).write_bytes(b"a file")
    return warnings_in(handlers_dir, folder / "cdk.out", config)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("model.safetensors", "fetch_model.py"),
        ("encoder.onnx", "export_onnx.py"),
        ("incident_cls.pt", "build_state.py"),
    ],
)
def test_a_missing_part_of_the_model_is_a_warning_that_says_what_makes_it(
    name: str, script: str, tmp_path: Path
) -> None:
    files = tuple(found for found in ("model.safetensors", "encoder.onnx", "incident_cls.pt") if found != name)
    (warning,) = warnings_of(tmp_path, files=files)
    assert f"inference/model/{name} is not there" in warning
    assert f"scripts/{script}" in warning


FLOAT32 = ("model.safetensors", "encoder.onnx", "incident_cls.pt")
INT8 = ("encoder.int8.onnx", "encoder.int8.bin")


@pytest.mark.slow
def test_int8_needs_its_own_files_and_those_of_float32_which_serves_where_int8_can_not(tmp_path: Path) -> None:
    config = replace(DEFAULT, encoder_precision="int8")
    warnings = warnings_of(tmp_path / "float32", files=FLOAT32, config=config)
    assert len(warnings) == len(INT8)
    for name, warning in zip(INT8, warnings, strict=True):
        assert f"inference/model/{name} is not there" in warning
        assert "make it with scripts/export_onnx.py --precision int8" in warning
    (warning,) = warnings_of(tmp_path / "int8", files=("model.safetensors", "incident_cls.pt", *INT8), config=config)
    assert "inference/model/encoder.onnx is not there" in warning
    assert warnings_of(tmp_path / "both", files=(*FLOAT32, *INT8), config=config) == []


def agreement(share: float) -> Agreement:
    return Agreement(cosine=1.0, centered=share, smallest_cosine=0.9995, texts=989)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "found", "reason"),
    [
        ("onnx", None, "int8 wasn't exported"),
        ("torch", None, "bfloat16 wasn't exported"),
        ("onnx", Report(np.array([0]), np.ones(2, np.float32), 0.1), "int8's agreement with float32 wasn't"),
        ("onnx", Report(np.array([0]), np.ones(2, np.float32), 0.1, agreement(0.99)), "int8 doesn't agree enough"),
        ("onnx", Report(np.array([0]), np.ones(2, np.float32), 0.1, agreement(0.995)), None),
        ("torch", Report(np.array([0]), np.ones(2, np.float32), 0.1, agreement(1.0)), None),
    ],
)
def test_auto_warns_if_float32_will_serve_whatever_the_cpu(
    engine: Engine, found: Report | None, reason: str | None, tmp_path: Path
) -> None:
    handlers_dir = copy_inference(tmp_path / "inference")
    (handlers_dir / "model").mkdir()
    for name in (*FLOAT32, *INT8):
        (handlers_dir / "model" / name).write_bytes(b"a file")
    precision: Precision = "int8" if engine == "onnx" else "bfloat16"
    if found:
        (handlers_dir / "model" / REPORT_FILENAMES[precision]).write_text(json.dumps(found.to_json()))
    config = replace(DEFAULT, encoder_engine=engine, encoder_precision="auto")
    warnings = warnings_in(handlers_dir, tmp_path / "cdk.out", config)
    assert len(warnings) == bool(reason)
    if reason:
        assert f"ENCODER_PRECISION=auto, but float32 will serve: {reason}" in warnings[0]
        assert f"scripts/export_onnx.py inference/model --precision {precision} measures the agreement" in warnings[0]


@pytest.mark.slow
def test_auto_warns_of_a_report_that_can_not_be_read(tmp_path: Path) -> None:
    files = (*FLOAT32, *INT8, "encoder.int8.json")
    (warning,) = warnings_of(tmp_path, files=files, config=replace(DEFAULT, encoder_precision="auto"))
    assert "encoder.int8.json: it isn't JSON" in warning


@pytest.mark.slow
def test_every_missing_part_is_a_warning_and_nothing_else_is(tmp_path: Path) -> None:
    assert len(warnings_of(tmp_path / "none", files=())) == 3
    assert len(warnings_of(tmp_path / "torch", files=(), config=TORCH)) == 2


@pytest.mark.slow
def test_a_model_with_its_state_gives_no_warning(tmp_path: Path) -> None:
    assert warnings_of(tmp_path / "onnx", files=("model.safetensors", "encoder.onnx", "incident_cls.pt")) == []
    assert warnings_of(tmp_path / "torch", files=("model.safetensors", "incident_cls.pt"), config=TORCH) == []


def write_model(handlers_dir: Path) -> None:
    (handlers_dir / "model").mkdir()
    for name in ("config.json", "tokenizer.json", "provenance.json", "model.safetensors", "incident_cls.pt"):
        (handlers_dir / "model" / name).write_text(f"content of {name}")


@pytest.fixture(scope="module")
def clean_hash(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("clean")
    write_model(copy_inference(folder / "inference"))
    return asset_hash(folder / "inference", folder / "cdk.out")


def test_the_same_files_give_the_same_image(clean_hash: str, tmp_path: Path) -> None:
    write_model(copy_inference(tmp_path / "inference"))
    assert asset_hash(tmp_path / "inference", tmp_path / "cdk.out") == clean_hash


CLUTTER = (
    "__pycache__/similar.cpython-311.pyc",
    "similarity/__pycache__/service.cpython-311.pyc",
    "similar.pyc",
    "tests/test_similar.py",
    ".venv/lib/similar.py",
    ".git/HEAD",
    ".DS_Store",
    "similarity/.DS_Store",
    "model/.DS_Store",
    "._similar.py",
    "similarity/._service.py",
    ".env",
    "notes.txt",
    "README.md",
    "cdk.out/manifest.json",
    "model/model.safetensors.partial",
    "model/incident_cls.pt.abc.tmp",
    "model/.cache/huggingface/lock",
)


def test_clutter_beside_the_handlers_does_not_change_the_image(clean_hash: str, tmp_path: Path) -> None:
    handlers_dir = copy_inference(tmp_path / "inference")
    write_model(handlers_dir)
    for name in CLUTTER:
        (handlers_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (handlers_dir / name).write_bytes(b"\x00\x05\x16\x07")
    (handlers_dir / ".#similar.py").symlink_to("someone@somewhere.1234")
    found = asset_hash(handlers_dir, tmp_path / "cdk.out")
    (staged,) = (path.parent for path in (tmp_path / "cdk.out").glob("asset.*/Dockerfile"))
    assert {str(path.relative_to(staged)) for path in staged.rglob("*")}.isdisjoint(CLUTTER)
    assert found == clean_hash


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "similar.py",
        "similarity/service.py",
        "jobs/shelve_state.py",
        "requirements.txt",
        "Dockerfile",
        "model/incident_cls.pt",
        "model/model.safetensors",
        "model/config.json",
        "model/tokenizer.json",
        "model/provenance.json",
    ],
)
def test_a_change_of_what_the_image_holds_changes_it(name: str, clean_hash: str, tmp_path: Path) -> None:
    handlers_dir = copy_inference(tmp_path / "inference")
    write_model(handlers_dir)
    assert (handlers_dir / name).is_file()
    with (handlers_dir / name).open("a", encoding="utf-8") as file:
        file.write("\n# changed\n")
    assert asset_hash(handlers_dir, tmp_path / "cdk.out") != clean_hash


def link_to_folder(model: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    model.rename(target)
    model.symlink_to(os.path.relpath(target, model.parent))


def link_to_files(model: Path, target: Path) -> None:
    """As in a snapshot of the hub's cache."""
    files = sorted(model.iterdir())
    target.mkdir(parents=True)
    for number, file in enumerate(files):
        file.rename(target / str(number))
        file.symlink_to(os.path.relpath(target / str(number), model))


def link_to_links(model: Path, target: Path) -> None:
    link_to_files(model, target)
    link_to_folder(model, target.with_name("snapshot"))


def link_by_an_absolute_path(model: Path, target: Path) -> None:
    link_to_folder(model, target)
    model.unlink()
    model.symlink_to(target)


LINKS = (link_to_folder, link_to_files, link_to_links, link_by_an_absolute_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("link", "place"),
    [
        *((link, place) for link in LINKS for place in ("inference/longformer", "models/longformer")),
        (link_to_files, "inference/model/.blobs"),
    ],
)
def test_a_model_behind_links_gives_the_same_image(
    link: Callable[[Path, Path], None], place: str, clean_hash: str, tmp_path: Path
) -> None:
    handlers_dir = copy_inference(tmp_path / "inference")
    write_model(handlers_dir)
    names = {path.name for path in (handlers_dir / "model").iterdir()}
    link(handlers_dir / "model", tmp_path / place)
    assert asset_hash(handlers_dir, tmp_path / "cdk.out") == clean_hash
    (staged,) = (path.parent for path in (tmp_path / "cdk.out").glob("asset.*/Dockerfile"))
    assert not [path for path in staged.rglob("*") if path.is_symlink()]
    assert {path.name for path in (staged / "model").iterdir()} == names
    for name in names:
        assert (staged / "model" / name).read_text() == f"content of {name}"


def test_the_folder_of_the_handlers_may_be_a_link(clean_hash: str, tmp_path: Path) -> None:
    write_model(copy_inference(tmp_path / "elsewhere"))
    (tmp_path / "inference").symlink_to("elsewhere")
    assert asset_hash(tmp_path / "inference", tmp_path / "cdk.out") == clean_hash


def test_a_link_back_to_its_own_folder_changes_nothing(clean_hash: str, tmp_path: Path) -> None:
    handlers_dir = copy_inference(tmp_path / "inference")
    write_model(handlers_dir)
    (handlers_dir / "model" / "again").symlink_to(".")
    assert asset_hash(handlers_dir, tmp_path / "cdk.out") == clean_hash


@pytest.mark.parametrize("name", ["model", "model/more"])
@pytest.mark.parametrize("target", [".", ".."])
def test_a_link_to_a_folder_that_holds_the_handlers_is_refused(name: str, target: str, tmp_path: Path) -> None:
    handlers_dir = copy_inference(tmp_path / "inference")
    (handlers_dir / name).parent.mkdir(exist_ok=True)
    (handlers_dir / name).symlink_to(handlers_dir / target)
    with pytest.raises(ConfigError, match=f"^inference/{name} is a symbolic link to .*") as caught:
        build_app(DEFAULT, handlers_dir=handlers_dir, outdir=str(tmp_path / "cdk.out"))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["gone", "model"])
def test_a_link_that_leads_nowhere_is_a_warning_that_says_so(target: str, tmp_path: Path) -> None:
    handlers_dir = copy_inference(tmp_path / "inference")
    (handlers_dir / "model").symlink_to(target)
    warnings = warnings_in(handlers_dir, tmp_path / "cdk.out")
    assert len(warnings) == 3
    for warning in warnings:
        assert "remove the symbolic link that leads nowhere and make it with" in warning
    (handlers_dir / "model").unlink()
    write_model(handlers_dir)
    (handlers_dir / "model" / "encoder.onnx").symlink_to(target)
    (warning,) = warnings_in(handlers_dir, tmp_path / "cdk.out")
    assert "inference/model/encoder.onnx is not there" in warning
    assert "remove the symbolic link that leads nowhere and make it with scripts/export_onnx.py" in warning


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "precision", "kept"),
    [
        ("onnx", "float32", {"encoder.onnx", "encoder.json"}),
        ("onnx", "int8", set(EXPORTED_FILENAMES) - {"encoder.bfloat16.json"}),
        ("onnx", "auto", set(EXPORTED_FILENAMES) - {"encoder.bfloat16.json"}),
        ("torch", "float32", {"encoder.onnx", "encoder.json"}),
        ("torch", "bfloat16", {"encoder.onnx", "encoder.json", "encoder.bfloat16.json"}),
        ("torch", "auto", {"encoder.onnx", "encoder.json", "encoder.bfloat16.json"}),
    ],
)
def test_the_image_gets_the_files_of_the_precisions_that_may_serve(
    engine: Engine, precision: PrecisionSetting, kept: set[str], tmp_path: Path
) -> None:
    handlers_dir = copy_inference(tmp_path / "inference")
    write_model(handlers_dir)
    for name in EXPORTED_FILENAMES:
        (handlers_dir / "model" / name).write_text(name)
    config = replace(DEFAULT, encoder_engine=engine, encoder_precision=precision)
    asset_hash(handlers_dir, tmp_path / "cdk.out", config)
    (staged,) = (path.parent for path in (tmp_path / "cdk.out").glob("asset.*/Dockerfile"))
    assert {path.name for path in staged.glob("model/encoder*")} == kept


def test_the_dockerfile_copies_all_that_an_export_makes() -> None:
    dockerfile = (ROOT / "inference" / "Dockerfile").read_text()
    patterns = re.findall(r"/files/model/(\S+)", dockerfile)
    for name in (*EXPORTED_FILENAMES, "provenance.json", "model.safetensors", "incident_cls.pt"):
        assert any(fnmatch(name, pattern) for pattern in patterns), name
    # Each COPY has a file that is always there, because Docker refuses one that copies nothing.
    copies = [line for line in dockerfile.replace("\\\n", " ").splitlines() if "/files/model/" in line]
    for line in copies:
        assert any("*" not in name and "[" not in name for name in line.split()[2:-1]), line


def test_another_engine_changes_the_image(clean_hash: str, tmp_path: Path) -> None:
    write_model(copy_inference(tmp_path / "inference"))
    assert asset_hash(tmp_path / "inference", tmp_path / "cdk.out", TORCH) != clean_hash
