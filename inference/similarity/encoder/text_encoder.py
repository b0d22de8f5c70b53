"""What every encoder has in common: text in, CLS vector out, whatever engine does the arithmetic.

What an engine adds is in `torch_encoder` and `onnx_encoder` beside this file; choosing one is left to `loading`.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Literal, Self

import numpy as np

from similarity.encoder.model_folder import LongformerConfig, ModelFiles
from similarity.encoder.tokens import TEXT_PREPARATION, TextTokenizer, Tokens, tokenizer_errors
from similarity.errors import ModelError
from similarity.settings import FEWEST_TOKENS, Precision
from similarity.vectors import Vector

# As config.json names them; the values are what torch and ONNX call the approximation of GELU.
GELU_APPROXIMATIONS: dict[str, Literal["none", "tanh"]] = {
    "gelu": "none",
    "gelu_new": "tanh",
    "gelu_pytorch_tanh": "tanh",
}


@dataclass(frozen=True)
class Encoding:
    """A text's CLS vector, float32 of shape (hidden,), and its tokens.

    tokenising_s, encoding_s: seconds that the tokens and the vectors of its whole batch took.
    """

    vector: Vector
    tokens: Tokens
    tokenising_s: float
    encoding_s: float


def inputs_needed(tokens: int, config: LongformerConfig) -> list[int]:
    """How many of the first positions matter at the input of each layer, and, last, at the output: 1, the CLS token.

    Without global attention (Beltagy et al. 2020, section 3.1) the CLS vector of a layer sees half a window of the
    layer before. Where the CLS token attends globally, it sees every position of it.
    """
    needed = [1]
    for window in reversed(config.attention_window):
        needed.append(tokens if config.global_attention_on_cls else min(tokens, needed[-1] + window // 2))
    return needed[::-1]


class TextEncoder(ABC):
    """A Longformer and its tokenizer. Safe to use from several threads at once."""

    def __init__(self, config: LongformerConfig, tokenizer: TextTokenizer, files: ModelFiles) -> None:
        self.config = config
        self.name = files.name()
        self.fingerprint = files.fingerprint()
        self.precision: Precision = "float32"
        self.tokenizer = tokenizer
        self.files = files

    @property
    def dimension(self) -> int:
        return self.config.hidden_size

    @property
    def longest_input(self) -> int:
        """The most tokens that the model takes."""
        return self.config.max_tokens

    @property
    def max_tokens(self) -> int:
        """Where a text is cut."""
        return self.tokenizer.max_tokens

    @property
    def text_preparation(self) -> str:
        return TEXT_PREPARATION

    def cut_at(self, max_tokens: int) -> Self:
        """This encoder, with the same weights, for texts that are cut at `max_tokens`; 0: at the model's maximum.

        Raises ModelError for a limit that the model doesn't take, or that leaves no room for a text.
        """
        limit = max_tokens or self.longest_input
        if not FEWEST_TOKENS <= limit <= self.longest_input:
            raise ModelError(
                f"texts can't be cut at {max_tokens} tokens: for this model, the limit is a number from "
                f"{FEWEST_TOKENS} to {self.longest_input}"
            )
        cut = copy.copy(self)
        cut.tokenizer = self.tokenizer.cut_at(limit)
        return cut

    def encode(self, text: str) -> Encoding:
        """The CLS vector of a text and its tokens; the text is transliterated and cut, see `tokens`."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
        """The same for several texts at once: the vectors differ by rounding alone.

        Raises ModelError where the tokenizer fails, or where the model doesn't give finite numbers.
        """
        start_s = perf_counter()
        with tokenizer_errors("the tokenizer fails on a text"):
            tokens = [self.tokenizer(text) for text in texts]
        tokenised_s = perf_counter()
        vectors = self.vectors([each.ids for each in tokens])  # (texts, hidden)
        tokenising_s, encoding_s = tokenised_s - start_s, perf_counter() - tokenised_s
        if not np.isfinite(vectors).all():
            row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
            raise ModelError(f"the model gives NaN or infinity for a text of {len(tokens[row].ids)} tokens")
        return [Encoding(vector, each, tokenising_s, encoding_s) for vector, each in zip(vectors, tokens, strict=True)]

    @abstractmethod
    def vectors(self, texts: Sequence[Sequence[int]]) -> Vector:
        """CLS vectors of several texts: token ids, special tokens included, for each of them -> (texts, hidden)."""


def open_folder(model_dir: str | Path, model_filename: str) -> tuple[ModelFiles, LongformerConfig, TextTokenizer]:
    """A model's folder, and what of it every engine reads. Raises ModelError."""
    files = ModelFiles(Path(model_dir), model_filename)
    config = files.config()
    files.require_weights()
    return files, config, TextTokenizer.load(files.tokenizer_path, config.max_tokens)


def require_vocabulary(tokenizer: TextTokenizer, words: int) -> None:
    """Raises ModelError where the tokenizer has tokens for which a table of so many words has no row."""
    if tokenizer.vocabulary_size > words:
        raise ModelError(
            f"the tokenizer has {tokenizer.vocabulary_size} tokens, but the model has {words}; install the model again"
        )
