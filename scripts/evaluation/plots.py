"""Plots of a task, as PNG files. Only `evaluate.py --plots` imports this, because importing matplotlib takes a second.

Colours are those of Okabe and Ito 2008, "Color Universal Design", and lines differ in their dashes or marks too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from evaluation.figures import Bin
from evaluation.results import Plotted

SCORES, LENGTH, RELIABILITY = "scores.png", "length.png", "reliability.png"

_BLUE, _ORANGE, _GREEN, _RED, _PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
_MARKS = (("o", _BLUE), ("s", _ORANGE), ("^", _GREEN), ("D", _RED), ("v", _PURPLE))
_HISTOGRAM_BINS = 40
_DPI = 150


def write_plots(folder: Path, task: str, metrics: Mapping[Any, Plotted]) -> list[Path]:
    """Writes the plots of a task into a folder, which is made. Files of the same names are replaced. Raises OSError.

    Without calibrated metrics, there is no plot of reliability.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = {SCORES: _scores(task, metrics), LENGTH: _length(task, metrics)}
    if calibrated := {name: each for name, each in metrics.items() if each.bins}:
        figures[RELIABILITY] = _reliability(task, calibrated)
    written = []
    for name, figure in figures.items():
        path = folder / f"{task}-{name}"
        # No metadata, so that the same figures make the same file.
        figure.savefig(path, dpi=_DPI, metadata={"Software": None}, backend="agg")
        written.append(path)
    return written


def _figure(columns: int, rows: int, width: float, height: float, title: str) -> Figure:
    with mpl.rc_context({"font.size": 10}):
        figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    figure.suptitle(title)
    return figure


def _scores(task: str, metrics: Mapping[Any, Plotted]) -> Figure:
    columns = min(len(metrics), 3)
    rows = -(-len(metrics) // columns)
    figure = _figure(
        columns, rows, 4.4, 3.4, f"Task {task}: scores of right incidents, of others, and of unrelated texts"
    )
    for number, (name, each) in enumerate(metrics.items(), start=1):
        axes = figure.add_subplot(rows, columns, number)
        kinds = (
            (f"right incident ({len(each.right)} texts)", each.right, _BLUE, "-"),
            (f"best other incident ({len(each.wrong)} texts)", each.wrong, _ORANGE, "--"),
            (f"best of an unrelated text ({len(each.unrelated)} texts)", each.unrelated, _GREEN, ":"),
        )
        shown = [np.asarray(values, dtype=np.float64) for _, values, _, _ in kinds]
        shown = [values[np.isfinite(values)] for values in shown]
        together = np.concatenate(shown)
        if len(together):
            edges = np.histogram_bin_edges(together, bins=_HISTOGRAM_BINS)
            for (label, _, colour, line), values in zip(kinds, shown, strict=True):
                shares = np.histogram(values, edges)[0] / max(len(values), 1)
                axes.stairs(shares, edges, fill=True, color=colour, alpha=0.25)
                axes.stairs(shares, edges, color=colour, linestyle=line, linewidth=1.5, label=label)
        axes.set(title=name, xlabel="score" if name in ("words", "hybrid") else "similarity", ylabel="share of texts")
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        if number == 1:
            handles, labels = axes.get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _length(task: str, metrics: Mapping[Any, Plotted]) -> Figure:
    figure = _figure(1, 1, 8, 4.8, f"Task {task}: right incident first, by length of the text")
    axes = figure.add_subplot()
    names: list[str] = []
    for number, (metric, each) in enumerate(metrics.items()):
        names = [f"{group.name}\n({group.queries})" for group in each.groups]
        shift = (number - (len(metrics) - 1) / 2) * 0.12
        values = np.array([(g.first.value, g.first.low, g.first.high) for g in each.groups]).reshape(-1, 3).T
        mark, colour = _MARKS[number % len(_MARKS)]
        axes.errorbar(
            np.arange(len(names)) + shift,
            values[0],
            yerr=np.maximum([values[0] - values[1], values[2] - values[0]], 0),
            fmt=mark,
            color=colour,
            capsize=3,
            label=metric,
        )
    least = min((group.first.low for each in metrics.values() for group in each.groups), default=0.0)
    axes.set_xticks(range(len(names)), names)
    axes.set(
        xlim=(-0.5, max(len(names), 1) - 0.5),
        ylim=(math.floor(10 * least) / 10, 1.02),  # of points, not of bars: it needn't begin at 0
        xlabel="words in the text (number of texts)",
        ylabel="right incident first, with 95 % interval",
    )
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def _reliability(task: str, metrics: Mapping[Any, Plotted]) -> Figure:
    columns = min(len(metrics), 2)
    rows = -(-len(metrics) // columns)
    figure = _figure(columns, rows, 4.6, 4.6, f"Task {task}: is the confidence right? (cross-validated)")
    grid = figure.add_gridspec(2 * rows, columns, height_ratios=[3, 1] * rows)
    for number, (name, each) in enumerate(metrics.items()):
        row, column = divmod(number, columns)
        axes = figure.add_subplot(grid[2 * row, column])
        below = figure.add_subplot(grid[2 * row + 1, column], sharex=axes)
        _calibration(axes, below, name, each.bins)
    return figure


def _calibration(axes: Axes, below: Axes, name: str, bins: Sequence[Bin]) -> None:
    """Shares above, with the diagonal; counts below."""
    axes.plot([0, 1], [0, 1], color="0.5", linestyle="--", label="perfect")
    axes.plot([each.mean for each in bins], [each.share for each in bins], "o-", color=_BLUE, label="measured")
    axes.set(title=name, xlim=(0, 1), ylim=(-0.02, 1.02), ylabel="share that is right")
    for axis in (axes.yaxis, axes.xaxis):
        axis.set_major_formatter(PercentFormatter(1))
    axes.tick_params(labelbottom=False)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", frameon=False)
    places = [(each.low + each.high) / 2 for each in bins]
    bars = below.bar(places, [each.count for each in bins], width=0.09, color=_ORANGE)
    below.bar_label(bars, fontsize=7, padding=1)
    below.set(xlabel="confidence of the first match", ylabel="texts")
    below.margins(y=0.25)
