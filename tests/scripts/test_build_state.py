"""States are built whole or not at all, from every kind of source, and a build that was stopped goes on from there."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from build_state import main
from processes import PATIENCE_S, Command, run_where_files_stay_small, running
from published import content_of
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.incidents.state import IncidentState
from similarity.refresh.vector_store import MadeWith, VectorStore
from similarity.vectors import Vector
from tiny import ROOT, TINY_MAX_TOKENS, sample_texts, write_tiny_longformer

pytestmark = pytest.mark.usefixtures("cache_dir", "one_thread")

SCRIPT = ROOT / "scripts" / "build_state.py"
# What a build of vectors without texts says.
NOTHING_FITTED = (
    "Fitted: whitening power 0.125, no word index, no confidence, because there are too few reports and titles that "
    "could be asked"
)
RESUME_HINT = "build_state: stopped; give the same command again to resume."

TITLES = {3: "Planes lost", 5: "Clips for children", 40: "A robot"}
TEXTS = {
    3: ["Two planes went down after automated commands.", "The fleet was grounded.", "Families sued."],
    5: ["Cartoons with foul language reached toddlers."],
    40: ["A robot pierced a canister of repellent.", "Twenty-four workers were taken to hospital."],
}


def write_snapshot(folder: Path, texts: dict[int, list[str]], titles: dict[int, str]) -> Path:
    """incidents.csv, ids descending, and reports.csv, numbers from 100 on."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {}
    with (folder / "reports.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["report_number", "language", "text"])
        number = 100
        for incident_id, reports in texts.items():
            numbers[incident_id] = list(range(number, number + len(reports)))
            writer.writerows((number + index, "en", report) for index, report in enumerate(reports))
            number += len(reports)
    with (folder / "incidents.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["incident_id", "date", "reports", "description", "title"])
        for incident_id in sorted(texts, reverse=True):
            description = f"What happened in incident {incident_id}."
            writer.writerow(
                [incident_id, "2020-01-01", json.dumps(numbers[incident_id]), description, titles[incident_id]]
            )
    return folder


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    return write_snapshot(tmp_path / "mongodump_full_snapshot", TEXTS, TITLES)


def mean_of(encoder: TorchEncoder, texts: list[str]) -> Vector:
    vectors = np.stack([encoder.encode(text).vector.astype(np.float64) for text in texts])
    mean: Vector = (vectors.sum(axis=0) / len(texts)).astype(np.float32)
    return mean


def assert_is_the_state_of_the_snapshot(path: Path, encoder: TorchEncoder) -> None:
    state = IncidentState.load(path)
    assert state.incident_ids.tolist() == [3, 5, 40]
    assert state.report_counts.tolist() == [3, 1, 2]
    assert list(state.titles) == [TITLES[3], TITLES[5], TITLES[40]]
    for row, incident_id in enumerate((3, 5, 40)):
        assert np.allclose(state.means[row], mean_of(encoder, TEXTS[incident_id]), atol=1e-6), incident_id
    assert state.model == "tiny"
    state.require_made_by(encoder, "tiny")
    assert state.model_fingerprint == encoder.fingerprint


def test_a_state_says_when_it_was_built(snapshot: Path, out: Path, tiny_model_dir: Path) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    assert main([str(snapshot), "--model", str(tiny_model_dir), "--out", str(out)]) == 0
    built_at = datetime.fromisoformat(IncidentState.load(out).built_at)
    assert before <= built_at <= datetime.now(UTC)


@pytest.mark.parametrize("form", ["folder", "zip", "tar.gz", "tar.bz2"])
def test_a_snapshot_gives_the_means_of_its_reports_however_it_is_packed(
    form: str,
    snapshot: Path,
    out: Path,
    tiny_model_dir: Path,
    tiny_encoder: TorchEncoder,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = snapshot
    if form == "zip":
        source = snapshot.with_name("snapshot.zip")
        with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in snapshot.iterdir():
                archive.write(path, f"{snapshot.name}/{path.name}")
    elif form != "folder":
        source = snapshot.with_name(f"snapshot.{form}")
        with tarfile.open(source, f"w:{form.removeprefix('tar.')}") as archive:  # type: ignore[call-overload]
            archive.add(snapshot, snapshot.name)
    assert main([str(source), "--model", str(tiny_model_dir), "--out", str(out)]) == 0
    assert_is_the_state_of_the_snapshot(out, tiny_encoder)
    assert list(out.parent.iterdir()) == [out]
    assert capsys.readouterr().out.splitlines() == [
        f"{out}: 3 incidents, 6 reports, 32 dimensions, model tiny",
        "Fitted: whitening power 0.125, word index of 9 words, no confidence, because there are too few reports and "
        "titles that could be asked",
        "Vectors: 0 published by AIID, 0 from earlier builds, 6 computed now",
    ]


def test_the_state_goes_into_the_model_folder_unless_told_otherwise(
    snapshot: Path, tmp_path: Path, tiny_model_dir: Path, tiny_encoder: TorchEncoder
) -> None:
    model_dir = tmp_path / "model"
    shutil.copytree(tiny_model_dir, model_dir)
    assert main([str(snapshot), "--model", str(model_dir)]) == 0
    assert_is_the_state_of_the_snapshot(model_dir / "incident_cls.pt", tiny_encoder)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "A robot. What happened in incident 40."),
        (["--text", "title"], "A robot."),
        (["--text", "description"], "What happened in incident 40."),
    ],
)
def test_an_incidents_table_alone_gives_a_vector_of_what_was_asked_for(
    arguments: list[str], text: str, snapshot: Path, out: Path, tiny_model_dir: Path, tiny_encoder: TorchEncoder
) -> None:
    source = snapshot / "incidents.csv"
    assert main([str(source), "--model", str(tiny_model_dir), "--out", str(out), *arguments]) == 0
    state = IncidentState.load(out)
    assert state.incident_ids.tolist() == [3, 5, 40]
    assert state.report_counts.tolist() == [1, 1, 1]
    assert np.allclose(state.means[2], tiny_encoder.encode(text).vector, atol=1e-6)


@pytest.mark.parametrize("name", ["state.csv", "STATE.CSV", "state", "state.pt"])
def test_a_table_of_vectors_needs_no_model(
    name: str, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / name
    source.write_text('incident_id,count,mean\n9,2,"[0.5, 1]"\n4,1,"[2, -3]"\n')
    assert main([str(source), "--model", str(tmp_path / "no model"), "--out", str(out)]) == 0
    state = IncidentState.load(out)
    assert state.incident_ids.tolist() == [4, 9]
    assert state.report_counts.tolist() == [1, 2]
    assert state.means.tolist() == [[2.0, -3.0], [0.5, 1.0]]
    assert capsys.readouterr().out == (
        f"{out}: 2 incidents, 3 reports, 2 dimensions, model allenai/longformer-base-4096\n{NOTHING_FITTED}\n"
    )


@pytest.mark.parametrize("form", ["zip", "old"])
@pytest.mark.parametrize("name", ["original.pt", "ORIGINAL.PT", "original", "original.csv", "original.zip"])
def test_a_list_of_tensors_needs_no_model(
    name: str, form: str, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / name
    content = [None, torch.tensor([[1.0, 2.0], [3.0, 6.0]])]
    torch.save(content, source, _use_new_zipfile_serialization=form == "zip")
    assert main([str(source), "--model", str(tmp_path / "no model"), "--out", str(out)]) == 0
    state = IncidentState.load(out)
    assert state.incident_ids.tolist() == [2]
    assert state.means.tolist() == [[2.0, 4.0]]
    assert capsys.readouterr().out == (
        f"{out}: 1 incidents, 2 reports, 2 dimensions, model unknown\n{NOTHING_FITTED}\n"
    )


def test_a_table_of_vectors_too_large_to_rank_is_refused(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "state.csv"
    source.write_text('incident_id,count,mean\n9,2,"[0.5, 1]"\n4,1,"[2, 1e30]"\n')
    assert main([str(source), "--out", str(out), "--strict"]) == 1
    assert IncidentState.load(out).incident_ids.tolist() == [9]
    assert (
        "state.csv, line 3: mean isn't a list of 2 numbers from -1,000,000 to 1,000,000; skipped"
        in capsys.readouterr().err
    )


def test_a_model_whose_vectors_make_no_state_is_refused_in_words(
    snapshot: Path, out: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors = TorchEncoder.vectors

    def too_large(self: TorchEncoder, texts: Sequence[Sequence[int]]) -> Any:
        is_self_test = len(texts[0]) <= 5
        return vectors(self, texts) * np.float32(1 if is_self_test else 1e8)

    monkeypatch.setattr(TorchEncoder, "vectors", too_large)
    assert main([str(snapshot), "--model", str(tiny_model_dir), "--out", str(out)]) == 1
    assert "build_state: the vectors don't make a usable state: " in capsys.readouterr().err
    assert not out.exists()


def test_blank_texts_count_as_no_reports(
    tmp_path: Path, out: Path, tiny_model_dir: Path, tiny_encoder: TorchEncoder
) -> None:
    # What is no letter, digit or sign to unidecode leaves nothing to encode.
    texts = {1: ["🤖🤖", "A robot."], 2: ["🤖"]}
    source = write_snapshot(tmp_path / "snapshot", texts, {1: "One", 2: "Two"})
    assert main([str(source), "--model", str(tiny_model_dir), "--out", str(out)]) == 0
    state = IncidentState.load(out)
    assert state.incident_ids.tolist() == [1]
    assert state.report_counts.tolist() == [1]
    assert np.allclose(state.means[0], tiny_encoder.encode("A robot.").vector, atol=1e-6)


@pytest.mark.parametrize(("arguments", "code"), [([], 0), (["--strict"], 1)])
def test_skipped_rows_are_told_and_fail_a_strict_build(
    arguments: list[str],
    code: int,
    snapshot: Path,
    out: Path,
    tiny_model_dir: Path,
    tiny_encoder: TorchEncoder,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with (snapshot / "incidents.csv").open("a") as file:
        file.write("x,2020,[100],d,t\r\n41,2020,[999],d,t\r\n")
    with (snapshot / "reports.csv").open("ab") as file:
        file.write(b"107,en,caf\xe9\r\n")
    assert main([str(snapshot), "--model", str(tiny_model_dir), "--out", str(out), *arguments]) == code
    assert_is_the_state_of_the_snapshot(out, tiny_encoder)
    said = capsys.readouterr().err
    for line in (
        "reports.csv, line 8: not valid UTF-8; skipped",
        "incidents.csv, line 5: incident_id isn't a whole number above 0; skipped",
        "incidents.csv, line 6: incident 41 has missing or unusable reports: 999; skipped",
        "build_state: skipped: 3; the lines above say why.",
    ):
        assert line in said.splitlines()


@dataclass(frozen=True)
class Broken:
    """What is written over a file of the snapshot, and what of the snapshot is then given as the source."""

    file: str
    content: bytes
    source: str = "."


BROKEN = {
    "a column is missing": Broken("incidents.csv", b"incident_id,title\n1,t\n"),
    "an empty file": Broken("reports.csv", b""),
    "no usable incident": Broken("incidents.csv", b"incident_id,title,reports\nx,t,[100]\n"),
    "nothing to encode": Broken("reports.csv", "report_number,text\n100,🤖\n".encode()),
    "a file too many": Broken("other_reports/reports.csv", b"report_number,text\n100,a\n"),
    "an empty table": Broken("incidents.csv", b"", source="incidents.csv"),
    "no usable vector": Broken("state.csv", b"incident_id,count,mean\n1,1,5\n", source="state.csv"),
    "no archive": Broken("snapshot.zip", b"PK, but no zip", source="snapshot.zip"),
    "no state": Broken("state.pt", b"no state", source="state.pt"),
}


def cut_archive(snapshot: Path, form: str) -> Path:
    """The snapshot in an archive that lacks its last 100 bytes."""
    path = Path(shutil.make_archive(str(snapshot.parent / "cut"), form, snapshot))
    path.write_bytes(path.read_bytes()[:-100])
    return path


@pytest.mark.parametrize("how", [*BROKEN, "zip", "gztar", "bztar"])
def test_a_source_that_can_not_be_used_leaves_the_state_that_was_there(
    how: str, snapshot: Path, out: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out.write_bytes(b"an old state")
    if how in BROKEN:
        broken = BROKEN[how]
        (snapshot / broken.file).parent.mkdir(exist_ok=True)
        (snapshot / broken.file).write_bytes(broken.content)
        source = snapshot / broken.source
    else:
        source = cut_archive(snapshot, how)
    assert main([str(source), "--model", str(tiny_model_dir), "--out", str(out)]) == 1
    output = capsys.readouterr()
    lines = [line for line in output.err.splitlines() if line.startswith("build_state: ")]
    assert len(lines) == 1
    assert output.err.rstrip("\n").endswith(lines[0])
    assert output.out == ""
    assert out.read_bytes() == b"an old state"


@pytest.mark.parametrize("missing", ["source", "out"])
def test_paths_that_are_not_there_exit_with_2(
    missing: str, snapshot: Path, out: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = snapshot / "nothing" if missing == "source" else snapshot
    target = out.parent / "nothing" / out.name if missing == "out" else out
    with pytest.raises(SystemExit) as exit_:
        main([str(source), "--model", str(tiny_model_dir), "--out", str(target)])
    assert exit_.value.code == 2
    assert "there is no " in capsys.readouterr().err
    assert not list(out.parent.iterdir())


def test_where_there_is_no_model_folder_the_next_command_is_named(
    snapshot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(snapshot), "--model", str(tmp_path / "no model")]
    with pytest.raises(SystemExit) as exit_:
        main([*arguments, "--vectors", "computed"])
    assert exit_.value.code == 2
    assert "scripts/fetch_model.py fetches one" in capsys.readouterr().err.splitlines()[-1]
    # Another source may have AIID's vectors.
    assert main(arguments) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("build_state: the model can't be loaded: ")
    assert "scripts/fetch_model.py fetches one" in line
    assert not (tmp_path / "no model").exists()


def test_a_model_that_is_not_there_is_told_in_one_line(
    snapshot: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out.write_bytes(b"an old state")
    assert main([str(snapshot), "--model", str(tmp_path / "no model"), "--out", str(out)]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("build_state: the model can't be loaded: ")
    assert list(out.parent.iterdir()) == [out]
    assert out.read_bytes() == b"an old state"


def test_a_model_that_was_changed_is_told_in_one_line(
    snapshot: Path, out: Path, tmp_path: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model_dir = tmp_path / "model"
    shutil.copytree(tiny_model_dir, model_dir)
    (model_dir / "provenance.json").write_text('{"model": "tiny", "weights_sha256": "0"}')
    assert main([str(snapshot), "--model", str(model_dir), "--out", str(out)]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "isn't the file that was installed" in line
    assert not list(out.parent.iterdir())


def test_a_file_in_place_of_the_store_of_vectors_is_told_in_one_line(
    snapshot: Path, out: Path, cache_dir: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache_dir.mkdir()
    store = cache_dir / "vectors.sqlite"
    store.write_bytes(b"my notes" * 1000)
    out.write_bytes(b"an old state")
    assert main([str(snapshot), "--model", str(tiny_model_dir), "--out", str(out)]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"build_state: the store of vectors {store} can't be used: ")
    assert "delete it" in line
    assert store.read_bytes() == b"my notes" * 1000
    assert out.read_bytes() == b"an old state"


# Stopping and resuming.


def vectors_in(cache_dir: Path) -> int:
    """How many vectors are in a store that no process has open any more."""
    # Not read-only: SQLite first has to undo what a killed writer left half-done.
    with closing(sqlite3.connect(cache_dir / "vectors.sqlite")) as connection:
        return int(connection.execute("SELECT count(*) FROM vectors").fetchone()[0])


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot of several parts: 50 incidents with 4 texts each, no two alike. The title is the first text."""
    samples = sample_texts()
    texts = {
        incident_id: [f"{incident_id} {part} {samples[(4 * incident_id + part) % len(samples)]}" for part in range(4)]
        for incident_id in range(1, 51)
    }
    return write_snapshot(tmp_path_factory.mktemp("many"), texts, {number: each[0] for number, each in texts.items()})


# Runs the script, but stays where it has kept so many vectors or more, until a signal or a line comes.
HELD_IN_THE_MIDDLE = """
import runpy, sys

least = int(sys.argv[1])
sys.argv = sys.argv[2:]
sys.path[0] = sys.argv[0].rpartition("/")[0]
from shared import command
from similarity.refresh.vector_store import VectorStore

put, kept = VectorStore.put, 0

def put_and_wait(store, vectors, made_with):
    global kept
    put(store, vectors, made_with)
    before, kept = kept, kept + len(vectors)
    if before < least <= kept:
        print("held", kept, flush=True)
        sys.stdin.readline()

VectorStore.put = put_and_wait
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def held(code: str, least: int, *arguments: str | Path) -> AbstractContextManager[subprocess.Popen[str]]:
    """A build that stays where it has kept at least so many vectors."""
    command: Command = [sys.executable, "-c", code, str(least), SCRIPT, *arguments]
    return running(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def kept_by(process: subprocess.Popen[str]) -> int:
    """How many vectors a build has kept that is held."""
    assert process.stdout is not None
    word, number = process.stdout.readline().split()
    assert word == "held"
    return int(number)


def stop_in_the_middle(with_signal: signal.Signals, *arguments: str | Path) -> tuple[int, int, str]:
    """Starts a build, stops it once it has kept some vectors; gives their number, its exit code and its stderr."""
    with held(HELD_IN_THE_MIDDLE, 15, *arguments) as process:
        kept = kept_by(process)
        process.send_signal(with_signal)
        _, stderr = process.communicate(timeout=PATIENCE_S)
    return kept, process.returncode, stderr


@pytest.mark.slow
def test_a_build_that_was_stopped_or_killed_resumes_and_ends_as_if_it_had_not_been(
    many: Path, out: Path, cache_dir: Path, tmp_path: Path, tiny_model_dir: Path, encoded: list[str]
) -> None:
    arguments: Command = [many, "--model", tiny_model_dir, "--out", out, "--cache", cache_dir]
    out.write_bytes(b"an old state")
    first, code, stderr = stop_in_the_middle(signal.SIGINT, *arguments)
    assert code == 1
    assert stderr.splitlines()[-1] == RESUME_HINT
    assert "Traceback" not in stderr
    assert 15 <= vectors_in(cache_dir) == first < 200
    assert out.read_bytes() == b"an old state"

    second, code, _ = stop_in_the_middle(signal.SIGKILL, *arguments)
    assert code == -signal.SIGKILL
    kept = vectors_in(cache_dir)
    assert kept == first + second < 200, "all parts that were done before the signal"
    assert out.read_bytes() == b"an old state"

    assert main([*map(str, arguments)]) == 0
    assert len(encoded) == 200 - kept
    assert list(out.parent.iterdir()) == [out]

    whole = tmp_path / "whole.pt"
    encoded.clear()
    paths = ["--out", str(whole), "--cache", str(tmp_path / "another cache")]
    assert main([str(many), "--model", str(tiny_model_dir), *paths]) == 0
    assert len(encoded) == 200
    resumed, uninterrupted = IncidentState.load(out), IncidentState.load(whole)
    assert resumed.means.tobytes() == uninterrupted.means.tobytes()
    assert np.array_equal(resumed.incident_ids, uninterrupted.incident_ids)
    assert np.array_equal(resumed.report_counts, uninterrupted.report_counts)
    assert list(resumed.titles) == list(uninterrupted.titles)
    assert content_of(replace(resumed, built_at="")) == content_of(replace(uninterrupted, built_at=""))


# Keeps one vector. Then it writes others, more than SQLite holds in memory, and is held in the middle of that.
HELD_IN_A_WRITE = HELD_IN_THE_MIDDLE.replace(
    "    put(store, vectors, made_with)\n",
    """
    put(store, dict([vectors.popitem()]), made_with)
    store._connection.execute("PRAGMA cache_size = 1")
    store._connection.execute("BEGIN IMMEDIATE")
    rows = [(f"key {number}", bytes(5000)) for number in range(100)]
    store._connection.executemany("INSERT INTO vectors VALUES (?, ?, '2026-11-26')", rows)
""",
)
assert HELD_IN_A_WRITE != HELD_IN_THE_MIDDLE


@pytest.mark.slow
def test_a_build_that_was_killed_while_it_wrote_a_part_loses_that_part_only(
    snapshot: Path, out: Path, cache_dir: Path, tiny_model_dir: Path, tiny_encoder: TorchEncoder, encoded: list[str]
) -> None:
    arguments: Command = [snapshot, "--model", tiny_model_dir, "--out", out, "--cache", cache_dir]
    with held(HELD_IN_A_WRITE, 1, *arguments) as process:
        kept_by(process)
        assert (cache_dir / "vectors.sqlite").stat().st_size > 100_000, "halves of the part are in the file"
        process.kill()
        process.communicate(timeout=PATIENCE_S)
    assert vectors_in(cache_dir) == 1
    assert main([*map(str, arguments)]) == 0
    assert len(encoded) == 5
    assert_is_the_state_of_the_snapshot(out, tiny_encoder)


@pytest.mark.slow
def test_two_builds_at_once_use_one_store(
    many: Path, tmp_path: Path, cache_dir: Path, tiny_model_dir: Path, encoded: list[str]
) -> None:
    outs = [tmp_path / "first.pt", tmp_path / "second.pt", tmp_path / "third.pt"]

    def build(out: Path) -> AbstractContextManager[subprocess.Popen[str]]:
        return held(HELD_IN_THE_MIDDLE, 1, many, "--model", tiny_model_dir, "--out", out, "--cache", cache_dir)

    with build(outs[0]) as first, build(outs[1]) as second:
        # Both have the store open, and neither has kept all vectors.
        for process in (first, second):
            assert kept_by(process) < 200
        for process in (first, second):
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        said = [process.communicate(timeout=PATIENCE_S) for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), said
    assert vectors_in(cache_dir) == 200
    assert main([str(many), "--model", str(tiny_model_dir), "--out", str(outs[2])]) == 0
    assert encoded == []
    assert len({IncidentState.load(path).means.tobytes() for path in outs}) == 1


def test_a_text_that_stands_in_two_incidents_is_encoded_once(
    tmp_path: Path, out: Path, tiny_model_dir: Path, encoded: list[str]
) -> None:
    source = write_snapshot(tmp_path / "snapshot", {1: ["The same."], 2: ["The same.", "Another."]}, {1: "a", 2: "b"})
    assert main([str(source), "--model", str(tiny_model_dir), "--out", str(out)]) == 0
    assert len(encoded) == 2


def fill_store(cache_dir: Path, fingerprint: str) -> None:
    """The vectors of an earlier build: ones, which no model gives."""
    with VectorStore(cache_dir / "vectors.sqlite") as store:
        made_with = MadeWith(fingerprint, "torch", "float32", TINY_MAX_TOKENS)
        for texts in TEXTS.values():
            store.put({text: np.ones(32, dtype=np.float32) for text in texts}, made_with)


def test_vectors_of_another_model_are_not_used(
    snapshot: Path, out: Path, cache_dir: Path, tmp_path: Path, tiny_model_dir: Path, tiny_encoder: TorchEncoder
) -> None:
    other = TorchEncoder.load(write_tiny_longformer(tmp_path / "other", seed=1))
    fill_store(cache_dir, other.fingerprint)
    assert main([str(snapshot), "--model", str(tiny_model_dir), "--out", str(out)]) == 0
    assert_is_the_state_of_the_snapshot(out, tiny_encoder)


def test_vectors_of_the_same_model_are_used(
    snapshot: Path, out: Path, cache_dir: Path, tiny_model_dir: Path, tiny_encoder: TorchEncoder
) -> None:
    fill_store(cache_dir, tiny_encoder.fingerprint)
    assert main([str(snapshot), "--model", str(tiny_model_dir), "--out", str(out)]) == 0
    assert np.array_equal(IncidentState.load(out).means, np.ones((3, 32)))


def test_vectors_of_another_precision_or_limit_are_not_used(
    snapshot: Path, out: Path, tiny_model_dir: Path, encoded: list[str]
) -> None:
    arguments = [str(snapshot), "--model", str(tiny_model_dir), "--out", str(out)]
    for options in (["--precision", "bfloat16"], [], ["--max-tokens", "9"], ["--precision", "bfloat16"], []):
        assert main([*arguments, *options]) == 0
    assert len(encoded) == 3 * 6


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vectors of a build", "the state itself"])
def test_a_full_disk_is_told_in_one_line_and_leaves_the_state_that_was_there(
    kind: str, snapshot: Path, out: Path, cache_dir: Path, tiny_model_dir: Path
) -> None:
    out.write_bytes(b"an old state")
    source = snapshot
    if kind == "the state itself":
        source = snapshot / "state.csv"
        rows = "".join(f'{number},1,"{list(range(64))}"\n' for number in range(100))
        source.write_text("incident_id,count,mean\n" + rows)
    paths: Command = ["--model", tiny_model_dir, "--out", out, "--cache", cache_dir]
    ran = run_where_files_stay_small(16, [SCRIPT, source, *paths])
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    lines = [line for line in ran.stderr.splitlines() if line.startswith("build_state: ")]
    assert lines == ran.stderr.splitlines()[-1:]
    assert str(out if kind == "the state itself" else cache_dir / "vectors.sqlite") in lines[0]
    assert out.read_bytes() == b"an old state"
    assert list(out.parent.iterdir()) == [out]


# A state.csv needs neither model nor torch, so these are quick.


@pytest.fixture
def state_csv(tmp_path: Path) -> Path:
    path = tmp_path / "state.csv"
    path.write_text('incident_id,count,mean\n1,1,"[1, 2]"\n')
    return path


def test_a_folder_in_place_of_the_state_is_told_before_the_build(
    state_csv: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([str(state_csv), "--out", str(out.parent)])
    assert exit_.value.code == 2
    assert f"{out.parent} is a folder; --out is a file" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_what_can_not_be_printed_is_told_in_one_line(unbuffered: str, state_csv: Path, out: Path) -> None:
    command: Command = [sys.executable, SCRIPT, state_csv, "--out", out]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment, timeout=PATIENCE_S
        )
    assert ended.returncode == 1
    assert ended.stderr == "build_state: stdout can't be written: No space left on device\n"
    assert len(IncidentState.load(out)) == 1
