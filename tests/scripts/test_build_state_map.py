"""Every state that is built has a map, whatever it is made of."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import build_state
from build_state import main
from published import content_of
from similarity.incidents.points import no_points, pca, require_points
from similarity.incidents.state import IncidentState
from similarity.incidents.vector_index import Index
from states import building, mapping
from states.mapping import map_of
from tiny import SAMPLE_DIR

pytestmark = pytest.mark.usefixtures("cache_dir", "one_thread")

LINE = re.compile(r"^Map: (PCA|t-SNE) keeps (\d+) % of the ten nearest incidents, (PCA|t-SNE) (\d+) %$", re.MULTILINE)

Build = Callable[..., IncidentState]


@pytest.fixture
def build(out: Path, tiny_model_dir: Path) -> Build:
    def run(source: Path, *options: str) -> IncidentState:
        assert main([str(source), "--model", str(tiny_model_dir), "--out", str(out), *options]) == 0
        return IncidentState.load(out)

    return run


@pytest.mark.slow
def test_the_map_is_made_and_measured(build: Build, capsys: pytest.CaptureFixture[str]) -> None:
    state = build(SAMPLE_DIR)
    require_points(state.points, 52)
    expected = map_of(state)
    assert state.points.tobytes() == expected.points.tobytes()
    found = LINE.search(capsys.readouterr().out)
    assert found
    printed = {found[1]: int(found[2]), found[3]: int(found[4])}
    assert printed == {method: round(100 * share) for method, share in expected.kept.items()}
    assert int(found[2]) >= int(found[4])
    assert list(printed) == list(expected.kept)


def write_sources(folder: Path) -> dict[str, list[str]]:
    """Arguments for a source of each kind."""
    (folder / "state.csv").write_text('incident_id,count,mean\n9,2,"[0.5, 1]"\n4,1,"[2, -3]"\n7,1,"[1, 1]"\n')
    torch.save([torch.tensor([[1.0, 2.0]]), None, torch.tensor([[3.0, 1.0]])], folder / "original.pt")
    texts = ["A goose hit an engine.", "Ice on the wings.", "A drone flew over the runway."]
    (folder / "events.jsonl").write_text(
        "".join(json.dumps({"no": number, "text": text}) + "\n" for number, text in enumerate(texts, start=1))
    )
    with (folder / "incidents.csv").open("w", newline="") as file:
        rows = [(number, "2020-01-01", "[]", text, f"Title {number}") for number, text in enumerate(texts, start=1)]
        csv.writer(file).writerows([("incident_id", "date", "reports", "description", "title"), *rows])
    return {
        "state.csv": [str(folder / "state.csv")],
        "the original's state": [str(folder / "original.pt")],
        "another database": [str(folder / "events.jsonl"), "--columns", "id=no,text=text"],
        "a table": [str(folder / "incidents.csv")],
    }


@pytest.mark.parametrize("kind", ["state.csv", "the original's state", "another database", "a table"])
def test_the_states_of_all_sources_have_points(
    kind: str, tmp_path: Path, build: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    source, *options = write_sources(tmp_path)[kind]
    state = build(Path(source), *options)
    assert len(state) in (2, 3)
    assert np.array_equal(state.points, pca(Index(state.means, state.fit.whitening)))
    assert np.abs(state.points).max() == 1
    # Each map keeps the ten nearest of so few.
    assert "Map: " not in capsys.readouterr().out


def test_a_state_keeps_its_map_because_its_means_stay(
    tmp_path: Path, build: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    source, *_ = write_sources(tmp_path)["state.csv"]
    first = build(Path(source))
    places = np.array([[0.5, -1], [0.25, 0.125], [-0.75, 1]], dtype=np.float32)
    path = tmp_path / "state.pt"
    replace(first, points=places).save(path)
    capsys.readouterr()
    moved = build(path, "--collection-name", "Moved")
    assert (moved.collection, moved.points.tobytes()) == ("Moved", places.tobytes())
    titles = tmp_path / "titles.csv"
    titles.write_text("incident_id,title\n7,Geese\n")
    assert build(path, "--titles", str(titles)).points.tobytes() == places.tobytes()
    assert "Map: " not in capsys.readouterr().out
    # One of an earlier version gets a map.
    replace(first, points=no_points()).save(path)
    assert content_of(replace(build(path), built_at="")) == content_of(replace(first, built_at=""))


@pytest.mark.slow
def test_ctrl_c_while_the_map_is_made_loses_no_vectors_and_no_state(
    out: Path,
    tiny_model_dir: Path,
    encoded: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stopped(state: IncidentState) -> mapping.Map:
        raise KeyboardInterrupt

    out.write_bytes(b"an old state")
    arguments = [str(SAMPLE_DIR), "--model", str(tiny_model_dir), "--out", str(out)]
    monkeypatch.setattr(building, "map_of", stopped)
    assert main(arguments) == 1
    assert capsys.readouterr().err.endswith("build_state: stopped; give the same command again to resume.\n")
    assert out.read_bytes() == b"an old state"
    assert list(out.parent.iterdir()) == [out]
    assert encoded
    encoded.clear()
    monkeypatch.setattr(building, "map_of", map_of)
    assert main(arguments) == 0
    assert encoded == []
    assert len(IncidentState.load(out).points) == 52


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_is_told_before_the_map_is_made(
    terminal: bool, tmp_path: Path, build: Build, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, *_ = write_sources(tmp_path)["state.csv"]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    build(Path(source))
    assert ("Making a map of 3 incidents ...\n" in capsys.readouterr().err) is terminal


def test_the_line_names_the_better_map_first(capsys: pytest.CaptureFixture[str]) -> None:
    state = IncidentState(np.array([1]), np.array([1]), np.ones((1, 2), dtype=np.float32), [""])
    build_state.report(building.Result(state, kept={"PCA": 0.6149, "t-SNE": 0.08}), None, Path("state.pt"))
    assert "\nMap: PCA keeps 61 % of the ten nearest incidents, t-SNE 8 %\n" in capsys.readouterr().out
