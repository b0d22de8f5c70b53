"""The reference of all vectors: transformers' own models, which compute every position of every layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import LongformerModel, PreTrainedModel

# How far a number of ours may be from that of transformers.
TOLERANCE = 1e-5

# Around half a window, a window, two windows and the reach of Longformer-base; and its longest text.
LENGTHS = (
    *(1, 2, 255, 256, 257, 258, 259, 511, 512, 513, 514, 515),
    *(1023, 1024, 1025, 1026, 3071, 3072, 3073, 3074, 3075, 4096),
)


def load_longformer(folder: Path, *, pooler: bool = False) -> LongformerModel:
    """The model in a folder, in float32. Fails where a weight is missing, or where one is there that has no place.

    Without global attention, no CLS vector needs the projections for it, nor the pooler. transformers saves them, this
    project's scripts leave them out.
    """
    loaded: Any = LongformerModel.from_pretrained(
        folder, dtype=torch.float32, add_pooling_layer=pooler, output_loading_info=True
    )
    model: LongformerModel = loaded[0]
    assert not [name for name in loaded[1]["missing_keys"] if "_global." not in name]
    assert not loaded[1]["unexpected_keys"]
    return model


def reference(model: PreTrainedModel, ids: Tensor, *, global_attention_on_cls: bool = False) -> Tensor:
    """(tokens,) of token ids, special tokens included -> (hidden,): the CLS vector of the last layer.

    All tokens count, those of padding too: a text may contain them.
    """
    options = {"attention_mask": torch.ones(1, len(ids), dtype=torch.int64)}
    if global_attention_on_cls:
        options["global_attention_mask"] = torch.eye(len(ids), dtype=torch.int64)[:1]
    with torch.no_grad():
        vector: Tensor = model(ids.unsqueeze(0), **options).last_hidden_state[0, 0]
    return vector


def reference_of_text(model: PreTrainedModel, folder: Path, text: str) -> Tensor:
    """The same for a text, by the tokenizer in a folder, which must not cut it."""
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids
    return reference(model, torch.tensor(ids))
