"""Reads states of other projects without a model: `state.csv`, and the original's list.

Such a state has no titles, dates and words. `with_titles` adds them.
"""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from similarity.encoder.tokens import prepare
from similarity.errors import StateError
from similarity.incidents.confidence import Confidence
from similarity.incidents.metrics import Metric
from similarity.incidents.state import MAX_SIZE, IncidentState
from similarity.incidents.words import WordIndex
from similarity.settings import AIID_MAX_TOKENS, DEFAULT_MODEL_URI, TextPreparation
from similarity.sources.csv_files import Described, read_titles
from similarity.sources.parts import usual_size, whole_number
from similarity.sources.problems import Problems, SourceError, reading
from similarity.sources.tables import read_rows
from similarity.vectors import Vector


def read_state_csv(path: Path, problems: Problems) -> IncidentState:
    """The state in a `state.csv` of nlp-lambdas, made by the original model. Bad rows are reported and left out.

    Columns: incident_id; count, the number of reports; mean, a JSON list. Raises SourceError without a usable row.
    """
    read: list[tuple[int, int | None, int | None, Vector]] = []
    for line, row in read_rows(lambda: path.open("rb"), path.name, ("incident_id", "count", "mean"), problems):
        incident_id, count = whole_number(row["incident_id"]), whole_number(row["count"])
        try:
            vector = _vector(json.loads(row["mean"]))
        except (ValueError, TypeError, RecursionError, OverflowError):
            vector = np.empty(0, dtype=np.float32)
        usable = (np.abs(vector) <= MAX_SIZE).all()
        read.append((line, incident_id, count, vector if usable else vector[:0]))
    size = usual_size(vector for *_, vector in read if vector.size)
    rows: dict[int, tuple[int, Vector]] = {}
    for line, incident_id, count, vector in read:
        if incident_id is None or count is None:
            problems.report(path.name, line, "incident_id or count isn't a whole number above 0")
        elif not size or len(vector) != size:
            problems.report(
                path.name,
                line,
                f"mean isn't a list of {f'{size} ' if size else ''}numbers from -{MAX_SIZE:,.0f} to {MAX_SIZE:,.0f}",
            )
        elif incident_id in rows:
            problems.report(path.name, line, "an earlier line has the same incident_id")
        else:
            rows[incident_id] = (count, vector)
    if not rows:
        raise SourceError(f"{path.name} has no usable row.")
    ids = sorted(rows)
    return IncidentState(
        incident_ids=np.array(ids),
        report_counts=np.array([rows[incident_id][0] for incident_id in ids]),
        means=np.stack([rows[incident_id][1] for incident_id in ids]),
        titles=[""] * len(ids),
        model=DEFAULT_MODEL_URI,
        source={"kind": "csv", "name": path.name, "date": ""},
        max_tokens=AIID_MAX_TOKENS,
    )


def _vector(value: object) -> Vector:
    """A JSON list of numbers as float32 (numbers,). Numbers too large for float32 become infinite.

    Raises TypeError or OverflowError.
    """
    if not isinstance(value, list) or not all(isinstance(entry, float | int) for entry in value):
        raise TypeError("not a list of numbers")
    with np.errstate(over="ignore"):
        return np.array([float(entry) for entry in value], dtype=np.float32)


def read_original_state(path: Path) -> IncidentState:
    """A state in a .pt file: the original's list, or this project's own form. Raises SourceError."""
    try:
        return IncidentState.load(path)
    except StateError as error:
        raise SourceError(error.detail) from error


def has_vectors(path: Path) -> bool:
    """Whether a CSV holds means (`state.csv`) rather than incidents. Raises SourceError."""
    with reading(path.name), path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        return "mean" in next(csv.reader([file.readline()]), [])


def with_titles(state: IncidentState, path: Path, problems: Problems) -> IncidentState:
    """`state` with the titles, dates and words of an incidents.csv. If one is missing there, the state's own stays.

    The word index is that of the titles and descriptions. Raises SourceError if the table can't be read, or has none of
    the state's incidents.
    """
    described = read_titles(lambda: path.open("rb"), path.name, problems)
    given = [described.get(incident_id, Described()) for incident_id in state.incident_ids.tolist()]
    if not any(incident_id in described for incident_id in state.incident_ids.tolist()):
        raise SourceError(f"{path.name} has none of the state's incidents.")
    dates = state.dates or [""] * len(state)
    titles = [new.title or old for new, old in zip(given, state.titles, strict=True)]
    documents = [f"{title}\n{new.description}" for title, new in zip(titles, given, strict=True)]
    preparation: TextPreparation = "unidecode" if state.text_preparation == "unidecode" else "none"
    words = WordIndex.of([prepare(document, preparation) for document in documents])
    # What was fitted to other words doesn't count any more.
    calibration: dict[Metric, Confidence] = dict(state.fit.calibration)
    calibration.pop("hybrid", None)
    return replace(
        state,
        titles=titles,
        dates=[new.date or old for new, old in zip(given, dates, strict=True)],
        fit=replace(state.fit, words=words, calibration=calibration) if words else state.fit,
    )
