"""States of AIID's snapshots: whose vectors they have, where texts are cut, what they say, and what the build says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from build_state import main
from processes import PATIENCE_S, Command
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.incidents.state import IncidentState
from similarity.vectors import Vector
from snapshots import NAME, Document, Snapshot, duplicate, embedding, form_hash, incident, report
from tiny import ROOT, TINY_MAX_TOKENS, write_tiny_longformer

SCRIPT = ROOT / "scripts" / "build_state.py"

pytestmark = pytest.mark.usefixtures("cache_dir", "one_thread")

TEXTS = {
    11: "A robot hurt a worker in a warehouse.",
    12: "Two planes went down after automated commands, and many families sued the maker.",
    13: "Risk scores of a court were biased.",
    14: "The company says that its robot is safe.",
    15: "🤖🤖",
    16: "Ein Roboter hat jemanden verletzt.",
    17: "Un robot a blessé quelqu'un.",
}
IN_ENGLISH = "A robot has hurt somebody."
# What a build of `Data` says.
FITTED = (
    "Fitted: whitening power 0.125, word index of 2 words, no confidence, because there are too few reports and titles "
    "that could be asked"
)


def published(text: str, vector: Vector) -> dict[str, Any]:
    return {"embedding": embedding(vector.tolist(), form_hash(text))}


def near(encoder: TorchEncoder, text: str) -> Vector:
    """A vector that could be AIID's: it isn't the encoder's own, but differs from it by little."""
    vector: Vector = encoder.encode(text).vector + np.float32(0.004)
    return vector


@dataclass
class Data:
    """A snapshot; the fields of its reports by their numbers, beside those that each has, and other texts."""

    fields: dict[int, dict[str, Any]] = field(default_factory=dict)
    texts: dict[int, str] = field(default_factory=dict)
    incidents: Sequence[Document] = (
        incident(1, [11, 12]),
        incident(2, [13, 14, 15], date="2020-02-29", editor_dissimilar_incidents=[9, 1]),
        incident(4, [15]),
        incident(7, [16, 17], date=""),
    )

    def write(self, path: Path, **options: bool) -> Path:
        tags: dict[int, dict[str, Any]] = {
            14: {"tags": ["response"]}, 16: {"language": "de"}, 17: {"language": "fr"}
        }  # fmt: skip
        reports = [
            report(n, text, **{**tags.get(n, {}), **self.fields.get(n, {})})
            for n, text in {**TEXTS, **self.texts}.items()
        ]
        translations = {"en": [{"report_number": 17, "plain_text": IN_ENGLISH, "text": IN_ENGLISH}]}
        merged = [duplicate(9, 8), duplicate(8, 7), duplicate(3, 1)]
        return Snapshot(self.incidents, reports, merged, translations).write(path, **options)


Build = Callable[..., IncidentState]


@pytest.fixture
def build(tmp_path: Path, out: Path, tiny_model_dir: Path) -> Build:
    """Builds a state of `data` with the tiny model, or without one."""

    def build(data: Data, *options: str, model: Path | None = tiny_model_dir) -> IncidentState:
        source = data.write(tmp_path / NAME)
        folder = model or tmp_path / "no model"
        assert main([str(source), "--model", str(folder), "--out", str(out), *options]) == 0
        return IncidentState.load(out)

    return build


def some_published(encoder: TorchEncoder, numbers: Sequence[int] = (11, 13)) -> Data:
    return Data({number: published(TEXTS[number], near(encoder, TEXTS[number])) for number in numbers})


def means(vectors: Mapping[int, Vector], *incidents: Sequence[int]) -> np.ndarray:
    return np.stack([np.mean([vectors[number] for number in numbers], axis=0) for numbers in incidents])


def test_a_state_of_a_snapshot_says_all_that_it_was_made_of(build: Build, tiny_encoder: TorchEncoder) -> None:
    state = build(Data(), "--vectors", "computed")
    assert state.source == {"kind": "aiid-snapshot", "name": NAME, "date": "2026-11-23T10:00:00Z"}
    assert state.options == {"vectors": "computed", "responses": "include", "words": "title,description"}
    assert (state.max_tokens, state.text_preparation) == (TINY_MAX_TOKENS, "unidecode")
    assert state.incident_ids.tolist() == [1, 2, 7], "4 has a report of emoji alone"
    assert state.report_counts.tolist() == [2, 2, 2]
    assert list(state.titles) == ["Incident 1", "Incident 2", "Incident 7"]
    assert list(state.dates) == ["2026-04-30", "2020-02-29", ""]
    assert state.duplicates.tolist() == [[3, 1], [8, 7], [9, 7]]
    assert state.dissimilar.tolist() == [[1, 2], [2, 7]]
    ours = {number: tiny_encoder.encode(text).vector for number, text in {**TEXTS, 17: IN_ENGLISH}.items()}
    np.testing.assert_allclose(state.means, means(ours, (11, 12), (13, 14), (16, 17)), rtol=0, atol=1e-6)


def test_an_archive_of_another_name_is_no_snapshot_of_aiids(tmp_path: Path, out: Path, tiny_model_dir: Path) -> None:
    for options, kind in (({"tables": False}, "records"), ({"dumps": False}, "csv")):
        source = Data().write(tmp_path / "mine.tar", **options)
        assert main([str(source), "--model", str(tiny_model_dir), "--out", str(out)]) == 0
        assert IncidentState.load(out).source == {"kind": kind, "name": "mine.tar", "date": ""}


def test_companies_answers_can_be_left_out(build: Build, tiny_encoder: TorchEncoder) -> None:
    state = build(Data(), "--responses", "exclude")
    assert state.options["responses"] == "exclude"
    assert state.report_counts.tolist() == [2, 1, 2]
    np.testing.assert_allclose(state.means[1], tiny_encoder.encode(TEXTS[13]).vector, rtol=0, atol=1e-6)


# Whose vectors.


def test_published_takes_aiids_vectors_alone_and_says_what_it_leaves_out(
    build: Build, tiny_encoder: TorchEncoder, encoded: list[str], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = some_published(tiny_encoder)
    encoded.clear()
    state = build(data, "--vectors", "published")
    assert encoded == []
    assert state.incident_ids.tolist() == [1, 2]
    assert state.report_counts.tolist() == [1, 1]
    aiids = {number: near(tiny_encoder, TEXTS[number]) for number in (11, 13)}
    np.testing.assert_allclose(state.means, means(aiids, [11], [13]), rtol=0, atol=1e-6)
    assert (state.model, state.model_fingerprint) == ("allenai/longformer-base-4096", "")
    assert state.max_tokens == 2000, "AIID's, though the model in the folder takes fewer"
    assert capsys.readouterr().out.splitlines() == [
        f"{out}: 2 incidents, 2 reports, 32 dimensions, model allenai/longformer-base-4096",
        FITTED,
        "Vectors: 2 published by AIID, 0 from earlier builds, 0 computed now; 100.0% of the work was saved",
        "Reports left out, because AIID has no vector of their present text: 4 (12, 14, 16, 17). With the model "
        "(scripts/fetch_model.py), --vectors auto computes them.",
        "Reports left out, because they are blank once they are prepared: 2",
        "Incidents left out, because no report has a vector: 2 (4, 7)",
        "Reports in another language without an English translation: 1 (16)",
    ]


WITHOUT_A_MODEL = """
import runpy, sys

for name in ("torch", "transformers", "tokenizers", "safetensors", "onnxruntime"):
    sys.modules[name] = None  # Its import fails.
sys.argv = sys.argv[1:]
sys.path[0] = sys.argv[0].rpartition("/")[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize("case", ["published", "auto", "published beside a model"])
def test_a_state_of_published_vectors_needs_neither_torch_nor_a_model(
    case: str, tmp_path: Path, tiny_encoder: TorchEncoder, tiny_model_dir: Path, cache_dir: Path
) -> None:
    source = some_published(tiny_encoder).write(tmp_path / NAME)
    vectors, _, beside_a_model = case.partition(" ")
    model = tmp_path / "model"
    if beside_a_model:
        shutil.copytree(tiny_model_dir, model)
    paths: Command = ["--model", model, "--cache", cache_dir]
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_A_MODEL, SCRIPT, source, *paths, "--vectors", vectors],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    state = IncidentState.load(model / "incident_cls.pt")
    assert (len(state), state.max_tokens, state.options["vectors"]) == (2, 2000, "published")
    assert not cache_dir.exists()


def test_a_broken_model_does_not_matter_to_published_vectors(
    build: Build, tmp_path: Path, tiny_encoder: TorchEncoder
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    assert len(build(some_published(tiny_encoder), "--vectors", "published", model=tmp_path / "broken")) == 2


def test_auto_computes_the_reports_that_have_no_vector(
    build: Build, tiny_encoder: TorchEncoder, capsys: pytest.CaptureFixture[str]
) -> None:
    state = build(some_published(tiny_encoder))
    assert state.options["vectors"] == "auto"
    assert state.model_fingerprint == tiny_encoder.fingerprint
    ours = {number: tiny_encoder.encode(text).vector for number, text in {**TEXTS, 17: IN_ENGLISH}.items()}
    ours |= {number: near(tiny_encoder, TEXTS[number]) for number in (11, 13)}
    np.testing.assert_allclose(state.means, means(ours, (11, 12), (13, 14), (16, 17)), rtol=0, atol=1e-6)
    assert capsys.readouterr().out.splitlines()[1:4] == [
        FITTED,
        "Vectors: 2 published by AIID, 0 from earlier builds, 4 computed now; 33.3% of the work was saved",
        "Reports left out, because they are blank once they are prepared: 2",
    ]


def test_computed_takes_no_vector_of_aiids(build: Build, tiny_encoder: TorchEncoder) -> None:
    with_vectors = build(some_published(tiny_encoder), "--vectors", "computed")
    without = build(Data(), "--vectors", "computed")
    assert with_vectors.means.tobytes() == without.means.tobytes()


def test_auto_without_a_model_is_published_and_without_vectors_computed(
    build: Build, tiny_encoder: TorchEncoder
) -> None:
    assert build(some_published(tiny_encoder), model=None).options["vectors"] == "published"
    assert build(Data()).options["vectors"] == "computed"


@pytest.mark.parametrize("what", ["another model", "another dimension"])
def test_a_model_that_does_not_make_aiids_vectors_stops_the_build(
    what: str, tmp_path: Path, out: Path, tiny_encoder: TorchEncoder, capsys: pytest.CaptureFixture[str]
) -> None:
    out.write_bytes(b"an old state")
    source = some_published(tiny_encoder).write(tmp_path / NAME)
    size = 32 if what == "another model" else 16
    model = write_tiny_longformer(tmp_path / "other", seed=1, hidden_size=size)
    assert main([str(source), "--model", str(model), "--out", str(out)]) == 1
    output = capsys.readouterr()
    last = output.err.splitlines()[-1]
    reason = "the model doesn't make AIID's vectors" if size == 32 else "AIID's vectors have 32 dimensions"
    assert last.startswith(f"build_state: {reason}")
    assert last.endswith("Give --vectors published or --vectors computed.")
    assert (output.out, out.read_bytes()) == ("", b"an old state")


def test_a_source_without_published_vectors_can_not_be_published(
    snapshot_path: Path, out: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(snapshot_path), "--model", str(tiny_model_dir), "--out", str(out), "--vectors", "published"]
    assert main(arguments) == 1
    assert capsys.readouterr().err == (
        "build_state: the source has no published vector of any report. AIID's snapshots have them, tables don't.\n"
    )
    assert not out.exists()


@pytest.fixture
def snapshot_path(tmp_path: Path) -> Path:
    """A snapshot without vectors."""
    return Data().write(tmp_path / NAME)


# Where texts are cut.


@pytest.mark.parametrize("way", ["option", "variable", "both"])
def test_the_limit_can_be_set(
    way: str, build: Build, tiny_encoder: TorchEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way != "option":
        monkeypatch.setenv("MAX_TOKENS", "9" if way == "variable" else "20")
    state = build(Data(), *(["--max-tokens", "9"] if way != "variable" else []))
    assert state.max_tokens == 9
    cut = tiny_encoder.cut_at(9)
    expected = (cut.encode(TEXTS[11]).vector + cut.encode(TEXTS[12]).vector) / 2
    np.testing.assert_allclose(state.means[0], expected, rtol=0, atol=1e-6)


def test_an_empty_variable_sets_no_limit(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_TOKENS", "")
    assert build(Data()).max_tokens == TINY_MAX_TOKENS


@pytest.mark.parametrize("value", ["2", "0", "-5", "many", "1.5", "٣٠", "1e3", " "])
@pytest.mark.parametrize("way", ["option", "variable"])
def test_a_limit_that_is_none_is_a_usage_error(
    way: str,
    value: str,
    snapshot_path: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if way == "variable":
        monkeypatch.setenv("MAX_TOKENS", value)
    with pytest.raises(SystemExit) as exit_:
        main([str(snapshot_path), "--out", str(out), *([f"--max-tokens={value}"] if way == "option" else [])])
    assert exit_.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith(f"--max-tokens: or MAX_TOKENS must be a whole number from 3, not {value!r}")


def test_a_limit_that_the_model_does_not_take_is_told(
    snapshot_path: Path, out: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(snapshot_path), "--model", str(tiny_model_dir), "--out", str(out), "--max-tokens", "129"]
    assert main(arguments) == 1
    assert "for this model, the limit is a number from 3 to 128" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("vectors", ["published", "auto"])
def test_published_vectors_of_another_limit_serve_texts_that_it_does_not_cut(
    vectors: str, build: Build, tiny_encoder: TorchEncoder
) -> None:
    lengths = {number: tiny_encoder.tokenizer(TEXTS[number]).came for number in (11, 12)}
    assert lengths[11] < lengths[12]
    data = some_published(tiny_encoder, (11, 12))
    limit = lengths[11]
    # A report that is cut has another vector than AIID's.
    rest = tiny_encoder.cut_at(limit).encode(TEXTS[12]).vector
    state = build(replace(data, incidents=[incident(1, [11, 12])]), "--vectors", vectors, "--max-tokens", str(limit))
    assert state.max_tokens == limit
    assert state.report_counts.tolist() == [1 if vectors == "published" else 2]
    used = [near(tiny_encoder, TEXTS[11]), *([rest] if vectors == "auto" else [])]
    np.testing.assert_allclose(state.means[0], np.mean(used, axis=0), rtol=0, atol=1e-5)


def test_without_a_model_another_limit_than_aiids_is_told(
    tmp_path: Path, out: Path, tiny_encoder: TorchEncoder, capsys: pytest.CaptureFixture[str]
) -> None:
    source = some_published(tiny_encoder).write(tmp_path / NAME)
    arguments = [str(source), "--model", str(tmp_path / "no model"), "--out", str(out), "--max-tokens"]
    assert main([*arguments, "300"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "With MAX_TOKENS=300" in line
    assert "there is no model" in line
    assert not out.exists()
    assert main([*arguments, "2000"]) == 0


# What has changed since the state before.


def test_the_last_line_says_what_has_changed(build: Build, capsys: pytest.CaptureFixture[str]) -> None:
    first = Data()
    build(first)
    assert "Incidents:" not in capsys.readouterr().out, "there was no state before"
    build(first)
    assert capsys.readouterr().out.splitlines()[1:] == [
        FITTED,
        "Vectors: 0 published by AIID, 6 from earlier builds, 0 computed now; 100.0% of the work was saved",
        "Reports left out, because they are blank once they are prepared: 2",
        "Incidents left out, because no report has a vector: 1 (4)",
        "Reports in another language without an English translation: 1 (16)",
        "Incidents: 0 added, 0 changed, 0 removed",
    ]
    # 1 loses a report, 2 gets another title, 7 is gone, 30 to 41 are new.
    more = [incident(number, [16]) for number in range(30, 42)]
    changed = [incident(1, [11]), incident(2, [13, 14], title="New"), *more]
    build(Data(texts={11: "Another text."}, incidents=changed))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("Fitted: ")
    assert lines[2].startswith("Map: ")
    assert lines[3] == (
        "Vectors: 0 published by AIID, 14 from earlier builds, 1 computed now; 93.3% of the work was saved"
    )
    assert lines[-1] == (
        "Incidents: 12 (30, 31, 32, 33, 34, 35, 36, 37, 38, 39 and 2 more) added, 2 (1, 2) changed, 1 (7) removed"
    )


def test_a_state_of_another_model_before_is_told(
    build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build(Data(), model=write_tiny_longformer(tmp_path / "other", seed=1))
    capsys.readouterr()
    build(Data())
    assert capsys.readouterr().out.splitlines()[-1] == (
        "Incidents: all are new, because the state before was of another model, precision or limit of tokens"
    )


@pytest.mark.parametrize("before", ["nothing", "no state", "a folder's worth"])
def test_what_was_no_state_is_no_state_before(
    before: str, build: Build, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if before != "nothing":
        out.write_bytes(b"no state" if before == "no state" else os.urandom(10_000))
    build(Data())
    output = capsys.readouterr()
    assert "Incidents:" not in output.out
    assert "Traceback" not in output.err


# Titles for states that have none.


STATE_CSV = 'incident_id,count,mean\n9,2,"[0.5, 1]"\n4,1,"[2, -3]"\n'
INCIDENTS_CSV = "incident_id,date,title\n4,2020-02-29,A robot\n5,2021-01-01,Another\n9,,Planes\n"


@pytest.fixture
def titles(tmp_path: Path) -> Path:
    path = tmp_path / "incidents.csv"
    path.write_text(INCIDENTS_CSV)
    return path


def test_titles_and_dates_are_added_to_vectors_and_to_states(tmp_path: Path, out: Path, titles: Path) -> None:
    vectors = tmp_path / "state.csv"
    vectors.write_text(STATE_CSV)
    again = out.with_name("again.pt")
    for source, options, target in (
        (vectors, ["--titles", titles], out),
        (vectors, [], out.with_name("bare.pt")),
        (out.with_name("bare.pt"), ["--titles", titles], again),
    ):
        assert main([*map(str, [source, *options, "--out", target])]) == 0
    for path in (out, again):
        state = IncidentState.load(path)
        assert state.incident_ids.tolist() == [4, 9]
        assert list(state.titles) == ["A robot", "Planes"]
        assert list(state.dates) == ["2020-02-29", ""]
        assert state.means.tolist() == [[2.0, -3.0], [0.5, 1.0]]
        assert state.max_tokens == 2000
        assert state.built_at


@pytest.mark.parametrize("kind", ["snapshot", "incidents.csv"])
def test_titles_for_what_has_titles_are_refused(
    kind: str, tmp_path: Path, out: Path, titles: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Data().write(tmp_path / NAME) if kind == "snapshot" else titles
    arguments = [str(source), "--model", str(tiny_model_dir), "--out", str(out), "--titles", str(titles)]
    assert main(arguments) == 1
    assert capsys.readouterr().err == (
        "build_state: --titles adds titles to a state or a state.csv; this source has titles of its own.\n"
    )
    assert not out.exists()


def test_a_table_of_titles_that_is_not_there_exits_with_2(tmp_path: Path, titles: Path) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([str(titles), "--titles", str(tmp_path / "nothing.csv")])
    assert exit_.value.code == 2
