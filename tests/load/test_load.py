"""The local server under load, on this machine alone: what it answers, and how much memory it takes.

No time is asserted. The times of a run are printed at the end of pytest's output, and docs/operations.md has some. A
longer run, in seconds: LOAD_S=600 scripts/test tests/load
"""

from __future__ import annotations

import json
import os
import sys
import time
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import unquote

import pytest

from chain.deployment import LOOKING_OFTEN
from load.callers import asking
from load.figures import by_length, by_status
from load.idle import idle_connections
from load.memory import LEVEL_S, levels_kb, watching
from load.mixture import LONGEST, mixture, text_of
from load.shelving import make_image, shelving, state_as_large_as_aiids
from local import server as local_server
from processes import wait_until
from serving import serving
from similarity.encoder.loading import load_encoder
from similarity.errors import ModelError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's memory in /proc")

CALLERS, IDLE = 8, 200
WARM_UP_S = 20.0
MEASURED_S = float(os.environ.get("LOAD_S") or 60)
# What the server may take in addition after the warm-up.
MOST_GROWTH_KB = 20_000
# The job keeps three states that are old.
MOST_ON_SHELF = 5


@pytest.fixture(scope="module")
def quick_start() -> tuple[Path, Path]:
    """The folder of the quick-start model, and the sample's state: those of scripts/serve, which makes them once."""
    try:
        model_dir = local_server.quick_start_model()
    except ModelError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"{error.detail} (pip may not reach its index here)")
    return model_dir, local_server.sample_state(model_dir)


def test_one_request_in_ten_is_malformed() -> None:
    asks = list(islice(mixture(0, 384), 300))
    assert [sum(ask.status != 200 for ask in asks[start : start + 10]) for start in range(0, 300, 10)] == [1] * 30


@pytest.mark.slow
def test_the_requests_are_as_long_as_they_say(quick_start: tuple[Path, Path]) -> None:
    encoder = load_encoder(quick_start[0])
    asks = list(islice(mixture(0, encoder.dimension), 300))
    for ask in asks:
        if ask.tokens:
            text = json.loads(ask.body)["text"] if ask.body else unquote(ask.path.partition("text=")[2])
            assert encoder.tokenizer(text).came == ask.tokens <= LONGEST == encoder.max_tokens


@pytest.mark.slow
def test_load_is_answered_and_takes_no_more_memory(
    quick_start: tuple[Path, Path], tmp_path: Path, record_property: Any
) -> None:
    model_dir, state_path = quick_start
    image, shelf = make_image(model_dir, state_as_large_as_aiids(state_path), tmp_path / "image"), tmp_path / "shelf"
    options = ("--model", model_dir, "--state", state_path)
    with (
        serving(tmp_path, *options, program=(LOOKING_OFTEN,), variables={"SHELF_DIR": str(shelf)}) as server,
        shelving(image, shelf, tmp_path) as states,
        idle_connections(server.port, IDLE) as idle,
    ):
        # The memory for one text of this length belongs to the server, that for eight at once doesn't.
        embedded = server.post("/text-to-embed", text=text_of(LONGEST, Random(0))).json()["body"]
        vector = embedded["embedding"]["vector"]
        with asking(server.url, len(vector), CALLERS) as callers:
            time.sleep(WARM_UP_S - LEVEL_S)
            wait_until(lambda: len(callers.answered) >= 10 * CALLERS, "the warm-up")
            with watching(server.process.pid) as warm_kb:
                time.sleep(LEVEL_S)
            with watching(server.process.pid) as memory_kb:
                start_s = time.monotonic()
                time.sleep(MEASURED_S)
                measured = callers.between(start_s, time.monotonic())
        wait_until(lambda: server.get("/health").json()["body"]["state"]["version"] == states.versions[-1], "a look")
    warm, levels = levels_kb(warm_kb)[0], levels_kb(memory_kb)
    summed_up = (
        f"{CALLERS} callers, {IDLE} silent connections, {MEASURED_S:g} s after a warm-up of {WARM_UP_S:g} s:\n\n"
        f"{by_length(measured)}\n\nBy status: {by_status(measured)}. "
        f"States served: {len(callers.versions)} of {len(states.versions)}. "
        f"Memory: {warm:,} kB after the warm-up, {levels[-1]:,} kB at the end, for a moment {max(memory_kb):,} kB."
    )
    record_property("figures", summed_up)
    assert callers.wrong == []
    assert {each.ask.status for each in measured} >= {200, 400}
    assert idle.trouble == []
    assert idle.opened >= IDLE
    assert states.wrong == []
    assert states.removed
    assert len(states.on_shelf) <= MOST_ON_SHELF
    assert "Traceback" not in server.output
    assert max(levels) - warm <= MOST_GROWTH_KB, levels
