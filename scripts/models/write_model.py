"""Writes a model's folder, for `fetch_model.py` and `convert_encoder.py`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from models.export import export
from models.install_files import STAGING_PREFIX, install, write_provenance, writing_to
from models.touched_weights import keep_touched
from similarity.encoder.config import LongformerConfig
from similarity.encoder.model_folder import (
    CONFIG_FILENAME,
    REPORT_FILENAMES,
    TOKENIZER_FILENAME,
    export_script,
    exported_filenames,
    sha256_of,
)
from similarity.encoder.text_encoder import open_folder
from similarity.errors import ModelError, StateError
from similarity.incidents.state import IncidentState
from similarity.settings import (
    DEFAULT_INCIDENTS_FILENAME,
    DEFAULT_MODEL_FILENAME,
    DEFAULT_PRECISION,
    Precision,
    Settings,
)
from similarity.shelf.usable import FolderModel


def write_model(
    folder: Path,
    *,
    config: Mapping[str, Any],
    tokenizer_json: bytes,
    weights: Mapping[str, Tensor],
    source: Mapping[str, str],
    note: str = "",
    check: Callable[[Path], None] | None = None,
) -> None:
    """Writes config, tokenizer, weights, ONNX graph and provenance. source: has at least the key `model`, the name.

    Leaves out weights that no text touches. note: of the file that the weights come from, if they were left out there.
    check: is called with the folder of the new files before they are put in place; if it raises, they aren't.
    The new files are written beside the old ones, tried, and put in place by `models.install_files`. So after a full
    disk, a kill or an unusable model the old model is still there. Raises ModelError or OSError.
    """
    try:
        parsed = LongformerConfig.from_json(config)
    except ValueError as error:
        raise ModelError(f"{CONFIG_FILENAME}: {error}") from error
    require_finite(weights)
    folder.mkdir(parents=True, exist_ok=True)
    with (
        writing_to(folder),
        tempfile.TemporaryDirectory(prefix=STAGING_PREFIX, dir=folder, ignore_cleanup_errors=True) as name,
    ):
        new = Path(name)
        try:
            save_file(_apart(weights), new / DEFAULT_MODEL_FILENAME, metadata={"format": "pt"})
        except SafetensorError as error:
            raise OSError(f"writing the weights failed: {error}") from error
        keep_touched(new / DEFAULT_MODEL_FILENAME, parsed, note)
        (new / TOKENIZER_FILENAME).write_bytes(tokenizer_json)
        (new / CONFIG_FILENAME).write_text(json.dumps(dict(config), indent=2) + "\n", encoding="utf-8")
        write_provenance(new, {**source, "weights_sha256": sha256_of(new / DEFAULT_MODEL_FILENAME)})
        export(new)
        _, _, tokenizer = open_folder(new, DEFAULT_MODEL_FILENAME)
        tokenizer.with_prefix(parsed.report_prefix).require_room()
        if check is not None:
            check(new)
        install(new, folder)


def misfit(folder: Path) -> list[str]:
    """A note if the state in a model's folder isn't of this model, which must be usable. Raises ModelError."""
    path = folder / DEFAULT_INCIDENTS_FILENAME
    if not path.exists():
        return []
    try:
        model = FolderModel(Settings.from_environment({"MODEL_DIR": str(folder.resolve())}))
        model.require_made(IncidentState.load(path))
    except StateError as error:
        return [f"{path} can't be used with this model: {error.detail}"]
    return []


def exported_precisions(folder: Path) -> list[Precision]:
    """The precisions, except float32, that a model's folder has files of. `write_model` exports float32 by itself."""
    others = (precision for precision in REPORT_FILENAMES if precision != DEFAULT_PRECISION)
    return [each for each in others if any((folder / name).exists() for name in exported_filenames(each))]


def removed_exports(folder: Path, before: Sequence[Precision]) -> list[str]:
    """Notes on the exports that new weights removed: one for each precision.

    before: what `exported_precisions` gave before the weights were written.
    """
    return [
        f"the files of {precision} were made from the old weights and are removed; make them again with "
        f"{export_script(precision)}"
        for precision in before
        if precision not in exported_precisions(folder)
    ]


def require_finite(weights: Mapping[str, Tensor]) -> None:
    """Raises ModelError if a number is NaN, infinite or too large for float32."""
    for name, tensor in weights.items():
        bad = int((~torch.isfinite(tensor.float())).sum())
        if bad:
            raise ModelError(
                f"{bad} numbers of the weights {name} are NaN, infinite or too large for float32: "
                "the file is damaged, or the training failed"
            )


def _apart(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, each in its own memory: safetensors refuses tensors that share memory, e.g. tied weights."""
    used: set[int] = set()
    apart = {}
    for name, tensor in weights.items():
        storage = tensor.untyped_storage()
        is_alone = tensor.is_contiguous() and storage.nbytes() == tensor.nbytes and storage.data_ptr() not in used
        apart[name] = tensor if is_alone else tensor.clone(memory_format=torch.contiguous_format)
        used.add(storage.data_ptr())
    return apart
