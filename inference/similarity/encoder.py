"""Text to CLS vector: the Longformer forward pass, for that one vector only.

`LongformerModel` is used here as the original service uses it, without global attention (Beltagy et al. 2020, section
3.1, sliding window): with half a window of w, the CLS vector of the last layer sees positions 0..w of the layer before,
0..2w of the one before that, and so on. What lies further out can't change the answer and is not computed.

Tokenising is left to `similarity.tokens`, reading files to `similarity.model_files` and `similarity.weights`, the
arithmetic of a layer to `similarity.layers`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from similarity.errors import ModelError
from similarity.layers import Span
from similarity.model_files import LongformerConfig, ModelFiles
from similarity.settings import DEFAULT_MODEL_FILENAME
from similarity.tokens import TextTokenizer, Tokens
from similarity.weights import WeightReader


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


class Encoder:
    """A Longformer and its tokenizer. Safe to use from several threads at once."""

    def __init__(
        self, config: LongformerConfig, weights: Mapping[str, Tensor], tokenizer: TextTokenizer, files: ModelFiles
    ) -> None:
        self.config = config
        self.name = files.name()
        self.fingerprint = files.fingerprint()
        self._tokenizer = tokenizer
        reader = WeightReader(weights, config)
        self._words = reader.take("embeddings.word_embeddings.weight", None, config.hidden_size)
        if tokenizer.vocabulary_size > len(self._words):
            raise ModelError(f"the tokenizer has {tokenizer.vocabulary_size} tokens, the model {len(self._words)}")
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
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
        """The same for several texts in one pass: quicker for short ones, and the vectors differ by rounding alone."""
        tokens = [self._tokenizer(text) for text in texts]
        vectors = self.cls_vectors([torch.tensor(each.ids) for each in tokens])  # (texts, hidden)
        return [Encoding(vector, each) for vector, each in zip(vectors, tokens, strict=True)]

    def cls_vector(self, ids: Tensor) -> Tensor:
        """(tokens,) of token ids, special tokens included -> (hidden,), float32."""
        return self.cls_vectors([ids])[0]

    @torch.inference_mode()
    def cls_vectors(self, texts: Sequence[Tensor]) -> Tensor:
        """CLS vectors of several texts in one pass: (tokens,) of token ids for each of them -> (texts, hidden)."""
        needed = [inputs_needed(len(ids), self.config.attention_window) for ids in texts]
        x = torch.cat([self._embed(ids[: need[0]]) for ids, need in zip(texts, needed, strict=True)])
        for index, layer in enumerate(self._layers):
            x = layer(x, [Span(inputs=need[index], outputs=need[index + 1]) for need in needed])
        return x

    def _embed(self, ids: Tensor) -> Tensor:
        """(tokens,) -> (tokens, hidden). A literal padding token takes no position, as in RoBERTa."""
        pad = self.config.pad_token_id
        is_word = ids.ne(pad)
        positions = is_word.cumsum(0) * is_word + pad
        return self._norm(self._words[ids] + self._positions[positions] + self._token_type)
