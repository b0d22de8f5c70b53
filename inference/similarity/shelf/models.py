"""The model on the shelf, for MODEL_ON_EFS=true: the same files as in the image, at a place that all Lambdas share.

The folder's name is the model's version. It depends on each file's name and size, on provenance.json, which has the
hashes of weights and graphs, and on `ModelFiles.fingerprint`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import TypeVar

from similarity.encoder.model_folder import CONFIG_FILENAME, PROVENANCE_FILENAME, TOKENIZER_FILENAME, ModelFiles
from similarity.errors import ModelError, reason_of
from similarity.shelf.versions import MODELS

log = logging.getLogger(__name__)

T = TypeVar("T")

# How long a start waits for the shelf before it reads the image: loading maps the weights, it doesn't read them all.
START_S = 5.0

_PATTERNS = (CONFIG_FILENAME, TOKENIZER_FILENAME, PROVENANCE_FILENAME, "*.safetensors", "*.onnx")


def model_files(folder: Path) -> dict[str, Path]:
    """The files that make up a model, by name."""
    return {path.name: path for pattern in _PATTERNS for path in sorted(folder.glob(pattern))}


def model_version(files: ModelFiles) -> str:
    """16 hex digits. Raises ModelError, or OSError."""
    digest = hashlib.sha256(files.fingerprint().encode())
    for name, path in sorted(model_files(files.folder).items()):
        digest.update(f"\n{name} {path.stat().st_size}".encode())
    provenance = files.folder / PROVENANCE_FILENAME
    digest.update(provenance.read_bytes() if provenance.exists() else b"")
    return digest.hexdigest()[:16]


def load_from_shelf(shelf: Path, files: ModelFiles, load: Callable[[Path], T]) -> T | None:
    """What `load` makes of the folder on the shelf that has the image's model, which is `files`.

    None, and one line in the log, where names or sizes there differ, `load` raises, the file system fails, or all that
    takes longer than START_S.
    """
    loaded: list[T] = []
    failed: list[str] = []

    def work() -> None:
        try:
            folder = shelf / MODELS / model_version(files)
            _require_same_sizes(files.folder, folder)
            loaded.append(load(folder))
        except Exception as error:
            failed.append(reason_of(error))

    # Not waited for at the end of the process: it may hang.
    thread = Thread(target=work, name="model", daemon=True)
    thread.start()
    thread.join(START_S)
    if loaded:
        return loaded[0]
    reason = failed[0] if failed else f"no answer within {START_S:g} s"
    log.warning("model on the shelf not used", extra={"reason": reason, "serves": "the image's own"})
    return None


def _require_same_sizes(image: Path, shelved: Path) -> None:
    """Raises ModelError where a file is missing on the shelf, or has another size, or is one too many; or OSError."""
    expected = {name: path.stat().st_size for name, path in model_files(image).items()}
    found = {path.name: path.stat().st_size for path in shelved.iterdir()}
    if found != expected:
        wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        raise ModelError(f"{shelved} has other files or sizes than the image: {', '.join(wrong)}")
