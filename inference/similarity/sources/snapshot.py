"""What an incident state can be built from: AIID's snapshots and tables, read into incidents or into a state.

Turning the texts into vectors is left to `build_state.py`. A bad row is reported by its line and skipped; a source that
can't be read at all is a SourceError.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Container
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from similarity.errors import StateError
from similarity.incidents.state import MAX_SIZE, IncidentState
from similarity.settings import DEFAULT_MODEL_URI
from similarity.sources.tables import Content, Problems, Row, SourceError, is_text, read_rows, reading, snapshot_opener
from similarity.vectors import Vector

TextMode = Literal["title-and-description", "title", "description"]

INCIDENTS, REPORTS = "incidents.csv", "reports.csv"


@dataclass(frozen=True)
class Incident:
    """An incident and the texts that stand for it."""

    incident_id: int
    title: str
    texts: tuple[str, ...]


def read_incidents(path: Path, problems: Problems, text: TextMode) -> list[Incident]:
    """The incidents of a snapshot (folder, zip or tar with incidents.csv and reports.csv) or of an incidents.csv alone.

    `text` says what stands in for reports where there are none. Raises SourceError.
    """
    if path.is_file() and is_text(path):
        return _incidents_alone(lambda: path.open("rb"), path.name, problems, text)
    opener = snapshot_opener(path)
    return _incidents_with_reports(opener, problems)


def read_state_csv(path: Path, problems: Problems) -> IncidentState:
    """The `state.csv` of nlp-lambdas: incident_id, count and mean, made by the original model. Raises SourceError."""
    rows: dict[int, tuple[int, Vector]] = {}
    for line, row in read_rows(lambda: path.open("rb"), path.name, ("incident_id", "count", "mean"), problems):
        incident_id, count = _integer(row["incident_id"]), _integer(row["count"])
        try:
            vector = _vector(json.loads(row["mean"]))
        except (ValueError, TypeError, RecursionError, OverflowError):
            vector = np.empty(0, dtype=np.float32)
        size = len(next(iter(rows.values()))[1]) if rows else vector.size
        if incident_id is None or incident_id < 1 or count is None:
            problems.report(path.name, line, "incident_id or count isn't a whole number above 0")
        elif not size or vector.shape != (size,) or not (np.abs(vector) <= MAX_SIZE).all():
            problems.report(
                path.name,
                line,
                f"mean isn't a list of {f'{size} ' if size else ''}numbers from -{MAX_SIZE:,.0f} to {MAX_SIZE:,.0f}",
            )
        elif count < 1 or incident_id in rows:
            problems.report(path.name, line, "count is below 1, or an earlier line has the same incident_id")
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
    )


def _vector(value: object) -> Vector:
    """Of a JSON list of numbers; what float32 can't hold becomes infinite. Raises TypeError or ValueError."""
    if not isinstance(value, list) or not all(isinstance(entry, float | int) for entry in value):
        raise TypeError("not a list of numbers")
    with np.errstate(over="ignore"):
        return np.array([float(entry) for entry in value], dtype=np.float32)


def read_original_state(path: Path) -> IncidentState:
    """The original list form, or a state of this project's own. Raises SourceError."""
    try:
        return IncidentState.load(path)
    except StateError as error:
        raise SourceError(error.detail) from error


def has_vectors(path: Path) -> bool:
    """Whether a CSV holds means (`state.csv`) rather than incidents. Raises SourceError."""
    with reading(path.name), path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        return "mean" in next(csv.reader([file.readline()]), [])


def _incidents_alone(open_it: Callable[[], Content], name: str, problems: Problems, text: TextMode) -> list[Incident]:
    incidents: dict[int, Incident] = {}
    for line, row in read_rows(open_it, name, ("incident_id", "title", "description"), problems):
        incident_id = _incident_id(row, name, line, incidents.keys(), problems)
        if incident_id is None:
            continue
        parts = [row[column] for column in text.split("-and-")]
        content = ". ".join(part.strip().rstrip(".") for part in parts if part.strip())
        if not content:
            problems.report(name, line, f"incident {incident_id} has no {text.replace('-', ' ')}")
            continue
        incidents[incident_id] = Incident(incident_id, row["title"].strip(), (content + ".",))
    return _sorted(incidents, name)


def _incidents_with_reports(opener: Callable[[str], Content], problems: Problems) -> list[Incident]:
    texts = _report_texts(opener, problems)
    incidents: dict[int, Incident] = {}
    for line, row in read_rows(lambda: opener(INCIDENTS), INCIDENTS, ("incident_id", "title", "reports"), problems):
        incident_id = _incident_id(row, INCIDENTS, line, incidents.keys(), problems)
        if incident_id is None:
            continue
        try:
            numbers = json.loads(row["reports"])
        except (ValueError, RecursionError):
            numbers = None
        if not isinstance(numbers, list) or not all(type(number) is int for number in numbers):
            problems.report(INCIDENTS, line, f"reports of incident {incident_id} isn't a JSON list of report numbers")
            continue
        numbers = list(dict.fromkeys(numbers))  # A report named twice is one report.
        missing = [number for number in numbers if number not in texts]
        if missing:
            problems.report(
                INCIDENTS,
                line,
                f"incident {incident_id} has missing or unusable reports: {', '.join(map(str, missing))}",
            )
        found = tuple(texts[number] for number in numbers if number in texts)
        if found:
            incidents[incident_id] = Incident(incident_id, row["title"].strip(), found)
        elif not missing:
            problems.report(INCIDENTS, line, f"incident {incident_id} has no reports")
    return _sorted(incidents, INCIDENTS)


def _report_texts(opener: Callable[[str], Content], problems: Problems) -> dict[int, str]:
    texts: dict[int, str] = {}
    for line, row in read_rows(lambda: opener(REPORTS), REPORTS, ("report_number", "text"), problems):
        number = _integer(row["report_number"])
        if number is None:
            problems.report(REPORTS, line, "report_number isn't an integer")
        elif not row["text"].strip():
            problems.report(REPORTS, line, f"report {number} is empty")
        elif number in texts:
            problems.report(REPORTS, line, f"an earlier line has report {number} too")
        else:
            texts[number] = row["text"]
    return texts


def _sorted(incidents: dict[int, Incident], name: str) -> list[Incident]:
    if not incidents:
        raise SourceError(f"{name} has no usable incident.")
    return [incidents[incident_id] for incident_id in sorted(incidents)]


def _incident_id(row: Row, name: str, line: int, seen: Container[int], problems: Problems) -> int | None:
    incident_id = _integer(row["incident_id"])
    if incident_id is None or incident_id < 1:
        problems.report(name, line, "incident_id isn't a whole number above 0")
        return None
    if incident_id in seen:
        problems.report(name, line, f"an earlier line has incident {incident_id} too")
        return None
    return incident_id


def _integer(value: str) -> int | None:
    return int(value) if re.fullmatch(r"\s*-?[0-9]{1,18}\s*", value) else None
