"""Text to CLS vector: the Longformer forward pass, for that one vector only.

`LongformerModel` is used here as the original service uses it, without global attention (Beltagy et al. 2020, section
3.1, sliding window): with half a window of w, the CLS vector of the last layer sees positions 0..w of the layer before,
0..2w of the one before that, and so on. What lies further out can't change the answer and is not computed.

Tokenising is left to `similarity.tokens`, the reading of config.json to `similarity.model_files`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 (the name everyone uses)
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from similarity.errors import ModelError
from similarity.model_files import LongformerConfig, ModelFiles
from similarity.settings import DEFAULT_MODEL_FILENAME
from similarity.tokens import TextTokenizer, Tokens

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
}


@dataclass(frozen=True)
class Encoding:
    """A text's CLS vector, float32 of shape (hidden,), and its tokens."""

    vector: Tensor
    tokens: Tokens


def inputs_needed(tokens: int, windows: tuple[int, ...]) -> list[int]:
    """How many of the first positions matter at the input of each layer, and, last, at the output: 1, the CLS token."""
    needed = [1]
    for window in reversed(windows):
        needed.append(min(tokens, needed[-1] + window // 2))
    return needed[::-1]


def banded_attention(query: Tensor, key: Tensor, value: Tensor, reach: int) -> Tensor:
    """Attention in which position i sees positions i - reach to i + reach.

    query (heads, queries, head), key and value (heads, keys, head), keys >= queries, both counted from position 0;
    gives (heads, queries, head).
    """
    queries, keys = query.shape[1], key.shape[1]
    blocks = []
    for start in range(0, queries, reach):
        stop = min(start + reach, queries)
        first, last = max(0, start - reach), min(keys, stop + reach)
        distance = torch.arange(first, last) - torch.arange(start, stop).unsqueeze(1)  # (block, band)
        in_band = distance.abs() <= reach
        blocks.append(
            F.scaled_dot_product_attention(
                query[:, start:stop].unsqueeze(0),
                key[:, first:last].unsqueeze(0),
                value[:, first:last].unsqueeze(0),
                attn_mask=None if bool(in_band.all()) else in_band,
            ).squeeze(0)
        )
    return torch.cat(blocks, dim=1)


@dataclass(frozen=True)
class Layer:
    """One Transformer layer (post-norm, as in BERT). Weights are (out, in), biases (out,)."""

    qkv_weight: Tensor
    qkv_bias: Tensor
    attention_out: tuple[Tensor, Tensor]
    attention_norm: tuple[Tensor, Tensor]
    feed_forward_in: tuple[Tensor, Tensor]
    feed_forward_out: tuple[Tensor, Tensor]
    feed_forward_norm: tuple[Tensor, Tensor]
    heads: int
    reach: int
    activation: Callable[[Tensor], Tensor]
    eps: float

    def __call__(self, x: Tensor, outputs: int) -> Tensor:
        """(inputs, hidden) -> (outputs, hidden), for the first `outputs` positions."""
        inputs, hidden = x.shape
        # (inputs, 2 * hidden) -> (inputs, 2, heads, head) -> 2 x (heads, inputs, head)
        keys_and_values = F.linear(x, self.qkv_weight[hidden:], self.qkv_bias[hidden:])
        key, value = keys_and_values.view(inputs, 2, self.heads, -1).permute(1, 2, 0, 3)
        x = x[:outputs]
        query = F.linear(x, self.qkv_weight[:hidden], self.qkv_bias[:hidden])
        query = query.view(outputs, self.heads, -1).transpose(0, 1)  # (outputs, hidden) -> (heads, outputs, head)
        context = banded_attention(query, key, value, self.reach).transpose(0, 1).flatten(1)  # -> (outputs, hidden)
        x = F.layer_norm(x + F.linear(context, *self.attention_out), (hidden,), *self.attention_norm, self.eps)
        inner = self.activation(F.linear(x, *self.feed_forward_in))  # (outputs, intermediate)
        return F.layer_norm(x + F.linear(inner, *self.feed_forward_out), (hidden,), *self.feed_forward_norm, self.eps)


class Encoder:
    """A Longformer and its tokenizer. Safe to use from several threads at once."""

    def __init__(
        self, config: LongformerConfig, weights: Mapping[str, Tensor], tokenizer: TextTokenizer, files: ModelFiles
    ) -> None:
        self.config = config
        self.name = files.name()
        self.fingerprint = files.fingerprint()
        self._tokenizer = tokenizer
        reader = _WeightReader(weights, config)
        self._words = reader.take("embeddings.word_embeddings.weight", None, config.hidden_size)
        self._positions = reader.take(
            "embeddings.position_embeddings.weight", config.max_position_embeddings, config.hidden_size
        )
        self._token_type = reader.take("embeddings.token_type_embeddings.weight", None, config.hidden_size)[0]
        self._norm = reader.norm("embeddings.LayerNorm")
        self._layers = [reader.layer(index) for index in range(config.num_hidden_layers)]

    @classmethod
    def load(cls, model_dir: str | Path, model_filename: str = DEFAULT_MODEL_FILENAME) -> Encoder:
        """The checkpoint in `model_dir`: config.json, tokenizer.json and safetensors weights of any `LongformerModel`.

        Raises ModelError for files that are missing, truncated or of another kind of model.
        """
        files = ModelFiles(Path(model_dir), model_filename)
        config = files.config()
        tokenizer = TextTokenizer.load(files.tokenizer_path, config.max_tokens)
        try:
            weights = load_file(files.weights_path)
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{files.weights_path}: {type(error).__name__}: {error}") from error
        return cls(config, weights, tokenizer, files)

    @property
    def dimension(self) -> int:
        return self.config.hidden_size

    def encode(self, text: str) -> Encoding:
        """The CLS vector of a text and its tokens; the text is transliterated and cut as `similarity.tokens` says."""
        tokens = self._tokenizer(text)
        return Encoding(vector=self.cls_vector(torch.tensor(tokens.ids)), tokens=tokens)

    @torch.inference_mode()
    def cls_vector(self, ids: Tensor) -> Tensor:
        """(tokens,) of token ids, special tokens included -> (hidden,), float32."""
        needed = inputs_needed(len(ids), self.config.attention_window)
        x = self._embed(ids[: needed[0]])
        for layer, outputs in zip(self._layers, needed[1:], strict=True):
            x = layer(x, outputs)
        return x[0].clone()  # (1, hidden) -> (hidden,)

    def _embed(self, ids: Tensor) -> Tensor:
        """(tokens,) -> (tokens, hidden). A literal padding token takes no position, as in RoBERTa."""
        pad = self.config.pad_token_id
        is_word = ids.ne(pad)
        positions = is_word.cumsum(0) * is_word + pad
        x = self._words[ids] + self._positions[positions] + self._token_type
        return F.layer_norm(x, (x.shape[1],), *self._norm, self.config.layer_norm_eps)


class _WeightReader:
    """Takes tensors out of a checkpoint by the names of transformers' `LongformerModel`, checking their shapes."""

    def __init__(self, weights: Mapping[str, Tensor], config: LongformerConfig) -> None:
        self._weights = weights
        self._config = config
        # A checkpoint saved with a head on top (masked language model) carries the encoder under this prefix.
        self._prefix = "longformer." if any(name.startswith("longformer.") for name in weights) else ""
        if config.hidden_act not in ACTIVATIONS:
            raise ModelError(f"hidden_act {config.hidden_act!r} is none of {sorted(ACTIVATIONS)}")

    def take(self, name: str, *shape: int | None) -> Tensor:
        tensor = self._weights.get(self._prefix + name)
        if tensor is None:
            raise ModelError(f"the weights have no tensor {name}")
        if tensor.dim() != len(shape) or any(want not in (None, got) for want, got in zip(shape, tensor.shape)):  # noqa: B905
            raise ModelError(f"tensor {name} has the shape {tuple(tensor.shape)}, the config asks for {shape}")
        return tensor.float()

    def linear(self, name: str, out_size: int | None, in_size: int | None) -> tuple[Tensor, Tensor]:
        weight = self.take(f"{name}.weight", out_size, in_size)
        return weight, self.take(f"{name}.bias", weight.shape[0])

    def norm(self, name: str) -> tuple[Tensor, Tensor]:
        size = self._config.hidden_size
        return self.take(f"{name}.weight", size), self.take(f"{name}.bias", size)

    def layer(self, index: int) -> Layer:
        name, size = f"encoder.layer.{index}", self._config.hidden_size
        projections = [self.linear(f"{name}.attention.self.{part}", size, size) for part in ("query", "key", "value")]
        weights, biases = zip(*projections, strict=True)
        return Layer(
            qkv_weight=torch.cat(weights),  # 3 x (hidden, hidden) -> (3 * hidden, hidden)
            qkv_bias=torch.cat(biases),
            attention_out=self.linear(f"{name}.attention.output.dense", size, size),
            attention_norm=self.norm(f"{name}.attention.output.LayerNorm"),
            feed_forward_in=self.linear(f"{name}.intermediate.dense", None, size),
            feed_forward_out=self.linear(f"{name}.output.dense", size, None),
            feed_forward_norm=self.norm(f"{name}.output.LayerNorm"),
            heads=self._config.num_attention_heads,
            reach=self._config.attention_window[index] // 2,
            activation=ACTIVATIONS[self._config.hidden_act],
            eps=self._config.layer_norm_eps,
        )
