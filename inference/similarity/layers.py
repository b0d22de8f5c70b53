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

# oneDNN reads weights in blocks of its own layout. torch packs them so for compiled models; where it can't (another
# processor, another build) the plain product does the same a little slower.
_ONEDNN: Any = (
    torch.ops.mkldnn
    if torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    and platform.machine() in ("x86_64", "AMD64")
    else None
)
# Without AVX-512 oneDNN packs no bfloat16, and torch's own products of it take five times as long as float32's.
_PRODUCTS = {
    torch.bfloat16: torch.bfloat16 if _ONEDNN is None or _ONEDNN._is_mkldnn_bf16_supported() else torch.float32
}
# Rows to expect. Measured: packed for 32 or more, every number of rows is as fast as packed for itself.
_ROWS = 256

# Rows that a layer takes through its feed-forward part at a time: enough for products to run at full speed, few enough
# that what lies between them stays in the cache and that its memory is used again instead of asked for anew.
_CHUNK = 512


# Queries that attention takes at a time where not all see all: with more, too many of the scores are of no use.
_BLOCK = 64


class Linear:
    """x W^T + b, for weight (out, in) and bias (out,), with what follows it done in the same pass over the result.

    `dtype` is what goes into the product and comes out of it, float32 or bfloat16, whatever x is; sums within it are
    float32. Where the CPU has no product of bfloat16, numbers are rounded to it and stay float32.
    """

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype = torch.float32) -> None:
        self._dtype, self._product_dtype = dtype, _PRODUCTS.get(dtype, dtype)
        weight, self._bias = self._rounded(weight), self._rounded(bias)
        self._weight = weight if _ONEDNN is None else _ONEDNN._reorder_linear_weight(weight.contiguous(), _ROWS)

    def __call__(self, x: Tensor) -> Tensor:
        """(rows, in) -> (rows, out)"""
        if _ONEDNN is None:
            return F.linear(self._rounded(x), self._weight, self._bias)
        return self._run(x, "none", "")

    def gelu(self, x: Tensor, approximation: Literal["none", "tanh"]) -> Tensor:
        """GELU of the product, (rows, in) -> (rows, out)."""
        if _ONEDNN is None:
            return F.gelu(self(x), approximate=approximation)
        return self._run(x, "gelu", approximation)

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """The product plus residual (rows, out), (rows, in) -> (rows, out) in the residual's dtype."""
        if _ONEDNN is None or residual.dtype != self._dtype:
            return residual + self(x)
        sum_: Tensor = _ONEDNN._linear_pointwise.binary(x, residual, self._weight, self._bias, "add")
        return sum_

    def _run(self, x: Tensor, activation: str, algorithm: str) -> Tensor:
        product: Tensor = _ONEDNN._linear_pointwise(
            self._rounded(x), self._weight, self._bias, activation, [], algorithm
        )
        return self._rounded(product)

    def _rounded(self, x: Tensor) -> Tensor:
        return x.to(self._dtype).to(self._product_dtype)


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
def _band(queries: int, keys: int, offset: int, reach: int, cls_at: int | None, dtype: torch.dtype) -> Tensor:
    """(queries, keys): 0 where query i, which stands at key i + offset, sees a key, -inf where it does not.

    All see the key `cls_at`, if there is one; where that is -1, it stands in front as a key more.
    """
    distance = torch.arange(keys) - (torch.arange(queries) + offset).unsqueeze(1)
    band = torch.zeros(queries, keys, dtype=dtype).masked_fill_(distance.abs() > reach, -math.inf)
    if cls_at == 0:
        band[:, 0] = 0
    elif cls_at == -1:
        band = F.pad(band, (1, 0))
    return band


def banded_attention(
    query: Tensor, key: Tensor, value: Tensor, reach: int, out: Tensor, *, all_see_first: bool = False
) -> None:
    """Attention in which position i sees positions i - reach to i + reach, and position 0 where `all_see_first`.

    query and out (queries, heads, head), key and value (keys, heads, head), keys >= queries, all counted from position
    0. Fills `out`.
    """
    queries, keys = query.shape[0], key.shape[0]
    # (positions, heads, head) -> (heads, positions, head)
    query, key, value = query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1)
    if keys - 1 <= reach:
        everything = F.scaled_dot_product_attention(query.unsqueeze(0), key.unsqueeze(0), value.unsqueeze(0))
        out.copy_(everything[0].transpose(0, 1))
        return
    query = query / math.sqrt(query.shape[-1])
    for start in range(0, queries, _BLOCK):
        stop = min(start + _BLOCK, queries)
        first, last = max(0, start - reach), min(keys, stop + reach)
        seen_key, seen_value = key[:, first:last], value[:, first:last]  # (heads, seen, head)
        cls_at = (-1 if first else 0) if all_see_first else None
        band = _band(stop - start, last - first, start - first, reach, cls_at, query.dtype)
        if cls_at == -1:
            seen_key = torch.cat([key[:, :1], seen_key], dim=1)
            seen_value = torch.cat([value[:, :1], seen_value], dim=1)
        scores = torch.baddbmm(band, query[:, start:stop], seen_key.transpose(1, 2))  # (heads, block, seen)
        block = torch.bmm(torch.softmax(scores, dim=-1), seen_value)  # (heads, block, head)
        out[start:stop] = block.transpose(0, 1)


@dataclass(frozen=True)
class GlobalAttention:
    """What the CLS token gathers where it attends to all positions, by projections of its own.

    weights (heads, head, hidden), biases (hidden,). With one query there is a cheap order of the products: scores need
    no key of every position (q (W x) = (q W) x), and values are projected after they are summed. The bias of the keys
    adds the same to all scores of a head, which changes nothing.
    """

    query: Linear
    key_weight: Tensor
    value_weight: Tensor
    value_bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """(positions, hidden) -> (hidden,)"""
        heads, head, _ = self.key_weight.shape
        query = self.query(x[:1]).view(heads, 1, head).float() / math.sqrt(head)
        folded = torch.bmm(query, self.key_weight).squeeze(1)  # (heads, 1, hidden) -> (heads, hidden)
        gathered = torch.softmax(folded @ x.T, dim=-1) @ x  # (heads, positions) -> (heads, hidden)
        return torch.bmm(self.value_weight, gathered.unsqueeze(2)).flatten() + self.value_bias


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
    global_attention: GlobalAttention | None = None

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
            see_first = self.global_attention is not None
            banded_attention(query[rows], key[input_rows], value[input_rows], self.reach, out, all_see_first=see_first)
            if self.global_attention is not None:
                context[row] = self.global_attention(x[input_rows])
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
