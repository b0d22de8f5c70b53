"""Reads the checkpoint folders that people have, for `fetch_model.py` and `convert_encoder.py`.

Weights are safetensors or pickles, whole or in shards. Pickles have torch's zip format or the format before torch 1.6.
The encoder's tensors may have any prefix, and may stand in a trainer's dict. Only tensors are read from a pickle.

The callers check the kind of encoder and the shapes. `checkpoint_tokenizer` reads the tokenizer.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from similarity.encoder import model_folder as model_files
from similarity.encoder.model_folder import CONFIG_FILENAME
from similarity.encoder.weights_identity import note_in
from similarity.errors import ModelError
from similarity.settings import DEFAULT_MODEL_FILENAME

INDEX_SUFFIX = ".index.json"
PICKLED_WEIGHTS = "pytorch_model.bin"
# The first of these that exists is read.
WEIGHTS_FILENAMES = (
    DEFAULT_MODEL_FILENAME,
    DEFAULT_MODEL_FILENAME + INDEX_SUFFIX,
    PICKLED_WEIGHTS,
    PICKLED_WEIGHTS + INDEX_SUFFIX,
)
_OTHER_FRAMEWORKS = (".h5", ".msgpack", ".ckpt.index", ".ot")

_WORDS = "embeddings.word_embeddings.weight"


class CheckpointError(Exception):
    """A checkpoint can't be read. The message is one sentence that ends with the remedy."""


def read_config(folder: Path) -> dict[str, Any]:
    """config.json. Raises CheckpointError or OSError."""
    return read_object(folder / CONFIG_FILENAME)


def read_encoder(folder: Path) -> dict[str, Tensor]:
    """The encoder's tensors, float32, under the names that `BertModel`, `RobertaModel` and `LongformerModel` share.

    DistilBERT's keep their own names: `transformer.layer.…` instead of `encoder.layer.…`.
    Leaves out tensors that don't affect a CLS vector: heads, the pooler, position ids, a trainer's state.
    Raises CheckpointError or OSError.
    """
    found = [
        (where, table, name.removesuffix(_WORDS))
        for where, table in _tables(_read_weights(folder))
        for name in table
        if isinstance(name, str) and (name == _WORDS or name.endswith(f".{_WORDS}"))
    ]
    if not found:
        raise CheckpointError(
            f"the weights in {folder} aren't from a BERT, RoBERTa, DistilBERT or Longformer: no tensor's name ends in "
            f"{_WORDS}."
        )
    if len(found) > 1:
        prefixes = " and ".join(sorted(repr(where + prefix) for where, _, prefix in found))
        raise CheckpointError(
            f"the weights in {folder} hold several encoders, under {prefixes}; save only the one that you want."
        )
    [(_, table, prefix)] = found
    return {
        _current_name(name.removeprefix(prefix)): _float32(name, tensor)
        for name, tensor in table.items()
        if isinstance(name, str)
        and name.startswith(tuple(f"{prefix}{part}." for part in ("embeddings", "encoder", "transformer")))
        and not name.endswith(("position_ids", "token_type_ids"))
    }


def read_note(folder: Path) -> str:
    """The note in the weights that `read_encoder` reads, "" without one. Raises OSError.

    A model that this project installed may lack tensors; `similarity.encoder.weights_identity` describes the note.
    """
    path = folder / DEFAULT_MODEL_FILENAME
    return note_in(path) if path.exists() else ""


def _tables(content: Mapping[Any, Any], where: str = "", depth: int = 3) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """The content and the dicts in it, each with its place: one of them holds the encoder's tensors."""
    yield where, content
    for name, value in content.items():
        if isinstance(value, Mapping) and depth:
            yield from _tables(value, f"{where}{name}/", depth - 1)


def weights_filename(names: Collection[str], where: object) -> str:
    """The checkpoint's file to read the weights from. Raises CheckpointError if there is none.

    where: the checkpoint's name in the error.
    """
    for name in WEIGHTS_FILENAMES:
        if name in names:
            return name
    if any(re.search(r"-\d{5}-of-\d{5}\.", name) for name in names):
        raise CheckpointError(
            f"{where} has shards of weights, but not their index; copy or fetch "
            f"{DEFAULT_MODEL_FILENAME}{INDEX_SUFFIX} or {PICKLED_WEIGHTS}{INDEX_SUFFIX} too."
        )
    foreign = sorted(name for name in names if name.endswith(_OTHER_FRAMEWORKS))
    if foreign:
        raise CheckpointError(
            f"{where} has no weights for torch, only {', '.join(foreign)}; convert them with transformers 4 and their "
            "framework: from_pretrained(FOLDER, from_tf=True) or (…, from_flax=True), then save_pretrained."
        )
    raise CheckpointError(
        f"{where} has neither {DEFAULT_MODEL_FILENAME} nor {PICKLED_WEIGHTS}, nor an index of their shards; "
        "if the weights have another name, rename them to one of these."
    )


def shards(index: Path) -> list[str]:
    """The files that an index of shards names. Raises CheckpointError or OSError."""
    weight_map = read_object(index).get("weight_map")
    names = list(weight_map.values()) if isinstance(weight_map, dict) else []
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise CheckpointError(f"{index} has no weight_map from tensors to files beside it; copy or fetch it again.")
    return sorted(set(names))


def _read_weights(folder: Path) -> Mapping[Any, Any]:
    name = weights_filename([name for name in WEIGHTS_FILENAMES if is_there(folder / name)] or _names(folder), folder)
    if not name.endswith(INDEX_SUFFIX):
        return _read_tensors(folder / name)
    return {key: value for shard in shards(folder / name) for key, value in _read_tensors(folder / shard).items()}


def _read_tensors(path: Path) -> Mapping[Any, Any]:
    require_content(path)
    with path.open("rb") as file:
        if file.read(1) == b"<":
            raise CheckpointError(f"{path} is a web page, not weights; copy or fetch the file again.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            # torch warns about TorchScript archives; its exception says the same.
            warnings.simplefilter("ignore")
            # mmap works only for zips, misreads compressed ones, and saves only half a second of ten.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=False)
    except OSError:
        raise
    except Exception as error:  # for broken pickles torch raises nearly anything: IndexError, AssertionError, ...
        raise CheckpointError(f"the weights {path} can't be read: {_reason(error)}") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"the weights {path} must be a dict of tensors, not of type {type(content).__name__}; save the state_dict."
        )
    return content


def _reason(error: Exception) -> str:
    # torch's message is a page long and advises to load the file without protection. Only its reason is kept.
    text = str(error).removeprefix("Weights only load failed. ").rpartition("WeightsUnpickler error: ")[2].strip()
    if asked_for := re.search(r"GLOBAL (\S+)", text):
        protected = f"they contain {asked_for[1]}, but only tensors are read from a pickle"
    elif "weights_only=True" in text:
        protected = text.partition(". ")[0]
    else:
        reason = "the file ends too soon" if isinstance(error, EOFError) else text.partition("\n")[0].partition(". ")[0]
        return f"{reason.rstrip('.') or type(error).__name__}; copy or fetch them again."
    return f"{protected}; load them where they were made and save only the state_dict."


def _current_name(name: str) -> str:
    """Replaces TensorFlow's names for a LayerNorm's weight and bias, which the first releases of BERT have."""
    return name.replace(".LayerNorm.gamma", ".LayerNorm.weight").replace(".LayerNorm.beta", ".LayerNorm.bias")


def _float32(name: str, tensor: object) -> Tensor:
    if (
        not isinstance(tensor, Tensor)
        or tensor.layout != torch.strided
        or not tensor.is_floating_point()
        or not tensor.dim()
    ):
        kind = type(tensor).__name__
        if isinstance(tensor, Tensor):
            kind = f"a tensor of {tensor.dtype}, {tensor.layout}" if tensor.dim() else "a single number"
        raise CheckpointError(f"{name} in the weights must be a dense tensor of floating-point numbers, not {kind}.")
    return tensor.float()


def read_object(path: Path) -> dict[str, Any]:
    """As `similarity.encoder.model_folder.read_object`, but raises CheckpointError."""
    try:
        return model_files.read_object(path)
    except ModelError as error:
        raise CheckpointError(f"{error.detail}.") from error
    except ValueError as error:
        raise CheckpointError(f"{path} can't be read: {error}; copy or fetch it again.") from error


def require_content(path: Path) -> None:
    """As `similarity.encoder.model_folder.require_content`, but raises CheckpointError."""
    try:
        model_files.require_content(path)
    except ModelError as error:
        raise CheckpointError(f"{error.detail}.") from error


def is_there(path: Path) -> bool:
    """Whether `path` exists. A broken link counts too, so that the caller reports it."""
    return path.exists() or path.is_symlink()


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]
