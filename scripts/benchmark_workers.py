"""What `benchmark.py` compares, each in a process of its own: threads of one would spin into the time of the next.

A worker is a function that loads its backend and returns what a request asks of it; the driver sends requests to all
workers in turn, so that what else the machine does strikes all of them alike.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

import _inference  # noqa: F401  (makes `similarity` importable)
from similarity.encoder import Encoder
from similarity.encoding import Vector, inputs_needed
from similarity.layers import Linear
from similarity.model_files import LongformerConfig
from similarity.ranking import most_similar
from similarity.state import IncidentState

Answer = Callable[[Any], Any]


@dataclass(frozen=True)
class Timed:
    """What a worker answered, and how long that took it."""

    seconds: float
    answer: Any


def encode_ours(model_dir: Path) -> Answer:
    """Token ids -> CLS vector as a list, by `similarity.encoder`."""
    encoder = Encoder.load(model_dir)
    return lambda ids: encoder.cls_vector(torch.tensor(ids)).tolist()


def encode_by_transformers(model_dir: Path) -> Answer:
    """The same by transformers' LongformerModel, as the original service calls it."""
    from transformers import LongformerModel

    model = LongformerModel.from_pretrained(model_dir, dtype=torch.float32).eval()  # type: ignore[no-untyped-call]

    def encode(ids: list[int]) -> list[float]:
        with torch.inference_mode():
            vector: torch.Tensor = model(torch.tensor([ids])).last_hidden_state[0, 0]
        return vector.tolist()

    return encode


def gemm(_: object) -> Answer:
    """FLOP/s of the fastest float32 product with the weights of a layer, plain or packed, for several sizes."""
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


def _vectors(incidents: int) -> tuple[Vector, Vector]:
    """Means (incidents, 768) and a vector (768,), random, the same in every worker."""
    choose = np.random.default_rng(0)
    return choose.standard_normal((incidents, 768), np.float32), choose.standard_normal(768, np.float32)


def rank_ours(incidents: int) -> Answer:
    """num -> the ids of the first so many, by `similarity.ranking`."""
    means, vector = _vectors(incidents)
    ids = np.arange(1, incidents + 1)
    state = IncidentState(ids, np.ones_like(ids), means, [""] * incidents)
    return lambda num: [match.incident_id for match in most_similar(vector, state, num)]


def rank_as_original(incidents: int) -> Answer:
    """The same by the loop of the original service, a cosine at a time."""
    means, vector = (torch.from_numpy(each) for each in _vectors(incidents))

    def rank(num: int) -> list[int]:
        cosine = torch.nn.functional.cosine_similarity
        pairs = [(cosine(vector, means[row], dim=-1).item(), row + 1) for row in range(incidents)]
        return [number for _, number in sorted(pairs, reverse=True)[:num]]

    return rank


def rank_by_numpy(incidents: int) -> Answer:
    """The same by a product and a partition of numpy."""
    means, vector = _vectors(incidents)
    unit, query = means / np.linalg.norm(means, axis=1, keepdims=True), vector / np.linalg.norm(vector)

    def rank(num: int) -> list[int]:
        similarities = unit @ query
        best = np.argpartition(-similarities, num)[:num]
        return [int(row) + 1 for row in best[np.argsort(-similarities[best])]]

    return rank


def read_once(incidents: int) -> Answer:
    """The sum of all vectors: what reading them from memory takes."""
    means = torch.from_numpy(_vectors(incidents)[0])
    return lambda _: means.sum().item()


BACKENDS: dict[str, Callable[[Any], Answer]] = {
    "encode ours": encode_ours,
    "encode transformers": encode_by_transformers,
    "gemm": gemm,
    "rank ours": rank_ours,
    "rank original": rank_as_original,
    "rank numpy": rank_by_numpy,
    "read once": read_once,
}


def _serve(connection: Connection, name: str, subject: object) -> None:
    answer = BACKENDS[name](subject)
    connection.send(None)
    while (request := connection.recv()) is not None:
        start = time.perf_counter()
        result = answer(request)
        connection.send(Timed(time.perf_counter() - start, result))


class Worker:
    """A backend in a process of its own, which gets its model folder or its number of incidents. A context manager."""

    # Time for the last worker's threads to stop waiting busily for more work.
    SETTLE_S = 0.25

    def __init__(self, name: str, subject: object) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, name, subject), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Worker:
        self._connection.recv()
        return self

    def ask(self, request: object) -> Timed:
        """Raises EOFError where the worker's process died."""
        time.sleep(self.SETTLE_S)
        self._connection.send(request)
        timed: Timed = self._connection.recv()
        return timed

    def __exit__(self, *error: object) -> None:
        self._connection.close()
        self._process.terminate()
        self._process.join()


def arithmetic(tokens: int, config: LongformerConfig, intermediate_size: int) -> float:
    """FLOP that the CLS vector of `tokens` tokens takes: two for each product and sum that can't be left out."""
    needed = inputs_needed(tokens, config)
    hidden, total = config.hidden_size, 0.0
    for window, inputs, outputs in zip(config.attention_window, needed, needed[1:], strict=False):
        reach = window // 2
        pairs = sum(min(inputs, query + reach + 1) - max(0, query - reach) for query in range(outputs))
        total += 2 * inputs * 2 * hidden * hidden  # keys and values
        total += 2 * outputs * 2 * hidden * hidden  # queries and what follows attention
        total += 2 * 2 * pairs * hidden  # scores and weighted values, over all heads
        total += 2 * 2 * outputs * hidden * intermediate_size
    return total
