"""A model's folder: config.json, tokenizer.json, weights and, where a script of this project made it, provenance.json.

Says what the folder holds; reading weights into tensors is the encoder's job.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from similarity.errors import ModelError
from similarity.settings import DEFAULT_MODEL_FILENAME, Precision

CONFIG_FILENAME = "config.json"
TOKENIZER_FILENAME = "tokenizer.json"
PROVENANCE_FILENAME = "provenance.json"
# What scripts/export_onnx.py makes of the weights, by precision.
GRAPH_FILENAMES: dict[Precision, str] = {"float32": "encoder.onnx", "int8": "encoder.int8.onnx"}

_SAMPLES, _SAMPLE_BYTES = 64, 4096


@dataclass(frozen=True)
class LongformerConfig:
    """The part of a checkpoint's config.json that the forward pass depends on.

    attention_window holds, for each layer, the whole window in tokens: half of it to each side (Beltagy et al. 2020,
    section 3.1). global_attention_on_cls is a key of this project's own, for checkpoints that were trained with the
    CLS token attending to all tokens and all of them to it, as `LongformerForSequenceClassification` does it.
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

    @property
    def max_tokens(self) -> int:
        """Positions start behind the padding index (as in RoBERTa), which costs the table pad_token_id + 1 rows."""
        return self.max_position_embeddings - self.pad_token_id - 1

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> LongformerConfig:
        """Raises ValueError, KeyError or TypeError where `values` describe no Longformer."""
        if values.get("model_type") != "longformer":
            raise ValueError(f"model_type is {values.get('model_type')!r}, not 'longformer'")
        layers = int(values["num_hidden_layers"])
        window = values["attention_window"]
        windows = tuple(int(w) for w in window) if isinstance(window, list) else (int(window),) * layers
        if len(windows) != layers or any(w < 2 or w % 2 for w in windows):
            raise ValueError(f"attention_window {window!r} gives no even window for each of {layers} layers")
        config = cls(
            hidden_size=int(values["hidden_size"]),
            num_hidden_layers=layers,
            num_attention_heads=int(values["num_attention_heads"]),
            attention_window=windows,
            hidden_act=str(values.get("hidden_act", "gelu")),
            layer_norm_eps=float(values.get("layer_norm_eps", 1e-12)),
            pad_token_id=int(values.get("pad_token_id", 1)),
            max_position_embeddings=int(values["max_position_embeddings"]),
            global_attention_on_cls=bool(values.get("global_attention_on_cls", False)),
        )
        if layers < 1 or config.hidden_size % config.num_attention_heads or config.max_tokens < 3:
            raise ValueError("the sizes of layers, heads or positions don't fit together")
        return config


@dataclass(frozen=True)
class ModelFiles:
    """Paths of a model's files, and which model they are."""

    folder: Path
    weights_filename: str = DEFAULT_MODEL_FILENAME

    @property
    def config_path(self) -> Path:
        return self.folder / CONFIG_FILENAME

    @property
    def tokenizer_path(self) -> Path:
        return self.folder / TOKENIZER_FILENAME

    @property
    def weights_path(self) -> Path:
        return self.folder / self.weights_filename

    @property
    def paths(self) -> tuple[Path, Path, Path]:
        return self.config_path, self.tokenizer_path, self.weights_path

    @property
    def graph_paths(self) -> tuple[Path, ...]:
        """Of which the engine onnx needs the one of its precision, the engine torch none."""
        return tuple(self.folder / name for name in GRAPH_FILENAMES.values())

    def config(self) -> LongformerConfig:
        """Raises ModelError for a config that is missing, broken or of another kind of model."""
        try:
            return LongformerConfig.from_json(json.loads(self.config_path.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{self.config_path}: {type(error).__name__}: {error}") from error

    def name(self) -> str | None:
        """What the script that made the folder calls the model, e.g. `allenai/longformer-base-4096`."""
        try:
            name = json.loads((self.folder / PROVENANCE_FILENAME).read_bytes())["model"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return str(name)

    def fingerprint(self) -> str:
        """SHA-256 hex over config, tokenizer and weights; of the weights their size, their header and samples.

        Reads 2 MB rather than 600, so that every cold start can afford it: it tells models apart, it does not prove
        that no bit has flipped. Raises ModelError where a file can't be read.
        """
        config = self.config()
        # As long as there was no other kind of attention, fingerprints did not mention it.
        digest = hashlib.sha256(repr(config).replace(", global_attention_on_cls=False", "").encode())
        try:
            digest.update(self.tokenizer_path.read_bytes())
            size = self.weights_path.stat().st_size
            digest.update(str(size).encode())
            with self.weights_path.open("rb") as weights:
                header_bytes = 8 + int.from_bytes(weights.read(8), "little")
                weights.seek(0)
                digest.update(weights.read(min(header_bytes, 1 << 20)))
                for sample in range(_SAMPLES):
                    weights.seek(header_bytes + (size - header_bytes) * sample // _SAMPLES)
                    digest.update(weights.read(_SAMPLE_BYTES))
        except (OSError, ValueError, OverflowError) as error:
            raise ModelError(f"{self.folder}: {type(error).__name__}: {error}") from error
        return digest.hexdigest()
