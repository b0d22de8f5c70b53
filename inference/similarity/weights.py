"""Takes a checkpoint apart into layers, by the names of transformers' `LongformerModel`, checking every shape."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from similarity.encoding import GELU_APPROXIMATIONS
from similarity.errors import ModelError
from similarity.layers import GlobalAttention, Layer, Linear, Norm
from similarity.model_files import LongformerConfig

# Quantised weights mean nothing without their scales.
_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


class WeightReader:
    """Reads from `weights`, which may carry a head on top of the encoder. Every method raises ModelError.

    Products are made in `dtype`.
    """

    def __init__(self, weights: Mapping[str, Tensor], config: LongformerConfig, dtype: torch.dtype) -> None:
        self._weights = weights
        self._config = config
        self._dtype = dtype
        # A checkpoint saved with a head on top (masked language model) carries the encoder under this prefix.
        self._prefix = "longformer." if any(name.startswith("longformer.") for name in weights) else ""
        if config.hidden_act not in GELU_APPROXIMATIONS:
            raise ModelError(f"hidden_act {config.hidden_act!r} is none of {sorted(GELU_APPROXIMATIONS)}")

    def take(self, name: str, *shape: int | None) -> Tensor:
        """The tensor `name`, float32, of `shape`, in which None stands for any size."""
        tensor = self._weights.get(self._prefix + name)
        if tensor is None:
            raise ModelError(f"the weights have no tensor {name}")
        fits = tensor.dim() == len(shape) and all(
            want in (None, got) for want, got in zip(shape, tensor.shape, strict=True)
        )
        if not fits:
            raise ModelError(f"tensor {name} has the shape {tuple(tensor.shape)}, the config asks for {shape}")
        if tensor.dtype not in _DTYPES:
            allowed = ", ".join(str(dtype).removeprefix("torch.") for dtype in _DTYPES)
            found = str(tensor.dtype).removeprefix("torch.")
            raise ModelError(f"tensor {name} is of the type {found}; it must be of {allowed}")
        return tensor.float()

    def norm(self, name: str) -> Norm:
        size = self._config.hidden_size
        return Norm(self.take(f"{name}.weight", size), self.take(f"{name}.bias", size), self._config.layer_norm_eps)

    def layer(self, index: int) -> Layer:
        """The layer with the number `index`; key and value are one product."""
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
