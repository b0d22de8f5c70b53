"""The parts of a Transformer layer, for the first positions of one or more texts at once.

Texts of a batch stand one behind the other in the rows of a matrix, without padding: a linear layer does not care where
one ends, and attention takes them one by one. Which positions are needed is the encoder's to say.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812 (the name everyone uses)
from torch import Tensor

# As config.json names them; the values are what torch calls the approximation of GELU.
GELU_APPROXIMATIONS: dict[str, Literal["none", "tanh"]] = {
    "gelu": "none",
    "gelu_new": "tanh",
    "gelu_pytorch_tanh": "tanh",
}

# oneDNN reads weights in blocks of its own layout. torch packs them so for compiled models; where it can't (another
# processor, another build) the plain product does the same a little slower.
_ONEDNN: Any = (
    torch.ops.mkldnn
    if torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    and platform.machine() in ("x86_64", "AMD64")
    else None
)
# Rows to expect. Measured: packed for 32 or more, every number of rows is as fast as packed for itself.
_ROWS = 256

# Rows that a layer takes through its feed-forward part at a time: enough for products to run at full speed, few enough
# that what lies between them stays in the cache and that its memory is used again instead of asked for anew.
_CHUNK = 512


class Linear:
    """x W^T + b, for weight (out, in) and bias (out,), with what follows it done in the same pass over the result."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self._bias = bias
        self._weight = weight if _ONEDNN is None else _ONEDNN._reorder_linear_weight(weight.contiguous(), _ROWS)

    def __call__(self, x: Tensor) -> Tensor:
        """(rows, in) -> (rows, out)"""
        if _ONEDNN is None:
            return F.linear(x, self._weight, self._bias)
        return self._run(x, "none", "")

    def gelu(self, x: Tensor, approximation: Literal["none", "tanh"]) -> Tensor:
        """GELU of the product, (rows, in) -> (rows, out)."""
        if _ONEDNN is None:
            return F.gelu(F.linear(x, self._weight, self._bias), approximate=approximation)
        return self._run(x, "gelu", approximation)

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """The product plus residual (rows, out), (rows, in) -> (rows, out)."""
        if _ONEDNN is None:
            return F.linear(x, self._weight, self._bias).add_(residual)
        sum_: Tensor = _ONEDNN._linear_pointwise.binary(x, residual, self._weight, self._bias, "add")
        return sum_

    def _run(self, x: Tensor, activation: str, algorithm: str) -> Tensor:
        product: Tensor = _ONEDNN._linear_pointwise(x, self._weight, self._bias, activation, [], algorithm)
        return product


@dataclass(frozen=True)
class Norm:
    """Layer normalisation over the last dimension."""

    weight: Tensor
    bias: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True)
class Span:
    """A text's share of a layer: positions 0 to inputs - 1 come in, 0 to outputs - 1 are wanted."""

    inputs: int
    outputs: int


@lru_cache(maxsize=64)
def _band(queries: int, keys: int, offset: int, reach: int) -> Tensor:
    """(queries, keys): 0 where query i, which stands at key i + offset, sees a key, -inf where it does not."""
    distance = torch.arange(keys) - (torch.arange(queries) + offset).unsqueeze(1)
    return torch.zeros(queries, keys).masked_fill_(distance.abs() > reach, -math.inf)


def banded_attention(query: Tensor, key: Tensor, value: Tensor, reach: int, out: Tensor) -> None:
    """Attention in which position i sees positions i - reach to i + reach.

    query and out (queries, heads, head), key and value (keys, heads, head), keys >= queries, all counted from position
    0. Fills `out`.
    """
    queries, keys = query.shape[0], key.shape[0]
    # (positions, heads, head) -> (heads, positions, head)
    query, key, value = query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1)
    for start in range(0, queries, reach):
        stop = min(start + reach, queries)
        first, last = max(0, start - reach), min(keys, stop + reach)
        sees_all = stop - 1 - first <= reach and last - 1 - start <= reach
        block = F.scaled_dot_product_attention(
            query[:, start:stop].unsqueeze(0),
            key[:, first:last].unsqueeze(0),
            value[:, first:last].unsqueeze(0),
            attn_mask=None if sees_all else _band(stop - start, last - first, start - first, reach),
        )
        out[start:stop] = block[0].transpose(0, 1)  # (1, heads, block, head) -> (block, heads, head)


@dataclass(frozen=True)
class Layer:
    """One Transformer layer (post-norm, as in BERT)."""

    query: Linear
    key_value: Linear
    attention_out: Linear
    attention_norm: Norm
    feed_forward_in: Linear
    feed_forward_out: Linear
    feed_forward_norm: Norm
    heads: int
    reach: int
    gelu: Literal["none", "tanh"]

    def __call__(self, x: Tensor, spans: Sequence[Span]) -> Tensor:
        """(sum of inputs, hidden) -> (sum of outputs, hidden)"""
        wanted = _first_rows(x, spans)
        # (rows, hidden) -> (rows, heads, head)
        query = self.query(wanted).unflatten(1, (self.heads, -1))  # type: ignore[no-untyped-call]
        # (rows, 2 * hidden) -> (rows, 2, heads, head) -> 2 x (rows, heads, head)
        key, value = self.key_value(x).view(x.shape[0], 2, self.heads, -1).unbind(1)
        context = torch.empty_like(wanted)  # (rows, hidden), and by and by the layer's result
        row = input_row = 0
        for span in spans:
            rows, input_rows = slice(row, row + span.outputs), slice(input_row, input_row + span.inputs)
            out = context[rows].view(span.outputs, self.heads, -1)
            banded_attention(query[rows], key[input_rows], value[input_rows], self.reach, out)
            row, input_row = rows.stop, input_rows.stop
        for start in range(0, len(context), _CHUNK):
            rows = slice(start, start + _CHUNK)
            attended = self.attention_norm(self.attention_out.add(context[rows], wanted[rows]))
            inner = self.feed_forward_in.gelu(attended, self.gelu)  # (rows, intermediate)
            context[rows] = self.feed_forward_norm(self.feed_forward_out.add(inner, attended))
        return context


def _first_rows(x: Tensor, spans: Sequence[Span]) -> Tensor:
    """The first `outputs` rows of each text, (sum of inputs, hidden) -> (sum of outputs, hidden)."""
    if len(spans) == 1:
        return x[: spans[0].outputs]
    parts, row = [], 0
    for span in spans:
        parts.append(x[row : row + span.outputs])
        row += span.inputs
    return torch.cat(parts)
