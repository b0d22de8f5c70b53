"""The inputs of `benchmark.py`: models with random weights, and texts as token ids.

torch is imported only to make a model, because workers import this module too and their memory is measured.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from similarity.encoder.model_folder import ModelFiles
from similarity.incidents.state import IncidentState


@contextmanager
def random_model(size: str) -> Iterator[Path]:
    """A folder with a Longformer of random weights. size: `base` as allenai/longformer-base-4096, or `small`."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import LongformerConfig, LongformerModel

    torch.manual_seed(0)
    sizes = {
        "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
        "small": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128},
    }
    common = {
        "vocab_size": 50265,
        "attention_window": 512,
        "max_position_embeddings": 4098,
        "type_vocab_size": 1,
        "pad_token_id": 1,
        "layer_norm_eps": 1e-5,
    }
    config = LongformerConfig.from_dict({**common, **sizes[size]})
    tokenizer: Any = Tokenizer(WordLevel({"word": 5, "<unk>": 3}, unk_token="<unk>"))  # noqa: S106
    tokenizer.pre_tokenizer = Whitespace()
    with tempfile.TemporaryDirectory() as name:
        LongformerModel(config).save_pretrained(name)
        tokenizer.save(f"{name}/tokenizer.json")
        yield Path(name)


@contextmanager
def random_state(model_dir: Path) -> Iterator[Path]:
    """The file of a state for a model: 1,400 incidents with random means."""
    config = ModelFiles(model_dir).config()
    means = np.random.default_rng(0).standard_normal((1400, config.hidden_size), np.float32)
    ids = np.arange(1, len(means) + 1)
    state = IncidentState(ids, np.ones_like(ids), means, [""] * len(ids), text_preparation=config.text_preparation)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.pt"
        state.save(path)
        yield path


def random_ids(tokens: int, seed: int = 0) -> list[int]:
    ids: list[int] = np.random.default_rng(seed).integers(4, 1000, tokens).tolist()
    return ids


def aiid_lengths(texts: int) -> list[int]:
    """The lengths of `texts` texts in tokens, distributed as AIID's reports: median about 700, cut at 4,096."""
    drawn = np.random.default_rng(0).lognormal(np.log(700), 0.8, texts)
    return [int(tokens) for tokens in np.clip(drawn, 32, 4096)]
