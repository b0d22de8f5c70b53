"""Tasks of a snapshot with reports: a report left out of its incident, or the incident's title, asks."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Literal

from evaluation.beginnings import BEGINNINGS, Beginning
from evaluation.snapshots import Snapshot
from evaluation.tasks import NothingToMeasureError, Task
from evaluation.texts import Query, spread
from similarity.incidents.ranking import Own
from similarity.refresh.questions import mean_of

SnapshotTask = Literal["report", "title", Beginning]


def snapshot_task(name: SnapshotTask, snapshot: Snapshot, most: int | None = None) -> Task:
    """A task of a snapshot. most: of the queries to take. Raises NothingToMeasureError, ModelError, StoreError."""
    notes: list[str] = []
    if name == "title":
        queries = [
            Query(
                each.incident.incident_id,
                each.incident.title,
                own=Own(each.incident.incident_id, each.mean, snapshot.documents.of(each.incident, title=False)),
            )
            for each in snapshot.known
            if each.incident.title
        ]
    else:
        queries, notes = _reports(snapshot)
    queries = spread(queries, most)
    if name in BEGINNINGS:
        cut = BEGINNINGS[name]
        queries = [replace(each, text=cut(each.text), vector=None) for each in queries]
    elif not snapshot.has_query_vectors:
        queries = [replace(each, vector=None) for each in queries]
    if not queries:
        raise NothingToMeasureError(" ".join(["no text can be asked.", *notes]))
    return Task(queries, snapshot.state, lambda _: snapshot.questions, notes)


def _reports(snapshot: Snapshot) -> tuple[list[Query], list[str]]:
    """All reports that can be left out of their incident, and notes about the others.

    A report of several incidents can't be asked: the others hold it. Equal texts of one incident are left out together.
    """
    holders: Counter[str] = Counter()
    for known in snapshot.known:
        holders.update({report.text for report in known.reports})
    queries: list[Query] = []
    alone, shared = 0, 0
    for known in snapshot.known:
        incident_id = known.incident.incident_id
        for report, vector in zip(known.reports, known.vectors, strict=True):
            others = [v for r, v in zip(known.reports, known.vectors, strict=True) if r.text != report.text]
            if holders[report.text] > 1:
                shared += 1
            elif not others:
                alone += 1
            else:
                own = Own(incident_id, mean_of(others), snapshot.documents.of(known.incident, without=report.text))
                queries.append(Query(incident_id, report.text, report.language or "en", own, vector))
    notes = [f"{alone} reports left out: their incident has no other text."] if alone else []
    if shared:
        notes.append(f"{shared} reports left out: another incident holds the same text.")
    return queries, notes
