"""Writing a model's graph into its folder, once it has been tried."""

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

# What a graph is tried with, and how far it may be from the reference: a share of the vector's length. Rounding stays
# far below, also that of int8.
_TEXT = "A self-driving car hit a woman who pushed a bicycle."
_TOLERANCE: dict[Precision, float] = {"float32": 1e-3, "int8": 0.3}


def export(
    folder: Path, precision: Precision = DEFAULT_PRECISION, model_filename: str = DEFAULT_MODEL_FILENAME
) -> Path:
    """Writes the graph of the model in `folder` beside it, and its hash into provenance.json; says where the graph is.

    The graph is tried first: where anything fails, the folder keeps the graph that it had. Raises ModelError or
    OSError.
    """
    name = GRAPH_FILENAMES[precision]
    with writing_to(folder):
        reference = TorchEncoder.load(folder, model_filename)
        reference.files.require_weights_unchanged()
        weights = WeightsFile(folder / model_filename)
        weights.require_finite()
        words = weights.shape("embeddings.word_embeddings.weight")[0]
        metadata = {FINGERPRINT_KEY: reference.fingerprint, WORDS_KEY: str(words)}
        content = encoder_graph(reference.config, weights, metadata, precision=precision).SerializeToString()
        own_file(folder / model_filename)
        # The graph names the weights relative to itself, so it is tried where it will be.
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
    """Raises ModelError where the graph can't be loaded or gives other vectors than `reference`."""
    encoder = OnnxEncoder.from_graph(graph, reference.config, reference.tokenizer, reference.files, precision)
    found, expected = (each.encode(_TEXT).vector.astype(np.float64) for each in (encoder, reference))
    distance = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    if not distance <= _TOLERANCE[precision]:
        raise ModelError(f"the graph gives another vector than the weights (off by {distance:.1%}), so it was deleted")


def own_file(path: Path) -> None:
    """Puts the file itself where `path` links out of its folder, as a download cache of Hugging Face does it.

    ONNX Runtime reads weights from the graph's own folder alone. A hard link takes no room; across file systems the
    file is copied. Raises ModelError for a link to nothing, or OSError.
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
