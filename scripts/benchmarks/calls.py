"""What a caller waits who wants a text's vector and its incidents: by one call of /similar, or by two calls.

The two calls are those of AIID's site: /text-to-embed, then /embed-to-db-similar with the vector as a string.
"""

from __future__ import annotations

from shared.command import INFERENCE_DIR, ROOT

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

Row = dict[str, float]

SERVER = ROOT / "scripts" / "local" / "server.py"
# Longer than any text takes, and any start.
TIMEOUT_S = 600.0
NUM = "3"

# A Lambda that starts, answers once and ends. argv: the folder of the handlers, a handler's module, the event.
START = """
import importlib, json, sys
sys.path.insert(0, sys.argv[1])
assert importlib.import_module(sys.argv[2]).handler(json.loads(sys.argv[3]), None)["statusCode"] == 200
"""


class Waits:
    """The seconds of each way, round by round."""

    def __init__(self) -> None:
        self._seconds: dict[str, list[float]] = {"one": [], "two": [], "second": []}

    def note(self, one_s: float, first_s: float, second_s: float) -> None:
        for way, seconds in zip(self._seconds, (one_s, first_s + second_s, second_s), strict=True):
            self._seconds[way].append(seconds)

    def medians_s(self) -> dict[str, float]:
        """Without the first round, which loads the model or fills the file cache."""
        return {way: statistics.median(found[1:]) for way, found in self._seconds.items()}

    def ratio(self) -> float:
        """The median of the rounds' own ratios, two / one: other load on the machine changes from round to round."""
        pairs = zip(self._seconds["two"][1:], self._seconds["one"][1:], strict=True)
        return statistics.median(two_s / one_s for two_s, one_s in pairs)


@contextmanager
def _server(model_dir: Path, state_path: Path) -> Iterator[httpx2.Client]:
    """A client of the local server, which serves with the default engine."""
    command = [sys.executable, str(SERVER), "--model", str(model_dir), "--state", str(state_path), "--port", "0"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            if not said:
                raise AssertionError("the local server didn't start")
            url = said.split("Serving on ")[1].split("/similar")[0]
            # A proxy of the environment has no place between the two.
            with httpx2.Client(base_url=url, timeout=TIMEOUT_S, trust_env=False) as client:
                yield client
        finally:
            process.terminate()


def _post(client: httpx2.Client, route: str, parameters: Mapping[str, object]) -> Any:
    return client.post(route, json=parameters).raise_for_status().json()["body"]


def _one(text: str) -> dict[str, object]:
    return {"text": text, "num": NUM, "embedding": True}


def _second(vector: object) -> dict[str, object]:
    return {"num": NUM, "embed": json.dumps(vector)}


def _start_s(module: str, event: Mapping[str, object], environment: Mapping[str, str]) -> float:
    """Seconds from the start of a process to its end, after one answer."""
    command = [sys.executable, "-c", START, str(INFERENCE_DIR), module, json.dumps(event)]
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return time.perf_counter() - start


def benchmark_calls(model_dir: Path, state_path: Path, lengths: list[int], rounds: int) -> list[Row]:
    """For each length in tokens: medians of a warm server, in milliseconds, and of fresh processes, in seconds.

    `second` is the second of the two calls alone. One process serves all warm calls. Each fresh process answers one
    call, as a Lambda that has just started. The ways take turns. Raises AssertionError if their answers differ.
    """
    environment = {**os.environ, "MODEL_DIR": str(model_dir.resolve()), "INCIDENTS_FILENAME": str(state_path.resolve())}
    rows: list[Row] = []
    for tokens in lengths:
        # With most tokenizers two tokens are added.
        text = "word " * max(tokens - 2, 1)
        warm, cold = Waits(), Waits()
        with _server(model_dir, state_path) as client:
            for _ in range(rounds + 1):
                start = time.perf_counter()
                one = _post(client, "/similar", _one(text))
                one_s = time.perf_counter() - start
                start = time.perf_counter()
                embedding = _post(client, "/text-to-embed", {"text": text})["embedding"]
                first_s = time.perf_counter() - start
                start = time.perf_counter()
                similar = _post(client, "/embed-to-db-similar", _second(embedding["vector"]))
                warm.note(one_s, first_s, time.perf_counter() - start)
                if (one["embedding"], one["msg"]) != (embedding, similar["msg"]):
                    raise AssertionError("one call and two calls give different answers")
        for _ in range(rounds + 1):
            cold.note(
                _start_s("similar", _one(text), environment),
                _start_s("text_to_embed", {"text": text}, environment),
                _start_s("embed_to_db_similar", _second(embedding["vector"]), environment),
            )
        row = {"tokens": float(tokens)}
        row |= {f"{way} ms": 1e3 * seconds for way, seconds in warm.medians_s().items()}
        row["two / one"] = warm.ratio()
        row |= {f"cold {way} s": seconds for way, seconds in cold.medians_s().items()}
        rows.append(row | {"cold two / one": cold.ratio()})
    return rows
