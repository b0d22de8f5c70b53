"""The backends that `benchmark.py` compares. Each function loads a backend and returns a function for its requests.

Each imports only the packages that it needs, because the memory of its process is measured. `benchmarks.worker` runs
the processes and measures time.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.searches import random_state, rank_as_original, ways
from similarity.encoder.loading import load_encoder
from similarity.encoder.model_folder import ModelFiles
from similarity.encoder.text_encoder import TextEncoder
from similarity.incidents.metrics import Metric
from similarity.incidents.ranking import Ranking
from similarity.incidents.state import IncidentState
from similarity.settings import Engine, Precision

Answer = Callable[[Any], Any]
# Token ids of one text -> its CLS vector as a list of floats.
Encode = Callable[[list[int]], list[float]]
# Token ids of several texts -> nothing.
EncodeAll = Callable[[list[list[int]]], None]


def _ours(engine: Engine, precision: Precision, model_dir: Path) -> TextEncoder:
    return load_encoder(model_dir, engine=engine, precision=precision)


def encode_ours(engine: Engine, precision: Precision, model_dir: Path) -> Encode:
    encoder = _ours(engine, precision, model_dir)
    return lambda ids: encoder.vectors([ids])[0].tolist()


def encode_by_openvino(model_dir: Path) -> Encode:
    """Our graph, with operators of the ONNX standard only, run by OpenVINO."""
    import openvino

    from models.graph_builder import GraphBuilder, WeightsFile
    from models.onnx_graph import encoder_graph

    files = ModelFiles(model_dir)
    graph = encoder_graph(GraphBuilder(WeightsFile(files.weights_path), fused=False), files.config(), {})
    # The graph names the weights relative to itself, so it must be in the same folder.
    with tempfile.NamedTemporaryFile(dir=model_dir, suffix=".onnx") as file:
        file.write(graph.SerializeToString())
        file.flush()
        compiled = _compiled_by_openvino(openvino.Core().read_model(file.name))
    return lambda ids: compiled(np.array(ids))[0].tolist()


def encode_whole_by_openvino(model_dir: Path) -> Encode:
    """The graph of transformers' LongformerModel, run by OpenVINO. It is exact only for the length of its tracing.

    An export to ONNX would be inexact for every length, by up to 0.08 (torch 2.13, transformers 5.23).
    """
    import openvino
    import torch

    class ClsVector(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = _transformers(model_dir)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            states: torch.Tensor = self.model(ids, return_dict=False)[0]
            return states[:, 0]

    module = ClsVector()

    @lru_cache(maxsize=1)
    def compiled(tokens: int) -> Any:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracer warns about values that are fixed for this length
            graph = openvino.convert_model(module, example_input=torch.full((1, tokens), 5))
        return _compiled_by_openvino(graph)

    return lambda ids: compiled(len(ids))(np.array([ids]))[0][0].tolist()


def _compiled_by_openvino(graph: Any) -> Any:
    import openvino

    return openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def _transformers(model_dir: Path) -> Any:
    import torch
    from transformers import LongformerModel, logging

    # Otherwise it reports each tensor that this project's scripts leave out.
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    return LongformerModel.from_pretrained(model_dir, dtype=torch.float32).eval()  # type: ignore[no-untyped-call]


def encode_by_transformers(model_dir: Path) -> Encode:
    """transformers' LongformerModel, called as the original service does."""
    import torch

    model = _transformers(model_dir)

    def encode(ids: list[int]) -> list[float]:
        with torch.inference_mode():
            vector: torch.Tensor = model(torch.tensor([ids])).last_hidden_state[0, 0]
        return vector.tolist()

    return encode


# Texts in a batch of transformers.
BATCH_TEXTS = 8


def build_ours(precision: Precision, model_dir: Path) -> EncodeAll:
    """One text after the other, as `similarity.refresh.compute` does."""
    encoder = _ours("torch", precision, model_dir)

    def encode_all(texts: list[list[int]]) -> None:
        for ids in texts:
            encoder.vectors([ids])

    return encode_all


def build_by_transformers(model_dir: Path) -> EncodeAll:
    """Batches of BATCH_TEXTS texts of similar length, padded to the longest."""
    import torch

    model = _transformers(model_dir)
    pad = model.config.pad_token_id

    def encode_all(texts: list[list[int]]) -> None:
        ordered = sorted(texts, key=len, reverse=True)
        for start in range(0, len(ordered), BATCH_TEXTS):
            batch = [torch.tensor(ids) for ids in ordered[start : start + BATCH_TEXTS]]
            ids = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True, padding_value=pad)
            with torch.inference_mode():
                model(ids, attention_mask=(ids != pad).long())

    return encode_all


def gemm(_: object) -> Answer:
    """FLOP/s of the fastest float32 product with a layer's weights, plain or packed, over several sizes."""
    import torch

    from similarity.encoder.torch_encoder import Linear

    weight, bias = torch.randn(3072, 768), torch.zeros(3072)
    packed = Linear(weight, bias)

    def best(rounds: int) -> float:
        fastest = 0.0
        with torch.inference_mode():
            for rows in (256, 512, 1024):
                x = torch.randn(rows, 768)
                for product in (packed, lambda x: torch.nn.functional.linear(x, weight, bias)):
                    for _ in range(rounds):
                        start = time.perf_counter()
                        product(x)
                        fastest = max(fastest, 2 * rows * weight.numel() / (time.perf_counter() - start))
        return fastest

    return best


def memory(_: object) -> Answer:
    """Bytes/s of the fastest reading of 400 MB, which is more than a cache holds."""
    import torch

    values = torch.ones(100_000_000)

    def best(rounds: int) -> float:
        fastest = 0.0
        for _ in range(rounds):
            start = time.perf_counter()
            values.sum()
            fastest = max(fastest, 4 * len(values) / (time.perf_counter() - start))
        return fastest

    return best


def save_state(incidents: int) -> Answer:
    """path -> nothing: saves a state."""
    return random_state(incidents).save


def load_state(path: Path) -> Answer:
    """The number of incidents in the state, by `similarity.incidents.state`."""
    return lambda _: len(IncidentState.load(path))


def load_state_by_torch(path: Path) -> Answer:
    """The same by torch.load, which checks nothing."""
    import torch

    return lambda _: len(torch.load(path, weights_only=True)["titles"])


def query_first(path: Path) -> Answer:
    """metric -> the id of the incident most like the first one. Each request makes the metric's index anew."""
    state = IncidentState.load(path)

    def query(metric: Metric) -> int:
        [best] = Ranking(state).most_similar(state.means[0], 1, metric)
        return best.incident_id

    return query


BACKENDS: dict[str, Callable[[Any], Answer]] = {
    "torch": partial(encode_ours, "torch", "float32"),
    "torch bfloat16": partial(encode_ours, "torch", "bfloat16"),
    "onnx": partial(encode_ours, "onnx", "float32"),
    "onnx int8": partial(encode_ours, "onnx", "int8"),
    "openvino": encode_by_openvino,
    "openvino whole": encode_whole_by_openvino,
    "transformers": encode_by_transformers,
    "build torch": partial(build_ours, "float32"),
    "build torch bfloat16": partial(build_ours, "bfloat16"),
    "build transformers": build_by_transformers,
    "gemm": gemm,
    "memory": memory,
    "rank": ways,
    "rank original": rank_as_original,
    "save state": save_state,
    "load state": load_state,
    "load state torch": load_state_by_torch,
    "query first": query_first,
}
