#!/usr/bin/env python3
"""Measure the image, its starts and its memory, as tables: started as Lambda would, but on this machine's CPUs.

Needs Docker, root and the packages of requirements-dev.txt.

Example:
    RUN_CONTAINER=1 python tests/container/measure.py --size base
"""

from __future__ import annotations

import argparse
import math
import os
import re
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / name) for name in ("tests", "scripts", "inference")]

import build_state  # noqa: E402
import convert_encoder  # noqa: E402
import fetch_model  # noqa: E402
from benchmarks.inputs import random_model  # noqa: E402
from container.engine import DockerError, Image, base_image, use_base, why_not  # noqa: E402
from container.instance import FULL_CPU_MIB, JOBS_USER, Function, Instance  # noqa: E402
from container.runtime_api import RuntimeApiError  # noqa: E402
from container.volume import Volume  # noqa: E402
from costing.prices import LAMBDA_X86_64  # noqa: E402
from tiny import SAMPLE_DIR, copy_inference  # noqa: E402

MB = 1_000_000
CONFIGURED_MIB = 8096
STEP_MIB = 64
SHORT, LONG = {"text": "word " * 38}, {"text": "word " * 4500}
HANDLERS = ("similar", "text_to_embed", "embed_to_db_similar")
SHELF = {"SHELF_DIR": "/mnt/hf_models_cache/shelf"}
MODEL_ON_EFS = {**SHELF, "MODEL_ON_EFS": "true"}
ROUNDS = 5
# What API Gateway gives a request, loading the model included where it is the first.
REQUEST_S = 30.0


def make_context(folder: Path, size: str) -> Path:
    """A copy of inference/ with a model of this size and the state of the sample."""
    context = copy_inference(folder / "inference")
    use_base(context, base_image())
    model = context / "model"
    if size == "base":
        with random_model(size) as made:
            fetch_model.main(["--from", str(made), "--out", str(model)])
    else:
        convert_encoder.main(["--quick-start", "--out", str(model)])
    paths = ["--model", str(model), "--out", str(model / "incident_cls.pt"), "--cache", str(folder / "cache")]
    build_state.main([str(SAMPLE_DIR), *paths])
    return context


def table(*rows: tuple[object, ...]) -> None:
    for number, row in enumerate(rows):
        print("| " + " | ".join(str(value) for value in row) + " |")
        if number == 0:
            print("|---" * len(row) + "|")
    print(flush=True)


def seconds(value: float) -> str:
    return f"{value:.2f}"


def layers(image: Image) -> None:
    rows = [(f"{layer.size / MB:.1f}", re.sub(r"\s+", " ", layer.made_by)[:90]) for layer in image.layers()]
    table(("MB", "made by"), *rows, (f"{sum(layer.size for layer in image.layers()) / MB:.1f}", "all"))


def event_of(handler: str, event: dict[str, str], vector: list[float]) -> dict[str, object]:
    return {"embed": vector} if handler == "embed_to_db_similar" else dict(event)


def drop_page_cache() -> None:
    """So that files are read from disk, and what is read counts as the memory of who reads it. Takes root."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def starts(function: Function, image: Image, vector: list[float], handlers: list[str]) -> None:
    """Medians. `runtime` is a start with a handler that does nothing."""
    rows: list[tuple[object, ...]] = []
    with tempfile.TemporaryDirectory() as name, Volume.create(image.name) as filled:
        nothing = Path(name, "nothing.py")
        nothing.write_text("def handler(event, context):\n    return {}\n")
        Path(name).chmod(0o755)
        mounted = (f"type=bind,src={nothing},dst=/var/task/nothing.py,readonly",)
        bare = statistics.median(
            start(replace(function, handler="nothing.handler", mounts=mounted), {})[0] for _ in range(ROUNDS)
        )
        job = replace(function, handler="jobs.shelve_state.handler", user=JOBS_USER)
        with Instance(replace(job, volume=filled.name, environment=MODEL_ON_EFS)) as instance:
            instance.invoke({}, 180)
            if not any("models" in path.parts for path in filled.files()):
                raise DockerError(f"the volume was not filled: {instance.log()}")
        for handler in handlers:
            each = replace(function, handler=f"{handler}.handler")
            event = event_of(handler, SHORT, vector)
            for label, prepare, volume, environment in (
                ("image alone, from disk", drop_page_cache, None, {}),
                ("image alone, in memory", lambda: None, None, {}),
                ("state on the shelf, from disk", drop_page_cache, filled.name, SHELF),
                ("state on the shelf, in memory", lambda: None, filled.name, SHELF),
                ("MODEL_ON_EFS, from disk", drop_page_cache, filled.name, MODEL_ON_EFS),
                ("MODEL_ON_EFS, in memory", lambda: None, filled.name, MODEL_ON_EFS),
            ):
                measured = []
                for _ in range(ROUNDS):
                    prepare()
                    measured.append(start(replace(each, volume=volume, environment=environment), event))
                init, first, second = (statistics.median(values) for values in zip(*measured, strict=True))
                rows.append(
                    (
                        f"`{handler}`",
                        label,
                        *map(seconds, (bare, max(0.0, init - bare), first - second, second, init + first)),
                    )
                )
    table(("handler", "files", "runtime s", "import s", "load s", "answer s", "to the first answer s"), *rows)


def start(function: Function, event: dict[str, object]) -> tuple[float, float, float]:
    """Seconds to the first request for an event, for the first answer and for a later one."""
    with Instance(function) as instance:
        init = instance.init_s()
        first = instance.invoke(event).seconds
        return init, first, min(instance.invoke(event).seconds for _ in range(3))


def answers(function: Function, event: dict[str, object]) -> float | None:
    """Seconds that a later answer takes, with the CPU that goes with the memory; None where that does not serve."""
    drop_page_cache()
    try:
        with Instance(replace(function, cpus=cpus(function.memory_mib))) as instance:
            if instance.ask(event, REQUEST_S)["statusCode"] != 200:
                return None
            return statistics.median(instance.invoke(event, REQUEST_S).seconds for _ in range(3))
    except RuntimeApiError:
        return None


def smallest_memory(answers_with: Callable[[int], bool]) -> int:
    """The smallest setting that does, in steps."""
    low, high = 0, CONFIGURED_MIB // STEP_MIB
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if answers_with(middle * STEP_MIB) else (middle, high)
    return high * STEP_MIB


def cpus(memory_mib: int) -> float:
    """What Lambda gives, or what there is."""
    return round(min(memory_mib / FULL_CPU_MIB, float(os.cpu_count() or 1)), 2)


def price(memory_mib: int, seconds_each: float) -> str:
    return f"{1000 * seconds_each * memory_mib / 1024 * LAMBDA_X86_64.usd:.4f}"


def serves_with(function: Function, event: dict[str, object], memory_mib: int) -> bool:
    return answers(replace(function, memory_mib=memory_mib), event) is not None


def memory(function: Function, vector: list[float], handlers: list[str]) -> None:
    rows: list[tuple[object, ...]] = []
    for handler in handlers:
        each = replace(function, handler=f"{handler}.handler")
        event = event_of(handler, LONG, vector)
        drop_page_cache()
        with Instance(each) as instance:
            instance.ask(event, REQUEST_S)
            took = statistics.median(instance.invoke(event, REQUEST_S).seconds for _ in range(3))
            peak = instance.peak_memory()
        smallest = smallest_memory(partial(serves_with, each, event))
        slow = answers(replace(each, memory_mib=smallest), event) or math.nan
        rows.append(
            (
                *(f"`{handler}`", round(peak.resident / (1 << 20)), round(peak.container / (1 << 20))),
                *(seconds(took), price(CONFIGURED_MIB, took), smallest, cpus(smallest)),
                *(seconds(slow), price(smallest, slow)),
            )
        )
    table(
        (
            *("handler", "peak MiB of the process", "with page cache", f"s at {CONFIGURED_MIB} MB", "$ per 1,000"),
            *("smallest MB", "CPUs", "s", "$ per 1,000"),
        ),
        *rows,
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--size", choices=("quick-start", "base"), default="quick-start", help="the model (default quick-start)"
    )
    parser.add_argument("--only", choices=("layers", "starts", "memory"), help="one table (default: all)")
    parser.add_argument(
        "--handlers", nargs="+", choices=HANDLERS, default=list(HANDLERS), help="whose starts and memory (default: all)"
    )
    args = parser.parse_args(argv)
    os.environ.setdefault("RUN_CONTAINER", "1")
    if reason := why_not() or (None if os.geteuid() == 0 else "emptying the page cache takes root"):
        print(f"measure.py: {reason}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as name:
        image = Image.build("similar-incidents-measured:latest", make_context(Path(name), args.size))
    try:
        function = Function(image.name, "similar.handler", CONFIGURED_MIB)
        with Instance(replace(function, handler="text_to_embed.handler")) as instance:
            vector = instance.ask(SHORT)["body"]["embedding"]["vector"]
        if args.only in (None, "layers"):
            layers(image)
        if args.only in (None, "starts"):
            starts(function, image, vector, args.handlers)
        if args.only in (None, "memory"):
            memory(function, vector, args.handlers)
    finally:
        image.remove()
    return 0


if __name__ == "__main__":
    sys.exit(main())
