"""Writing a model's folder, whole files only: what `fetch_model.py` and `convert_encoder.py` share."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

import _inference  # noqa: F401  (makes `similarity` importable)
from export_onnx import export
from similarity.encoding import load_encoder
from similarity.model_files import CONFIG_FILENAME, PROVENANCE_FILENAME, TOKENIZER_FILENAME
from similarity.settings import DEFAULT_MODEL_FILENAME


def sha256_of(path: Path) -> str:
    """SHA-256 hex of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_model(
    folder: Path,
    *,
    config: Mapping[str, Any],
    tokenizer_json: bytes,
    weights: Mapping[str, Tensor],
    source: Mapping[str, str],
) -> None:
    """Writes config, tokenizer, weights, ONNX graph and provenance; `source` has at least the key `model`, its name.

    All of it is written beside first, loaded once and then moved over, so a full disk, a kill or a model that can't be
    used leaves the one that was there. Raises OSError or ModelError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as name:
        new = Path(name)
        tensors = {name: tensor.contiguous() for name, tensor in weights.items()}
        try:
            save_file(tensors, new / DEFAULT_MODEL_FILENAME, metadata={"format": "pt"})
        except SafetensorError as error:
            raise OSError(f"writing the weights failed: {error}") from error
        provenance = {**source, "weights_sha256": sha256_of(new / DEFAULT_MODEL_FILENAME)}
        (new / TOKENIZER_FILENAME).write_bytes(tokenizer_json)
        (new / PROVENANCE_FILENAME).write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")
        (new / CONFIG_FILENAME).write_text(json.dumps(dict(config), indent=2) + "\n", encoding="utf-8")
        export(new)
        load_encoder(new).encode("a first text")
        for path in new.iterdir():
            # safetensors makes files that only their owner can read; in the image another user does.
            path.chmod(0o644)
            path.replace(folder / path.name)
