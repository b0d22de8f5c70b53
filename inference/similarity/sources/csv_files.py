"""Reads AIID's tables into parts: incidents.csv, reports.csv, duplicates.csv.

The text of a report is Markdown, as in AIID's database. Tables don't have translations, vectors and people's labels.
Each reader here reports bad rows to `problems` and leaves them out. It raises SourceError if the file can't be read, or
if it lacks a column.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container
from dataclasses import dataclass

from similarity.sources.archive import Content
from similarity.sources.database import Incident, Report, Responses, TextMode, stand_in
from similarity.sources.parts import RESPONSE, FoundDuplicate, FoundIncident, FoundReports, day, whole_number
from similarity.sources.problems import Problems, SourceError
from similarity.sources.tables import Row, read_rows


def read_csv_incidents(open_it: Callable[[], Content], name: str, problems: Problems) -> list[FoundIncident]:
    """The incidents, in the order of the table. Raises SourceError."""
    incidents: dict[int, FoundIncident] = {}
    for line, row in read_rows(open_it, name, ("incident_id", "title", "reports"), problems, ("date", "description")):
        incident_id = _incident_id(row, name, line, incidents, problems)
        if incident_id is None:
            continue
        try:
            numbers = json.loads(row["reports"])
        except (ValueError, RecursionError):
            numbers = None
        if not isinstance(numbers, list) or not all(type(number) is int for number in numbers):
            problems.report(name, line, f"reports of incident {incident_id} isn't a JSON list of report numbers")
            continue
        incidents[incident_id] = FoundIncident(
            line,
            incident_id,
            row["title"].strip(),
            day(row.get("date")),
            reports=numbers,
            description=row.get("description", "").strip(),
        )
    return list(incidents.values())


def read_csv_reports(
    open_it: Callable[[], Content], name: str, problems: Problems, responses: Responses
) -> FoundReports:
    """The reports. The table needs tags only if responses are excluded. Raises SourceError."""
    reports = FoundReports()
    required = ("report_number", "text", *(["tags"] if responses == "exclude" else []))
    for line, row in read_rows(open_it, name, required, problems, ("language", "title")):
        number = whole_number(row["report_number"])
        if number is None:
            problems.report(name, line, "report_number isn't a whole number above 0")
        elif number in reports:
            problems.report(name, line, f"an earlier line has report {number} too")
        elif responses == "exclude" and RESPONSE in _tags(row["tags"]):
            reports.not_counted.add(number)
        elif row["text"].strip():
            reports.counted[number] = Report(number, row["text"], row.get("language", "").strip())
        elif row.get("title", "-").strip():
            problems.report(name, line, f"report {number} is empty")
        else:
            reports.not_counted.add(number)  # A variant has neither text nor title.
    return reports


def read_csv_duplicates(open_it: Callable[[], Content], name: str, problems: Problems) -> list[FoundDuplicate]:
    """The merged incidents, in the order of the table. Raises SourceError."""
    duplicates = []
    columns = ("duplicate_incident_number", "true_incident_number")
    for line, row in read_rows(open_it, name, columns, problems):
        merged, became = (whole_number(row[column]) for column in columns)
        if merged is None or became is None:
            problems.report(name, line, f"{' or '.join(columns)} isn't a whole number above 0")
        else:
            duplicates.append(FoundDuplicate(line, merged, became))
    return duplicates


def read_incidents_alone(
    open_it: Callable[[], Content], name: str, problems: Problems, text: TextMode
) -> tuple[Incident, ...]:
    """The incidents, in ascending order of id. The columns in `text` stand in for reports. Raises SourceError."""
    incidents: dict[int, Incident] = {}
    for line, row in read_rows(open_it, name, ("incident_id", "title", "description"), problems, ("date",)):
        incident_id = _incident_id(row, name, line, incidents, problems)
        if incident_id is None:
            continue
        parts = [row[column] for column in text.split("-and-")]
        content = stand_in(*parts)
        if not content:
            problems.report(name, line, f"incident {incident_id} has no {text.replace('-', ' ')}")
            continue
        reports = (Report(None, content),)
        title, description = row["title"].strip(), row["description"].strip()
        incidents[incident_id] = Incident(incident_id, title, day(row.get("date")), reports, description)
    if not incidents:
        raise SourceError(f"{name} has no usable incident.")
    return tuple(incidents[incident_id] for incident_id in sorted(incidents))


@dataclass(frozen=True)
class Described:
    """What a table says of an incident. date: YYYY-MM-DD. All are "" if unknown."""

    title: str = ""
    date: str = ""
    description: str = ""


def read_titles(open_it: Callable[[], Content], name: str, problems: Problems) -> dict[int, Described]:
    """The descriptions of incidents by id. Raises SourceError."""
    found: dict[int, Described] = {}
    for line, row in read_rows(open_it, name, ("incident_id", "title"), problems, ("date", "description")):
        incident_id = _incident_id(row, name, line, found, problems)
        if incident_id is not None:
            found[incident_id] = Described(
                row["title"].strip(), day(row.get("date")), row.get("description", "").strip()
            )
    return found


def _incident_id(row: Row, name: str, line: int, seen: Container[int], problems: Problems) -> int | None:
    incident_id = whole_number(row["incident_id"])
    if incident_id is None:
        problems.report(name, line, "incident_id isn't a whole number above 0")
    elif incident_id in seen:
        problems.report(name, line, f"an earlier line has incident {incident_id} too")
        return None
    return incident_id


def _tags(value: str) -> list[str]:
    """The tags of a report. mongoexport writes a JSON list. AIID's job writes commas between the tags."""
    try:
        tags = json.loads(value)
    except (ValueError, RecursionError):
        tags = value.split(",")
    return [tag.strip() for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []
