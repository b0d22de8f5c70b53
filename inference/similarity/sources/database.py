"""A database in the form that the rest of the project uses: incidents with the texts of their reports."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from similarity.incidents.collection import DEFAULT_COLLECTION, DEFAULT_LICENCE, DEFAULT_RECORD_URL
from similarity.vectors import Vector

# The columns that stand in for reports if there is only an incidents.csv.
TextMode = Literal["title-and-description", "title", "description"]
# Whether companies' answers count as reports.
Responses = Literal["include", "exclude"]
SourceKind = Literal["aiid-snapshot", "csv", "records", "other"]


@dataclass(frozen=True)
class Report:
    """A report of an incident.

    number: AIID's report_number; in another database the line; None if the text stands in for reports.
    text: the text to embed, before transliteration. Never blank.
    language: AIID's code for the language of `text`, e.g. "en"; "" if unknown.
    published: AIID's own vector of this text, float32 (768,); None without one.
    """

    number: int | None
    text: str
    language: str = "en"
    # A dataclass can't compare arrays.
    published: Vector | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Incident:
    """An incident and its reports that count, each once, in AIID's order.

    date: YYYY-MM-DD; "" if unknown.
    description: AIID's summary of the incident, plain text without spaces at its ends; "" if unknown.
    url: of the incident's page, where it isn't that of the database's template; otherwise "".
    """

    incident_id: int
    title: str
    date: str
    reports: tuple[Report, ...]
    description: str = ""
    url: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(report.text for report in self.reports)


@dataclass(frozen=True)
class Source:
    """The origin of the data.

    kind: "aiid-snapshot" for an archive with a name that AIID gives its snapshots. Otherwise "csv" for tables, and
        "records" for documents. "other" for the table of another database, see `records`.
    name: the name of the file or folder.
    date: the time when AIID made the snapshot: UTC, ISO 8601, e.g. "2026-11-23T10:00:00Z"; "" for the other kinds.
    """

    kind: SourceKind
    name: str
    date: str = ""


@dataclass(frozen=True)
class Database:
    """The content of a source.

    incidents: at least one, in ascending order of id.
    duplicates: id of a merged incident -> id of the incident that it became in the end.
    dissimilar: pairs of ids of incidents that editors or readers marked as dissimilar, the smaller id first. A merged
        incident has the id of the incident that it became.
    similar: pairs of ids of incidents that editors marked as similar, in the same form. A pair that is marked as both
        is in both.
    collection: the database's name. record_url: the template of the URLs of its pages, "" without one. licence: that of
        the data, "" if it isn't known.
    """

    incidents: tuple[Incident, ...]
    duplicates: dict[int, int]
    dissimilar: frozenset[tuple[int, int]]
    source: Source
    similar: frozenset[tuple[int, int]] = frozenset()
    collection: str = DEFAULT_COLLECTION
    record_url: str = DEFAULT_RECORD_URL
    licence: str = DEFAULT_LICENCE

    @property
    def untranslated(self) -> tuple[int, ...]:
        """The numbers of the reports that aren't in English, in ascending order, each once."""
        reports = (report for incident in self.incidents for report in incident.reports)
        return tuple(sorted({r.number for r in reports if r.number is not None and not is_english(r.language)}))


def stand_in(*parts: str) -> str:
    """The text that stands in for reports, made of title, description or both; "" if all are blank."""
    joined = ". ".join(part.strip().rstrip(".") for part in parts if part.strip())
    return f"{joined}." if joined else ""


def is_english(language: str) -> bool:
    """Whether a code such as "en" or "en-US" means English. A missing code counts as English."""
    return language.strip().lower().replace("_", "-").partition("-")[0] in ("", "en")


def snapshot_date(name: str) -> str:
    """The time in the name of a snapshot: UTC, ISO 8601. "" if AIID doesn't name its snapshots like that."""
    found = re.fullmatch(r"backup-([0-9]{14})\.tar\.\w+", name, re.ASCII)
    try:
        return f"{datetime.strptime(found[1], '%Y%m%d%H%M%S'):%Y-%m-%dT%H:%M:%SZ}" if found else ""
    except ValueError:
        return ""
