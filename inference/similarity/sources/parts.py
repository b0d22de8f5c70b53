"""The parts that both tables and dumps are read into, and the functions that make a Database of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from similarity.incidents.state import MAX_ID
from similarity.sources.database import Incident, Report
from similarity.sources.problems import Problems, SourceError, Unit
from similarity.vectors import Vector

# AIID's tag for companies' answers.
RESPONSE = "response"


@dataclass(frozen=True)
class FoundIncident:
    """An incident of a row or document.

    number: of the line or document. dissimilar, similar: the ids that the incident's own lists name.
    """

    number: int
    incident_id: int
    title: str
    date: str
    reports: Sequence[int]
    description: str
    dissimilar: Sequence[int] = ()
    similar: Sequence[int] = ()


@dataclass
class FoundReports:
    """counted: the reports that count, by number. not_counted: the numbers of usable reports that don't count."""

    counted: dict[int, Report] = field(default_factory=dict)
    not_counted: set[int] = field(default_factory=set)

    def __contains__(self, number: int) -> bool:
        return number in self.counted or number in self.not_counted


@dataclass(frozen=True)
class FoundDuplicate:
    """A merged incident, and the incident that it became. number: of the line or document."""

    number: int
    merged: int
    became: int


def link(
    found: Iterable[FoundIncident], reports: FoundReports, name: str, problems: Problems, unit: Unit
) -> tuple[Incident, ...]:
    """The incidents with their reports, in ascending order of id.

    Incidents without a report that counts are reported to `problems` and left out. name: of the incidents' file. Raises
    SourceError if no incident is left.
    """
    incidents = []
    for each in sorted(found, key=lambda each: each.number):
        numbers = list(dict.fromkeys(each.reports))  # A report named twice is one report.
        missing = [number for number in numbers if number not in reports]
        counted = tuple(reports.counted[number] for number in numbers if number in reports.counted)
        if missing:
            reason = f"incident {each.incident_id} has missing or unusable reports: {', '.join(map(str, missing))}"
            then = "its other reports count" if counted else "skipped"
            problems.report(name, each.number, reason, unit, then)
        if counted:
            incidents.append(Incident(each.incident_id, each.title, each.date, counted, each.description))
        elif not missing:
            reason = "no report that counts" if numbers else "no reports"
            problems.report(name, each.number, f"incident {each.incident_id} has {reason}", unit)
    if not incidents:
        raise SourceError(f"{name} has no usable incident.")
    return tuple(sorted(incidents, key=lambda incident: incident.incident_id))


def resolve(found: Iterable[FoundDuplicate], name: str, problems: Problems, unit: Unit) -> dict[int, int]:
    """Id of a merged incident -> id of the incident that it became in the end. Circles are reported and left out."""
    direct: dict[int, int] = {}
    number_of: dict[int, int] = {}
    for each in found:
        if each.merged in direct:
            problems.report(name, each.number, f"an earlier {unit} has incident {each.merged} too", unit)
        else:
            direct[each.merged], number_of[each.merged] = each.became, each.number
    resolved = {}
    for merged in sorted(direct):
        passed, end = {merged}, direct[merged]
        while end in direct and end not in passed:
            passed.add(end)
            end = direct[end]
        if end in passed:
            problems.report(name, number_of[merged], f"the duplicates of incident {merged} lead in a circle", unit)
        else:
            resolved[merged] = end
    return resolved


def pairs(marked: Iterable[tuple[int, Iterable[int]]], duplicates: Mapping[int, int]) -> frozenset[tuple[int, int]]:
    """The pairs of an incident's id and of each id that people marked for it, the smaller id first, each pair once.

    Merged ids are replaced: see `resolve`. A pair that has become one incident is left out.
    """
    given = ((incident_id, other) for incident_id, others in marked for other in others)
    kept = ((duplicates.get(first, first), duplicates.get(second, second)) for first, second in given)
    return frozenset((min(pair), max(pair)) for pair in kept if pair[0] != pair[1])


def usual_size(vectors: Iterable[Vector]) -> int:
    """The length of most vectors; 0 without vectors. The first vector isn't the measure, because it may be damaged."""
    sizes = Counter(map(len, vectors)).most_common(1)
    return sizes[0][0] if sizes else 0


def whole_number(value: object) -> int | None:
    """`value` as an int if it is a whole number above 0 that a state can hold, otherwise None. BSON may have floats."""
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,18}\s*", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_ID or value % 1:
        return None
    return int(value)


def day(value: object) -> str:
    """YYYY-MM-DD of a date, or of a text that starts with one; "" for other values."""
    if isinstance(value, date):  # A datetime is one too.
        return f"{value:%Y-%m-%d}" if value.year >= 1000 else ""
    if isinstance(value, str) and re.match(r"\s*[0-9]{4}-[0-9]{2}-[0-9]{2}(?![0-9])", value):
        text = value.strip()[:10]
        try:
            return date.fromisoformat(text).isoformat()
        except ValueError:
            return ""
    return ""
