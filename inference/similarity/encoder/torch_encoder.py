"""Text to CLS vector with torch: the part of the Longformer's forward pass that this one vector needs.

The original service uses `LongformerModel` without global attention (Beltagy et al. 2020, section 3.1, sliding window).
So does this module. With half a window of w, the CLS vector of the last layer sees positions 0..w of the layer before,
0..2w of the layer before that, and so on. Positions further out can't change the CLS vector, so they aren't computed.

The order is from the inside out: the parts of a layer, a layer, the weights, the encoder. The texts of a batch stand
one after another in the rows of a matrix, without padding. Linear layers take all rows at once. Attention takes one
text at a time. `similarity.encoder.text_encoder` has the part that both engines share.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812 (the name everyone uses)
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from similarity.encoder.config import LongformerConfig
from similarity.encoder.model_folder import ModelFiles
from similarity.encoder.text_encoder import (
    GELU_APPROXIMATIONS,
    TextEncoder,
    inputs_needed,
    open_folder,
    require_vocabulary,
)
from similarity.encoder.tokens import TextTokenizer
from similarity.errors import ModelError
from similarity.settings import DEFAULT_MODEL_FILENAME, DEFAULT_PRECISION, Precision
from similarity.vectors import Vector

# int8 with a scale for each token and each channel was tried: only 98 % of real titles kept their first place.
DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Quantised weights aren't among them: they mean nothing without their scales.
_STORED_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)

# oneDNN reads weights in blocks of its own layout. torch packs them so for compiled models. On another processor or
# build this may be missing. Then the plain product gives the same, a little slower.
_ONEDNN: Any = (
    torch.ops.mkldnn
    if torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    and platform.machine() in ("x86_64", "AMD64")
    else None
)
# Without AVX512-BF16, products of bfloat16 take three times as long as float32's (oneDNN, with AVX-512) or five times
# (torch, without it).
_PRODUCTS = {
    torch.bfloat16: torch.bfloat16 if _ONEDNN is None or torch.cpu._is_avx512_bf16_supported() else torch.float32
}
# Weights are packed for this number of rows. Measured: packed for 32 or more, they are fast for every number of rows.
_ROWS = 256

# Rows that go through a layer's feed-forward part at a time. So many keep products at full speed. With more, the
# intermediate results wouldn't stay in the cache, and their memory wouldn't be reused.
_CHUNK = 512

# Queries that attention takes at a time, unless each sees all keys. With more, too many scores would be masked.
_BLOCK = 64


class Linear:
    """x W^T + b, for weight (out, in) and bias (out,). GELU or a sum can follow in the same pass over the result.

    dtype: of the product's input and output, float32 or bfloat16, for every dtype of x. The product sums in float32. If
    the CPU can't multiply bfloat16, numbers are rounded to bfloat16 but stored as float32.
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
        """GELU(x W^T + b), (rows, in) -> (rows, out)."""
        if _ONEDNN is None:
            return F.gelu(self(x), approximate=approximation)
        return self._run(x, "gelu", approximation)

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """x W^T + b + residual, (rows, in) -> (rows, out), in the dtype of residual (rows, out)."""
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
    """The part of a layer that a text needs: input positions 0 to inputs - 1, output positions 0 to outputs - 1."""

    inputs: int
    outputs: int


@lru_cache(maxsize=64)
def _band(queries: int, keys: int, offset: int, reach: int, cls_at: int | None, dtype: torch.dtype) -> Tensor:
    """A mask (queries, keys): 0 if the query sees the key, else -inf. Query i is at the position of key i + offset.

    cls_at: all queries see this key; None for no such key. If it is -1, an extra key is put in front.
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
    """Attention in which position i sees positions i - reach to i + reach, and also position 0 if `all_see_first`.

    query, out: (queries, heads, head). key, value: (keys, heads, head), keys >= queries. All start at position 0. Fills
    `out`.
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
    """Attention of the CLS token to all positions, with its own projections.

    key_weight, value_weight: (heads, head, hidden). value_bias: (hidden,). With one query the products have a cheap
    order. No keys are computed: q (W x) = (q W) x. Values are projected after they are summed. The keys' bias is left
    out: it adds the same to all scores of a head.
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
        context = torch.empty_like(wanted)  # (rows, hidden); reused below for the layer's result
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


class WeightReader:
    """Builds layers from `weights`, which may also hold a head. Every method raises ModelError.

    dtype: of the layers' products.
    """

    def __init__(self, weights: Mapping[str, Tensor], config: LongformerConfig, dtype: torch.dtype) -> None:
        self._weights = weights
        self._config = config
        self._dtype = dtype
        # A checkpoint with a head (e.g. a masked language model) has the encoder under this prefix.
        self._prefix = "longformer." if any(name.startswith("longformer.") for name in weights) else ""
        if config.hidden_act not in GELU_APPROXIMATIONS:
            raise ModelError(f"hidden_act must be one of {', '.join(GELU_APPROXIMATIONS)}, not {config.hidden_act!r}")

    def take(self, name: str, *shape: int | None) -> Tensor:
        """The tensor `name` as float32. It must have `shape`, in which None allows any size."""
        tensor = self._weights.get(self._prefix + name)
        if tensor is None:
            remedy = "; install the whole weights with this config.json" if "_global." in name else ""
            raise ModelError(f"the weights have no tensor {name}{remedy}")
        fits = tensor.dim() == len(shape) and all(
            want in (None, got) for want, got in zip(shape, tensor.shape, strict=True)
        )
        if not fits:
            raise ModelError(f"tensor {name} has the shape {tuple(tensor.shape)}, but config.json asks for {shape}")
        if tensor.dtype not in _STORED_DTYPES:
            allowed = ", ".join(str(dtype).removeprefix("torch.") for dtype in _STORED_DTYPES)
            found = str(tensor.dtype).removeprefix("torch.")
            raise ModelError(f"tensor {name} has the type {found}; it must be one of {allowed}")
        return tensor.float()

    def norm(self, name: str) -> Norm:
        size = self._config.hidden_size
        return Norm(self.take(f"{name}.weight", size), self.take(f"{name}.bias", size), self._config.layer_norm_eps)

    def layer(self, index: int) -> Layer:
        """The layer number `index`. Key and value are joined in one product."""
        name, size = f"encoder.layer.{index}", self._config.hidden_size
        key_weight, key_bias = self._affine(f"{name}.attention.self.key", size, size)
        value_weight, value_bias = self._affine(f"{name}.attention.self.value", size, size)
        return Layer(
            query=self._linear(f"{name}.attention.self.query", size, size),
            # 2 x (hidden, hidden) -> (2 * hidden, hidden)
            key_value=Linear(torch.cat([key_weight, value_weight]), torch.cat([key_bias, value_bias]), self._dtype),
            attention_out=self._linear(f"{name}.attention.output.dense", size, size),
            attention_norm=self.norm(f"{name}.attention.output.LayerNorm"),
            feed_forward_in=self._linear(f"{name}.intermediate.dense", None, size),
            feed_forward_out=self._linear(f"{name}.output.dense", size, None),
            feed_forward_norm=self.norm(f"{name}.output.LayerNorm"),
            heads=self._config.num_attention_heads,
            reach=self._config.attention_window[index] // 2,
            gelu=GELU_APPROXIMATIONS[self._config.hidden_act],
            global_attention=self._global_attention(name) if self._config.global_attention_on_cls else None,
        )

    def _global_attention(self, layer: str) -> GlobalAttention:
        name, size, heads = f"{layer}.attention.self", self._config.hidden_size, self._config.num_attention_heads
        return GlobalAttention(
            query=self._linear(f"{name}.query_global", size, size),
            # (hidden, hidden) -> (heads, head, hidden)
            key_weight=self.take(f"{name}.key_global.weight", size, size).view(heads, -1, size),
            value_weight=self.take(f"{name}.value_global.weight", size, size).view(heads, -1, size),
            value_bias=self.take(f"{name}.value_global.bias", size),
        )

    def _linear(self, name: str, out_size: int | None, in_size: int | None) -> Linear:
        return Linear(*self._affine(name, out_size, in_size), self._dtype)

    def _affine(self, name: str, out_size: int | None, in_size: int | None) -> tuple[Tensor, Tensor]:
        weight = self.take(f"{name}.weight", out_size, in_size)
        return weight, self.take(f"{name}.bias", weight.shape[0])


class TorchEncoder(TextEncoder):
    """A Longformer that torch computes."""

    engine = "torch"

    def __init__(
        self,
        config: LongformerConfig,
        weights: Mapping[str, Tensor],
        tokenizer: TextTokenizer,
        files: ModelFiles,
        precision: Precision = DEFAULT_PRECISION,
    ) -> None:
        super().__init__(config, tokenizer, files)
        if precision not in DTYPES:
            raise ModelError(
                f"ENCODER_PRECISION for the engine torch must be one of {', '.join(DTYPES)}, not {precision}"
            )
        self.precision = precision
        reader = WeightReader(weights, config, DTYPES[precision])
        self._words = reader.take("embeddings.word_embeddings.weight", None, config.hidden_size)
        require_vocabulary(tokenizer, len(self._words))
        self._positions = reader.take(
            "embeddings.position_embeddings.weight", config.max_position_embeddings, config.hidden_size
        )
        self._token_type = reader.take("embeddings.token_type_embeddings.weight", None, config.hidden_size)[0]
        self._norm = reader.norm("embeddings.LayerNorm")
        self._layers = [reader.layer(index) for index in range(config.num_hidden_layers)]

    @classmethod
    def load(
        cls,
        model_dir: str | Path,
        model_filename: str = DEFAULT_MODEL_FILENAME,
        precision: Precision = DEFAULT_PRECISION,
    ) -> TorchEncoder:
        """As `load_encoder`."""
        files, config, tokenizer = open_folder(model_dir, model_filename)
        try:
            weights = load_file(files.weights_path)
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{files.weights_path}: {type(error).__name__}: {error}") from error
        return cls(config, weights, tokenizer, files, precision)

    def vectors(self, texts: Sequence[Sequence[int]]) -> Vector:
        return self.cls_vectors([torch.tensor(ids) for ids in texts]).numpy()

    def cls_vector(self, ids: Tensor) -> Tensor:
        """Token ids (tokens,) with special tokens -> CLS vector (hidden,), float32."""
        return self.cls_vectors([ids])[0]

    @torch.inference_mode()
    def cls_vectors(self, texts: Sequence[Tensor]) -> Tensor:
        """Token ids (tokens,) of several texts -> CLS vectors (texts, hidden), in one pass."""
        needed = [inputs_needed(len(ids), self.config) for ids in texts]
        x = torch.cat([self._embed(ids[: need[0]]) for ids, need in zip(texts, needed, strict=True)])
        for index, layer in enumerate(self._layers):
            x = layer(x, [Span(inputs=need[index], outputs=need[index + 1]) for need in needed])
        return x

    def _embed(self, ids: Tensor) -> Tensor:
        """(tokens,) -> (tokens, hidden). A literal padding token doesn't take a position, as in RoBERTa."""
        pad = self.config.pad_token_id
        is_word = ids.ne(pad)
        positions = is_word.cumsum(0) * is_word + pad
        return self._norm(self._words[ids] + self._positions[positions] + self._token_type)
