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
from collections.abc import Callable, Iterator, Mapping
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


@contextmanager
def _server(model_dir: Path, state_path: Path) -> Iterator[httpx2.Client]:
    """A client of the local server, which serves with the default engine."""
    command = [sys.executable, SERVER, "--model", model_dir, "--state", state_path, "--port", "0"]
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


def _one(client: httpx2.Client, text: str) -> tuple[Any, Any]:
    answer = _post(client, "/similar", {"text": text, "num": NUM, "embedding": True})
    return answer["embedding"], answer["msg"]


def _two(client: httpx2.Client, text: str) -> tuple[Any, Any]:
    embedding = _post(client, "/text-to-embed", {"text": text})["embedding"]
    embed = json.dumps(embedding["vector"])
    return embedding, _post(client, "/embed-to-db-similar", {"num": NUM, "embed": embed})["msg"]


def _start_s(module: str, event: Mapping[str, object], environment: Mapping[str, str]) -> float:
    """Seconds from the start of a process to its end, after one answer."""
    command = [sys.executable, "-c", START, str(INFERENCE_DIR), module, json.dumps(event)]
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return time.perf_counter() - start


def benchmark_calls(model_dir: Path, state_path: Path, lengths: list[int], rounds: int) -> list[Row]:
    """For each length in tokens: medians of a warm server, in milliseconds, and of fresh processes, in seconds.

    One process serves all warm calls. Of the fresh processes each answers one call, as a Lambda's first. The ways take
    turns. Raises AssertionError if they give different answers.
    """
    environment = {**os.environ, "MODEL_DIR": str(model_dir.resolve()), "INCIDENTS_FILENAME": str(state_path.resolve())}
    ways: dict[str, Callable[[httpx2.Client, str], tuple[Any, Any]]] = {"one": _one, "two": _two}
    rows: list[Row] = []
    for tokens in lengths:
        # With most tokenizers two tokens are added.
        text = "word " * max(tokens - 2, 1)
        warm: dict[str, list[float]] = {way: [] for way in ways}
        cold: dict[str, list[float]] = {way: [] for way in ways}
        with _server(model_dir, state_path) as client:
            answers = [ask(client, text) for ask in ways.values()]
            if answers[0] != answers[1]:
                raise AssertionError("one call and two calls give different answers")
            for _ in range(rounds):
                for way, ask in ways.items():
                    start = time.perf_counter()
                    ask(client, text)
                    warm[way].append(time.perf_counter() - start)
        [(embedding, _), _] = answers
        one = {"text": text, "num": NUM, "embedding": True}
        embed = {"embed": json.dumps(embedding["vector"]), "num": NUM}
        for _ in range(rounds + 1):
            cold["one"].append(_start_s("similar", one, environment))
            cold["two"].append(
                _start_s("text_to_embed", {"text": text}, environment)
                + _start_s("embed_to_db_similar", embed, environment)
            )
        row: Row = {"tokens": float(tokens)}
        row |= {f"{way} ms": 1e3 * statistics.median(found) for way, found in warm.items()}
        row["two / one"] = row["two ms"] / row["one ms"]
        # The first round fills the file cache.
        row |= {f"{way} cold s": statistics.median(found[1:]) for way, found in cold.items()}
        rows.append(row | {"two cold / one cold": row["two cold s"] / row["one cold s"]})
    return rows
