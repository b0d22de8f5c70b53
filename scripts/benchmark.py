#!/usr/bin/env python3
"""Measure speed beside peers in the same run. Compare the ratios: on a busy machine the seconds mean little.

    encoder     seconds for one text, by length and backend; the largest difference from transformers; the cosine
                between the vectors of the first backend and of sentence-transformers; and the ratio of the first
                backend's time to the machine's limit: its fastest float32 product, or one reading of the weights
    build       tokens a second while a state is built, ours and transformers', for batches of texts as long as AIID's
    calls       milliseconds to ask for a text's vector and incidents by one call and by two, and seconds until fresh
                processes have answered them
    coldstart   seconds from the start of a process to its first vector or first answer
    ranking     milliseconds to find the three most similar incidents, ours by each metric and numpy's, and to read the
                vectors once
    state       seconds to save and load a state, also with torch.load, and to answer the first query with a metric;
                peak memory of the process that loads, and of the one that answers
    memory      peak memory of a process, in MiB, after it has encoded a text of each length

Backends: `torch` and `onnx` are our engines, also in other precisions. `openvino` runs our graph. `transformers` runs
LongformerModel. `openvino whole` runs the model of transformers, converted for each length. All get token ids.

`sentence-transformers` runs the Longformer, or with --encoder the sentence encoder that it was converted from.
`sentence-transformers onnx` runs that encoder in ONNX Runtime. It needs an older transformers than the rest, so it has
an environment of its own, made from scripts/benchmarks/requirements-peers.txt. --peer-python is the Python there.

OpenVINO and sentence-transformers need scripts/benchmarks/requirements.txt. Everything else needs requirements-dev.txt.

Example:
    python scripts/benchmark.py encoder --size base --plot encoder.png
    python scripts/benchmark.py encoder --model inference/model --tokens 40 700 --backends onnx transformers
    python scripts/benchmark.py encoder --model .quickstart/model --encoder ~/all-MiniLM-L6-v2 --tokens 40 250 \\
        --backends onnx sentence-transformers
    python scripts/benchmark.py calls --tokens 250 700
    python scripts/benchmark.py ranking --incidents 1400
"""

from __future__ import annotations

from shared import command
from shared.command import INFERENCE_DIR, argument_parser

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.inputs import aiid_lengths, random_ids, random_model, random_state
from benchmarks.limits import arithmetic, weight_bytes
from benchmarks.searches import FIRST, searches
from benchmarks.worker import PEERS, Peers, Worker
from similarity.encoder.cpu import lack_of
from similarity.encoder.loading import load_encoder
from similarity.encoder.model_folder import GRAPH_FILENAMES, ModelFiles

Row = dict[str, Any]

INT8 = "onnx int8"
# "openvino whole" takes minutes to convert.
BACKENDS = ("torch", "onnx", "openvino", "transformers", "torch bfloat16", INT8, "openvino whole")
EXACT = ("torch", "onnx", "openvino", "openvino whole")
LENGTHS = (32, 128, 257, 512, 1024, 2048, 4096)
# The original's loop over tensors is too slow for more incidents.
ORIGINAL_LIMIT = 10_000

# All except embed-to-db-similar encode 38 words. These are 40 tokens if the tokenizer adds special tokens.
OURS = """
import sys; sys.path.insert(0, sys.argv[2])
from similarity.encoder.cpu import lack_of
from similarity.encoder.loading import load_encoder
load_encoder(sys.argv[1], engine="{}", precision="{}").encode("word " * 38)
"""
COLD_STARTS = {
    "torch": OURS.format("torch", "float32"),
    "onnx": OURS.format("onnx", "float32"),
    INT8: OURS.format("onnx", "int8"),
    "transformers": """
import sys, torch
from transformers import LongformerModel, PreTrainedTokenizerFast, logging
logging.set_verbosity_error()  # otherwise it reports each tensor that this project's scripts leave out
tokenizer = PreTrainedTokenizerFast(tokenizer_file=sys.argv[1] + "/tokenizer.json")
model = LongformerModel.from_pretrained(sys.argv[1]).eval()
with torch.no_grad():
    model(**tokenizer("word " * 38, return_tensors="pt", return_token_type_ids=False)).last_hidden_state[0, 0]
""",
    "similar": """
import sys; sys.path.insert(0, sys.argv[2])
from similar import handler
assert handler({"text": "word " * 38}, None)["statusCode"] == 200
""",
    "embed-to-db-similar": """
import sys; sys.path.insert(0, sys.argv[2])
from embed_to_db_similar import handler
assert handler({"embed": [1.0] * int(sys.argv[3])}, None)["statusCode"] == 200
""",
}


def benchmark_encoder(model_dir: Path, lengths: list[int], backends: list[str], rounds: int, peers: Peers) -> list[Row]:
    """For each length: each backend's median seconds, and its ratio to the first backend.

    The first backend is also compared with the machine's limit. The limit is the larger of two times: the necessary
    arithmetic at the speed of the best GEMM, and one reading of the weights.
    """
    config = ModelFiles(model_dir).config()
    intermediate = json.loads((model_dir / "config.json").read_bytes())["intermediate_size"]
    first = backends[0]
    rows: list[Row] = []
    with ExitStack() as stack:
        workers = {name: stack.enter_context(peers.worker(name, model_dir)) for name in backends}
        gemm, memory = (stack.enter_context(Worker(name, None)) for name in ("gemm", "memory"))
        for tokens in lengths:
            ids = random_ids(tokens)
            vectors = {name: worker.ask(ids).answer for name, worker in workers.items()}
            flop_s, bytes_s = 0.0, 0.0
            seconds: dict[str, list[float]] = {name: [] for name in backends}
            for _ in range(rounds):
                flop_s, bytes_s = max(flop_s, gemm.ask(5).answer), max(bytes_s, memory.ask(3).answer)
                for name, worker in workers.items():
                    seconds[name].append(worker.ask(ids).seconds)
            median = {name: statistics.median(found) for name, found in seconds.items()}
            by_arithmetic = arithmetic(tokens, config, intermediate) / flop_s
            limit = max(by_arithmetic, weight_bytes(config, intermediate) / bytes_s)
            row = {"tokens": float(tokens), **{f"{name} s": median[name] for name in backends}}
            row |= {f"{name} / {first}": median[name] / median[first] for name in backends[1:]}
            if "transformers" in vectors:
                exact = [vectors[name] for name in EXACT if name in vectors]
                row["largest error"] = max(
                    float(np.abs(np.subtract(vector, vectors["transformers"])).max()) for vector in exact
                )
            row |= {f"cosine {name}": _cosine(vectors[first], vectors[name]) for name in backends[1:] if name in PEERS}
            row |= {"best GFLOP/s": flop_s / 1e9, "GB/s": bytes_s / 1e9}
            row |= {"share of GEMM": by_arithmetic / median[first], f"{first} / limit": median[first] / limit}
            rows.append(row)
    return rows


def _cosine(one: list[float], other: list[float]) -> float:
    return float(np.dot(one, other) / np.linalg.norm(one) / np.linalg.norm(other))


def benchmark_build(model_dir: Path, texts: int, rounds: int) -> list[Row]:
    """Tokens a second of each way, from the median time for all texts."""
    batch = [random_ids(tokens, seed) for seed, tokens in enumerate(aiid_lengths(texts))]
    total = sum(map(len, batch))
    ways = ("torch", "torch bfloat16", "transformers")
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    with ExitStack() as stack:
        workers = {way: stack.enter_context(Worker(f"build {way}", model_dir)) for way in ways}
        for worker in workers.values():
            worker.ask(batch[:2])
        for _ in range(rounds):
            for way, worker in workers.items():
                seconds[way].append(worker.ask(batch).seconds)
    median = {way: statistics.median(found) for way, found in seconds.items()}
    row = {"texts": float(texts), "tokens": float(total)}
    row |= {f"{way} tokens/s": total / median[way] for way in ways}
    return [row | {f"transformers / {way}": median["transformers"] / median[way] for way in ways[:2]}]


def benchmark_cold_start(model_dir: Path, rounds: int) -> list[Row]:
    """Median seconds from the start of a process to its end, after one vector or answer."""
    dimension = ModelFiles(model_dir).config().hidden_size
    programs = {name: program for name, program in COLD_STARTS.items() if name != INT8 or not lack_of("int8")}
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    with random_state(model_dir) as state_path:
        environment = {**os.environ, "MODEL_DIR": str(model_dir.resolve()), "INCIDENTS_FILENAME": str(state_path)}
        for _ in range(rounds + 1):
            for name, program in programs.items():
                start = time.perf_counter()
                command = [sys.executable, "-c", program, str(model_dir), str(INFERENCE_DIR), str(dimension)]
                subprocess.run(command, check=True, capture_output=True, env=environment)
                seconds[name].append(time.perf_counter() - start)
    # The first round fills the file cache.
    median = {name: statistics.median(found[1:]) for name, found in seconds.items()}
    row = {f"{name} s": value for name, value in median.items()}
    return [row | {f"{name} / transformers": median[name] / median["transformers"] for name in ("torch", "onnx")}]


def benchmark_ranking(incidents: int, rounds: int) -> list[Row]:
    """For each metric: median milliseconds of each way to find the first three of `incidents` vectors (768,).

    `benchmarks.searches` explains the ways. ours: with confidences. unsure: the same without them.
    """
    rows: list[Row] = []
    # Short times vary most.
    turns = rounds * min(100, max(1, 100_000 // incidents))
    for search in searches(incidents):
        # One process at a time: a large state takes several GB.
        with Worker("rank", search) as worker:
            found, expected, by_numpy = (worker.ask(way).answer for way in ("ours", "reference", "numpy"))
            require_alike(found, expected, by_numpy if search.metric != "hybrid" else None)
            median: dict[str, float] = worker.ask(turns).answer
        row: Row = {"incidents": incidents, "metric": search.name}
        row |= {f"{way} ms": 1e3 * seconds for way, seconds in median.items()}
        row |= {
            f"{way} / {peer}": median[way] / median[peer]
            for peer in ("numpy", "read once")
            for way in ("ours", "unsure")
        }
        rows.append(row)
        if search.metric == "cosine" and incidents <= ORIGINAL_LIMIT:
            with Worker("rank original", incidents) as worker:
                require_alike(found, expected, worker.ask(None).answer)
                original_s = statistics.median(worker.ask(None).seconds for _ in range(rounds))
            rows[-1] |= {"original ms": 1e3 * original_s, "original / ours": original_s / median["ours"]}
    return rows


def require_alike(
    found: list[tuple[int, float]], expected: list[tuple[int, float]], ids: list[int] | None = None
) -> None:
    """Raises AssertionError if pairs of incident and similarity differ, or the incidents aren't those of `ids`."""
    same = [incident_id for incident_id, _ in found] == [incident_id for incident_id, _ in expected]
    close = same and all(abs(one - other) < 1e-6 for (_, one), (_, other) in zip(found, expected, strict=True))
    if not close or ids not in (None, [incident_id for incident_id, _ in expected]):
        raise AssertionError(f"the ways of ranking find different incidents: {found}, {expected}, {ids}")


def benchmark_state(incidents: int, rounds: int) -> list[Row]:
    """Median seconds and peak MiB of what is done with a state of `incidents` vectors (768,)."""

    def alone(name: str, subject: object, request: object = None) -> tuple[float, float]:
        # One process at a time: a large state takes several GB.
        with Worker(name, subject) as worker:
            found = [worker.ask(request) for _ in range(rounds)]
        return statistics.median(each.seconds for each in found), found[-1].peak_mib

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.pt"
        save_s, _ = alone("save state", incidents, path)
        load_s, load_mib = alone("load state", path)
        torch_s, _ = alone("load state torch", path)
        cosine_s, query_mib = alone("query first", path, "cosine")
        centered_s, _ = alone("query first", path, "centered")
        row = {"incidents": float(incidents), "file MB": path.stat().st_size / 1e6}
    row |= {"save s": save_s, "load s": load_s, "torch load s": torch_s, "torch load / load": torch_s / load_s}
    row |= {"load peak MiB": load_mib, "first cosine s": cosine_s, "first centered s": centered_s}
    return [row | {"query peak MiB": query_mib}]


def benchmark_memory(model_dir: Path, lengths: list[int], backends: list[str], peers: Peers) -> list[Row]:
    """Peak MiB after a text of each length, shortest first. Each backend has its own process."""
    rows = [{"tokens": float(tokens)} for tokens in sorted(lengths)]
    for name in backends:
        with peers.worker(name, model_dir) as worker:
            for row in rows:
                row[f"{name} MiB"] = worker.ask(random_ids(int(row["tokens"]))).peak_mib
    return rows


def plot(rows: list[Row], path: Path) -> None:
    """Plots seconds against tokens for each backend, log-log, with the limit for the first backend."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    tokens = [row["tokens"] for row in rows]
    names = [column.removesuffix(" s") for column in rows[0] if column.endswith(" s")]
    for name in names:
        axes.plot(tokens, [row[f"{name} s"] for row in rows], marker="o", label=name)
    limit = [row[f"{names[0]} s"] / row[f"{names[0]} / limit"] for row in rows]
    axes.plot(tokens, limit, color="black", linestyle="--", label="limit of the machine")
    axes.set(xscale="log", yscale="log", xlabel="tokens", ylabel="seconds", title="CLS vector of one text")
    axes.set_xticks(tokens, [f"{int(count):,}" for count in tokens])
    axes.set_xticks([], minor=True)
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(path, dpi=120)


def print_rows(rows: list[Row]) -> None:
    """Prints a Markdown table. A dash stands where a row lacks a column."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(_cell(row.get(column)) for column in columns) + " |")


def _cell(value: float | str | None) -> str:
    if value is None:
        return "–"  # noqa: RUF001  (a dash, not a minus)
    if isinstance(value, str):
        return value
    return f"{int(value):,}" if value == int(value) or value >= 1000 else f"{value:.3g}"


def _is_installed(backend: str) -> bool:
    return not backend.startswith("openvino") or importlib.util.find_spec("openvino") is not None


def main(argv: list[str] | None = None) -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("what", choices=("encoder", "build", "calls", "coldstart", "ranking", "state", "memory"))
    parser.add_argument("--model", type=Path, help="model folder (default: random weights of --size)")
    parser.add_argument(
        "--size", choices=("base", "small"), default="base", help="size of a model with random weights (default base)"
    )
    parser.add_argument("--tokens", type=int, nargs="+", default=list(LENGTHS), help="lengths of texts in tokens")
    parser.add_argument(
        "--backends",
        nargs="+",
        choices=(*BACKENDS, *PEERS),
        default=[name for name in BACKENDS[:4] if _is_installed(name)],
        help="backends for encoder and memory; ratios are to the first (default: torch onnx openvino transformers)",
    )
    parser.add_argument(
        "--encoder",
        type=Path,
        metavar="FOLDER",
        help="the encoder that --model was made from, for sentence-transformers (default: the Longformer itself)",
    )
    parser.add_argument(
        "--peer-python",
        metavar="PYTHON",
        default=sys.executable,
        help="the Python for sentence-transformers onnx (default: this one)",
    )
    parser.add_argument("--texts", type=int, default=32, help="number of texts for build (default 32)")
    parser.add_argument(
        "--incidents", type=int, nargs="+", default=[1400, 100_000], help="numbers of incidents for ranking and state"
    )
    parser.add_argument("--rounds", type=int, default=5, help="number of runs; medians are printed (default 5)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE.png", help="write a plot of the encoder's table to this file"
    )
    args = parser.parse_args(argv)
    if args.model is not None and not args.model.is_dir():
        parser.error(f"--model: there is no folder {args.model}")
    if min(args.rounds, args.texts, *args.tokens) < 1 or min(args.incidents) <= FIRST:
        parser.error("--rounds, --texts and --tokens must be at least 1, and --incidents at least 4")
    if args.plot and args.what != "encoder":
        parser.error(f"--plot works with encoder only, not with {args.what}")
    if not all(map(_is_installed, args.backends)):
        parser.error("openvino isn't installed: pip install -r scripts/benchmarks/requirements.txt")
    if INT8 in args.backends and (lack := lack_of("int8")):
        print(f"benchmark: {INT8} can't be measured: {lack}", file=sys.stderr)
        return 1
    peers = Peers(args.encoder, args.peer_python)
    _check_peers(parser, args, peers)
    try:
        rows = _measure(args, peers)
    except EOFError:
        print("benchmark: the process of a backend ended; the lines above say why", file=sys.stderr)
        return 1
    if args.plot:
        plot(rows, args.plot)
    print(json.dumps(rows)) if args.json else print_rows(rows)
    return 0


def _check_peers(parser: ArgumentParser, args: Any, peers: Peers) -> None:
    """Exits with 2 if sentence-transformers can't run as the arguments say."""
    for name in [name for name in args.backends if name in PEERS]:
        if not peers.has(name):
            parser.error(f"{name} isn't installed for {peers.python_of(name)}; scripts/benchmarks has its requirements")
    if not args.encoder:
        if "sentence-transformers onnx" in args.backends:
            parser.error("sentence-transformers onnx can't run a Longformer: name another encoder with --encoder")
        return
    if not args.model:
        parser.error("--encoder needs --model, the Longformer that was made from it")
    try:
        longest = int(json.loads((args.encoder / "config.json").read_bytes())["max_position_embeddings"])
    except (OSError, ValueError, KeyError, TypeError):
        parser.error(f"--encoder: {args.encoder} isn't a folder with the config.json of an encoder")
    if max(args.tokens) > longest:
        parser.error(f"--tokens: {args.encoder} takes at most {longest} tokens")


def _measure(args: Any, peers: Peers) -> list[Row]:
    # Imported here, because the workers import this module too and their memory is measured.
    from benchmarks.calls import benchmark_calls
    from models.export import export

    if args.what == "ranking":
        return [row for count in args.incidents for row in benchmark_ranking(count, args.rounds)]
    if args.what == "state":
        return [row for count in args.incidents for row in benchmark_state(count, args.rounds)]
    with ExitStack() as stack:
        model_dir = args.model or stack.enter_context(random_model(args.size))
        load_encoder(model_dir, engine="torch")
        for precision in GRAPH_FILENAMES:
            if not (ModelFiles(model_dir).has_graph(precision) or lack_of(precision)):
                export(model_dir, precision)
        if args.what == "encoder":
            return benchmark_encoder(model_dir, args.tokens, args.backends, args.rounds, peers)
        if args.what == "build":
            return benchmark_build(model_dir, args.texts, args.rounds)
        if args.what == "memory":
            return benchmark_memory(model_dir, args.tokens, args.backends, peers)
        if args.what == "calls":
            with random_state(model_dir) as state_path:
                return benchmark_calls(model_dir, state_path, args.tokens, args.rounds)
        return benchmark_cold_start(model_dir, args.rounds)


if __name__ == "__main__":
    command.run(main)
