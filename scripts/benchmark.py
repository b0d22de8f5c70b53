#!/usr/bin/env python3
"""Measure speed, always beside a peer in the same run: what counts is the ratio, the machine may be busy.

    encoder     seconds for one text, ours and transformers', by length, with the largest difference of the vectors and
                the share of the machine's fastest float32 product that ours reaches
    coldstart   seconds from the start of a process to its first vector, ours and transformers'
    ranking     milliseconds for the three most similar incidents: ours, the original's loop, numpy; and the time that
                reading the vectors once takes

Needs the packages of requirements-dev.txt.

Example:
    python scripts/benchmark.py encoder --size base
    python scripts/benchmark.py encoder --model inference/model --tokens 40 700
    python scripts/benchmark.py ranking --incidents 1400
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from _inference import INFERENCE_DIR
from benchmark_workers import Worker, arithmetic
from command_line import argument_parser
from similarity.encoder import Encoder
from similarity.model_files import ModelFiles

Rows = list[dict[str, float]]

# How many of the most similar incidents to rank; the default of the API.
FIRST = 3
ENCODERS = ("encode ours", "encode transformers", "gemm")
LENGTHS = (32, 128, 257, 512, 1024, 2048, 4096)

# Both encode 38 words, 40 tokens with the special ones where the tokenizer has such.
COLD_STARTS = {
    "ours": """
import sys; sys.path.insert(0, sys.argv[2])
from similarity.encoder import Encoder
Encoder.load(sys.argv[1]).encode("word " * 38)
""",
    "transformers": """
import sys, torch
from transformers import LongformerModel, PreTrainedTokenizerFast
tokenizer = PreTrainedTokenizerFast(tokenizer_file=sys.argv[1] + "/tokenizer.json")
model = LongformerModel.from_pretrained(sys.argv[1]).eval()
with torch.no_grad():
    model(**tokenizer("word " * 38, return_tensors="pt", return_token_type_ids=False)).last_hidden_state[0, 0]
""",
}


@contextmanager
def random_model(size: str) -> Iterator[Path]:
    """A folder with a Longformer of random weights: `base` as allenai/longformer-base-4096, `small` as a test's."""
    from transformers import LongformerConfig, LongformerModel

    torch.manual_seed(0)
    sizes = {
        "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
        "small": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128},
    }
    common = {
        "vocab_size": 50265,
        "attention_window": 512,
        "max_position_embeddings": 4098,
        "type_vocab_size": 1,
        "pad_token_id": 1,
        "layer_norm_eps": 1e-5,
    }
    config = LongformerConfig.from_dict({**common, **sizes[size]})
    tokenizer: Any = Tokenizer(WordLevel({"word": 5, "<unk>": 3}, unk_token="<unk>"))  # noqa: S106
    tokenizer.pre_tokenizer = Whitespace()
    with tempfile.TemporaryDirectory() as name:
        LongformerModel(config).save_pretrained(name)
        tokenizer.save(f"{name}/tokenizer.json")
        yield Path(name)


def benchmark_encoder(model_dir: Path, lengths: list[int], rounds: int) -> Rows:
    """For each length: median seconds of both, their ratio, the largest difference, and the share of the best GEMM."""
    config = ModelFiles(model_dir).config()
    intermediate = json.loads((model_dir / "config.json").read_bytes())["intermediate_size"]
    choose = torch.Generator().manual_seed(0)
    rows: Rows = []
    with ExitStack() as stack:
        ours, peer, gemm = (stack.enter_context(Worker(name, model_dir)) for name in ENCODERS)
        for tokens in lengths:
            ids = torch.randint(4, 1000, (tokens,), generator=choose).tolist()
            ours.ask(ids), peer.ask(ids)
            fastest, seconds, peer_seconds, error = 0.0, [], [], 0.0
            for _ in range(rounds):
                fastest = max(fastest, gemm.ask(5).answer)
                mine, theirs = ours.ask(ids), peer.ask(ids)
                seconds.append(mine.seconds)
                peer_seconds.append(theirs.seconds)
                error = max(error, float(np.abs(np.subtract(mine.answer, theirs.answer)).max()))
            median = statistics.median(seconds)
            flop_s = arithmetic(tokens, config, intermediate) / median
            rows.append(
                {
                    "tokens": tokens,
                    "ours s": median,
                    "transformers s": statistics.median(peer_seconds),
                    "ratio": statistics.median(peer_seconds) / median,
                    "largest error": error,
                    "GFLOP/s": flop_s / 1e9,
                    "best GEMM": fastest / 1e9,
                    "share": flop_s / fastest,
                }
            )
    return rows


def benchmark_cold_start(model_dir: Path, rounds: int) -> Rows:
    """Median seconds from the start of a process to the end of one that has made one vector of 40 tokens."""
    seconds: dict[str, list[float]] = {name: [] for name in COLD_STARTS}
    for _ in range(rounds):
        for name, program in COLD_STARTS.items():
            start = time.perf_counter()
            command = [sys.executable, "-c", program, str(model_dir), str(INFERENCE_DIR)]
            subprocess.run(command, check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - start)
    ours, peer = (statistics.median(found) for found in seconds.values())
    return [{"ours s": ours, "transformers s": peer, "ratio": peer / ours}]


def benchmark_ranking(incidents: int, rounds: int) -> Rows:
    """Median milliseconds for the first three of so many vectors of 768, by each way, and for reading them once."""
    ways = ["rank ours", "rank numpy", "read once"]
    # A loop over tensors is hopeless for more.
    if incidents <= 10_000:
        ways.append("rank original")
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    with ExitStack() as stack:
        workers = {way: stack.enter_context(Worker(way, incidents)) for way in ways}
        answers = {way: worker.ask(FIRST).answer for way, worker in workers.items()}
        for _ in range(rounds):
            for way, worker in workers.items():
                seconds[way].append(worker.ask(FIRST).seconds)
    if any(answers[way] != answers["rank ours"] for way in ways if way != "read once"):
        raise AssertionError(f"they don't agree on the first three: {answers}")
    medians = {way.removeprefix("rank "): statistics.median(found) for way, found in seconds.items()}
    ratios = {f"{way} / ours": median / medians["ours"] for way, median in medians.items() if way != "ours"}
    return [{"incidents": incidents, **{f"{way} ms": 1e3 * median for way, median in medians.items()}, **ratios}]


def print_rows(rows: Rows) -> None:
    """As a Markdown table, with a dash where a row lacks a column."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(_cell(row.get(column)) for column in columns) + " |")


def _cell(value: float | None) -> str:
    if value is None:
        return "–"  # noqa: RUF001  (a dash, not a minus)
    return f"{int(value):,}" if value == int(value) else f"{value:.3g}"


def main(argv: list[str] | None = None) -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("what", choices=("encoder", "coldstart", "ranking"))
    parser.add_argument("--model", type=Path, help="model folder (default: random weights of --size)")
    parser.add_argument("--size", choices=("base", "small"), default="base", help="of random weights (default base)")
    parser.add_argument("--tokens", type=int, nargs="+", default=list(LENGTHS), help="lengths to measure")
    parser.add_argument("--incidents", type=int, nargs="+", default=[1400, 100_000], help="sizes of the ranking")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each, of which the median counts (default 5)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args(argv)
    if args.model is not None and not args.model.is_dir():
        parser.error(f"there is no folder {args.model}")
    if args.rounds < 1 or min(args.tokens) < 1 or min(args.incidents) < 4:
        parser.error("--rounds and --tokens must be at least 1, --incidents at least 4")
    if args.what == "ranking":
        rows = [row for incidents in args.incidents for row in benchmark_ranking(incidents, args.rounds)]
    else:
        with ExitStack() as stack:
            model_dir = args.model or stack.enter_context(random_model(args.size))
            Encoder.load(model_dir)
            if args.what == "encoder":
                rows = benchmark_encoder(model_dir, args.tokens, args.rounds)
            else:
                rows = benchmark_cold_start(model_dir, args.rounds)
    print(json.dumps(rows)) if args.json else print_rows(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
