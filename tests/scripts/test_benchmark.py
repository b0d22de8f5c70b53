"""The benchmark: its count of the arithmetic against one by hand, and that each kind runs and says what it promises."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import benchmark
from benchmark import main, plot, print_rows, require_alike
from benchmarks.inputs import aiid_lengths, random_model
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


# Stands in for sentence-transformers. It also prints, and it notes the options and the environment of each model.
SENTENCE_TRANSFORMERS = """
import os, torch
from transformers import AutoModel

def _note(backend, folder):
    print("loaded")
    with open(os.environ["NOTES"], "a") as file:
        file.write(f"{backend} {os.path.basename(folder)} {os.environ.get('ITS_OWN', 'ours')}\\n")

class SentenceTransformer(torch.nn.Module):
    def __init__(self, folder="", *, backend="", device, modules=()):
        super().__init__()
        if folder:
            _note(backend, folder)
        self.model = modules[0].model if modules else AutoModel.from_pretrained(folder)

    def forward(self, features):
        print("encoding")
        return {"sentence_embedding": self.model(**features).last_hidden_state[:, 0]}

class models:
    class Transformer:
        def __init__(self, folder, *, backend):
            _note(backend, folder)
            self.model = AutoModel.from_pretrained(folder)

        def get_embedding_dimension(self):
            return self.model.config.hidden_size

    @staticmethod
    def Pooling(dimension, mode):
        assert mode == "cls"
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in is installed. Returns the file of its notes."""
    packages = tmp_path / "packages"
    (packages / "optimum").mkdir(parents=True)
    (packages / "optimum" / "onnxruntime.py").touch()
    (packages / "sentence_transformers.py").write_text(SENTENCE_TRANSFORMERS)
    monkeypatch.setenv("PYTHONPATH", str(packages))
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    return tmp_path / "notes"


@pytest.mark.slow
@pytest.mark.parametrize("package", ["stand-in", "real"])
def test_encoder_compares_with_sentence_transformers(
    package: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    if package == "stand-in":
        request.getfixturevalue("stand_in")
    elif importlib.util.find_spec("sentence_transformers") is None:
        pytest.skip("needs sentence-transformers: pip install -r scripts/benchmarks/requirements.txt")
    arguments = ["--size", "small", "--tokens", "5", "300", "--backends", "torch", "sentence-transformers"]
    rows = run(capsys, "encoder", *arguments)
    for row in rows:
        assert row["cosine sentence-transformers"] == pytest.approx(1, abs=1e-5)
        ratio = row["sentence-transformers s"] / row["torch s"]
        assert row["sentence-transformers / torch"] == pytest.approx(ratio)
    [row] = run(capsys, "memory", "--size", "small", "--tokens", "5", "--backends", "sentence-transformers")
    assert row["sentence-transformers MiB"] > 10


@pytest.mark.slow
def test_its_onnx_backend_runs_the_encoder_in_another_environment(
    stand_in: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with random_model("small") as folder:
        model, encoder = (shutil.copytree(folder, tmp_path / name) for name in ("model", "encoder"))
    (encoder / "modules.json").write_text("[]")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nITS_OWN=theirs exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    backends = ["--backends", "torch", "sentence-transformers", "sentence-transformers onnx"]
    arguments = ["--model", str(model), "--encoder", str(encoder), "--peer-python", str(python), "--tokens", "9"]
    [row] = run(capsys, "encoder", *arguments, *backends)
    assert row["cosine sentence-transformers onnx"] == pytest.approx(1, abs=1e-5)
    assert row["sentence-transformers onnx s"] > 0
    assert stand_in.read_text().splitlines() == ["torch encoder ours", "onnx encoder theirs"]


@pytest.mark.slow
def test_a_backend_that_ends_is_said(
    stand_in: Path, tmp_path: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(tiny_model_dir, tmp_path / "model")
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    (encoder / "config.json").write_text('{"max_position_embeddings": 60}')
    arguments = ["--model", str(model), "--encoder", str(encoder), "--tokens", "9"]
    assert main(["encoder", *arguments, "--backends", "torch", "sentence-transformers"]) == 1
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", "benchmark: the process of a backend ended; the lines above say why\n")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["sentence-transformers onnx"], "name another encoder with --encoder"),
        (["sentence-transformers", "--encoder", "MODEL"], "--encoder needs --model"),
        (["sentence-transformers", "--model", "MODEL", "--encoder", "nowhere"], "isn't a folder with the config.json"),
        (["sentence-transformers", "--model", "MODEL", "--encoder", "MODEL", "--tokens", "999"], "takes at most 130 "),
        (["sentence-transformers onnx", "--peer-python", "nowhere"], "isn't installed for nowhere"),
    ],
)
def test_bad_arguments_for_sentence_transformers_exit_with_2(
    arguments: list[str], reason: str, stand_in: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["encoder", "--backends", *(str(tiny_model_dir) if each == "MODEL" else each for each in arguments)])
    assert caught.value.code == 2
    assert reason in capsys.readouterr().err
    assert not stand_in.exists()


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
def test_ranking_compares_each_metric_with_the_original_and_with_numpy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "ORIGINAL_LIMIT", 20)
    rows = run(capsys, "ranking", "--incidents", "20", "21")
    metrics = ["cosine", "centered", "whitened", "hybrid, 34 words", "hybrid, 190 words"]
    assert [(row["incidents"], row["metric"]) for row in rows] == [
        *((20, metric) for metric in metrics),
        *((21, metric) for metric in metrics),
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


def test_the_table_has_every_column(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([{"incidents": 1400, "metric": "cosine"}, {"incidents": 20.0, "original ms": 0.12345}])
    assert capsys.readouterr().out == (
        "| incidents | metric | original ms |\n|---|---|---|\n| 1,400 | cosine | – |\n| 20 | – | 0.123 |\n"  # noqa: RUF001
    )


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


def test_int8_on_a_cpu_without_it_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmark.lack_of", {"int8": "this CPU lacks int8"}.get)
    assert main(["encoder", "--size", "small", "--backends", "onnx", "onnx int8"]) == 1
    assert capsys.readouterr() == ("", "benchmark: onnx int8 can't be measured: this CPU lacks int8\n")


@pytest.mark.slow
def test_a_cpu_without_int8_measures_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmark.lack_of", {"int8": "this CPU lacks int8"}.get)
    with random_model("small") as folder:
        [row] = run(capsys, "memory", "--model", str(folder), "--tokens", "5", "--backends", "onnx")
        assert row["onnx MiB"] > 0
        assert (folder / "encoder.onnx").exists()
        assert not (folder / "encoder.int8.onnx").exists()
