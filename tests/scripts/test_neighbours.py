"""What neighbours.py writes is what a database imports, and it says in one line why it can't write."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import build_state
from neighbours import main
from pages import WRITES_NEIGHBOURS
from processes import node
from similarity.incidents.state import IncidentState
from tiny import ROOT

# Angles in degrees, so that cosines can be told by hand.
ANGLES = {1: 0, 5: 60, 9: 90, 23: 60}


@pytest.fixture
def state_path(tmp_path: Path) -> Path:
    angles = np.radians(list(ANGLES.values()))
    state = IncidentState(
        incident_ids=np.array(list(ANGLES)),
        report_counts=np.ones(4, dtype=np.int64),
        means=np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32),
        titles=[""] * 4,
        dissimilar=np.array([[1, 9]]),
    )
    state.save(tmp_path / "state.pt")
    return tmp_path / "state.pt"


def test_a_state_without_a_whitening_map_gets_one_by_the_command_that_is_named(
    state_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--state", str(state_path), "--metric", "whitened"]
    assert main(arguments) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"neighbours: {state_path} has no whitening map; scripts/build_state.py ")
    assert build_state.main(line.partition("build_state.py ")[2].removesuffix(" adds one").split()) == 0
    assert main(arguments) == 0
    assert len(json.loads(capsys.readouterr().out.splitlines()[-1])["nlp_similar_incidents"]) == 3


def test_each_line_is_what_the_database_imports(state_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--state", str(state_path), "--num", "2"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected: dict[int, list[tuple[int, float]]] = {
        1: [(5, 0.5), (23, 0.5)],
        5: [(23, 1.0), (9, 0.75**0.5)],
        9: [(5, 0.75**0.5), (23, 0.75**0.5)],
        23: [(5, 1.0), (9, 0.75**0.5)],
    }
    assert lines == [
        {
            "incident_id": incident_id,
            "nlp_similar_incidents": [
                {"incident_id": other, "similarity": pytest.approx(similarity, abs=1e-6)} for other, similarity in found
            ],
        }
        for incident_id, found in expected.items()
    ]


def test_three_are_found_if_nothing_is_said(state_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--state", str(state_path)]) == 0
    found = [len(json.loads(line)["nlp_similar_incidents"]) for line in capsys.readouterr().out.splitlines()]
    assert found == [2, 3, 2, 3]  # 1 and 9 are marked as dissimilar


def test_the_metric_is_the_apis(state_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--state", str(state_path), "--metric", "centered", "--num", "1"]) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    means = IncidentState.load(state_path).means.astype(np.float64)
    one, other = means[0] - means.mean(axis=0), means[1] - means.mean(axis=0)
    [match] = first["nlp_similar_incidents"]
    assert match["incident_id"] == 5
    assert match["similarity"] == pytest.approx(one @ other / np.linalg.norm(one) / np.linalg.norm(other), abs=1e-6)


def test_csv_has_a_line_a_pair(state_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--state", str(state_path), "--num", "2"]) == 0
    expected = [
        [str(line["incident_id"]), str(rank), str(match["incident_id"]), str(match["similarity"])]
        for line in map(json.loads, capsys.readouterr().out.splitlines())
        for rank, match in enumerate(line["nlp_similar_incidents"], start=1)
    ]
    assert main(["--state", str(state_path), "--num", "2", "--format", "csv"]) == 0
    header, *rows = csv.reader(io.StringIO(capsys.readouterr().out))
    assert header == ["incident_id", "rank", "similar_incident_id", "similarity"]
    assert rows == expected
    assert len(rows) == 8


@pytest.mark.parametrize("content", [None, b"", b"no state"])
def test_a_state_that_can_not_be_read_is_told_in_one_line(
    content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "state.pt"
    if content is not None:
        path.write_bytes(content)
    assert main(["--state", str(path)]) == 1
    output = capsys.readouterr()
    [line] = output.err.splitlines()
    assert line.startswith(f"neighbours: {path} ")
    assert output.out == ""


@pytest.mark.parametrize("num", ["0", "-1", "2.5", "many"])
def test_a_number_of_neighbours_that_makes_no_sense_exits_with_2(num: str, state_path: Path) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--state", str(state_path), "--num", num])
    assert exit_.value.code == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_a_full_disk_is_told_in_one_line(form: str, state_path: Path) -> None:
    command: list[str | Path] = [
        sys.executable,
        ROOT / "scripts" / "neighbours.py",
        "--state",
        state_path,
        "--format",
        form,
    ]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == "neighbours: stdout can't be written: No space left on device"
    assert "Traceback" not in ended.stderr
    assert "Exception" not in ended.stderr


def test_a_closed_stdout_is_no_error(state_path: Path) -> None:
    script = ROOT / "scripts" / "neighbours.py"
    command: list[str | Path] = ["sh", "-c", 'exec "$0" "$@" >&-', sys.executable, script, "--state", state_path]
    ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 0
    assert "Traceback" not in ended.stderr


# Stands for mongosh: a collection without the option `upsert`, in which incident 9 isn't.
COLLECTION = """
const stored = [23, 1, 5].map((incident_id) => ({ incident_id, title: "kept" }));
const updateOne = (filter, change, ...options) => {
  if (options.length || Object.keys(change).join() !== "$set") throw new Error("another change");
  const found = stored.find((incident) => incident.incident_id === filter.incident_id);
  if (found) Object.assign(found, change.$set);
};
const db = { incidents: { updateOne } };
"""


def test_what_the_docs_write_into_the_database_adds_no_incident(
    state_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--state", str(state_path), "--num", "1"]) == 0
    lines = capsys.readouterr().out
    (tmp_path / "neighbours.jsonl").write_text(lines)
    code = f"{COLLECTION}{WRITES_NEIGHBOURS.code}console.log(JSON.stringify(stored));"
    done = subprocess.run([node(), "--eval", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stderr == ""
    found = {each["incident_id"]: each for each in map(json.loads, lines.splitlines())}
    assert set(found) == set(ANGLES)
    assert json.loads(done.stdout) == [{"title": "kept", **found[incident_id]} for incident_id in (23, 1, 5)]
