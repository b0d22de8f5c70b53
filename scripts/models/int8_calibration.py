"""Measures how the inputs of linear layers become integers, on the texts of `scripts/sample`.

`models.int8_graph` says which inputs need it.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.graph_builder import GraphBuilder, WeightsFile
from models.install_files import STAGING_PREFIX
from models.int8_graph import LARGEST, InputScale, mixed
from models.onnx_graph import encoder_graph
from similarity.encoder.config import LongformerConfig
from similarity.encoder.onnx_encoder import start_session
from similarity.encoder.tokens import TextTokenizer

# SmoothQuant's exponent: how much of the spread between channels goes from the inputs into the weights.
_ALPHA = 0.7
# The scale fits the largest value of this share of tokens. Larger values are clipped.
_SHARE = 0.99
# One report in so many is a text. Another text is all reports together, cut at so many tokens.
_EVERY, _LONG = 4, 1024
# Tokens of a text that are kept for the scale.
_KEPT = 24
_SAMPLE = Path(__file__).resolve().parent.parent / "sample"


def texts_of(tokenizer: TextTokenizer) -> list[NDArray[np.int64]]:
    """Token ids of texts: the sample's titles, some of its reports, and a long one."""
    with (_SAMPLE / "reports.csv").open(encoding="utf-8", newline="") as file:
        reports = [row["text"] for row in csv.DictReader(file)]
    with (_SAMPLE / "incidents.csv").open(encoding="utf-8", newline="") as file:
        titles = [row["title"] for row in csv.DictReader(file)]
    long = tokenizer.cut_at(min(_LONG, tokenizer.max_tokens))
    texts = [tokenizer(text) for text in [*titles, *reports[::_EVERY]]]
    return [np.array(each.ids, np.int64) for each in [*texts, long(" ".join(reports))]]


def calibrate(
    folder: Path, config: LongformerConfig, weights: WeightsFile, texts: Sequence[NDArray[np.int64]]
) -> dict[str, InputScale]:
    """The scale of each input by its name (`input_of`). folder: of the weights; gets a graph for a while."""
    layers = [f"encoder.layer.{index}" for index in range(config.num_hidden_layers)]
    # In the last layer only the CLS token is needed. With global attention it has products of its own.
    attending = layers[:-1] if config.global_attention_on_cls else layers
    # The layers of each input, and the first of them, whose input the graph shows.
    sharing = {
        **{layer: [f"{layer}.attention.self.{part}" for part in ("query", "key", "value")] for layer in attending},
        **{f"{layer}.intermediate.dense": [f"{layer}.intermediate.dense"] for layer in layers},
    }
    largest = dict.fromkeys(sharing, np.float32(0))
    kept: dict[str, list[NDArray[np.float32]]] = {source: [] for source in sharing}
    for _, *inputs in _inputs(folder, config, weights, [names[0] for names in sharing.values()], texts):
        for source, values in zip(sharing, inputs, strict=True):  # (tokens, in)
            largest[source] = np.maximum(largest[source], np.abs(values).max(axis=0))
            kept[source].append(values[:: -(-len(values) // _KEPT)])
    found = {}
    for source, names in sharing.items():
        columns = np.max([np.abs(weights.read(f"{name}.weight")).max(axis=0) for name in names], axis=0)
        smoothing = _positive(largest[source]) ** _ALPHA / _positive(columns) ** (1 - _ALPHA)
        rows = np.abs(mixed((np.concatenate(kept[source]) / smoothing).astype(np.float32))).max(axis=1)  # (tokens,)
        found[source] = InputScale(smoothing, float(_positive(np.quantile(rows, _SHARE))) / LARGEST)
    return found


def _inputs(
    folder: Path,
    config: LongformerConfig,
    weights: WeightsFile,
    names: Sequence[str],
    texts: Sequence[NDArray[np.int64]],
) -> Iterator[list[NDArray[np.float32]]]:
    """For each text the CLS vector, then the input (tokens, in) of each linear layer in `names`."""
    graph = encoder_graph(GraphBuilder(weights), config, {}, names)
    with tempfile.NamedTemporaryFile(prefix=STAGING_PREFIX, suffix=".onnx", dir=folder) as file:
        file.write(graph.SerializeToString())
        file.flush()
        session = start_session(Path(file.name), "float32")
    for ids in texts:
        yield session.run(None, {"ids": ids})


def _positive(values: NDArray[np.floating] | np.floating) -> NDArray[np.float32]:
    """Channels that are always 0 need some positive scale."""
    return np.maximum(values, np.float32(1e-5), dtype=np.float32)
