"""The part of a model's config.json that affects a text's vector. `similarity.encoder.model_folder` reads the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, get_args

from similarity.settings import DEFAULT_TEXT_PREPARATION, TextPreparation

# scripts/convert_encoder.py converts these kinds of model.
CONVERTIBLE_KINDS = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert")
# Characters of a prefix. Those that encoders are trained with have up to 200.
LONGEST_PREFIX = 1000
# No model is nearly as large; a larger number comes from a damaged file. With 2^24 layers, a start took 5 s and 700 MB.
_MAX_SIZE = 1 << 20


@dataclass(frozen=True)
class LongformerConfig:
    """The part of a checkpoint's config.json that affects a text's vector.

    attention_window: the whole window of each layer in tokens, half of it to each side (Beltagy et al. 2020, section
    3.1). The other four keys are this project's own:
    global_attention_on_cls: for checkpoints that were trained with global attention on the CLS token, as in
    `LongformerForSequenceClassification`. The CLS token then sees all tokens, and all see it.
    text_preparation: "unidecode", or "none" for encoders that read other scripts than ASCII.
    query_prefix, report_prefix: words that the encoder was trained to see before a query and before a document, e.g.
    "query: ". A query is a text that someone sends. A document is a report that the state is built from.
    """

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    attention_window: tuple[int, ...]
    hidden_act: str
    layer_norm_eps: float
    pad_token_id: int
    max_position_embeddings: int
    global_attention_on_cls: bool = False
    text_preparation: TextPreparation = DEFAULT_TEXT_PREPARATION
    query_prefix: str = ""
    report_prefix: str = ""

    @property
    def max_tokens(self) -> int:
        """The longest text. Positions start after the padding index, as in RoBERTa, so some rows are unused."""
        return self.max_position_embeddings - self.pad_token_id - 1

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> LongformerConfig:
        """Raises ValueError if `values` don't describe a Longformer."""
        kind = values.get("model_type")
        if kind != "longformer":
            remedy = "; convert it with scripts/convert_encoder.py" if kind in CONVERTIBLE_KINDS else ""
            raise ValueError(f"model_type is {kind!r}, not 'longformer'{remedy}")
        layers, hidden = _size(values, "num_hidden_layers"), _size(values, "hidden_size")
        heads, pad = _size(values, "num_attention_heads"), _size(values, "pad_token_id", least=0, default=1)
        window: Any = values.get("attention_window")
        windows: tuple[Any, ...] = tuple(window) if isinstance(window, list) else (window,) * layers
        if len(windows) != layers or any(type(w) is not int or not 2 <= w <= _MAX_SIZE or w % 2 for w in windows):
            raise ValueError(
                f"attention_window must be an even number, or a list of {layers} even numbers, one for each layer"
            )
        eps = values.get("layer_norm_eps", 1e-12)
        if not isinstance(eps, float | int) or not 0 < eps < 1:
            raise ValueError("layer_norm_eps must be a number between 0 and 1")
        on_cls = values.get("global_attention_on_cls", False)
        if not isinstance(on_cls, bool):
            raise ValueError("global_attention_on_cls must be true or false")
        preparation = values.get("text_preparation", DEFAULT_TEXT_PREPARATION)
        if preparation not in get_args(TextPreparation):
            raise ValueError(f"text_preparation must be one of {', '.join(get_args(TextPreparation))}")
        if hidden % heads:
            raise ValueError(f"hidden_size {hidden} isn't a multiple of num_attention_heads {heads}")
        config = cls(
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            attention_window=windows,
            hidden_act=str(values.get("hidden_act", "gelu")),
            layer_norm_eps=float(eps),
            pad_token_id=pad,
            max_position_embeddings=_size(values, "max_position_embeddings"),
            global_attention_on_cls=on_cls,
            text_preparation=preparation,
            query_prefix=_prefix(values, "query_prefix"),
            report_prefix=_prefix(values, "report_prefix"),
        )
        if config.max_tokens < 3:
            raise ValueError(
                f"max_position_embeddings leaves room for {config.max_tokens} tokens; at least 3 are needed"
            )
        return config

    def identity(self) -> str:
        """The values as one text. Fields with a default were added later. They are left out where they have it.

        So fingerprints from before remain valid.
        """
        values = [(each.name, getattr(self, each.name), each.default) for each in fields(self)]
        named = [f"{name}={value!r}" for name, value, default in values if default is MISSING or value != default]
        return f"LongformerConfig({', '.join(named)})"


def _prefix(values: Mapping[str, Any], name: str) -> str:
    prefix = values.get(name, "")
    if not isinstance(prefix, str) or len(prefix) > LONGEST_PREFIX:
        raise ValueError(f"{name} must be a string of at most {LONGEST_PREFIX} characters")
    return prefix


def _size(values: Mapping[str, Any], name: str, *, least: int = 1, default: int | None = None) -> int:
    value = values.get(name, default)
    if type(value) is not int or not least <= value <= _MAX_SIZE:
        raise ValueError(f"{name} must be a whole number from {least} to {_MAX_SIZE}")
    return value
