"""MODEL_ON_EFS: the model is read from the shelf, and from the image whatever is wrong there."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exported_reports import edit_report
from integer_products import int8_on_every_cpu
from lambdas import Image, ask, make_old, start_again
from models.export import export
from similarity.encoder.model_folder import EXPORTED_FILENAMES, ModelFiles
from similarity.shelf import models
from similarity.shelf.models import model_version
from tiny import cleared


@pytest.fixture
def image(image: Image, monkeypatch: pytest.MonkeyPatch) -> Image:
    """An image that is deployed with MODEL_ON_EFS."""
    monkeypatch.setenv("MODEL_ON_EFS", "true")
    start_again()
    return image


def shelved(image: Image) -> Path:
    [folder] = [path for path in (image.shelf / "models").iterdir() if not path.name.startswith(".")]
    return folder


def test_the_model_on_the_shelf_is_used_and_answers_are_the_same(image: Image, loaded_from: list[Path]) -> None:
    assert image.shelve()["model"] == model_version(ModelFiles(image.model_dir))
    from_shelf = ask()
    assert loaded_from == [shelved(image)]
    (shelved(image) / "model.safetensors").unlink()
    start_again()
    assert ask() == from_shelf
    assert loaded_from[1:] == [image.model_dir]


def test_without_the_setting_there_is_no_model_on_the_shelf(
    image: Image, loaded_from: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    image.shelve()
    aside = shelved(image)
    monkeypatch.setenv("MODEL_ON_EFS", "false")
    start_again()
    assert image.shelve()["model"] is None
    assert not aside.exists()
    ask()
    assert loaded_from == [image.model_dir]


Break = Callable[[Path], object]
BROKEN: dict[str, Break] = {
    "not there": shutil.rmtree,
    "a file is missing": lambda folder: (folder / "encoder.onnx").unlink(),
    "a file too many": lambda folder: (folder / "encoder.int8.onnx").touch(),
    "cut off": lambda folder: os.truncate(folder / "model.safetensors", 1000),
    "empty": lambda folder: [path.write_bytes(b"") for path in folder.iterdir()],
    "a link to nothing": lambda folder: cleared(folder).symlink_to("nowhere"),
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", BROKEN.values(), ids=BROKEN)
def test_whatever_is_wrong_there_the_image_serves_and_says_so_once(
    damage: Break, image: Image, loaded_from: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    image.shelve()
    damage(shelved(image))
    ask()
    ask()
    assert loaded_from[-1] == image.model_dir
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        "model on the shelf not used"
    ]


def test_a_shelf_that_hangs_leaves_the_image(
    image: Image, loaded_from: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    image.shelve()
    let_go, require = threading.Event(), models._require_same_sizes

    def hang(own: Path, folder: Path) -> None:
        let_go.wait()
        require(own, folder)

    monkeypatch.setattr(models, "_require_same_sizes", hang)
    monkeypatch.setattr(models, "START_S", 0.01)
    try:
        ask()
        assert loaded_from == [image.model_dir]
    finally:
        let_go.set()


def test_another_model_takes_the_place_of_the_one_before_which_stays_readable(image: Image) -> None:
    image.shelve()
    before = shelved(image)
    with (before / "model.safetensors").open("rb") as opened:
        os.utime(image.model_dir / "model.safetensors")
        export(image.model_dir)
        (image.model_dir / "provenance.json").write_text('{"model": "tiny", "exported": "again"}')
        image.shelve()
        assert shelved(image) != before
        [aside] = (image.shelf / "models").glob(".old-*")
        make_old(aside, 3601)
        image.shelve()
        assert list((image.shelf / "models").glob(".old-*")) == []
        assert len(opened.read()) == (image.model_dir / "model.safetensors").stat().st_size


def test_the_version_tells_folders_apart(image: Image) -> None:
    versions = {model_version(ModelFiles(image.model_dir))}
    (image.model_dir / "encoder.int8.onnx").write_bytes(b"12")
    versions.add(model_version(ModelFiles(image.model_dir)))
    (image.model_dir / "encoder.int8.onnx").write_bytes(b"123")
    versions.add(model_version(ModelFiles(image.model_dir)))
    (image.model_dir / "provenance.json").write_text('{"model": "other"}')
    versions.add(model_version(ModelFiles(image.model_dir)))
    assert len(versions) == 4
    (image.model_dir / "incident_cls.pt").write_bytes(b"another state")
    assert model_version(ModelFiles(image.model_dir)) in versions


@pytest.fixture
def int8_image(image: Image, monkeypatch: pytest.MonkeyPatch) -> Iterator[Image]:
    with int8_on_every_cpu(monkeypatch):
        export(image.model_dir, "int8")
        monkeypatch.setenv("ENCODER_PRECISION", "int8")
        start_again()
        yield image


def test_int8_is_read_from_the_shelf(
    int8_image: Image, loaded_from: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    int8_image.shelve()
    names = {*EXPORTED_FILENAMES} - {"encoder.bfloat16.json"}
    assert names <= {path.name for path in shelved(int8_image).iterdir()}
    ask()
    assert loaded_from == [shelved(int8_image)]
    assert ask("health", {})["precision"] == "int8"
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("name", ["encoder.int8.bin", "encoder.int8.json"])
def test_int8_is_read_from_the_image_where_the_shelf_lacks_a_file(
    name: str, int8_image: Image, loaded_from: list[Path]
) -> None:
    int8_image.shelve()
    (shelved(int8_image) / name).unlink()
    ask()
    assert loaded_from == [int8_image.model_dir]
    assert ask("health", {})["precision"] == "int8"


def test_float32_of_the_shelf_serves_where_its_int8_is_damaged(
    int8_image: Image, loaded_from: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    int8_image.shelve()
    weights = shelved(int8_image) / "encoder.int8.bin"
    weights.write_bytes(bytes(weights.stat().st_size))
    ask()
    assert loaded_from == [shelved(int8_image)]
    assert ask("health", {})["precision"] == "float32"
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == ["float32 serves"]


def test_a_damaged_model_of_the_shelf_is_not_used(
    image: Image, loaded_from: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    """No size differs. The self-test notices it."""
    image.shelve()
    folder = shelved(image)
    edit_report(folder, "float32", lambda report: report["self_test"]["vector"].reverse())
    for name in ("encoder.json", "provenance.json"):
        assert (folder / name).stat().st_size == (image.model_dir / name).stat().st_size
    ask()
    assert loaded_from[-1] == image.model_dir
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.getMessage() == "model on the shelf not used"
    assert "its vector differs from the exported one" in vars(record)["reason"]
