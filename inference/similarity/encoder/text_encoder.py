"""The part of the encoder that both engines share: a text comes in, its CLS vector comes out.

The engines are in `torch_encoder` and `onnx_encoder`. `loading` chooses one.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import ClassVar, Literal, Self

import numpy as np

from similarity.encoder.config import LongformerConfig
from similarity.encoder.model_folder import ModelFiles
from similarity.encoder.tokens import TextTokenizer, Tokens, tokenizer_errors
from similarity.errors import ModelError
from similarity.settings import FEWEST_TOKENS, Engine, Precision, TextPreparation
from similarity.vectors import Vector

# hidden_act in config.json -> the name that torch and ONNX use for the approximation of GELU.
GELU_APPROXIMATIONS: dict[str, Literal["none", "tanh"]] = {
    "gelu": "none",
    "gelu_new": "tanh",
    "gelu_pytorch_tanh": "tanh",
}


@dataclass(frozen=True)
class Encoding:
    """A text's CLS vector, float32 of shape (hidden,), and its tokens.

    tokenising_s, encoding_s: seconds for the tokens and for the vectors of the whole batch.
    """

    vector: Vector
    tokens: Tokens
    tokenising_s: float
    encoding_s: float


def inputs_needed(tokens: int, config: LongformerConfig) -> list[int]:
    """The number of first positions that are needed at each layer's input. The last entry is 1, the output's CLS token.

    Without global attention (Beltagy et al. 2020, section 3.1) the CLS vector of a layer sees half a window of the
    layer before. With global attention on the CLS token, it sees every position.
    """
    needed = [1]
    for window in reversed(config.attention_window):
        needed.append(tokens if config.global_attention_on_cls else min(tokens, needed[-1] + window // 2))
    return needed[::-1]


class TextEncoder(ABC):
    """A Longformer and its tokenizer, for queries. Safe to use from several threads, which take turns."""

    engine: ClassVar[Engine]

    def __init__(self, config: LongformerConfig, tokenizer: TextTokenizer, files: ModelFiles) -> None:
        self.config = config
        self.name = files.name()
        self.fingerprint = files.fingerprint()
        self.precision: Precision = "float32"
        self.tokenizer = tokenizer
        self.files = files
        # An engine uses all cores for one call, and keeps the memory that it took. So several calls at once would end
        # little sooner, and the process would keep several times the memory. Copies of this encoder share the lock.
        self._encoding = Lock()

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
    def text_preparation(self) -> TextPreparation:
        return self.config.text_preparation

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
        return self._with(self.tokenizer.cut_at(limit))

    def for_reports(self) -> Self:
        """This encoder, with the same weights, for the texts that a state is built from.

        Raises ModelError if their prefix leaves no room for a text.
        """
        return self._with(self.tokenizer.with_prefix(self.config.report_prefix))

    def _with(self, tokenizer: TextTokenizer) -> Self:
        tokenizer.require_room()
        changed = copy.copy(self)
        changed.tokenizer = tokenizer
        return changed

    def encode(self, text: str) -> Encoding:
        """A text's CLS vector and tokens. `tokens` describes how the text is cut. Raises as `encode_batch`."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
        """The same for several texts at once; the vectors differ only by rounding.

        Raises ModelError if the tokenizer fails, or if the model gives NaN or infinity.
        """
        start_s = perf_counter()
        with tokenizer_errors("the tokenizer fails on a text"):
            tokens = [self.tokenizer(text) for text in texts]
        tokenising_s = perf_counter() - start_s
        with self._encoding:
            start_s = perf_counter()
            vectors = self.vectors([each.ids for each in tokens])  # (texts, hidden)
            encoding_s = perf_counter() - start_s
        if not np.isfinite(vectors).all():
            row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
            raise ModelError(f"the model gives NaN or infinity for a text of {len(tokens[row].ids)} tokens")
        return [Encoding(vector, each, tokenising_s, encoding_s) for vector, each in zip(vectors, tokens, strict=True)]

    @abstractmethod
    def vectors(self, texts: Sequence[Sequence[int]]) -> Vector:
        """Token ids of several texts, with special tokens -> CLS vectors (texts, hidden), float32."""


def open_folder(model_dir: str | Path, model_filename: str) -> tuple[ModelFiles, LongformerConfig, TextTokenizer]:
    """The parts of a model's folder that every engine needs. Raises ModelError."""
    files = ModelFiles(Path(model_dir), model_filename)
    config = files.config()
    files.require_weights()
    tokenizer = TextTokenizer.load(
        files.tokenizer_path, config.max_tokens, config.text_preparation, config.query_prefix
    )
    tokenizer.require_room()
    return files, config, tokenizer


def require_vocabulary(tokenizer: TextTokenizer, words: int) -> None:
    """Raises ModelError if the tokenizer has more tokens than the model's word table has rows (`words`)."""
    if tokenizer.vocabulary_size > words:
        raise ModelError(
            f"the tokenizer has {tokenizer.vocabulary_size} tokens, but the model has {words}; install the model again"
        )
