"""States that others made become states, bad rows of state.csv are reported by their line and left out."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from similarity.incidents.state import IncidentState
from similarity.sources.problems import Problems, SourceError
from similarity.sources.state_files import has_vectors, read_original_state, read_state_csv, with_titles


def write_state_csv(path: Path, *rows: tuple[object, object, object]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("incident_id", "count", "mean"), *rows])
    return path


def test_a_state_table_becomes_a_state_of_the_original_model(tmp_path: Path) -> None:
    path = write_state_csv(tmp_path / "state.csv", (7, 3, "[0.5, -1.0, 2e-3]"), (2, 1, [1, 2, 3]))
    problems = Problems()
    state = read_state_csv(path, problems)
    assert problems.count == 0
    assert state.incident_ids.tolist() == [2, 7]
    assert state.report_counts.tolist() == [1, 3]
    assert np.array_equal(state.means, np.array([[1.0, 2.0, 3.0], [0.5, -1.0, 0.002]], dtype=np.float32))
    assert state.model == "allenai/longformer-base-4096"
    assert list(state.titles) == ["", ""]


BAD_STATE_ROWS: dict[str, tuple[object, object, object]] = {
    "an id that is no number": ("seven", 1, [1, 2]),
    "an id beyond 64 bits": (2**70, 1, [1, 2]),
    "a negative id": (-7, 1, [1, 2]),
    "a count that is no number": (7, "many", [1, 2]),
    "a count beyond 64 bits": (7, 2**70, [1, 2]),
    "a count of 0": (7, 0, [1, 2]),
    "a mean that is no JSON": (7, 1, "1 2"),
    "a number for a mean": (7, 1, "5"),
    "nothing for a mean": (7, 1, "null"),
    "true for a mean": (7, 1, "true"),
    "a text for a mean": (7, 1, '"[1, 2]"'),
    "an object for a mean": (7, 1, '{"0": 1}'),
    "an empty mean": (7, 1, []),
    "a mean of lists": (7, 1, [[1, 2]]),
    "a mean with a gap": (7, 1, "[1, null]"),
    "a mean that is not finite": (7, 1, "[1, NaN]"),
    "a mean beyond float32": (7, 1, [1, 1e300]),
    "a mean beyond every float": (7, 1, [1, 10**400]),
}


@pytest.mark.parametrize("place", ["first", "last"])
@pytest.mark.parametrize("case", BAD_STATE_ROWS)
def test_a_bad_row_of_a_state_table_is_reported_by_its_line_and_skipped(
    case: str, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = (2, 3, [0.25, 4]), BAD_STATE_ROWS[case]
    path = write_state_csv(tmp_path / "state.csv", *((bad, good) if place == "first" else (good, bad)))
    problems = Problems()
    state = read_state_csv(path, problems)
    assert state.incident_ids.tolist() == [2]
    assert state.report_counts.tolist() == [3]
    assert state.means.tolist() == [[0.25, 4.0]]
    assert problems.count == 1
    [said] = capsys.readouterr().err.splitlines()
    assert said.startswith(f"state.csv, line {2 if place == 'first' else 3}: ")


def test_rows_that_do_not_go_with_earlier_ones_are_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_state_csv(tmp_path / "state.csv", (1, 1, [1, 2]), (2, 1, [1, 2, 3]), (1, 5, [3, 4]))
    assert read_state_csv(path, Problems()).means.tolist() == [[1.0, 2.0]]
    assert capsys.readouterr().err.splitlines() == [
        "state.csv, line 3: mean isn't a list of 2 numbers from -1,000,000 to 1,000,000; skipped",
        "state.csv, line 4: an earlier line has the same incident_id; skipped",
    ]


def test_one_mean_of_another_length_costs_only_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also if it is the first."""
    path = write_state_csv(tmp_path / "state.csv", (1, 1, [1]), (2, 1, [1, 2]), (3, 1, [3, 4]))
    assert read_state_csv(path, Problems()).incident_ids.tolist() == [2, 3]
    assert capsys.readouterr().err.startswith("state.csv, line 2: mean isn't a list of 2 numbers ")


def test_a_state_table_without_a_usable_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"^state\.csv has no usable row\.$"):
        read_state_csv(write_state_csv(tmp_path / "state.csv", ("x", 1, [1])), Problems())


def test_the_original_list_of_tensors_becomes_a_state(tmp_path: Path) -> None:
    path = tmp_path / "incident_cls.pt"
    torch.save([torch.tensor([[1.0, 2.0], [3.0, 5.0]]), None, torch.tensor([[-1.0, 0.5]])], path)
    state = read_original_state(path)
    assert state.incident_ids.tolist() == [1, 3]
    assert state.report_counts.tolist() == [2, 1]
    assert state.means.tolist() == [[2.0, 3.5], [-1.0, 0.5]]


@pytest.mark.parametrize("content", [b"", b"no state", json.dumps([1, 2]).encode()])
def test_a_file_that_is_no_state_is_refused_in_one_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "incident_cls.pt"
    path.write_bytes(content)
    with pytest.raises(SourceError) as error:
        read_original_state(path)
    assert str(error.value).startswith(f"{path} isn't an incident state that can be used: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("incident_id,count,mean", True),
        ("\ufeffmean,count", True),
        ("incident_id,title,description", False),
        ("incident_id,meaning", False),
        ("", False),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_table_of_vectors_is_known_by_its_header(header: str, expected: bool, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(header + "\n1,2,3\n", encoding="utf-8")
    assert has_vectors(path) is expected


def test_a_table_with_an_endless_header_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("x" * 200_000)
    # Python's default, which reading reports raises.
    limit = csv.field_size_limit(131_072)
    try:
        with pytest.raises(SourceError, match=r"^table\.csv can't be read: .*limit"):
            has_vectors(path)
    finally:
        csv.field_size_limit(limit)


# Titles and dates for a state that has none.

TITLES = "incident_id,date,title,reports\n7,2026-04-30,A robot fell,[1]\n9,2026-05-01,Not in the state,[2]\n"


def state_of(tmp_path: Path) -> IncidentState:
    return read_state_csv(write_state_csv(tmp_path / "state.csv", (2, 1, [1, 2]), (7, 3, [3, 4])), Problems())


def write_titles(tmp_path: Path, content: str = TITLES) -> Path:
    path = tmp_path / "incidents.csv"
    path.write_text(content)
    return path


def test_a_state_gets_the_titles_and_dates_of_its_incidents(tmp_path: Path) -> None:
    before = state_of(tmp_path)
    problems = Problems()
    state = with_titles(before, write_titles(tmp_path), problems)
    assert problems.count == 0
    assert list(state.titles) == ["", "A robot fell"]
    assert list(state.dates) == ["", "2026-04-30"]
    assert state.incident_ids.tolist() == [2, 7]
    assert np.array_equal(state.means, before.means)


def test_titles_and_dates_that_the_table_lacks_stay(tmp_path: Path) -> None:
    before = replace(state_of(tmp_path), titles=["Kept", "Old"], dates=["2020-01-01", "2020-01-02"])
    state = with_titles(before, write_titles(tmp_path, TITLES.replace("2026-04-30", "some day")), Problems())
    assert list(state.titles) == ["Kept", "A robot fell"]
    assert list(state.dates) == ["2020-01-01", "2020-01-02"]


def test_a_table_without_dates_gives_titles(tmp_path: Path) -> None:
    state = with_titles(state_of(tmp_path), write_titles(tmp_path, "incident_id,title\n2,One\n"), Problems())
    assert list(state.titles) == ["One", ""]
    assert list(state.dates) == ["", ""]


def test_a_table_of_other_incidents_is_refused(tmp_path: Path) -> None:
    path = write_titles(tmp_path, TITLES.replace("\n7,", "\n8,"))
    with pytest.raises(SourceError, match=r"^incidents\.csv has none of the state's incidents\.$"):
        with_titles(state_of(tmp_path), path, Problems())


def test_bad_rows_of_titles_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_titles(tmp_path, TITLES + "x,2026-01-01,Bad,[3]\n7,2026-01-01,Again,[3]\n")
    problems = Problems()
    assert list(with_titles(state_of(tmp_path), path, problems).titles) == ["", "A robot fell"]
    assert problems.count == 2
    assert capsys.readouterr().err.splitlines() == [
        "incidents.csv, line 4: incident_id isn't a whole number above 0; skipped",
        "incidents.csv, line 5: an earlier line has incident 7 too; skipped",
    ]
