"""The model on the shelf, for MODEL_ON_EFS=true: a copy of the image's model files.

The folder's name is the model's version. It is a hash of `ModelFiles.fingerprint`, each file's name and size, and
provenance.json, which has the hashes of weights and graphs.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import TypeVar

from similarity.encoder.model_folder import (
    CONFIG_FILENAME,
    EXPORTED_FILENAMES,
    PROVENANCE_FILENAME,
    TOKENIZER_FILENAME,
    ModelFiles,
)
from similarity.errors import ModelError, reason_of
from similarity.shelf.versions import MODELS

log = logging.getLogger(__name__)

T = TypeVar("T")

# A start waits so long for the shelf, then reads the image. Loading reads the weights of all layers, for the self-test.
START_S = 5.0

_PATTERNS = (CONFIG_FILENAME, TOKENIZER_FILENAME, PROVENANCE_FILENAME, "*.safetensors", *EXPORTED_FILENAMES)


def model_files(folder: Path) -> dict[str, Path]:
    """The files of a model, by name."""
    return {path.name: path for pattern in _PATTERNS for path in sorted(folder.glob(pattern))}


def model_version(files: ModelFiles) -> str:
    """The model's version, 16 hex digits. Raises ModelError or OSError."""
    digest = hashlib.sha256(files.fingerprint().encode())
    for name, path in sorted(model_files(files.folder).items()):
        digest.update(f"\n{name} {path.stat().st_size}".encode())
    provenance = files.folder / PROVENANCE_FILENAME
    digest.update(provenance.read_bytes() if provenance.exists() else b"")
    return digest.hexdigest()[:16]


def load_from_shelf(shelf: Path, files: ModelFiles, load: Callable[[Path], T]) -> T | None:
    """Loads the shelf's copy of the image's model. files: the image's. load: gets the copy's folder.

    Returns None, and logs one line, if names or sizes differ, `load` raises, the file system fails, or this takes
    longer than START_S.
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

    # A daemon, so that the process can end although the thread hangs.
    thread = Thread(target=work, name="model", daemon=True)
    thread.start()
    thread.join(START_S)
    if loaded:
        return loaded[0]
    reason = failed[0] if failed else f"no answer within {START_S:g} s"
    log.warning("model on the shelf not used", extra={"reason": reason, "serves": "the image's own"})
    return None


def _require_same_sizes(image: Path, shelved: Path) -> None:
    """Raises ModelError if the shelf lacks a file, has an additional one, or one of another size. Or OSError."""
    expected = {name: path.stat().st_size for name, path in model_files(image).items()}
    found = {path.name: path.stat().st_size for path in shelved.iterdir()}
    if found != expected:
        wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        raise ModelError(f"{shelved} has other files or sizes than the image: {', '.join(wrong)}")
