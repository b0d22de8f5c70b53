"""Older CPUs, which QEMU emulates: they serve float32 and say why, and the self-test notices wrong products.

Haswell saturates where it adds products of 8-bit integers. Nehalem has other instructions, whose sums are exact.
The tests run where RUN_EMULATION=1 is set. They need qemu-x86_64, of Debian's package qemu-user.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from exported_reports import set_agreement
from integer_products import int8_on_every_cpu
from longformers import save_longformer
from models.export import export
from processes import PATIENCE_S
from reference import TOLERANCE, load_longformer, reference_of_text
from similarity.encoder.loading import load_encoder
from similarity.vectors import Vector
from tiny import ROOT, TINY_TEXTS, contents, state_of_texts

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.environ.get("RUN_EMULATION") != "1",
        reason="takes half a minute and QEMU: RUN_EMULATION=1 scripts/test -k emulation",
    ),
    pytest.mark.skipif(
        platform.machine() not in ("x86_64", "AMD64"),
        reason="the packages here are for another kind of CPU than x86-64",
    ),
]

CPUS = ("Haswell", "Nehalem")
TEXT = "A robot in a warehouse hurt workers."
NO_INT8 = "this CPU doesn't multiply int8 natively: it has neither AVX-512 VNNI"


def emulated(cpu: str, script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A Python script on a CPU. Processes that it starts would run on the machine's own."""
    qemu = shutil.which("qemu-x86_64")
    assert qemu, "there is no qemu-x86_64; Debian's package qemu-user has it"
    paths = (str(ROOT / name) for name in ("inference", "scripts"))
    return subprocess.run(
        [qemu, "-cpu", cpu, sys.executable, str(script), *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def errors_of(ran: subprocess.CompletedProcess[str]) -> list[str]:
    """What the script wrote to stderr. QEMU warns about instructions that it doesn't emulate."""
    return [line for line in ran.stderr.splitlines() if not line.startswith("qemu-x86_64: warning:")]


@dataclass(frozen=True)
class Model:
    """A model in float32 and int8, and TEXT's vectors: transformers', and int8's with exact products."""

    folder: Path
    float32: Vector
    int8: Vector


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("model")
    _, encoder = save_longformer(folder, num_hidden_layers=3)
    with pytest.MonkeyPatch.context() as patch, int8_on_every_cpu(patch):
        report = export(folder, "int8", state=state_of_texts(encoder, TINY_TEXTS))
        assert report.agreement is not None
        int8 = load_encoder(folder, precision="int8").encode(TEXT).vector
    # So that auto would take it.
    set_agreement(folder, "int8", cosine=1.0, centered=1.0)
    expected = reference_of_text(load_longformer(folder, pooler=True), folder, TEXT)
    return Model(folder, expected.numpy(), int8)


@pytest.fixture(scope="module", params=CPUS)
def cpu(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def served(cpu: str, model: Model) -> dict[str, Any]:
    """What `emulated.py` found."""
    ran = emulated(cpu, Path(__file__).with_name("emulated.py"), str(model.folder), TEXT)
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def cosine(one: Vector, other: Vector) -> float:
    return float(torch.cosine_similarity(torch.from_numpy(one).double(), torch.from_numpy(other).double(), dim=0))


def test_float32_is_that_of_transformers(served: dict[str, Any], model: Model) -> None:
    assert served["float32"]["precision"] == "float32"
    assert served["float32"]["log"] == []
    assert np.abs(np.array(served["float32"]["vector"]) - model.float32).max() <= TOLERANCE


@pytest.mark.parametrize(("setting", "level"), [("int8", "WARNING"), ("auto", "INFO")])
def test_float32_serves_in_place_of_int8_and_says_why(setting: str, level: str, served: dict[str, Any]) -> None:
    found = served[setting]
    assert found["precision"] == "float32"
    assert found["vector"] == served["float32"]["vector"]
    [(logged, message, reason)] = found["log"]
    assert (logged, message) == (level, "float32 serves")
    assert reason.startswith(NO_INT8)


def test_outside_of_serving_int8_is_refused(served: dict[str, Any]) -> None:
    assert served["strict"].startswith(NO_INT8)


def test_the_self_test_alone_tells_wrong_products(cpu: str, served: dict[str, Any], model: Model) -> None:
    found = served["forced"]
    if cpu == "Haswell":
        assert found["precision"] == "float32"
        [(level, _, reason)] = found["log"]
        assert level == "WARNING"
        assert "fails its self-test in int8" in reason
        assert "its vector differs from the exported one" in reason
        assert found["vector"] == served["float32"]["vector"]
    else:
        assert (found["precision"], found["log"]) == ("int8", [])
        assert cosine(np.array(found["vector"], np.float32), model.int8) >= 0.9999


def test_the_export_refuses_int8_with_the_reason(model: Model) -> None:
    before = contents(model.folder)
    ran = emulated("Haswell", ROOT / "scripts" / "export_onnx.py", str(model.folder), "--precision", "int8")
    assert (ran.returncode, ran.stdout) == (1, "")
    [line] = errors_of(ran)
    assert line.startswith(f"export_onnx: {NO_INT8}")
    assert line.endswith("; export on another machine")
    assert contents(model.folder) == before


def test_the_benchmark_refuses_int8_with_the_reason(model: Model) -> None:
    arguments = ("encoder", "--model", str(model.folder), "--tokens", "5", "--backends", "onnx", "onnx int8")
    ran = emulated("Haswell", ROOT / "scripts" / "benchmark.py", *arguments)
    assert (ran.returncode, ran.stdout) == (1, "")
    [line] = errors_of(ran)
    assert line.startswith(f"benchmark: onnx int8 can't be measured: {NO_INT8}")
