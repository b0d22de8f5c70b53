"""Random Longformers of every form, as transformers saves them, and token ids for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LongformerConfig, LongformerModel

from models.export import export
from models.longformer import _pooling_layer as pooling_layer
from reference import load_longformer
from similarity.encoder.text_encoder import TextEncoder
from similarity.encoder.torch_encoder import TorchEncoder
from tiny import edit_config, roberta_tokenizer


def save_longformer(folder: Path, *, seed: int = 0, **config: Any) -> tuple[LongformerModel, TorchEncoder]:
    """A random Longformer, as transformers and as our reference load it; the folder serves every engine."""
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {
        "vocab_size": 600,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "attention_window": 16,
        "max_position_embeddings": 4098,
        "type_vocab_size": 1,
        "pad_token_id": 1,
        "initializer_range": 0.2,
    }
    model = LongformerModel(LongformerConfig(**sizes | config))
    model.train(False)
    model.save_pretrained(folder)
    roberta_tokenizer().save(str(folder / "tokenizer.json"))
    export(folder)
    return model, TorchEncoder.load(folder)


def add_pooling(folder: Path, window: int) -> LongformerModel:
    """Gives the model one more layer, which pools as `convert_encoder.py --pooling mean` makes it."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    values = json.loads((folder / "config.json").read_bytes())
    layers = values["num_hidden_layers"]
    added = pooling_layer(weights, layers)
    for name in [name for name in added if ".attention.self." in name]:
        for part in ("query", "key", "value"):
            added[name.replace(f".self.{part}.", f".self.{part}_global.")] = added[name].clone()
    save_file({**weights, **added}, path)
    windows = [*values["attention_window"], window]
    edit_config(folder, num_hidden_layers=layers + 1, attention_window=windows)
    export(folder)
    return load_longformer(folder, pooler=True)


def cls_vector(encoder: TextEncoder, ids: Tensor) -> Tensor:
    return torch.from_numpy(encoder.vectors([ids.tolist()])[0])


def random_ids(tokens: int, seed: int = 0) -> Tensor:
    return torch.randint(4, 600, (tokens,), generator=torch.Generator().manual_seed(seed))
