"""Runs sentence-transformers for `benchmark.py`: by this Python, or by that of another environment.

`benchmarks.worker` starts this file as a program and asks it: a request and an answer are each a line of JSON. Another
environment has other packages, so only the standard library is imported until a model is loaded.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Timed:
    """A worker's answer, the seconds that it took, and the peak memory of the process so far in MiB."""

    seconds: float
    answer: Any
    peak_mib: float


def timed(answer: Callable[[Any], Any], request: object, repeat: int) -> Timed:
    """The last of `repeat` answers, and their median seconds."""
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        result = answer(request)
        seconds.append(time.perf_counter() - start)
    return Timed(statistics.median(seconds), result, _peak_mib())


def _peak_mib() -> float:
    if sys.platform == "linux":  # here getrusage includes the parent's memory
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)


def encode_by_sentence_transformers(backend: str, folder: Path) -> Callable[[list[int]], list[float]]:
    """Token ids of one text -> its vector. backend: "torch" or "onnx".

    folder: one of sentence-transformers, which says how to pool; or any other encoder, whose CLS vector counts.
    """
    import torch
    from sentence_transformers import SentenceTransformer, models

    if (folder / "modules.json").exists():
        model = SentenceTransformer(str(folder), backend=backend, device="cpu")
    else:
        encoder = models.Transformer(str(folder), backend=backend)
        pooling = models.Pooling(encoder.get_embedding_dimension(), "cls")
        model = SentenceTransformer(modules=[encoder, pooling], device="cpu")
    model.float().eval()

    def encode(ids: list[int]) -> list[float]:
        tokens = torch.tensor([ids])
        with torch.inference_mode():
            found = model({"input_ids": tokens, "attention_mask": torch.ones_like(tokens)})
        vector: list[float] = found["sentence_embedding"][0].tolist()
        return vector

    return encode


def main() -> None:
    # Packages print to stdout too.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    encode = encode_by_sentence_transformers(sys.argv[1], Path(sys.argv[2]))
    print(json.dumps("loaded"), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(asdict(timed(encode, request["ids"], request["repeat"]))), file=answers, flush=True)


if __name__ == "__main__":
    main()
