"""What an incident state can be built from: AIID's snapshots and tables, read into incidents or into a state.

Turning the texts into vectors is left to `build_state.py`. A bad row is reported by its line and skipped; a source that
can't be read at all is a SourceError.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, TypeVar

import torch

import _inference  # noqa: F401  (makes `similarity` importable)
from similarity.errors import StateError
from similarity.settings import DEFAULT_MODEL_URI
from similarity.state import IncidentState

TextMode = Literal["title-and-description", "title", "description"]
Row = dict[str, str]
T = TypeVar("T")

INCIDENTS, REPORTS = "incidents.csv", "reports.csv"


class SourceError(Exception):
    """The source can't be used, in one sentence."""


@dataclass(frozen=True)
class Incident:
    """An incident and the texts that stand for it."""

    incident_id: int
    title: str
    texts: tuple[str, ...]


class Problems:
    """Counts the bad rows and says of each where it is."""

    def __init__(self) -> None:
        self.count = 0

    def report(self, file: str, line: int, what: str) -> None:
        self.count += 1
        print(f"{file}, line {line}: {what}; skipped", file=sys.stderr)


def read_incidents(path: Path, problems: Problems, text: TextMode) -> list[Incident]:
    """The incidents of a snapshot (folder, zip or tar with incidents.csv and reports.csv) or of an incidents.csv alone.

    `text` says what stands in for reports where there are none. Raises SourceError.
    """
    if path.is_file() and path.suffix == ".csv":
        return _incidents_alone(lambda: path.open("rb"), path.name, problems, text)
    opener = _snapshot_opener(path)
    return _incidents_with_reports(opener, problems)


def read_state_csv(path: Path, problems: Problems) -> IncidentState:
    """The `state.csv` of nlp-lambdas: incident_id, count and mean, made by the original model. Raises SourceError."""
    rows: dict[int, tuple[int, list[float]]] = {}
    for line, row in _rows(lambda: path.open("rb"), path.name, ("incident_id", "count", "mean"), problems):
        try:
            incident_id, count, mean = int(row["incident_id"]), int(row["count"]), json.loads(row["mean"])
            vector = torch.tensor(mean, dtype=torch.float32)
        except (ValueError, TypeError, RecursionError, RuntimeError):
            problems.report(path.name, line, "incident_id, count or mean is no number or list of numbers")
            continue
        known = next(iter(rows.values()))[1] if rows else mean
        if vector.dim() != 1 or not len(vector) or len(mean) != len(known) or not bool(torch.isfinite(vector).all()):
            problems.report(path.name, line, f"mean is no list of {len(known)} finite numbers")
        elif count < 1 or incident_id in rows:
            problems.report(path.name, line, "count is below 1, or incident_id stood in an earlier line")
        else:
            rows[incident_id] = (count, mean)
    if not rows:
        raise SourceError(f"{path.name} has no usable row.")
    ids = sorted(rows)
    return IncidentState(
        incident_ids=torch.tensor(ids),
        report_counts=torch.tensor([rows[incident_id][0] for incident_id in ids]),
        means=torch.tensor([rows[incident_id][1] for incident_id in ids], dtype=torch.float32),
        titles=[""] * len(ids),
        model=DEFAULT_MODEL_URI,
    )


def read_original_state(path: Path) -> IncidentState:
    """The original list form, or a state of this project's own. Raises SourceError."""
    try:
        return IncidentState.load(path)
    except StateError as error:
        raise SourceError(f"{path.name} is no incident state: {error.detail}") from error


def has_vectors(path: Path) -> bool:
    """Whether a CSV holds means (`state.csv`) rather than incidents. Raises SourceError."""
    with _reading(path.name), path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        return "mean" in next(csv.reader([file.readline()]), [])


def _incidents_alone(open_it: Callable[[], IO[bytes]], name: str, problems: Problems, text: TextMode) -> list[Incident]:
    incidents: dict[int, Incident] = {}
    for line, row in _rows(open_it, name, ("incident_id", "title", "description"), problems):
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


def _incidents_with_reports(opener: Callable[[str], IO[bytes]], problems: Problems) -> list[Incident]:
    texts: dict[int, str] = {}
    for line, row in _rows(lambda: opener(REPORTS), REPORTS, ("report_number", "text"), problems):
        number = _integer(row["report_number"])
        if number is None or not row["text"].strip():
            problems.report(
                REPORTS, line, "report_number is no integer" if number is None else f"report {number} is empty"
            )
        else:
            texts[number] = row["text"]
    incidents: dict[int, Incident] = {}
    for line, row in _rows(lambda: opener(INCIDENTS), INCIDENTS, ("incident_id", "title", "reports"), problems):
        incident_id = _incident_id(row, INCIDENTS, line, incidents.keys(), problems)
        if incident_id is None:
            continue
        try:
            numbers = json.loads(row["reports"])
        except (ValueError, RecursionError):
            numbers = None
        if not isinstance(numbers, list) or not all(type(number) is int for number in numbers):
            problems.report(INCIDENTS, line, f"reports of incident {incident_id} is no JSON list of report numbers")
            continue
        missing = [number for number in numbers if number not in texts]
        if missing:
            problems.report(INCIDENTS, line, f"incident {incident_id}: no usable report {', '.join(map(str, missing))}")
        found = tuple(texts[number] for number in numbers if number in texts)
        if found:
            incidents[incident_id] = Incident(incident_id, row["title"].strip(), found)
        elif not missing:
            problems.report(INCIDENTS, line, f"incident {incident_id} has no reports")
    return _sorted(incidents, INCIDENTS)


def _sorted(incidents: dict[int, Incident], name: str) -> list[Incident]:
    if not incidents:
        raise SourceError(f"{name} has no usable incident.")
    return [incidents[incident_id] for incident_id in sorted(incidents)]


def _incident_id(row: Row, name: str, line: int, seen: Container[int], problems: Problems) -> int | None:
    incident_id = _integer(row["incident_id"])
    if incident_id is None or incident_id < 0:
        problems.report(name, line, "incident_id is no integer")
        return None
    if incident_id in seen:
        problems.report(name, line, f"incident {incident_id} stood in an earlier line")
        return None
    return incident_id


def _integer(value: str) -> int | None:
    return int(value) if re.fullmatch(r"\s*-?[0-9]{1,18}\s*", value) else None


def _rows(
    open_it: Callable[[], IO[bytes]], name: str, columns: Sequence[str], problems: Problems
) -> Iterator[tuple[int, Row]]:
    """The rows of a CSV with the line each ends in, `columns` only. Bad ones are reported and left out."""
    # The default limit of 131,072 characters a field is less than the longest report.
    csv.field_size_limit(sys.maxsize)
    with (
        _reading(name),
        io.TextIOWrapper(open_it(), encoding="utf-8-sig", errors="surrogateescape", newline="") as file,
    ):
        reader = csv.reader(file, strict=True)
        header = next(reader, [])
        absent = [column for column in columns if column not in header]
        if absent:
            raise SourceError(f"{name} has no column {', '.join(absent)}; its first line has to name them.")
        places = {column: header.index(column) for column in columns}
        while True:
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                problems.report(name, reader.line_num, f"not valid CSV: {error}")
                continue
            if not fields:
                continue
            if len(fields) != len(header):
                problems.report(name, reader.line_num, f"{len(fields)} fields instead of {len(header)}")
                continue
            row = {column: fields[place] for column, place in places.items()}
            # What is no UTF-8 has been read as lone surrogates, which no UTF-8 text has.
            if any("\ud800" <= character <= "\udfff" for value in row.values() for character in value):
                problems.report(name, reader.line_num, "not valid UTF-8")
                continue
            yield reader.line_num, row


@contextmanager
def _reading(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zipfile.BadZipFile, tarfile.TarError, zlib.error) as error:
        raise SourceError(f"{name} can't be read: {error}") from error


def _snapshot_opener(path: Path) -> Callable[[str], IO[bytes]]:
    """What opens a file of the snapshot by its name, wherever in folder or archive it is. Raises SourceError."""
    with _reading(path.name):
        if path.is_dir():
            return lambda name: _only(sorted(path.rglob(name)), name, path).open("rb")
        if zipfile.is_zipfile(path):
            archive = zipfile.ZipFile(path)
            return lambda name: archive.open(_only([n for n in archive.namelist() if _is(n, name)], name, path))
        if path.exists() and tarfile.is_tarfile(path):
            return lambda name: _open_in_tar(path, name)
    raise SourceError(f"{path} is no folder, zip, tar or .csv file.")


def _open_in_tar(path: Path, name: str) -> IO[bytes]:
    archive = tarfile.open(path)  # noqa: SIM115  (the file read from it keeps it open)
    member = _only([m for m in archive if m.isfile() and _is(m.name, name)], name, path)
    file = archive.extractfile(member)
    assert file is not None
    return file


def _is(member: str, name: str) -> bool:
    return member == name or member.endswith("/" + name)


def _only(found: Sequence[T], name: str, path: Path) -> T:
    if len(found) != 1:
        raise SourceError(f"{path} has {len(found)} files named {name}, not one.")
    return found[0]
