"""Text to CLS vector by torch: the Longformer forward pass, for that one vector only.

`LongformerModel` is used here as the original service uses it, without global attention (Beltagy et al. 2020, section
3.1, sliding window): with half a window of w, the CLS vector of the last layer sees positions 0..w of the layer before,
0..2w of the one before that, and so on. What lies further out can't change the answer and is not computed.

What engines share is in `similarity.encoding`; reading files is left to `similarity.model_files` and
`similarity.weights`, the arithmetic of a layer to `similarity.layers`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from similarity.encoding import TextEncoder, Vector, inputs_needed, open_folder, require_vocabulary
from similarity.errors import ModelError
from similarity.layers import Span
from similarity.model_files import LongformerConfig, ModelFiles
from similarity.settings import DEFAULT_MODEL_FILENAME, DEFAULT_PRECISION, Precision
from similarity.tokens import TextTokenizer
from similarity.weights import WeightReader

# int8 with a scale for each token and each channel was tried: first places agreed for 98 % of real titles, too few.
DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Encoder(TextEncoder):
    """A Longformer whose arithmetic torch does."""

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
            raise ModelError(f"ENCODER_ENGINE=torch has no precision {precision}, only {', '.join(DTYPES)}")
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
    ) -> Encoder:
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
        """(tokens,) of token ids, special tokens included -> (hidden,), float32."""
        return self.cls_vectors([ids])[0]

    @torch.inference_mode()
    def cls_vectors(self, texts: Sequence[Tensor]) -> Tensor:
        """CLS vectors of several texts in one pass: (tokens,) of token ids for each of them -> (texts, hidden)."""
        needed = [inputs_needed(len(ids), self.config) for ids in texts]
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
