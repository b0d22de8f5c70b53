"""Model, graph and state before a deployment: there, missing, broken, and of different origin."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deployment.findings import Finding, Outcome, not_checked, ok, problem
from deployment.given import Given
from deployment.machine.model import BUILD, BUILD_SAMPLE, FETCH, QUICK_START, QUICK_START_NAME, model_findings
from lambdas import days_ago
from models.export import export
from models.install_files import STAGING_PREFIX
from models.quick_start import MODEL as QUICK_START_MODEL
from similarity.encoder.model_folder import INSTALLING_DIRNAME, ModelFiles
from similarity.encoder.reports import Agreement, Report
from similarity.incidents.state import IncidentState
from similarity.settings import DEFAULT_MODEL_URI

EXPORT = "python scripts/export_onnx.py inference/model"
EXPORT_INT8 = f"{EXPORT} --precision int8"
AGREES = Agreement(cosine=0.999, centered=0.996, smallest_cosine=0.9995, texts=989)
ACCOUNT = {"AWS_ACCOUNT_ID": "123456789012", "AWS_REGION": "eu-west-1"}


@pytest.fixture
def model_dir(tiny_model_dir: Path, tiny_state: IncidentState, tmp_path: Path) -> Path:
    """The folder of a project's model, with a state."""
    folder = tmp_path / "inference" / "model"
    shutil.copytree(tiny_model_dir, folder)
    tiny_state.save(folder / "incident_cls.pt")
    return folder


def findings(model_dir: Path, **settings: str) -> list[Finding]:
    return list(model_findings(Given.read({**ACCOUNT, **settings}, model_dir.parents[1])))


def by_name(model_dir: Path, **settings: str) -> dict[str, Finding]:
    """Of those that aren't notes."""
    return {found.name: found for found in findings(model_dir, **settings) if found.outcome is not Outcome.NOTE}


def call(model_dir: Path, name: str) -> None:
    """Gives the model another name."""
    path = model_dir / "provenance.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model": name}))


def flip_last_byte(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def write_hash(model_dir: Path, **hashes: object) -> None:
    path = model_dir / "provenance.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **hashes}))


def put_int8(model_dir: Path, agreement: Agreement | None) -> None:
    """What an export leaves, whatever this machine's CPU. The graph is a stand-in; nothing here runs it."""
    report = Report(np.array([0, 2]), np.ones(8, np.float32), 0.1, agreement)
    contents = {
        "encoder.int8.onnx": ModelFiles(model_dir).fingerprint(),
        "encoder.int8.bin": "weights",
        "encoder.int8.json": json.dumps(report.to_json()),
    }
    hashes = ModelFiles(model_dir).graph_sha256()
    for name, content in contents.items():
        (model_dir / name).write_text(content)
        hashes[name] = hashlib.sha256(content.encode()).hexdigest()
    write_hash(model_dir, graph_sha256=hashes)


def test_all_of_it_is_there_and_fits(model_dir: Path) -> None:
    assert findings(model_dir) == [
        ok("Model", "tiny, 0 MB"),
        ok("Graph", "encoder.onnx fits the model"),
        ok("State", "5 incidents of unknown data, built at an unknown time"),
    ]


def test_nothing_is_there(tmp_path: Path) -> None:
    (tmp_path / "inference").mkdir()
    assert findings(tmp_path / "inference" / "model") == [
        problem(
            "Model",
            "there is no model in inference/model",
            f"{FETCH}\nor, for the small quick-start model: {QUICK_START}",
        ),
        not_checked("Graph", "it needs a usable model"),
        problem("State", "there is no state inference/model/incident_cls.pt", BUILD),
    ]


# The model


def test_the_quick_start_model_is_ok_and_its_state_is_that_of_the_sample(model_dir: Path) -> None:
    assert f"{QUICK_START_MODEL} as Longformer" == QUICK_START_NAME
    call(model_dir, QUICK_START_NAME)
    (model_dir / "incident_cls.pt").unlink()
    found = by_name(model_dir)
    assert found["Model"] == ok("Model", f"{QUICK_START_NAME}, 0 MB")
    assert found["State"].remedy == BUILD_SAMPLE


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        (QUICK_START_NAME, QUICK_START),
        (DEFAULT_MODEL_URI, FETCH),
        ("my own", f"install my own again (docs/models.md)\nor {FETCH}"),
    ],
)
def test_a_model_that_was_changed_is_installed_again(name: str, remedy: str, model_dir: Path) -> None:
    write_hash(model_dir, weights_sha256="0" * 64)
    call(model_dir, name)
    found = by_name(model_dir)
    assert found["Model"].is_problem
    assert found["Model"].detail.startswith("inference/model/model.safetensors isn't the file that was installed")
    assert found["Model"].remedy == remedy
    assert found["Graph"].outcome is Outcome.NOT_CHECKED
    assert found["State"].outcome is Outcome.NOT_CHECKED


Break = Callable[[Path], object]


@pytest.mark.parametrize(
    ("break_model", "detail"),
    [
        (lambda folder: (folder / "config.json").write_text("{"), "inference/model/config.json: it isn't JSON"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "inference/model/tokenizer.json"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "inference/model/tokenizer.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "there is no file inference/model/model.safetensors"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"cut off"), "inference/model/model.safetensors"),
        (lambda folder: (folder / "provenance.json").write_text("["), "inference/model/provenance.json: it isn't JSON"),
    ],
)
def test_a_broken_model_is_a_problem(break_model: Break, detail: str, model_dir: Path) -> None:
    break_model(model_dir)
    found = by_name(model_dir)["Model"]
    assert found.is_problem
    assert detail in found.detail
    assert str(model_dir) not in found.detail
    assert FETCH in found.remedy


def test_a_link_to_the_model_will_do(model_dir: Path) -> None:
    model_dir.rename(model_dir.parents[1] / "elsewhere")
    model_dir.symlink_to("../elsewhere")
    assert {found.outcome for found in findings(model_dir)} == {Outcome.OK}


def test_a_link_that_leads_nowhere_is_a_problem_that_says_so(model_dir: Path) -> None:
    shutil.rmtree(model_dir)
    model_dir.symlink_to("../gone")
    assert findings(model_dir)[0] == problem(
        "Model",
        "inference/model is a symbolic link to ../gone, which isn't there",
        f"rm inference/model\nthen {FETCH}",
    )


@pytest.mark.parametrize(
    ("name", "finding", "command"),
    [
        ("model.safetensors", "Model", f"install tiny again (docs/models.md)\nor {FETCH}"),
        ("encoder.onnx", "Graph", EXPORT),
        ("incident_cls.pt", "State", BUILD),
    ],
)
def test_so_is_such_a_link_in_the_folder(name: str, finding: str, command: str, model_dir: Path) -> None:
    (model_dir / name).unlink()
    (model_dir / name).symlink_to("gone")
    assert by_name(model_dir)[finding] == problem(
        finding,
        f"inference/model/{name} is a symbolic link to gone, which isn't there",
        f"rm inference/model/{name}\nthen {command}",
    )


def test_an_interrupted_installation_is_finished_by_the_remedy(model_dir: Path) -> None:
    # As a kill leaves it after the first of the files has moved.
    (model_dir / INSTALLING_DIRNAME).mkdir()
    for name in ("encoder.onnx", "tokenizer.json", "config.json", "provenance.json"):
        (model_dir / name).rename(model_dir / INSTALLING_DIRNAME / name)
    found = by_name(model_dir)
    assert found["Model"] == problem("Model", "an installation in inference/model was stopped halfway", EXPORT)
    assert found["State"].outcome is Outcome.NOT_CHECKED
    export(model_dir)  # what the remedy runs
    assert {each.outcome for each in findings(model_dir)} == {Outcome.OK}


def test_what_a_killed_writer_leaves_before_its_decisive_step_does_no_harm(model_dir: Path) -> None:
    (model_dir / f"{STAGING_PREFIX}some").mkdir()
    assert {found.outcome for found in findings(model_dir)} == {Outcome.OK}


# The graph


def test_without_a_graph_there_is_a_problem_and_with_torch_there_is_none(model_dir: Path) -> None:
    (model_dir / "encoder.onnx").unlink()
    found = by_name(model_dir)["Graph"]
    assert (found.outcome, found.remedy) == (Outcome.PROBLEM, EXPORT)
    assert found.detail.startswith("there is no graph inference/model/encoder.onnx")
    assert by_name(model_dir, ENCODER_ENGINE="torch")["Graph"] == ok("Graph", "ENCODER_ENGINE=torch needs none")


@pytest.mark.slow
def test_each_precision_needs_its_own_graph(model_dir: Path) -> None:
    found = by_name(model_dir, ENCODER_PRECISION="int8")["Graph"]
    assert (found.outcome, found.remedy) == (Outcome.PROBLEM, EXPORT_INT8)
    put_int8(model_dir, AGREES)
    for precision in ("int8", "auto"):
        found = by_name(model_dir, ENCODER_PRECISION=precision)["Graph"]
        assert found == ok("Graph", "encoder.onnx and encoder.int8.onnx fit the model")
    # float32 serves where int8 can't.
    (model_dir / "encoder.onnx").unlink()
    for precision in ("int8", "auto"):
        found = by_name(model_dir, ENCODER_PRECISION=precision)["Graph"]
        assert (found.outcome, found.remedy) == (Outcome.PROBLEM, EXPORT)


@pytest.mark.parametrize("name", ["encoder.int8.onnx", "encoder.int8.bin", "encoder.int8.json"])
@pytest.mark.parametrize("precision", ["int8", "auto"])
def test_a_file_of_int8_that_was_changed_is_exported_again(name: str, precision: str, model_dir: Path) -> None:
    put_int8(model_dir, AGREES)
    flip_last_byte(model_dir / name)
    found = by_name(model_dir, ENCODER_PRECISION=precision)["Graph"]
    assert (found.outcome, found.remedy) == (Outcome.PROBLEM, EXPORT_INT8)
    assert found.detail.startswith(f"inference/model/{name} isn't the file that was exported")
    # Another precision's image doesn't have it.
    assert by_name(model_dir)["Graph"] == ok("Graph", "encoder.onnx fits the model")


@pytest.mark.parametrize("precision", ["int8", "auto"])
def test_a_report_that_can_not_be_read_is_a_problem(precision: str, model_dir: Path) -> None:
    put_int8(model_dir, AGREES)
    (model_dir / "provenance.json").unlink()  # it has the hash of the report
    (model_dir / "encoder.int8.json").write_text("{}")
    found = by_name(model_dir, ENCODER_PRECISION=precision)["Graph"]
    assert (found.outcome, found.remedy) == (Outcome.PROBLEM, EXPORT_INT8)
    assert "inference/model/encoder.int8.json: it isn't a report of scripts/export_onnx.py" in found.detail


def test_a_graph_of_int8_without_its_weights_is_a_problem_if_int8_must_serve(model_dir: Path) -> None:
    put_int8(model_dir, AGREES)
    (model_dir / "encoder.int8.bin").unlink()
    found = by_name(model_dir, ENCODER_PRECISION="int8")["Graph"]
    assert found == problem("Graph", "there are no weights for inference/model/encoder.int8.onnx", EXPORT_INT8)
    # float32 serves.
    assert {found.outcome for found in findings(model_dir, ENCODER_PRECISION="auto")} == {Outcome.OK, Outcome.NOTE}
    assert by_name(model_dir, ENCODER_PRECISION="auto")["Graph"] == ok("Graph", "encoder.onnx fits the model")


# The precision


def precision_note(model_dir: Path, **settings: str) -> tuple[Outcome, str, str]:
    [found] = [each for each in findings(model_dir, **settings) if each.name == "Precision"]
    return found.outcome, found.detail, found.remedy


def test_a_precision_that_agrees_serves_if_lambda_s_cpu_has_it(model_dir: Path) -> None:
    put_int8(model_dir, AGREES)
    for setting in ("int8", "auto"):
        assert precision_note(model_dir, ENCODER_PRECISION=setting) == (
            Outcome.OK,
            f"int8 if Lambda's CPU multiplies it natively, else float32; {AGREES}",
            "",
        )
    assert "Precision" not in by_name(model_dir)


def test_the_state_comes_before_the_precision_because_the_export_needs_it(model_dir: Path) -> None:
    (model_dir / "incident_cls.pt").unlink()
    names = [found.name for found in findings(model_dir, ENCODER_PRECISION="auto") if found.remedy]
    assert names == ["State", "Precision"]


def test_bfloat16_serves_on_every_cpu_if_it_was_asked_for(model_dir: Path) -> None:
    report = Report(np.array([0, 2]), np.ones(8, np.float32), 0.1, AGREES)
    (model_dir / "encoder.bfloat16.json").write_text(json.dumps(report.to_json()))
    for setting, condition in (("bfloat16", ""), ("auto", " if Lambda's CPU multiplies it natively, else float32")):
        assert precision_note(model_dir, ENCODER_ENGINE="torch", ENCODER_PRECISION=setting) == (
            Outcome.OK,
            f"bfloat16{condition}; {AGREES}",
            "",
        )


@pytest.mark.parametrize(
    ("agreement", "reason", "remedy"),
    [
        (
            None,
            "int8's agreement with float32 wasn't measured (the export had no state with titles)",
            "export",
        ),
        (
            replace(AGREES, centered=0.99),
            f"int8 doesn't agree enough with float32 ({replace(AGREES, centered=0.99)}; needed: 0.995)",
            "setting",
        ),
    ],
)
def test_one_that_does_not_agree_is_a_note_that_says_what_will_serve(
    agreement: Agreement | None, reason: str, remedy: str, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_int8(model_dir, agreement)
    monkeypatch.setattr("deployment.machine.model.lack_of", lambda precision: None)
    for setting, served, other in (
        ("auto", "float32 will serve:", "ENCODER_PRECISION=float32"),
        ("int8", "int8 will serve, although", "ENCODER_PRECISION=auto"),
    ):
        command = {"export": EXPORT_INT8, "setting": other}[remedy]
        assert precision_note(model_dir, ENCODER_PRECISION=setting) == (Outcome.NOTE, f"{served} {reason}", command)


def test_auto_without_an_export_is_a_note_that_says_where_to_make_one(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacks: list[str] = []
    monkeypatch.setattr("deployment.machine.model.lack_of", lambda precision: ", ".join(lacks) or None)
    detail = "float32 will serve: int8 wasn't exported"
    assert precision_note(model_dir, ENCODER_PRECISION="auto") == (Outcome.NOTE, detail, EXPORT_INT8)
    lacks.append("a reason")
    elsewhere = f"{EXPORT_INT8}\non another machine: this CPU doesn't multiply int8 natively"
    assert precision_note(model_dir, ENCODER_PRECISION="auto") == (Outcome.NOTE, detail, elsewhere)
    # Graph without weights.
    put_int8(model_dir, AGREES)
    (model_dir / "encoder.int8.bin").unlink()
    assert precision_note(model_dir, ENCODER_PRECISION="auto") == (Outcome.NOTE, detail, elsewhere)
    # Every CPU can export bfloat16.
    found = precision_note(model_dir, ENCODER_ENGINE="torch", ENCODER_PRECISION="auto")
    remedy = f"{EXPORT} --precision bfloat16"
    assert found[1:] == ("float32 will serve: bfloat16 wasn't exported", remedy)
    # torch computes in bfloat16 without an export.
    detail = "bfloat16 will serve, although bfloat16's agreement with float32 wasn't measured"
    found = precision_note(model_dir, ENCODER_ENGINE="torch", ENCODER_PRECISION="bfloat16")
    assert found == (Outcome.NOTE, detail, remedy)


def test_a_graph_of_another_model_is_a_problem(model_dir: Path, tmp_path: Path) -> None:
    (model_dir / "provenance.json").unlink()  # it has the hash of the graph
    flip_last_byte(model_dir / "model.safetensors")
    found = by_name(model_dir)["Graph"]
    assert found.is_problem
    assert "inference/model/encoder.onnx was made from other files than those beside it" in found.detail


@pytest.mark.parametrize("engine", ["onnx", "torch"])
def test_a_graph_that_was_changed_makes_no_image_with_either_engine(engine: str, model_dir: Path) -> None:
    flip_last_byte(model_dir / "encoder.onnx")
    found = by_name(model_dir, ENCODER_ENGINE=engine)["Graph"]
    assert found.is_problem
    assert "inference/model/encoder.onnx isn't the file that was exported" in found.detail


# The state


def save(model_dir: Path, state: IncidentState) -> None:
    state.save(model_dir / "incident_cls.pt")


def from_snapshot(state: IncidentState, date: str) -> IncidentState:
    source = {"kind": "aiid-snapshot", "name": "backup.tar.bz2", "date": date}
    return dataclasses.replace(state, built_at="2026-11-26T07:04:05Z", source=source)


def test_a_state_says_what_it_is_made_of(model_dir: Path, tiny_state: IncidentState) -> None:
    date = days_ago(13.9)
    save(model_dir, from_snapshot(tiny_state, date))
    [found] = findings(model_dir)[2:]
    assert found == ok("State", f"5 incidents of the snapshot of {date[:10]}, built at 2026-11-26T07:04:05Z")


def test_a_state_of_a_table_says_its_name_and_has_no_age(model_dir: Path, tiny_state: IncidentState) -> None:
    source = {"kind": "csv", "name": "incidents.csv", "date": "2020-01-01T00:00:00Z"}
    save(model_dir, dataclasses.replace(tiny_state, source=source))
    [found] = findings(model_dir)[2:]
    assert found.detail.startswith("5 incidents of incidents.csv, ")


@pytest.mark.parametrize(
    ("settings", "rings"), [({}, True), ({"ALARMS": "false"}, False), ({"REFRESH_HOURS": "0"}, False)]
)
def test_an_old_snapshot_is_a_note(
    settings: dict[str, str], rings: bool, model_dir: Path, tiny_state: IncidentState
) -> None:
    save(model_dir, from_snapshot(tiny_state, days_ago(20.1)))
    first, second = findings(model_dir, **settings)[2:]
    assert first.outcome is Outcome.OK
    assert (second.name, second.outcome, second.remedy) == ("State", Outcome.NOTE, BUILD)
    assert second.detail.startswith("its snapshot is 20 days old, more than MAX_STATE_AGE_DAYS=14")
    assert ("alarm rings unless the refresh replaces the state" in second.detail) is rings
    assert len(findings(model_dir, MAX_STATE_AGE_DAYS="21", **settings)) == 3


def test_a_broken_state_is_a_problem(model_dir: Path) -> None:
    (model_dir / "incident_cls.pt").write_bytes(b"cut off")
    found = by_name(model_dir)["State"]
    assert (found.outcome, found.remedy) == (Outcome.PROBLEM, BUILD)
    assert found.detail.startswith("inference/model/incident_cls.pt isn't an incident state that can be used")


def test_a_state_that_cannot_be_ranked_is_a_problem(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise ArithmeticError("no direction")

    monkeypatch.setattr("similarity.incidents.ranking.Ranking.most_similar", fail)
    found = by_name(model_dir)["State"]
    assert (found.is_problem, found.detail) == (True, "the state can't be ranked: no direction")


def test_a_state_of_another_model_is_a_problem(model_dir: Path, tiny_state: IncidentState) -> None:
    save(model_dir, dataclasses.replace(tiny_state, model="another", model_fingerprint="0" * 64))
    found = by_name(model_dir)["State"]
    assert (found.outcome, found.remedy) == (Outcome.PROBLEM, BUILD)
    assert "the state was made with another model (another) than tiny" in found.detail


def test_a_state_with_more_tokens_than_the_model_takes_is_a_problem(model_dir: Path, tiny_state: IncidentState) -> None:
    save(model_dir, dataclasses.replace(tiny_state, max_tokens=100_000))
    found = by_name(model_dir)["State"]
    assert found.is_problem
    assert "cut at 100000 tokens" in found.detail


def test_a_state_without_a_model_is_not_compared(model_dir: Path) -> None:
    (model_dir / "config.json").unlink()
    assert by_name(model_dir)["State"] == not_checked(
        "State", "5 incidents of unknown data, built at an unknown time; whether it fits needs a usable model"
    )
