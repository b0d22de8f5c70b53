"""Writes the files of a precision into a model's folder, after trying them."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from models.agreement import agreement_on_titles
from models.graph_builder import GraphBuilder, WeightsFile
from models.install_files import STAGING_PREFIX, install, write_provenance, writing_to
from models.int8_calibration import calibrate, texts_of
from models.int8_graph import Int8Builder
from models.onnx_graph import encoder_graph
from similarity.encoder.cpu import lack_of
from similarity.encoder.model_folder import (
    GRAPH_FILENAMES,
    INT8_WEIGHTS_FILENAME,
    REPORT_FILENAMES,
    sha256_of,
)
from similarity.encoder.onnx_encoder import FINGERPRINT_KEY, WORDS_KEY, OnnxEncoder
from similarity.encoder.reports import Report
from similarity.encoder.text_encoder import TextEncoder
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.errors import ModelError
from similarity.incidents.state import IncidentState
from similarity.settings import DEFAULT_MODEL_FILENAME, DEFAULT_MODEL_URI, DEFAULT_PRECISION, Precision
from similarity.vectors import Vector

# An encoder is tried with this text. So many of its tokens are the text of the self-test.
_TEXT = "A self-driving car hit a woman who pushed a bicycle."
_TEST_TOKENS = 5
# The largest allowed distance from the reference's vector, as a share of its length. Rounding errors are far smaller.
_TOLERANCE: dict[Precision, float] = {"float32": 1e-4, "bfloat16": 0.3, "int8": 0.3}
# The distance that is allowed to the vector of another CPU, as a share of the distance from this vector to float32's.
# bfloat16: CPUs round sums at different places, so their vectors are as far from each other as from float32. int8: sums
# of integers are exact on every CPU. The distance is a quarter if every sixteenth input is rounded the other way.
_LEEWAY: dict[Precision, float] = {"bfloat16": 2, "int8": 0.25}


def export(
    folder: Path,
    precision: Precision = DEFAULT_PRECISION,
    model_filename: str = DEFAULT_MODEL_FILENAME,
    state: IncidentState | None = None,
) -> Report:
    """Writes the graph and the report of a precision for the model in `folder`, and their hashes into provenance.json.

    bfloat16 is computed by torch, so it has no graph. state: made by this model in float32. The agreement is measured
    with its titles, unless the precision is float32. The files are tried first. If anything fails, the folder stays
    as it was. Raises ModelError, StateError or OSError.
    """
    if precision == "int8" and (lack := lack_of(precision)):
        raise ModelError(f"{lack}; export on another machine")
    with writing_to(folder):
        reference = TorchEncoder.load(folder, model_filename)
        reference.files.require_weights_unchanged()
        weights = WeightsFile(folder / model_filename)
        weights.require_finite()
        if state is not None:
            state.require_made_by(reference, reference.name or DEFAULT_MODEL_URI)
        replace_link(folder / model_filename)
        files: dict[str, bytes | bytearray] = {}
        if precision in GRAPH_FILENAMES:
            files = _graph_files(folder, reference, weights, precision)
            encoder = _tried(folder, reference, precision, files)
        else:
            encoder = TorchEncoder.load(folder, model_filename, precision)
        report = _report(encoder, reference, state)
        files[REPORT_FILENAMES[precision]] = json.dumps(report.to_json()).encode()
        with tempfile.TemporaryDirectory(prefix=STAGING_PREFIX, dir=folder, ignore_cleanup_errors=True) as name:
            staging = Path(name)
            _write(staging, files)
            hashes = {**reference.files.graph_sha256(), **{name: sha256_of(staging / name) for name in files}}
            write_provenance(staging, {**reference.files.provenance(), "graph_sha256": hashes})
            install(staging, folder)
    return report


def _graph_files(
    folder: Path, reference: TorchEncoder, weights: WeightsFile, precision: Precision
) -> dict[str, bytes | bytearray]:
    """The graph, and with int8 the weights that it names."""
    config = reference.config
    words = weights.shape("embeddings.word_embeddings.weight")[0]
    metadata = {FINGERPRINT_KEY: reference.files.graph_key(reference.fingerprint), WORDS_KEY: str(words)}
    name = GRAPH_FILENAMES[precision]
    if precision != "int8":
        return {name: encoder_graph(GraphBuilder(weights), config, metadata).SerializeToString()}
    scales = calibrate(folder, config, weights, texts_of(reference.tokenizer))
    build = Int8Builder(weights, config, scales, INT8_WEIGHTS_FILENAME)
    return {name: encoder_graph(build, config, metadata).SerializeToString(), INT8_WEIGHTS_FILENAME: build.content}


def _write(folder: Path, files: Mapping[str, bytes | bytearray]) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _tried(
    folder: Path, reference: TorchEncoder, precision: Precision, files: Mapping[str, bytes | bytearray]
) -> TextEncoder:
    """The encoder of a graph. Raises ModelError if it can't be loaded or gives other vectors than `reference`."""
    weights_path = reference.files.weights_path
    with tempfile.TemporaryDirectory(prefix=STAGING_PREFIX, dir=folder, ignore_cleanup_errors=True) as name:
        # A graph names weights in its own folder.
        _link(weights_path.resolve(), Path(name, weights_path.name))
        _write(Path(name), files)
        graph = Path(name, GRAPH_FILENAMES[precision])
        encoder = OnnxEncoder.from_graph(graph, reference.config, reference.tokenizer, reference.files, precision)
    distance = _distance(encoder.encode(_TEXT).vector, reference.encode(_TEXT).vector)
    if not distance <= _TOLERANCE[precision]:
        raise ModelError(f"the graph gives another vector than the weights (off by {distance:.1%}), so it was deleted")
    return encoder


def _report(encoder: TextEncoder, reference: TorchEncoder, state: IncidentState | None) -> Report:
    ids = reference.tokenizer(_TEXT).ids
    # A model may take fewer tokens.
    ids = [*ids[: min(len(ids), _TEST_TOKENS) - 1], ids[-1]]
    vector, expected = (each.vectors([ids])[0] for each in (encoder, reference))
    if encoder.precision == DEFAULT_PRECISION:
        return Report(np.array(ids), expected, _TOLERANCE[DEFAULT_PRECISION])
    tolerance = max(_LEEWAY[encoder.precision] * _distance(vector, expected), _TOLERANCE[DEFAULT_PRECISION])
    found = None if state is None else agreement_on_titles(state, encoder, reference)
    return Report(np.array(ids), vector, tolerance, found)


def _distance(found: Vector, expected: Vector) -> float:
    """The distance of a vector (hidden,) from the expected one, as a share of its length."""
    difference = found.astype(np.float64) - expected
    return float(np.linalg.norm(difference) / np.linalg.norm(expected))


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
        _link(target, new)
        new.replace(path)
    print(f"{path} was a link to {target}. It is now a file, because ONNX Runtime needs one.", file=sys.stderr)


def _link(target: Path, new: Path) -> None:
    """Makes a hard link if possible, else a copy. Raises OSError."""
    try:
        os.link(target, new)
    except OSError:
        shutil.copyfile(target, new)
