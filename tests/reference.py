"""The reference of all vectors: transformers' own LongformerModel, which computes every position of every layer."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import LongformerModel

# How far a number of ours may be from that of transformers.
TOLERANCE = 1e-5

# Around half a window, a window, two windows and the reach of Longformer-base; and its longest text.
LENGTHS = (
    *(1, 2, 255, 256, 257, 258, 259, 511, 512, 513, 514, 515),
    *(1023, 1024, 1025, 1026, 3071, 3072, 3073, 3074, 3075, 4096),
)


def reference(model: LongformerModel, ids: Tensor) -> Tensor:
    """(tokens,) of token ids, special tokens included -> (hidden,): the CLS vector of the last layer."""
    with torch.no_grad():
        return model(ids.unsqueeze(0)).last_hidden_state[0, 0]
