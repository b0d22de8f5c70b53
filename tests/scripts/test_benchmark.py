"""The benchmark: its count of the arithmetic against one by hand, and that each kind runs and says what it promises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmark import main, plot, require_alike
from benchmarks.inputs import aiid_lengths
from benchmarks.limits import arithmetic, weight_bytes
from benchmarks.worker import Worker
from similarity.encoder.config import LongformerConfig
from tiny import ROOT


@pytest.fixture(autouse=True)
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only times need the other backends' threads to have stopped."""
    monkeypatch.setattr(Worker, "SETTLE_S", 0.0)


def config(windows: tuple[int, ...], hidden_size: int = 4) -> LongformerConfig:
    return LongformerConfig(
        hidden_size=hidden_size,
        num_hidden_layers=len(windows),
        num_attention_heads=2,
        attention_window=windows,
        hidden_act="gelu",
        layer_norm_eps=1e-5,
        pad_token_id=1,
        max_position_embeddings=66,
    )


def test_arithmetic_of_one_layer_is_that_counted_by_hand() -> None:
    # Half a window of 2: the CLS token sees 3 of 10 positions. Keys and values: 3 positions x 2 products of 4 x 4.
    # Query and output: 1 x 2 x 4 x 4. Scores and values: 1 x 3 pairs x 4, twice. Feed-forward: 1 x 4 x 5, twice.
    products = 3 * 2 * 16 + 1 * 2 * 16 + 2 * 3 * 4 + 2 * 20
    assert arithmetic(10, config((4,)), 5) == 2 * products


def test_arithmetic_of_two_layers_adds_the_positions_that_the_last_one_needs() -> None:
    # The last layer needs positions 0 to 2 of the first, which need 0 to 4: queries 0, 1, 2 see 3, 4 and 5 of them.
    first = 5 * 2 * 16 + 3 * 2 * 16 + 2 * (3 + 4 + 5) * 4 + 2 * 3 * 20
    last = arithmetic(10, config((4,)), 5) / 2
    assert arithmetic(10, config((4, 4)), 5) == 2 * (first + last)


def test_short_texts_have_no_more_positions_than_tokens() -> None:
    products = 2 * 2 * 16 + 1 * 2 * 16 + 2 * 2 * 4 + 2 * 20
    assert arithmetic(2, config((4,)), 5) == 2 * products


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert main([*arguments, "--rounds", "1", "--json"]) == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return rows


def test_the_weights_of_a_layer_are_those_counted_by_hand() -> None:
    # Query, key, value and output are 4 x 4 each, the feed-forward part is 4 x 5 and 5 x 4; a float32 has 4 bytes.
    assert weight_bytes(config((4, 4)), 5) == 2 * 4 * (4 * 16 + 2 * 20)


@pytest.mark.slow
def test_encoder_compares_with_transformers(capsys: pytest.CaptureFixture[str]) -> None:
    rows = run(
        capsys, "encoder", "--size", "small", "--tokens", "5", "300", "--backends", "torch", "onnx", "transformers"
    )
    assert [row["tokens"] for row in rows] == [5, 300]
    for row in rows:
        assert 0 < row["largest error"] < 1e-5
        assert row["transformers / torch"] == pytest.approx(row["transformers s"] / row["torch s"])
        assert row["onnx / torch"] == pytest.approx(row["onnx s"] / row["torch s"])
        assert row["torch / limit"] > 0
        assert row["share of GEMM"] > 0


@pytest.mark.slow
def test_build_compares_with_transformers(capsys: pytest.CaptureFixture[str]) -> None:
    [row] = run(capsys, "build", "--size", "small", "--texts", "3")
    assert row["tokens"] == sum(aiid_lengths(3))
    expected = row["torch tokens/s"] / row["transformers tokens/s"]
    assert row["transformers / torch"] == pytest.approx(expected)


def test_lengths_are_distributed_as_aiids() -> None:
    lengths = sorted(aiid_lengths(5000))
    assert 650 < lengths[2500] < 750
    assert lengths[-1] == 4096


@pytest.mark.slow
def test_cold_start_compares_with_transformers(capsys: pytest.CaptureFixture[str]) -> None:
    [row] = run(capsys, "coldstart", "--size", "small")
    assert row["onnx / transformers"] == pytest.approx(row["onnx s"] / row["transformers s"])
    assert row["embed-to-db-similar s"] > 0


@pytest.mark.slow
def test_calls_compares_one_call_with_two(capsys: pytest.CaptureFixture[str]) -> None:
    short, long = run(capsys, "calls", "--size", "small", "--tokens", "5", "300")
    assert (short["tokens"], long["tokens"]) == (5, 300)
    for row in (short, long):
        assert row["two / one"] == pytest.approx(row["two ms"] / row["one ms"])
        assert row["cold two / one"] == pytest.approx(row["cold two s"] / row["cold one s"])
        # Medians of one round, so that the parts add up.
        assert 0 < row["second ms"] < row["two ms"]
        assert 0 < row["cold second s"] < row["cold two s"]


@pytest.mark.slow
def test_calls_that_give_different_answers_are_not_compared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.calls._one", lambda text: {"text": text, "num": 1, "embedding": True})
    with pytest.raises(AssertionError, match="different answers"):
        run(capsys, "calls", "--size", "small", "--tokens", "5")


@pytest.mark.slow
def test_memory_grows_with_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    short, long = run(capsys, "memory", "--size", "small", "--tokens", "4096", "5", "--backends", "onnx")
    assert (short["tokens"], long["tokens"]) == (5, 4096)
    assert 10 < short["onnx MiB"] < long["onnx MiB"]


def test_a_worker_has_no_engine_in_memory_but_its_own() -> None:
    """Python imports the module that was started, `benchmark`, in the processes of its workers too."""
    program = "import sys, benchmark; print({'torch', 'transformers', 'onnx', 'onnxruntime'} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.slow
def test_ranking_compares_each_metric_with_the_original_and_with_numpy(capsys: pytest.CaptureFixture[str]) -> None:
    rows = run(capsys, "ranking", "--incidents", "20", "10001")
    metrics = ["cosine", "centered", "whitened", "hybrid, 34 words", "hybrid, 190 words"]
    assert [(row["incidents"], row["metric"]) for row in rows] == [
        *((20, metric) for metric in metrics),
        *((10_001, metric) for metric in metrics),
    ]
    for row in rows:
        assert row["ours / numpy"] == pytest.approx(row["ours ms"] / row["numpy ms"])
        assert row["ours / read once"] == pytest.approx(row["ours ms"] / row["read once ms"])
        assert row["unsure / numpy"] == pytest.approx(row["unsure ms"] / row["numpy ms"])
    assert [row["incidents"] for row in rows if "original ms" in row] == [20]
    assert rows[0]["original / ours"] == pytest.approx(rows[0]["original ms"] / rows[0]["ours ms"])


def test_rankings_that_differ_are_not_compared() -> None:
    found = [(3, 0.9), (1, 0.5)]
    require_alike(found, [(3, 0.9 + 1e-8), (1, 0.5)], [3, 1])
    for other, ids in (
        ([(3, 0.9001), (1, 0.5)], None),
        ([(1, 0.9), (3, 0.5)], None),
        ([(3, 0.9)], None),
        (found, [1, 3]),
    ):
        with pytest.raises(AssertionError, match="different incidents"):
            require_alike(found, other, ids)


@pytest.mark.slow
def test_state_compares_with_torch(capsys: pytest.CaptureFixture[str]) -> None:
    small, large = run(capsys, "state", "--incidents", "20", "20000")
    assert small["torch load / load"] == pytest.approx(small["torch load s"] / small["load s"])
    vectors_mb = 20_000 * 768 * 4 / 1e6
    assert vectors_mb < large["file MB"] < 1.1 * vectors_mb
    # The process that answers has the vectors twice: as they were loaded, and as unit vectors.
    vectors_mib = vectors_mb * 1e6 / 2**20
    assert large["load peak MiB"] - small["load peak MiB"] > 0.9 * vectors_mib
    assert large["query peak MiB"] - small["query peak MiB"] > 1.9 * vectors_mib
    for row in (small, large):
        assert min(row["save s"], row["first cosine s"], row["first centered s"]) > 0


@pytest.mark.slow
def test_the_table_has_every_column(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ranking", "--incidents", "10001", "20", "--rounds", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert "original ms" in lines[0]
    assert [line.count("–") for line in lines[2:]] == [2] * 5 + [0] + [2] * 4  # noqa: RUF001


def test_a_plot_is_a_png_with_every_backend(tmp_path: Path) -> None:
    row = {"tokens": 8.0, "torch s": 0.1, "onnx s": 0.2, "torch / limit": 1.5}
    plot([row, {**row, "tokens": 16.0}], tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "arguments", [["encoder", "--rounds", "0"], ["ranking", "--incidents", "3"], ["encoder", "--model", "nowhere"]]
)
def test_bad_arguments_exit_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
