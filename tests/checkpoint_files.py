"""Checkpoints as people have them, at tiny sizes, and torch's format of before 1.6, written without torch.save."""

from __future__ import annotations

import io
import json
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._utils import _rebuild_tensor_v2
from transformers import LongformerConfig, LongformerForMaskedLM, LongformerModel

from tiny import roberta_tokenizer

LAYERS = 12

# The keys of allenai/longformer-base-4096's config.json, and this project's tiny sizes.
CONFIG_OF_2020: dict[str, Any] = {
    "attention_mode": "longformer",
    "attention_probs_dropout_prob": 0.1,
    "attention_window": [16] * LAYERS,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "gradient_checkpointing": False,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 32,
    "ignore_attention_mask": False,
    "initializer_range": 0.2,
    "intermediate_size": 48,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 130,
    "model_type": "longformer",
    "num_attention_heads": 4,
    "num_hidden_layers": LAYERS,
    "pad_token_id": 1,
    "sep_token_id": 2,
    "type_vocab_size": 1,
    "vocab_size": 600,
}


def names_of_2020() -> list[str]:
    """What a LongformerForMaskedLM of transformers 2.11 to 3.0 calls its tensors, in its order."""
    norm, linear = ("weight", "bias"), ("weight", "bias")
    names = ["embeddings.position_ids"]
    names += [f"embeddings.{table}_embeddings.weight" for table in ("word", "position", "token_type")]
    names += [f"embeddings.LayerNorm.{part}" for part in norm]
    attention = ("query", "key", "value", "query_global", "key_global", "value_global")
    for layer in range(LAYERS):
        modules = [f"attention.self.{name}" for name in attention]
        modules += ["attention.output.dense", "attention.output.LayerNorm"]
        modules += ["intermediate.dense", "output.dense", "output.LayerNorm"]
        names += [f"encoder.layer.{layer}.{module}.{part}" for module in modules for part in linear]
    names += [f"pooler.dense.{part}" for part in linear]
    head = ["bias", "dense.weight", "dense.bias", "layer_norm.weight", "layer_norm.bias"]
    head += ["decoder.weight", "decoder.bias"]
    return [f"longformer.{name}" for name in names] + [f"lm_head.{name}" for name in head]


def weights_of_2020() -> tuple[OrderedDict[str, Tensor], LongformerModel]:
    """A random LongformerForMaskedLM as it was saved then, and the encoder in it, to compare with."""
    torch.manual_seed(3)
    model = LongformerForMaskedLM(LongformerConfig(**CONFIG_OF_2020))
    model.train(False)
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms start as zeros and ones, which hide mistakes
            parameter.add_(0.05 * torch.randn(parameter.shape))
    have = dict(model.state_dict())
    have["longformer.embeddings.position_ids"] = torch.arange(130).expand(1, -1)
    have["longformer.pooler.dense.weight"] = torch.randn(32, 32)
    have["longformer.pooler.dense.bias"] = torch.randn(32)
    # The head shares the words' tensor, and has its bias twice.
    words = have["longformer.embeddings.word_embeddings.weight"]
    assert have["lm_head.decoder.weight"].data_ptr() == words.data_ptr()
    have["lm_head.decoder.bias"] = have["lm_head.bias"]
    weights = OrderedDict((name, have.pop(name)) for name in names_of_2020())
    assert not have, "transformers has names of which 2020 knew nothing"
    # What state_dict hangs on, and pickle keeps.
    weights._metadata = OrderedDict({"": {"version": 1}, "longformer": {"version": 1}})  # type: ignore[attr-defined]
    return weights, model.longformer


def write_longformer_of_2020(folder: Path) -> LongformerModel:
    """The five files that allenai/longformer-base-4096 has on the hub, and the encoder in them."""
    weights, encoder = weights_of_2020()
    (folder / "config.json").write_text(json.dumps(CONFIG_OF_2020, indent=2))
    tokenizer = roberta_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer.model.save(str(folder))  # vocab.json and merges.txt
    (folder / "pytorch_model.bin").write_bytes(old_pickle(weights))
    return encoder


class _Storage:
    """Stands in a pickle for numbers that follow it in the file."""

    def __init__(self, key: str, tensor: Tensor, location: str) -> None:
        self.key, self.location = key, location
        self.numbers = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())

    def persistent_id(self) -> tuple[Any, ...]:
        kinds = {torch.float32: torch.FloatStorage, torch.float16: torch.HalfStorage, torch.int64: torch.LongStorage}
        return ("storage", kinds[self.numbers.dtype], self.key, self.location, len(self.numbers), None)


class _Rebuilt:
    """Unpickles as a tensor."""

    def __init__(self, storage: _Storage, tensor: Tensor) -> None:
        hooks: OrderedDict[str, Any] = OrderedDict()
        self.parts = (storage, tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), False, hooks)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _rebuild_tensor_v2, self.parts


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: object) -> tuple[Any, ...] | None:
        return obj.persistent_id() if isinstance(obj, _Storage) else None


def old_pickle(weights: Mapping[str, Tensor], *, location: str = "cpu") -> bytes:
    """What torch.save of before 1.6 made: five pickles in a row, and then the numbers of each storage.

    After torch 1.5's `_legacy_save`: magic number, version of the protocol, sizes of C's types, the object, the
    storages' keys; for each storage the count of its elements, int64, and their bytes.
    """
    file = io.BytesIO()
    storages: dict[int, _Storage] = {}
    content: OrderedDict[str, Any] = OrderedDict()
    for name, tensor in weights.items():
        pointer = tensor.untyped_storage().data_ptr()
        storage = storages.setdefault(pointer, _Storage(str(94000000 + len(storages)), tensor, location))
        content[name] = _Rebuilt(storage, tensor)
    content.__dict__.update(getattr(weights, "__dict__", {}))
    pickle.dump(0x1950A86A20F9469CFC6C, file, protocol=2)
    pickle.dump(1001, file, protocol=2)
    sizes = {"short": 2, "int": 4, "long": 4}
    pickle.dump({"protocol_version": 1001, "little_endian": True, "type_sizes": sizes}, file, protocol=2)
    _Pickler(file, protocol=2).dump(content)
    by_key = {storage.key: storage for storage in storages.values()}
    pickle.dump(sorted(by_key), file, protocol=2)
    for key in sorted(by_key):
        numbers = by_key[key].numbers
        file.write(struct.pack("<q", len(numbers)) + numbers.numpy().tobytes())
    return file.getvalue()
