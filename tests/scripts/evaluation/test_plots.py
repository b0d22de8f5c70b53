"""The plots are files of fixed names, whose pixels depend on the figures."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from evaluation.figures import Bin, Estimate
from evaluation.plots import write_plots
from evaluation.results import Group, Plotted

GROUPS = [Group("under 5", 2, Estimate(0.5, 0.0, 1.0)), Group("5 to 19", 8, Estimate(0.75, 0.5, 1.0))]
BINS = [Bin(0.0, 0.1, 3, 0.05, 0.0), Bin(0.9, 1.0, 5, 0.95, 1.0)]
PLOTTED = Plotted([0.8, 0.9], [0.5, 0.6], [0.1, 0.2], GROUPS, BINS)


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two folders with the plots of the same figures."""
    first, again = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("again")
    for folder in (first, again):
        write_plots(folder, "title", {"cosine": PLOTTED})
    return first, again


def pixels(path: Path) -> np.ndarray:
    found: np.ndarray = imread(path)
    return found


@pytest.mark.slow
def test_a_task_has_three_plots(tmp_path: Path) -> None:
    words = replace(PLOTTED, bins=[])
    written = write_plots(tmp_path / "a" / "b", "title", {"cosine": PLOTTED, "hybrid": PLOTTED, "words": words})
    assert [path.name for path in written] == ["title-scores.png", "title-length.png", "title-reliability.png"]
    assert sorted((tmp_path / "a" / "b").iterdir()) == sorted(written)
    for path in written:
        height, width, _ = pixels(path).shape
        assert min(height, width) > 400
        assert len(np.unique(pixels(path).reshape(-1, 4), axis=0)) > 10


def test_without_confidence_there_is_no_reliability(tmp_path: Path) -> None:
    written = write_plots(tmp_path, "report", {"cosine": replace(PLOTTED, bins=[])})
    assert [path.name for path in written] == ["report-scores.png", "report-length.png"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("scores", replace(PLOTTED, unrelated=[0.3, 0.7])),
        ("length", replace(PLOTTED, groups=GROUPS[:1])),
        ("reliability", replace(PLOTTED, bins=PLOTTED.bins[:1])),
    ],
)
def test_other_figures_make_another_plot_and_the_same_ones_the_same(
    name: str, changed: Plotted, twice: tuple[Path, Path], tmp_path: Path
) -> None:
    write_plots(tmp_path, "title", {"cosine": changed})
    first, again, other = (folder / f"title-{name}.png" for folder in (*twice, tmp_path))
    assert first.read_bytes() == again.read_bytes()
    assert not np.array_equal(pixels(first), pixels(other))


def test_what_could_not_be_measured_is_left_out(tmp_path: Path) -> None:
    nothing = Plotted([0.5], [math.nan], [])
    assert len(write_plots(tmp_path, "title", {"cosine": nothing})) == 2
