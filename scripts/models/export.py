"""Writes a model's ONNX graph into the model's folder, after trying it."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from models.install_files import STAGING_PREFIX, install, write_provenance, writing_to
from models.onnx_graph import WeightsFile, encoder_graph
from similarity.encoder.model_folder import GRAPH_FILENAMES, sha256_of
from similarity.encoder.onnx_encoder import FINGERPRINT_KEY, WORDS_KEY, OnnxEncoder
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.errors import ModelError
from similarity.settings import DEFAULT_MODEL_FILENAME, DEFAULT_PRECISION, Precision

# A graph is tried with this text. Its vector may differ from the reference by this share of the vector's length.
# Rounding errors are far smaller, also with int8.
_TEXT = "A self-driving car hit a woman who pushed a bicycle."
_TOLERANCE: dict[Precision, float] = {"float32": 1e-3, "int8": 0.3}


def export(
    folder: Path, precision: Precision = DEFAULT_PRECISION, model_filename: str = DEFAULT_MODEL_FILENAME
) -> Path:
    """Writes the graph of the model in `folder`, and the graph's hash into provenance.json. Returns the graph's path.

    The graph is tried first. If anything fails, the folder stays as it was. Raises ModelError or OSError.
    """
    name = GRAPH_FILENAMES[precision]
    with writing_to(folder):
        reference = TorchEncoder.load(folder, model_filename)
        reference.files.require_weights_unchanged()
        weights = WeightsFile(folder / model_filename)
        weights.require_finite()
        words = weights.shape("embeddings.word_embeddings.weight")[0]
        metadata = {FINGERPRINT_KEY: reference.files.graph_key(reference.fingerprint), WORDS_KEY: str(words)}
        content = encoder_graph(reference.config, weights, metadata, precision=precision).SerializeToString()
        replace_link(folder / model_filename)
        # The graph names the weights relative to itself, so it is tried in its final folder.
        descriptor, trial_name = tempfile.mkstemp(prefix=STAGING_PREFIX, suffix=".onnx", dir=folder)
        trial = Path(trial_name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            _try(trial, reference, precision)
            with tempfile.TemporaryDirectory(prefix=STAGING_PREFIX, dir=folder, ignore_cleanup_errors=True) as staging:
                trial.replace(Path(staging, name))
                hashes = {**reference.files.graph_sha256(), name: sha256_of(Path(staging, name))}
                write_provenance(Path(staging), {**reference.files.provenance(), "graph_sha256": hashes})
                install(Path(staging), folder)
        finally:
            trial.unlink(missing_ok=True)
    return folder / name


def _try(graph: Path, reference: TorchEncoder, precision: Precision) -> None:
    """Raises ModelError if the graph can't be loaded or gives other vectors than `reference`."""
    encoder = OnnxEncoder.from_graph(graph, reference.config, reference.tokenizer, reference.files, precision)
    found, expected = (each.encode(_TEXT).vector.astype(np.float64) for each in (encoder, reference))
    distance = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    if not distance <= _TOLERANCE[precision]:
        raise ModelError(f"the graph gives another vector than the weights (off by {distance:.1%}), so it was deleted")


def replace_link(path: Path) -> None:
    """Replaces a link to a file outside the folder by the file. The download cache of Hugging Face has such links.

    ONNX Runtime reads weights only from the graph's own folder. A hard link is used if possible, else a copy. Raises
    ModelError if the link's target is missing, or OSError.
    """
    if not path.is_symlink():
        return
    if not path.exists():
        raise ModelError(f"{path} links to a file that isn't there; copy it with `cp -rL`")
    target = path.resolve()
    if target.parent == path.parent.resolve():
        return
    with tempfile.TemporaryDirectory(prefix=STAGING_PREFIX, dir=path.parent) as staging:
        new = Path(staging, path.name)
        try:
            os.link(target, new)
        except OSError:
            shutil.copyfile(target, new)
        new.replace(path)
    print(f"{path} was a link to {target}. It is now a file, because ONNX Runtime needs one.", file=sys.stderr)
