"""Tensors that no text touches are taken out of a file, and transformers can read the rest."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from models.touched_weights import is_touched, keep_touched
from reference import load_longformer, reference
from similarity.encoder.model_folder import ModelFiles
from similarity.encoder.weights_identity import identity, note_in
from tiny import edit_config

NEVER = ("pooler.dense.weight", "lm_head.bias", "classifier.dense.weight")
GLOBAL = tuple(f"encoder.layer.11.attention.self.{name}_global.weight" for name in ("query", "key", "value"))
ALWAYS = (
    *("embeddings.word_embeddings.weight", "embeddings.LayerNorm.bias", "encoder.layer.0.attention.self.query.weight"),
    *("encoder.layer.0.attention.output.dense.bias", "encoder.layer.0.intermediate.dense.weight"),
)


@pytest.fixture
def folder(tiny_model_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))


def test_global_attention_needs_its_projections(folder: Path) -> None:
    config = ModelFiles(folder).config()
    edit_config(folder, global_attention_on_cls=True)
    attends = ModelFiles(folder).config()
    assert all(is_touched(name, config) for name in ALWAYS)
    assert not any(is_touched(name, config) for name in (*GLOBAL, *NEVER))
    assert all(is_touched(name, attends) for name in (*ALWAYS, *GLOBAL))
    assert not any(is_touched(name, attends) for name in NEVER)


def test_the_rest_stays_as_it_is(folder: Path) -> None:
    files = ModelFiles(folder)
    before, identity_before = load_file(files.weights_path), list(identity(files.weights_path))
    ids = torch.arange(60)
    expected = reference(load_longformer(folder, pooler=True), ids)
    keep_touched(files.weights_path, files.config())
    after = load_file(files.weights_path)
    assert after.keys() == {name for name in before if "_global." not in name and "pooler." not in name}
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())
    assert list(identity(files.weights_path)) == identity_before
    with safe_open(files.weights_path, framework="pt") as file:
        assert file.metadata()["format"] == "pt"
    assert torch.equal(reference(load_longformer(folder), ids), expected)
    assert {path.name for path in folder.iterdir() if "model" in path.name} == {"model.safetensors"}


def test_half_precision_stays_half(folder: Path) -> None:
    files = ModelFiles(folder)
    half = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(files.weights_path).items()}
    save_file(half, files.weights_path)
    keep_touched(files.weights_path, files.config())
    assert all(torch.equal(tensor, half[name]) for name, tensor in load_file(files.weights_path).items())


def test_a_file_with_nothing_to_leave_out_is_not_written(folder: Path) -> None:
    files = ModelFiles(folder)
    keep_touched(files.weights_path, files.config())
    written = files.weights_path.stat()
    keep_touched(files.weights_path, files.config())
    assert files.weights_path.stat().st_mtime_ns == written.st_mtime_ns


def test_a_note_goes_on_to_a_file_of_the_same_tensors(folder: Path) -> None:
    files = ModelFiles(folder)
    identity_before = list(identity(files.weights_path))
    keep_touched(files.weights_path, files.config())
    note, content = note_in(files.weights_path), files.weights_path.read_bytes()
    save_file(load_file(files.weights_path), files.weights_path, {"format": "pt"})
    assert list(identity(files.weights_path)) != identity_before
    keep_touched(files.weights_path, files.config(), note)
    assert list(identity(files.weights_path)) == identity_before
    assert files.weights_path.read_bytes() == content
