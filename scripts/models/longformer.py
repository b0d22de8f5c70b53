"""Makes a Longformer's config and weights from those of an encoder of the BERT family.

This is the construction of the Longformer paper (Beltagy et al. 2020, section 5). All weights stay. The projections for
global attention start as copies of the local ones; they count in the model's fingerprint, but aren't installed
(`models.touched_weights`). The position table is repeated until it is long enough.

Mean pooling becomes one more layer. Its query and key are zero, so that a token attends to all tokens in its window
alike. Its value is the identity. Its output is the identity times POOLING_SCALE, so that the mean outweighs the token's
own vector, which the layer adds. Its feed-forward part is zero. So the CLS vector of that layer is the layer norm of
the mean of the tokens that the window reaches. A layer norm changes the length of a vector, which doesn't matter, but
it also subtracts the average of its numbers. There are two ways to keep the direction, and `_spare` chooses one:

- The average is small, because the encoder's token vectors come from a layer norm too. Then the layer stays as it is.
- One number of the vectors is nearly always zero, because the encoder's last layer norm multiplies it by nearly zero.
  Then the output sets this number to minus the sum of the others, so that the average is zero. The layer norm at the
  end multiplies it by zero. all-MiniLM-L6-v2 has three such numbers, so its mean is exact.

The caller reads the files, finds the padding id, and compares the result with the encoder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from similarity.encoder.config import CONVERTIBLE_KINDS

Pooling = Literal["cls", "mean"]

# A power of two, so that the products stay exact.
POOLING_SCALE = 2.0**14
# The default window of the pooling layer, in tokens. Reports begin with the story, and other things follow on a page.
# Before 1,000 unrelated words, a title is among the first ten nearly twice as often as with 1,024: 0.540 against 0.280.
POOLING_WINDOW = 512

# Where a position table starts: BERT counts from 0, RoBERTa counts from the row after its padding index.
FIRST_POSITION_IS_BEHIND_PADDING = {
    "bert": False,
    "roberta": True,
    "xlm-roberta": True,
    "camembert": True,
    "distilbert": False,
}
CONVERT = (
    "encoders that convert are, for example, all-MiniLM-L6-v2, all-distilroberta-v1, bge-base-en-v1.5, e5-base-v2 and "
    "gte-base, and for many languages paraphrase-multilingual-MiniLM-L12-v2, multilingual-e5-small and "
    "multilingual-e5-base"
)

_MPNET = "MPNet learned relative positions that every attention adds, and a Longformer's attention has no such part"
_ROTARY = "{} turns queries and keys by their positions (rotary positions), and a Longformer adds a table of positions"
_ALIBI = "{} has no table of positions (its attention subtracts distances), and a Longformer needs one"
_BIAS = "{} learned a bias for each distance that attention adds, and a Longformer's attention has no such part"
_DECODER = "{} is a decoder, whose tokens see only earlier ones, and a Longformer's tokens see both sides"
# model_type -> the reason why a Longformer can't be made of it.
REASONS = {
    "mpnet": _MPNET,
    "modernbert": _ROTARY.format("ModernBERT"),
    "nomic_bert": _ROTARY.format("Nomic's BERT"),
    "new": _ROTARY.format("GTE from version 1.5 on"),
    "gte": _ROTARY.format("this GTE"),
    "roformer": _ROTARY.format("RoFormer"),
    "eurobert": _ROTARY.format("EuroBERT"),
    "neobert": _ROTARY.format("NeoBERT"),
    "jina_embeddings_v3": _ROTARY.format("Jina's encoder from version 3 on"),
    "jina_bert": _ALIBI.format("Jina's BERT"),
    "jina_bert_v2": _ALIBI.format("Jina's BERT"),
    "t5": _BIAS.format("T5"),
    "mt5": _BIAS.format("mT5"),
    "umt5": _BIAS.format("UMT5"),
    "longt5": _BIAS.format("LongT5"),
    "deberta": "DeBERTa attends to content and relative positions apart, and a Longformer's attention can't",
    "deberta-v2": "DeBERTa attends to content and relative positions apart, and a Longformer's attention can't",
    "xlnet": "XLNet attends to relative positions, and a Longformer adds a table of positions",
    "albert": "ALBERT's word table is narrower than its layers, which share their weights; its conversion wasn't tried",
    "electra": "ELECTRA's word table may be narrower than its layers; its conversion wasn't tried",
    "bart": "BART is an encoder and a decoder in one; its conversion wasn't tried",
    "big_bird": "BigBird has a sparse attention of its own; its conversion wasn't tried",
    **{
        kind: _DECODER.format(name)
        for kind, name in {
            "gpt2": "GPT-2", "gpt_neo": "GPT-Neo", "gpt_neox": "GPT-NeoX", "gptj": "GPT-J", "opt": "OPT",
            "bloom": "BLOOM", "llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen", "qwen3": "Qwen", "phi3": "Phi",
            "gemma": "Gemma", "gemma2": "Gemma",
        }.items()
    },
    "gemma3_text": _ROTARY.format("Gemma"),
}  # fmt: skip

_WORDS, _POSITIONS, _TYPES = (f"embeddings.{name}_embeddings.weight" for name in ("word", "position", "token_type"))
# DistilBERT's names for the modules of a layer -> BERT's.
_DISTILBERT_MODULES = {
    "attention.q_lin": "attention.self.query",
    "attention.k_lin": "attention.self.key",
    "attention.v_lin": "attention.self.value",
    "attention.out_lin": "attention.output.dense",
    "sa_layer_norm": "attention.output.LayerNorm",
    "ffn.lin1": "intermediate.dense",
    "ffn.lin2": "output.dense",
    "output_layer_norm": "output.LayerNorm",
}
# DistilBERT's keys in config.json -> BERT's.
_DISTILBERT_KEYS = {
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "hidden_dim": "intermediate_size",
    "activation": "hidden_act",
}


class ConversionError(Exception):
    """The encoder can't be converted or downloaded. The message is one sentence."""


@dataclass(frozen=True)
class Form:
    """The form of the Longformer.

    window: of each layer in tokens, even. max_tokens: of the longest text. pooling_window: of the pooling layer, even;
    None without such a layer.
    """

    window: int = 512
    max_tokens: int = 4096
    pooling_window: int | None = None

    @property
    def fitting(self) -> int:
        """The tokens of the longest text that keeps its vector. In it, every token sees every other."""
        return min(self.window, self.pooling_window or self.window) // 2 + 1


def require_convertible(config: Mapping[str, Any]) -> None:
    """Raises ConversionError if config.json describes an encoder that a Longformer can't express."""
    kind = config.get("model_type")
    if kind == "longformer":
        raise ConversionError(
            "the model is a Longformer already; install it with python scripts/fetch_model.py --from FOLDER."
        )
    if reason := REASONS.get(kind if isinstance(kind, str) else ""):
        raise ConversionError(f"model_type is {kind!r}: {reason}; {CONVERT}.")
    if kind not in CONVERTIBLE_KINDS:
        raise ConversionError(
            f"model_type is {kind!r}; it must be one of {', '.join(CONVERTIBLE_KINDS)}, because others differ from a "
            f"Longformer by more than their positions; {CONVERT}."
        )
    positions = config.get("position_embedding_type", "absolute")
    if positions != "absolute":
        raise ConversionError(
            f"the model's position embeddings must be absolute, as a Longformer's are, not {positions!r}; {CONVERT}."
        )
    if config.get("is_decoder"):
        raise ConversionError(f"the model must be an encoder, not a decoder; {CONVERT}.")


def longformer_config(config: Mapping[str, Any], form: Form, *, pad: int) -> dict[str, Any]:
    """A Longformer's config, made from an encoder's config. pad: the tokenizer's padding id.

    Raises ConversionError for kinds that can't be converted, KeyError, TypeError or ValueError for a broken config.
    """
    require_convertible(config)
    if config["model_type"] == "distilbert":
        config = {_DISTILBERT_KEYS.get(key, key): value for key, value in config.items()}
        # transformers writes neither into DistilBERT's config.
        config |= {"layer_norm_eps": 1e-12, "type_vocab_size": 1}
    keep = (
        "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act", "layer_norm_eps",
        "vocab_size", "type_vocab_size", "initializer_range", "bos_token_id", "eos_token_id",
    )  # fmt: skip
    windows = [form.window] * int(config["num_hidden_layers"])
    if form.pooling_window is not None:
        windows.append(form.pooling_window)
    return {
        "model_type": "longformer",
        "architectures": ["LongformerModel"],
        **{key: config[key] for key in keep if key in config},
        "num_hidden_layers": len(windows),
        "pad_token_id": pad,
        "attention_window": windows,
        "max_position_embeddings": form.max_tokens + pad + 1,
    }


def longformer_weights(
    weights: Mapping[str, Tensor], config: Mapping[str, Any], target: Mapping[str, Any], form: Form
) -> dict[str, Tensor]:
    """The encoder's weights in the shapes of the Longformer `target`. Most share their memory with `weights`.

    config: of the encoder. Raises ConversionError if the position table is missing or unusable.
    """
    result = _as_bert(weights) if config["model_type"] == "distilbert" else dict(weights)
    if _POSITIONS not in result:
        raise ConversionError(f"the weights have no tensor {_POSITIONS}.")
    # The padding index of the encoder's own positions: its config counts, even if its tokenizer pads with another id.
    first = _own_padding(config) + 1 if FIRST_POSITION_IS_BEHIND_PADDING[config["model_type"]] else 0
    table = result[_POSITIONS][first:]  # (positions, hidden)
    if table.dim() != 2 or not len(table):
        raise ConversionError(
            f"tensor {_POSITIONS} has the shape {tuple(result[_POSITIONS].shape)}, so it has no positions."
        )
    rows = target["max_position_embeddings"]
    # A Longformer's positions start after the padding index too. The rows before are never read.
    repeated = table.repeat(-(-rows // len(table)), 1)
    result[_POSITIONS] = torch.cat([torch.zeros(target["pad_token_id"] + 1, table.shape[1]), repeated])[:rows]
    if form.pooling_window is not None:
        result |= _pooling_layer(result, target["num_hidden_layers"] - 1)
    for name in [name for name in result if ".attention.self." in name]:
        for part in ("query", "key", "value"):
            result[name.replace(f".self.{part}.", f".self.{part}_global.")] = result[name]
    return result


def own_positions(weights: Mapping[str, Tensor], config: Mapping[str, Any]) -> int:
    """The longest text of the encoder, in tokens, by its position table. Raises KeyError without one."""
    rows = len(weights[_POSITIONS])
    return rows - _own_padding(config) - 1 if FIRST_POSITION_IS_BEHIND_PADDING[config["model_type"]] else rows


def _own_padding(config: Mapping[str, Any]) -> int:
    """The padding index of RoBERTa's positions; 1 is transformers' default. Raises ConversionError."""
    pad = config.get("pad_token_id", 1)
    if type(pad) is not int or pad < 0:
        raise ConversionError(
            f"pad_token_id in the encoder's config.json must be a whole number, because its positions start after it, "
            f"not {pad!r}; correct it."
        )
    return pad


def _spare(weight: Tensor, bias: Tensor) -> int | None:
    """The number of a vector that the mean can do without, None if the average of the numbers is the smaller loss.

    weight, bias: (hidden,), of the layer norm that the token vectors come from. The numbers that it multiplies are
    taken to be independent, with a mean of 0 and a variance of 1.
    """
    weight, bias = weight.double(), bias.double()
    squares = weight**2 + bias**2  # expected, of each number
    average = ((weight - weight.mean()).square().sum() + bias.sum() ** 2) / len(weight)
    return int(squares.argmin()) if squares.min() < average else None


def _pooling_layer(weights: Mapping[str, Tensor], index: int) -> dict[str, Tensor]:
    """The tensors of layer `index`, whose CLS vector is the mean of the tokens in its window.

    weights: of the layers before. Raises ConversionError if the last of them lacks a tensor that this one depends on.
    """
    hidden = weights[_WORDS].shape[-1]
    before = f"encoder.layer.{index - 1}"
    try:
        intermediate = len(weights[f"{before}.intermediate.dense.bias"])
        norm_weight, norm_bias = (weights[f"{before}.output.LayerNorm.{part}"] for part in ("weight", "bias"))
    except KeyError as error:
        raise ConversionError(f"the weights have no tensor {error.args[0]}.") from error
    output, last_norm = torch.eye(hidden), torch.ones(hidden)
    # Weights of another shape are refused when the Longformer is tried.
    spare = _spare(norm_weight, norm_bias) if norm_weight.shape == norm_bias.shape == (hidden,) else None
    if spare is not None:
        output[spare] = -1
        output[spare, spare] = last_norm[spare] = 0
    linear_and_norms = {
        "attention.self.query": torch.zeros(hidden, hidden),
        "attention.self.key": torch.zeros(hidden, hidden),
        "attention.self.value": torch.eye(hidden),
        "attention.output.dense": POOLING_SCALE * output,
        "attention.output.LayerNorm": torch.ones(hidden),
        "intermediate.dense": torch.zeros(intermediate, hidden),
        "output.dense": torch.zeros(hidden, intermediate),
        "output.LayerNorm": last_norm,
    }
    tensors = {}
    for module, weight in linear_and_norms.items():
        tensors[f"encoder.layer.{index}.{module}.weight"] = weight
        tensors[f"encoder.layer.{index}.{module}.bias"] = torch.zeros(len(weight))
    return tensors


def _as_bert(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """DistilBERT's tensors under BERT's names, with zeros for the token type that it lacks."""
    result = {}
    for name, tensor in weights.items():
        if layer := re.fullmatch(r"transformer\.layer\.(\d+)\.(.+)\.(weight|bias)", name):
            index, module, part = layer.groups()
            name = f"encoder.layer.{index}.{_DISTILBERT_MODULES.get(module, module)}.{part}"
        result[name] = tensor
    if _WORDS in result:
        result[_TYPES] = torch.zeros(1, result[_WORDS].shape[-1])
    return result
