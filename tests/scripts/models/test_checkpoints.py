"""Checkpoints are read in every form that people have them in; what can't be read is refused in a sentence that helps.

The encoder is compared with the tensors that the test itself wrote; that it gives transformers' vectors is in
test_fetch_model.py and test_convert_encoder.py.
"""

from __future__ import annotations

import argparse
import json
import pickle
import re
import subprocess
import sys
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from checkpoint_files import names_of_2020, old_pickle, weights_of_2020
from models.checkpoints import CheckpointError, read_config, read_encoder, weights_filename
from tiny import ROOT

WORDS = "embeddings.word_embeddings.weight"
BIN, INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
# What a checkpoint has beside the encoder.
REST = {"pooler.dense.weight": torch.ones(4, 4), "embeddings.position_ids": torch.arange(9)[None]}


def encoder() -> dict[str, Tensor]:
    """A few of an encoder's tensors: with a head, with a view into another's numbers, and a transposed one."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(12, 4, generator=generator)
    return {
        WORDS: table[:8],
        "embeddings.position_embeddings.weight": table[4:],
        "embeddings.LayerNorm.weight": torch.randn(4, generator=generator),
        "encoder.layer.0.attention.self.query.weight": torch.randn(4, 4, generator=generator).t(),
        "encoder.layer.0.attention.self.query_global.bias": torch.randn(4, generator=generator),
    }


def whole(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without views, which safetensors doesn't write."""
    return {name: tensor.contiguous().clone() for name, tensor in weights.items()}


def same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    """Names and values; the values are float32."""
    return found.keys() == expected.keys() and all(
        found[name].dtype == torch.float32 and torch.equal(found[name], tensor.float())
        for name, tensor in expected.items()
    )


def prefixed(prefix: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in weights.items()}


def save_old(content: object, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def save_zip(
    content: object, path: Path, *, compression: int = zipfile.ZIP_STORED, **changes: Callable[[bytes], bytes]
) -> None:
    """torch's zip, packed again; `changes` are made to the entries whose names end so."""
    torch.save(content, path)
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            change = changes.get(name.rpartition("/")[2].replace(".", "_"), bytes)
            archive.writestr(name, change(data))


def on_cuda(data: bytes) -> bytes:
    """What the pickle is on a machine with a GPU: every storage says where it was."""
    cpu, cuda = b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0"
    assert cpu in data
    return data.replace(cpu, cuda)


def save_with_metadata(content: Mapping[str, Tensor], path: Path) -> None:
    """As `torch.save(model.state_dict(), path)` did: an OrderedDict with an attribute."""
    state = OrderedDict(content)
    state._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
    save_old(state, path)


FORMS: dict[str, Callable[[Mapping[str, Tensor], Path], object]] = {
    "zip": lambda weights, path: torch.save(dict(weights), path),
    "zip, from a GPU": lambda weights, path: save_zip(weights, path, data_pkl=on_cuda),
    "zip, packed again": lambda weights, path: save_zip(weights, path, compression=zipfile.ZIP_DEFLATED),
    "old": save_old,
    "old, without torch": lambda weights, path: path.write_bytes(old_pickle(weights)),
    "old, from a GPU": lambda weights, path: path.write_bytes(old_pickle(weights, location="cuda:0")),
    "old, of a state_dict": save_with_metadata,
    "old, parameters": lambda weights, path: save_old(
        {name: torch.nn.Parameter(tensor, requires_grad=False) for name, tensor in weights.items()}, path
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_pickles_are_read_in_both_of_torchs_formats(form: str, tmp_path: Path) -> None:
    FORMS[form](prefixed("longformer.", encoder() | REST), tmp_path / BIN)
    assert zipfile.is_zipfile(tmp_path / BIN) == form.startswith("zip")
    assert same(read_encoder(tmp_path), encoder())


def test_safetensors_are_preferred(tmp_path: Path) -> None:
    save_file(whole(encoder()), tmp_path / "model.safetensors")
    (tmp_path / BIN).write_bytes(b"no weights")
    assert same(read_encoder(tmp_path), encoder())


def test_the_names_of_2020_give_the_encoder_alone(tmp_path: Path) -> None:
    weights, model = weights_of_2020()
    (tmp_path / BIN).write_bytes(old_pickle(weights))
    found = read_encoder(tmp_path)
    assert len(found) == len([name for name in names_of_2020() if re.search(r"\.(embeddings|encoder)\.", name)]) - 1
    expected = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("pooler.")}
    assert same(found, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("old", [False, True], ids=["zip", "old"])
def test_every_precision_becomes_float32(dtype: torch.dtype, old: bool, tmp_path: Path) -> None:
    weights = {name: tensor.to(dtype) for name, tensor in encoder().items()}
    torch.save(weights, tmp_path / BIN, _use_new_zipfile_serialization=not old)
    assert same(read_encoder(tmp_path), weights)


@pytest.mark.parametrize(
    "prefix",
    ["", "longformer.", "roberta.", "bert.", "module.", "model.", "module.longformer.", "_orig_mod.a.b.c.", "encoder."],
)
def test_the_encoder_is_found_under_any_prefix(prefix: str, tmp_path: Path) -> None:
    head = {
        "lm_head.decoder.weight": torch.ones(8, 4),
        "lm_head.bias": torch.ones(8),
        "classifier.encoder.x": torch.ones(1),
    }
    torch.save(prefixed(prefix, encoder() | REST) | head, tmp_path / BIN)
    assert same(read_encoder(tmp_path), encoder())


@pytest.mark.parametrize(
    ("key", "rest"),
    [
        ("state_dict", {"epoch": 3, "pytorch-lightning_version": "1.9", "optimizer_states": [{"state": {0: {}}}]}),
        ("model_state_dict", {"loss": torch.tensor(0.5), "optimizer_state_dict": {"state": {}, "param_groups": []}}),
        ("module", {"global_steps": 7, "lr_scheduler": None}),
    ],
    ids=["Lightning", "a tutorial's", "DeepSpeed"],
)
@pytest.mark.parametrize("old", [False, True], ids=["zip", "old"])
def test_the_encoder_is_found_in_a_trainers_dict(key: str, rest: dict[str, Any], old: bool, tmp_path: Path) -> None:
    checkpoint = {**rest, key: prefixed("model.longformer.", encoder() | REST)}
    torch.save(checkpoint, tmp_path / BIN, _use_new_zipfile_serialization=not old)
    assert same(read_encoder(tmp_path), encoder())


def test_the_first_names_of_a_layer_norm_are_known(tmp_path: Path) -> None:
    weights = {name.replace("LayerNorm.weight", "LayerNorm.gamma"): tensor for name, tensor in encoder().items()}
    weights["encoder.layer.0.output.LayerNorm.beta"] = torch.full((4,), 3.0)
    torch.save(prefixed("bert.", weights), tmp_path / BIN)
    expected = encoder() | {"encoder.layer.0.output.LayerNorm.bias": torch.full((4,), 3.0)}
    assert same(read_encoder(tmp_path), expected)


# Shards.


def write_shards(folder: Path, stem: str, suffix: str) -> list[str]:
    weights = whole(prefixed("longformer.", encoder()))
    names = [f"{stem}-{number:05}-of-00002{suffix}" for number in (1, 2)]
    save = save_file if suffix == ".safetensors" else save_old
    for number, name in enumerate(names):
        save(dict(list(weights.items())[number::2]), folder / name)
    weight_map = {key: names[number % 2] for number, key in enumerate(weights)}
    (folder / f"{stem}{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return names


@pytest.mark.parametrize(("stem", "suffix"), [("model", ".safetensors"), ("pytorch_model", ".bin")])
def test_shards_are_put_together(stem: str, suffix: str, tmp_path: Path) -> None:
    write_shards(tmp_path, stem, suffix)
    assert same(read_encoder(tmp_path), encoder())


def test_a_shard_that_is_missing_is_named(tmp_path: Path) -> None:
    _, second = write_shards(tmp_path, "model", ".safetensors")
    (tmp_path / second).unlink()
    with pytest.raises(CheckpointError, match=rf"^there is no file {tmp_path / second}; copy or fetch it\.$"):
        read_encoder(tmp_path)


@pytest.mark.parametrize(
    "index",
    ["{}", '{"weight_map": {}}', '{"weight_map": []}', '{"weight_map": {"a": ["b"]}}', '{"weight_map": {"a": "../b"}}'],
)
def test_an_index_that_names_no_files_beside_it_is_refused(index: str, tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text(index)
    with pytest.raises(CheckpointError, match="has no weight_map from tensors to files beside it"):
        read_encoder(tmp_path)


# What can't be read.


def scripted(path: Path) -> None:
    """torch knows TorchScript by this entry."""
    torch.save(encoder(), path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{path.stem}/constants.pkl", pickle.dumps(()))


def tar_of_torch_0_1(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.add(__file__, "storages")


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a list": (lambda path: torch.save([1], path), "must be a dict of tensors, not of type list"),
    "a tensor": (lambda path: save_old(torch.ones(2), path), "must be a dict of tensors, not of type Tensor"),
    "an empty dict": (
        lambda path: torch.save({}, path),
        "aren't from a BERT, RoBERTa, DistilBERT or Longformer: no tensor's name ends in",
    ),
    "another model": (lambda path: torch.save({"wte.weight": torch.ones(2)}, path), f"ends in {WORDS}"),
    "names that are numbers": (
        lambda path: torch.save({1: torch.ones(2)}, path),
        "aren't from a BERT, RoBERTa, DistilBERT or Longformer",
    ),
    "values that are lists": (
        lambda path: torch.save({WORDS: [[1.0, 2.0]]}, path),
        f"{WORDS} in the weights must be a dense tensor of floating-point numbers, not list.",
    ),
    "whole numbers": (
        lambda path: torch.save({WORDS: torch.ones(2, 2, dtype=torch.int8)}, path),
        "not a tensor of torch.int8, torch.strided.",
    ),
    "a sparse tensor": (
        lambda path: torch.save({WORDS: torch.eye(3).to_sparse()}, path),
        "not a tensor of torch.float32, torch.sparse_coo.",
    ),
    "two encoders": (
        lambda path: torch.save(prefixed("query.", encoder()) | prefixed("context.", encoder()), path),
        "hold several encoders, under 'context.' and 'query.'; save only the one that you want.",
    ),
    "two encoders in a trainer's dict": (
        lambda path: torch.save({"model": encoder(), "ema": encoder()}, path),
        "hold several encoders, under 'ema/' and 'model/'; save only the one that you want.",
    ),
    "a trainer's arguments": (
        lambda path: torch.save({"hyper_parameters": argparse.Namespace(a=1), "state_dict": encoder()}, path),
        "they contain argparse.Namespace, but only tensors are read from a pickle; load them where they were made",
    ),
    "a whole model": (
        lambda path: save_old(torch.nn.Linear(2, 2), path),
        "they contain torch.nn.modules.linear.Linear, but only tensors are read from a pickle",
    ),
    "a bare pickle": (lambda path: path.write_bytes(pickle.dumps(encoder().keys() - {""})), "can't be read: "),
    "TorchScript": (scripted, "TorchScript archives"),
    "a tar": (tar_of_torch_0_1, "the legacy .tar format"),
    "a web page": (lambda path: path.write_text("<html>Not found</html>"), "is a web page, not weights"),
    "safetensors by another name": (lambda path: save_file(whole(encoder()), path), "copy or fetch them again"),
    "another program's zip": (lambda path: zip_of_text(path), "copy or fetch them again"),
    "empty": (lambda path: path.touch(), "is empty; copy or fetch it again."),
    "a folder": (lambda path: path.mkdir(), "is a folder where a file should be"),
    "a link to nothing": (lambda path: path.symlink_to("../blobs/weights"), "links to a file that isn't there"),
    "a pointer of Git LFS": (
        lambda path: path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 9\n"),
        "is a pointer of Git LFS, not the file; run `git lfs pull` in ",
    ),
}


def zip_of_text(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/readme.txt", "no weights")


@pytest.mark.parametrize("kind", REFUSED)
def test_weights_that_can_not_be_read_are_refused_in_one_sentence(kind: str, tmp_path: Path) -> None:
    write, message = REFUSED[kind]
    write(tmp_path / BIN)
    with pytest.raises(CheckpointError) as caught:
        read_encoder(tmp_path)
    assert message in str(caught.value)
    assert str(tmp_path) in str(caught.value) or WORDS in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "weights_only=False" not in str(caught.value), "torch's advice to load without protection"


@pytest.mark.slow
@pytest.mark.parametrize("save", [save_old, torch.save], ids=["old", "zip"])
def test_weights_that_are_cut_are_refused_wherever_it_is(save: Callable[[object, Path], None], tmp_path: Path) -> None:
    path = tmp_path / BIN
    save({WORDS: torch.ones(2, 3), "encoder.x": torch.ones(2).half()}, path)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            read_encoder(tmp_path)


# Run by the test below, with the folder, the form and a number to start random ones from.
MUTATIONS = """
import random, resource, sys
from pathlib import Path
import torch
from models.checkpoints import CheckpointError, read_encoder

resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
path, old, chance = Path(sys.argv[1], "pytorch_model.bin"), sys.argv[2] == "old", random.Random(int(sys.argv[3]))
weights = {"embeddings.word_embeddings.weight": torch.ones(2, 3), "encoder.x": torch.ones(4).half()}
torch.save(weights, path, _use_new_zipfile_serialization=not old)
whole, read = path.read_bytes(), 0
for _ in range(500):
    content = bytearray(whole)
    for _ in range(chance.choice((1, 1, 2, 5))):
        content[chance.randrange(len(content))] = chance.randrange(256)
    path.write_bytes(content)
    try:
        read_encoder(path.parent)
        read += 1
    except (CheckpointError, OSError) as error:
        assert "\\n" not in str(error), error
print(read)
"""


@pytest.mark.slow
@pytest.mark.parametrize("form", ["old", "zip"])
def test_damaged_weights_are_read_or_refused_and_nothing_else(form: str, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", MUTATIONS, str(tmp_path), form, "0"],
        env={"PYTHONPATH": f"{ROOT / 'scripts'}:{ROOT / 'inference'}", "PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert ran.returncode == 0, ran.stderr
    # Flipped bits in the numbers themselves go unnoticed.
    assert 0 < int(ran.stdout) < 500


# Files of other kinds.


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "x has neither model.safetensors nor pytorch_model.bin, nor an index of their shards"),
        (["last.ckpt"], "if the weights have another name, rename them to one of these."),
        (["pytorch_model-00001-of-00002.bin"], "copy or fetch model.safetensors.index.json or pytorch_model.bin.index"),
        (["tf_model.h5"], "x has no weights for torch, only tf_model.h5; convert them with transformers 4"),
        (["flax_model.msgpack", "tf_model.h5"], "only flax_model.msgpack, tf_model.h5;"),
    ],
)
def test_a_folder_without_weights_for_torch_says_what_it_has(names: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=re.escape(message)):
        weights_filename(names, "x")
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match=re.escape(message.replace("x has", f"{tmp_path} has"))):
        read_encoder(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, "can't be read: its JSON is nested too deeply"),
        ('{"a":' * 100_000, "can't be read: its JSON is nested too deeply"),
        ("[]", "can't be read: it holds a list, not an object"),
        ("null", "can't be read: it holds a NoneType, not an object"),
        ("{", "can't be read: it isn't JSON: Expecting property name"),
        ("", "is empty"),
        ("\xff", "can't be read: it isn't JSON: 'utf-8' codec"),
        (
            "version https://git-lfs.github.com/spec/v1\noid",
            "is a pointer of Git LFS, not the file; run `git lfs pull`",
        ),
    ],
    ids=["a deep list", "a deep object", "a list", "null", "cut", "empty", "no text", "a pointer"],
)
def test_a_config_that_can_not_be_read_is_refused_in_one_sentence(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content, encoding="latin-1")
    with pytest.raises(CheckpointError) as caught:
        read_config(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'config.json'} {message}")
    assert "\n" not in str(caught.value)


def test_a_config_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "longformer"}', encoding="utf-8-sig")
    assert read_config(tmp_path) == {"model_type": "longformer"}
