"""Compares a converted encoder with the encoder itself, which transformers computes. Lengths are in tokens.

The texts are those of the sample snapshot, cut. Both get the same token ids. The encoder's vector is its CLS vector or
the mean of its token vectors, as it was converted.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (the name everyone uses)
from torch import Tensor

from models.longformer import ConversionError, Pooling
from similarity.encoder.model_folder import ModelFiles
from similarity.encoder.tokens import TextTokenizer
from similarity.encoder.torch_encoder import TorchEncoder

# The largest 1 - cosine with which a text that fits is still taken. The layer norm after the mean may add a little.
LARGEST: dict[Pooling, float] = {"cls": 1e-5, "mean": 1e-2}
# From here on, the user should know of the layer norm's part.
NOTABLE = 1e-3

# Lengths of texts that fit, as far as they do; the longest that fits comes on top.
_LENGTHS = (8, 64)
# Texts of each length. Attention's time grows with the square of the length, so one long text must do.
_TEXTS, _LONG = 4, 1024
_REPORTS = Path(__file__).resolve().parent.parent / "sample" / "reports.csv"
# Keys of config.json that don't describe the encoder: its kind is given apart, and no code or type is taken from it.
# The second line is about how transformers computes and answers.
_NOT_OF_THE_ENCODER = (
    "model_type", "auto_map", "dtype", "torch_dtype", "quantization_config",
    "attn_implementation", "_attn_implementation", "return_dict", "torchscript", "chunk_size_feed_forward",
)  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """The largest 1 - cosine by length. fitting: the length of the longest text that fits in half a window."""

    pooling: Pooling
    fitting: int
    by_length: Mapping[int, float]

    @property
    def within(self) -> float:
        """The largest among the texts that fit."""
        return max(value for length, value in self.by_length.items() if length <= self.fitting)

    def line(self) -> str:
        figures = ", ".join(f"{value:.1e} at {length} tokens" for length, value in self.by_length.items())
        return f"largest 1 - cosine to the encoder's own vector: {figures}; {self.fitting} tokens fit in half a window"

    def notes(self) -> list[str]:
        if self.within <= NOTABLE:
            return []
        return [
            f"short texts are up to {self.within:.1e} (1 - cosine) away from the encoder's own vector, because a "
            "Longformer's last layer norm takes the mean of a vector's numbers away; measure before you use it"
        ]

    def require_close(self) -> None:
        """Raises ConversionError if a text that fits has another vector than the encoder gives it."""
        if not self.within <= LARGEST[self.pooling]:
            raise ConversionError(
                f"the Longformer gives short texts other vectors than the encoder (1 - cosine {self.within:.1e}, "
                f"allowed {LARGEST[self.pooling]:.0e}), so it wasn't installed; take another encoder: this one has a "
                "part that the conversion doesn't know, or its vectors' numbers have an average far from zero."
            )


def compare(
    converted: Path,
    weights: Mapping[str, Tensor],
    config: Mapping[str, Any],
    *,
    pooling: Pooling,
    fitting: int,
    longest: Collection[int],
) -> Comparison:
    """Compares the Longformer in the folder `converted` with the encoder of these weights and this config.

    longest: the encoder's own limits, as far as the Longformer takes texts so long. Raises ConversionError if
    transformers can't make the encoder, and ModelError if the Longformer can't be loaded.
    """
    limit = max(longest)
    files = ModelFiles(converted)
    tokenizer = TextTokenizer.load(files.tokenizer_path, limit, files.config().text_preparation)
    special = limit - tokenizer.room()
    if min(fitting, limit) < special:
        raise ConversionError(
            f"only texts of {min(fitting, limit)} tokens keep their vectors, but the tokenizer adds {special} special "
            "tokens to each text; give a larger --window, or take an encoder with more positions."
        )
    wanted = {*_LENGTHS, *longest, min(fitting, limit)}
    lengths = sorted(length for length in wanted if special <= length <= limit)
    texts = _texts(tokenizer, lengths)
    # One after the other, so that only one of them is in memory.
    expected = _own_vectors(weights, config, pooling, [ids for _, ids in texts])
    encoder = TorchEncoder.load(converted)
    by_length = dict.fromkeys(lengths, 0.0)
    for (length, ids), own in zip(texts, expected, strict=True):
        difference = 1 - F.cosine_similarity(encoder.cls_vector(ids).double(), own.double(), dim=0).item()
        # NaN must not get lost: max() would drop it.
        by_length[length] = difference if not difference <= by_length[length] else by_length[length]
    return Comparison(pooling, fitting, by_length)


def _texts(tokenizer: TextTokenizer, lengths: Sequence[int]) -> list[tuple[int, Tensor]]:
    """Texts of each length, as token ids with special tokens."""
    with _REPORTS.open(encoding="utf-8", newline="") as file:
        reports = [row["text"] for row in csv.DictReader(file)]
    # So many characters have more tokens than the longest text. Each text begins with another report.
    wanted = 8 * max(lengths)
    texts = [" ".join(reports[number:] + reports[:number]) for number in range(_TEXTS)]
    texts = [(text * (1 + wanted // len(text)))[:wanted] for text in texts]
    return [
        (length, torch.tensor(tokenizer.cut_at(length)(text).ids))
        for length in lengths
        for text in texts[: _TEXTS if length <= _LONG else 1]
    ]


@torch.inference_mode()
def _own_vectors(
    weights: Mapping[str, Tensor], config: Mapping[str, Any], pooling: Pooling, texts: Sequence[Tensor]
) -> list[Tensor]:
    """The encoder's own vectors (hidden,) of texts (tokens,)."""
    from transformers import AutoConfig, AutoModel

    values = {key: value for key, value in config.items() if key not in _NOT_OF_THE_ENCODER}
    try:
        own_config = AutoConfig.for_model(config["model_type"], **values)
        model: Any = AutoModel.from_config(own_config, dtype=torch.float32)  # type: ignore[no-untyped-call]
        # assign: the model takes the tensors themselves, no copies.
        fitted = model.load_state_dict(dict(weights), strict=False, assign=True)
    except Exception as error:  # for a broken config.json transformers raises nearly anything
        # The first line of a message often only says that there are others.
        reason = " ".join(str(error).split("\n")[:2]) or type(error).__name__
        raise ConversionError(
            f"transformers can't make the encoder from its config.json and weights, so the Longformer can't be "
            f"compared with it: {' '.join(reason.split()).rstrip('.:')}; copy or fetch the folder again."
        ) from error
    # No vector needs these; read_encoder leaves them out.
    missing = [name for name in fitted.missing_keys if not name.startswith("pooler.") and not name.endswith("_ids")]
    if wrong := missing + fitted.unexpected_keys:
        raise ConversionError(
            f"the weights don't fit the encoder of config.json: it has {len(missing)} tensors that they lack, and they "
            f"have {len(fitted.unexpected_keys)} that it lacks, for example {wrong[0]}; copy or fetch the folder again."
        )
    model.train(False)
    vectors = []
    for ids in texts:
        hidden = model(ids.unsqueeze(0), attention_mask=torch.ones(1, len(ids), dtype=torch.int64)).last_hidden_state[0]
        vectors.append(hidden[0] if pooling == "cls" else hidden.mean(dim=0))  # (tokens, hidden) -> (hidden,)
    return vectors
