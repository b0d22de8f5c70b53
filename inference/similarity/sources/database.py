"""AIID's data as the rest of the project takes it: incidents with the texts of their reports."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from similarity.vectors import Vector

# What of an incidents.csv alone stands in for reports.
TextMode = Literal["title-and-description", "title", "description"]
# Whether reports that are companies' answers count.
Responses = Literal["include", "exclude"]
SourceKind = Literal["aiid-snapshot", "csv", "records"]


@dataclass(frozen=True)
class Report:
    """A report of an incident.

    number: AIID's report_number; None for the text that stands in for reports.
    text: what is to be embedded, before it is transliterated. Never blank.
    language: of `text`, as AIID writes it ("en"); "" where unknown.
    published: AIID's own vector of this very text, float32 (768,); None where it has none.
    """

    number: int | None
    text: str
    language: str = "en"
    # Arrays have no equality that a dataclass could use.
    published: Vector | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Incident:
    """An incident and the reports that count, each once, in AIID's order.

    date: YYYY-MM-DD; "" where unknown.
    """

    incident_id: int
    title: str
    date: str
    reports: tuple[Report, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(report.text for report in self.reports)


@dataclass(frozen=True)
class Source:
    """Where the data come from.

    kind: "aiid-snapshot" for an archive that is named as AIID names its snapshots; else "csv" for tables, "records" for
        documents.
    name: of the file or folder.
    date: when AIID made the snapshot: ISO 8601 in UTC, e.g. "2026-11-23T10:00:00Z"; "" for all other kinds.
    """

    kind: SourceKind
    name: str
    date: str = ""


@dataclass(frozen=True)
class Database:
    """All that a source has.

    incidents: with ascending ids, at least one.
    duplicates: id of an incident that was merged -> id of the incident that it became in the end.
    dissimilar: pairs of incidents that editors or readers marked as dissimilar, the smaller id first. Ids of merged
        incidents have been replaced by those that they became.
    """

    incidents: tuple[Incident, ...]
    duplicates: dict[int, int]
    dissimilar: frozenset[tuple[int, int]]
    source: Source

    @property
    def untranslated(self) -> tuple[int, ...]:
        """Numbers of the reports whose text is in another language than English, ascending, each once."""
        reports = (report for incident in self.incidents for report in incident.reports)
        return tuple(sorted({r.number for r in reports if r.number is not None and not is_english(r.language)}))


def is_english(language: str) -> bool:
    """Whether a code such as "en" or "en-US" means English, as one that is missing is taken to do."""
    return language.strip().lower().replace("_", "-").partition("-")[0] in ("", "en")


def snapshot_date(name: str) -> str:
    """When AIID made the snapshot of that name, ISO 8601 in UTC; "" where it isn't named as AIID names snapshots."""
    found = re.fullmatch(r"backup-([0-9]{14})\.tar\.\w+", name, re.ASCII)
    try:
        return f"{datetime.strptime(found[1], '%Y%m%d%H%M%S'):%Y-%m-%dT%H:%M:%SZ}" if found else ""
    except ValueError:
        return ""
