"""A model's folder is written whole or not at all, in a form that transformers and other users can read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from model_folder import sha256_of, write_model
from similarity.encoder import Encoder
from similarity.model_files import ModelFiles

FILES = {"config.json", "tokenizer.json", "encoder.onnx", "model.safetensors", "provenance.json"}


def parts(model_dir: Path) -> dict[str, Any]:
    return {
        "config": json.loads((model_dir / "config.json").read_bytes()),
        "tokenizer_json": (model_dir / "tokenizer.json").read_bytes(),
        "weights": load_file(model_dir / "model.safetensors"),
        "source": {"model": "some/model", "revision": "abc"},
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    # The first example of FIPS 180-2.
    assert sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_what_was_written_encodes_as_what_it_was_made_of(
    tiny_model_dir: Path, tiny_encoder: Encoder, tmp_path: Path
) -> None:
    out = tmp_path / "a folder" / "that is not there yet"
    write_model(out, **parts(tiny_model_dir))
    assert {path.name for path in out.iterdir()} == FILES
    text = "A robot in a warehouse"
    assert np.array_equal(Encoder.load(out).encode(text).vector, tiny_encoder.encode(text).vector)


def test_the_folder_says_what_it_is(tiny_model_dir: Path, tmp_path: Path) -> None:
    write_model(tmp_path, **parts(tiny_model_dir))
    provenance = json.loads((tmp_path / "provenance.json").read_text())
    weights_sha256 = hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    assert provenance == {"model": "some/model", "revision": "abc", "weights_sha256": weights_sha256}
    assert ModelFiles(tmp_path).name() == "some/model"


def test_transformers_will_read_the_weights(tiny_model_dir: Path, tmp_path: Path) -> None:
    write_model(tmp_path, **parts(tiny_model_dir))
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_other_users_may_read_every_file(tiny_model_dir: Path, tmp_path: Path) -> None:
    write_model(tmp_path, **parts(tiny_model_dir))
    assert {path.name: oct(path.stat().st_mode & 0o044) for path in tmp_path.iterdir()} == dict.fromkeys(FILES, "0o44")


def test_a_transposed_tensor_is_written_as_it_looks(tiny_model_dir: Path, tmp_path: Path) -> None:
    given = parts(tiny_model_dir)
    name = "encoder.layer.0.attention.self.query.weight"
    given["weights"][name] = given["weights"][name].t()
    write_model(tmp_path, **given)
    assert torch.equal(
        load_file(tmp_path / "model.safetensors")[name], load_file(tiny_model_dir / "model.safetensors")[name].t()
    )


def test_a_write_that_fails_leaves_the_model_that_was_there(tiny_model_dir: Path, tmp_path: Path) -> None:
    write_model(tmp_path, **parts(tiny_model_dir))
    before = contents(tmp_path)
    given = parts(tiny_model_dir)
    # The weights are written by then: what fails is the last file.
    given["config"] = {**given["config"], "no JSON": object()}
    with pytest.raises(TypeError):
        write_model(tmp_path, **given)
    assert contents(tmp_path) == before
