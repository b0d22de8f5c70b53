"""/health, and `state` in the answers that rank: which state, model and code answer, and whether they could."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import similarity
from exported_reports import set_agreement
from integer_products import int8_on_every_cpu
from lambdas import QUESTION, Image, PassTime, ask, days_ago, start_again, with_titles
from models.export import export
from similarity import service as service_module
from similarity.encoder import model_folder
from similarity.encoder.text_encoder import Encoding, TextEncoder
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.errors import ModelError, StateError
from similarity.incidents.facts import StateFacts
from similarity.incidents.state import IncidentState
from similarity.service import service
from similarity.shelf import served
from tiny import ROOT, Deployed, edit_config, write_tiny_longformer

GET_HEALTH = {"requestContext": {"http": {"method": "GET"}}, "rawPath": "/health"}
FIELDS = ["incidents", "reports", "built_at", "source_date", "model", "version"]
SOURCE = {"kind": "aiid-snapshot", "name": "backup-20261123.tar.bz2", "date": "2026-11-23T10:11:12Z"}
MODEL_GONE = "Error! The model could not be loaded on our side; the cause is in our log."
STATE_GONE = "Error! The incident state could not be loaded on our side; the cause is in our log."


def health() -> tuple[int, dict[str, Any]]:
    """Status and body of an answer of /health."""
    answer = importlib.import_module("health").handler(GET_HEALTH, None)
    envelope = json.loads(answer["body"])
    assert envelope["statusCode"] == answer["statusCode"]
    return answer["statusCode"], envelope["body"]


def healthy() -> dict[str, Any]:
    status, body = health()
    assert status == 200, body
    return body


def version_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def snapshot_state(tiny_state: IncidentState, title: str, built_at: str) -> IncidentState:
    return dataclasses.replace(with_titles(tiny_state, title, built_at), source=SOURCE)


def test_health_names_state_model_and_code(
    deployed: Deployed, tiny_state: IncidentState, tiny_encoder: TorchEncoder
) -> None:
    snapshot_state(tiny_state, "a", "2026-11-24T07:04:05Z").save(deployed.state_path)
    body = healthy()
    assert body == {
        "warnings": [],
        "state": {
            "incidents": 5,
            "reports": 5,
            "built_at": "2026-11-24T07:04:05Z",
            "source_date": "2026-11-23T10:11:12Z",
            "model": "tiny",
            "version": version_of(deployed.state_path),
        },
        "model_fingerprint": tiny_encoder.fingerprint,
        "engine": "onnx",
        "precision": "float32",
        "version": similarity.__version__,
    }
    assert list(body["state"]) == FIELDS


def test_every_answer_that_ranks_has_the_same_state_as_health(deployed: Deployed, tiny_state: IncidentState) -> None:
    snapshot_state(tiny_state, "a", "2026-11-24T07:04:05Z").save(deployed.state_path)
    expected = healthy()["state"]
    for num in (-1, 0, 2):
        for module in ("similar", "text_to_db_similar"):
            assert ask(module, {"text": "robots", "num": num})["state"] == expected
        assert ask("embed_to_db_similar", {"embed": [1.0] * 32, "num": num})["state"] == expected
    assert "state" not in ask("text_to_embed", {"text": "robots"})


def test_what_an_earlier_state_does_not_say_is_null(deployed: Deployed, tiny_state: IncidentState) -> None:
    torch.save([torch.from_numpy(mean[None]) for mean in tiny_state.means], deployed.state_path)
    unknown = {"built_at": None, "source_date": None, "model": None}
    expected = {"incidents": 5, "reports": 5, **unknown, "version": version_of(deployed.state_path)}
    assert ask("similar", QUESTION)["state"] == ask("health", {})["state"] == expected


def test_the_facts_of_a_state_are_gathered_once(deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    ask()
    ask("embed_to_db_similar", {"embed": [1.0] * 32})
    healthy()

    def fails(*_: object) -> StateFacts:
        raise AssertionError("gathered again")

    monkeypatch.setattr(IncidentState, "facts", fails)
    assert ask()["state"] == ask("embed_to_db_similar", {"embed": [1.0] * 32})["state"] == healthy()["state"]


def test_the_state_in_an_answer_is_the_one_that_ranked_although_another_is_served_meanwhile(
    image: Image, tiny_state: IncidentState, pass_time: PassTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    image.shelve(with_titles(tiny_state, "first", days_ago(2)))
    encode = service_module._encode
    during: list[dict[str, Any]] = []

    def encode_while_the_state_changes(encoder: TextEncoder, text: str) -> Encoding:
        if not during:
            image.put(with_titles(tiny_state, "second", days_ago(1)))
            pass_time(served.STALE_S + 1)
            during.append(ask("embed_to_db_similar", {"embed": [1.0] * 32, "num": -1}))
        return encode(encoder, text)

    monkeypatch.setattr(service_module, "_encode", encode_while_the_state_changes)
    answers = [ask(), during[0], ask()]
    assert [{each["title"] for each in answer["incidents"]} for answer in answers] == [
        {"first"},
        {"second"},
        {"second"},
    ]
    first, second, third = (answer["state"]["version"] for answer in answers)
    assert first == version_of(image.state_path)
    assert second == third == healthy()["state"]["version"] != first


def test_health_looks_at_the_shelf_as_the_others_do(
    image: Image, tiny_state: IncidentState, pass_time: PassTime
) -> None:
    image.shelve(with_titles(tiny_state, "image", days_ago(3)))
    assert healthy()["state"]["version"] == version_of(image.state_path)
    newer = image.put(with_titles(tiny_state, "newer", days_ago(2)))
    image.put(dataclasses.replace(with_titles(tiny_state, "other", days_ago(1)), model_fingerprint="0" * 64))
    pass_time(served.STALE_S + 1)
    assert newer.endswith(f"-{healthy()['state']['version']}")
    assert {each["title"] for each in ask()["incidents"]} == {"newer"}
    start_again()
    assert newer.endswith(f"-{healthy()['state']['version']}")


def test_health_loads_and_runs_no_model_and_hashes_no_weights(
    deployed: Deployed, loaded_from: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    read = model_folder.sha256_of

    def hash_and_note(path: Path) -> str:
        hashed.append(path.name)
        return read(path)

    monkeypatch.setattr(model_folder, "sha256_of", hash_and_note)
    handler = importlib.import_module("health").handler
    for event in ({}, {"warm": True}, GET_HEALTH):
        assert handler(event, None)["statusCode"] == 200
    assert loaded_from == []
    assert "model.safetensors" not in hashed


def test_health_reads_the_models_files_once_until_they_change(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    fingerprint = model_folder.ModelFiles.fingerprint

    def read_and_note(files: model_folder.ModelFiles) -> str:
        reads.append(files.folder)
        return fingerprint(files)

    monkeypatch.setattr(model_folder.ModelFiles, "fingerprint", read_and_note)
    healthy()
    before = len(reads)
    assert before
    healthy()
    assert len(reads) == before
    os.utime(deployed.model_dir / "model.safetensors")
    healthy()
    assert len(reads) > before


@pytest.mark.slow
def test_a_process_that_answers_health_imports_neither_engine_nor_boto3(deployed: Deployed) -> None:
    program = """
import sys
import health
assert health.handler({}, None)["statusCode"] == 200
found = {"torch", "onnxruntime", "boto3", "botocore", "similarity.inbox"} & set(sys.modules)
assert not found, found
"""
    environment = {**os.environ, "MODEL_DIR": str(deployed.model_dir), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT / "inference", env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("engine", "precision", "missing", "status"),
    [
        ("onnx", "float32", "encoder.onnx", 503),
        ("onnx", "int8", "encoder.int8.onnx", 503),
        ("onnx", "bfloat16", "", 503),
        ("torch", "float32", "encoder.onnx", 200),
        ("torch", "bfloat16", "encoder.onnx", 200),
        ("torch", "int8", "", 503),
        ("mystery", "float32", "", 503),
    ],
)
def test_health_needs_the_files_of_its_engine(
    engine: str, precision: str, missing: str, status: int, deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENCODER_ENGINE", engine)
    monkeypatch.setenv("ENCODER_PRECISION", precision)
    start_again()
    if missing:
        (deployed.model_dir / missing).unlink(missing_ok=True)
    found, body = health()
    assert found == status
    if status == 200:
        assert (body["engine"], body["precision"]) == (engine, precision)
    else:
        assert body == {"warnings": [], "msg": MODEL_GONE, "code": "model_unavailable"}


def test_a_graph_of_another_model_is_noticed(deployed: Deployed, tmp_path: Path) -> None:
    other = write_tiny_longformer(tmp_path / "other", seed=1)
    for name in ("encoder.onnx", "provenance.json"):
        (other / name).replace(deployed.model_dir / name)
    assert health() == (503, {"warnings": [], "msg": MODEL_GONE, "code": "model_unavailable"})


def test_health_says_that_a_text_is_still_answered(deployed: Deployed, tiny_state: IncidentState) -> None:
    """The local server: what this process has loaded serves on, whatever becomes of the files."""
    before = healthy()
    assert ask()["state"] == before["state"]
    config = deployed.model_dir / "config.json"
    good = config.read_bytes()
    config.write_bytes(b"broken")
    deployed.state_path.write_bytes(b"broken")
    assert healthy() == before
    assert ask()["state"] == before["state"]
    config.write_bytes(good)
    with_titles(tiny_state, "newer").save(deployed.state_path)
    assert healthy()["state"] == ask()["state"] != before["state"]


def test_health_names_the_model_that_answers_while_the_folder_has_another(deployed: Deployed) -> None:
    before = healthy()
    assert ask()["state"] == before["state"]
    edit_config(deployed.model_dir, query_prefix="query: ")
    export(deployed.model_dir)
    assert ask()["state"] == before["state"]
    assert healthy() == before


@pytest.mark.parametrize("missing", ["model.safetensors", "encoder.onnx"])
def test_health_says_that_a_text_is_no_longer_answered(missing: str, deployed: Deployed) -> None:
    """Nothing was loaded before the files went, so nothing serves on."""
    healthy()
    (deployed.model_dir / missing).unlink()
    assert health() == (503, {"warnings": [], "msg": MODEL_GONE, "code": "model_unavailable"})
    assert importlib.import_module("similar").handler({"text": "a"}, None)["statusCode"] == 503


def test_priming_and_warming_fail_where_a_text_could_not_be_answered(
    deployed: Deployed, caplog: pytest.LogCaptureFixture
) -> None:
    handler = importlib.import_module("health").handler
    deployed.state_path.write_bytes(b"broken")
    for event in ({}, {"warm": True}):
        with pytest.raises(StateError):
            handler(event, None)
    assert "not ready" in caplog.text
    assert health() == (503, {"warnings": [], "msg": STATE_GONE, "code": "state_unavailable"})
    (deployed.model_dir / "config.json").unlink()
    service.cache_clear()
    for event in ({}, {"warm": True}):
        with pytest.raises(ModelError):
            handler(event, None)


@pytest.fixture
def in_int8(deployed: Deployed, tiny_state: IncidentState, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployed]:
    """The handlers serve int8, which agrees."""
    with int8_on_every_cpu(monkeypatch):
        export(deployed.model_dir, "int8", state=tiny_state)
        set_agreement(deployed.model_dir, "int8", cosine=1.0, centered=1.0)
        monkeypatch.setenv("ENCODER_PRECISION", "int8")
        start_again()
        yield deployed


@pytest.mark.parametrize("setting", ["int8", "auto"])
def test_the_precision_is_known_before_the_model_is_loaded(
    setting: str, in_int8: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENCODER_PRECISION", setting)
    start_again()
    assert healthy()["precision"] == "int8"
    ask()
    assert healthy()["precision"] == "int8"
    # Another CPU, and a process that has just started there.
    with monkeypatch.context() as patch:
        patch.setattr("similarity.encoder.loading.lack_of", lambda _: "this CPU lacks it")
        start_again()
        assert healthy()["precision"] == "float32"
        ask()
        assert healthy()["precision"] == "float32"


@pytest.mark.parametrize("setting", ["int8", "auto"])
@pytest.mark.parametrize("name", ["encoder.onnx", "encoder.int8.onnx"])
def test_one_graph_is_enough(name: str, setting: str, in_int8: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCODER_PRECISION", setting)
    (in_int8.model_dir / name).write_bytes(b"damaged")
    start_again()
    assert health()[0] == 200
    ask()
    assert healthy()["precision"] == ("int8" if name == "encoder.onnx" else "float32")
    (in_int8.model_dir / "encoder.onnx").write_bytes(b"damaged")
    (in_int8.model_dir / "encoder.int8.onnx").write_bytes(b"damaged")
    start_again()
    assert health()[0] == 503


def test_only_loading_shows_damage_and_a_new_export_needs_no_restart(
    in_int8: Deployed, caplog: pytest.LogCaptureFixture
) -> None:
    weights = in_int8.model_dir / "encoder.int8.bin"
    weights.write_bytes(bytes(weights.stat().st_size))
    assert healthy()["precision"] == "int8"
    for _ in range(3):
        ask()
    assert healthy()["precision"] == "float32"
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == ["float32 serves"]
    export(in_int8.model_dir, "int8")
    ask()
    assert healthy()["precision"] == "int8"


def test_a_process_that_serves_int8_goes_on_without_its_files(in_int8: Deployed) -> None:
    before = ask()
    (in_int8.model_dir / "encoder.int8.bin").unlink()
    assert ask() == before
    assert healthy()["precision"] == "int8"
    start_again()
    assert health() == (503, {"warnings": [], "msg": MODEL_GONE, "code": "model_unavailable"})


def test_auto_changes_with_the_agreement_without_a_restart(in_int8: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCODER_PRECISION", "auto")
    start_again()
    ask()
    assert healthy()["precision"] == "int8"
    set_agreement(in_int8.model_dir, "int8", centered=0.99)
    ask()
    assert healthy()["precision"] == "float32"
