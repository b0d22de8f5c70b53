"""AIID's site with its snapshots: a page of links, and archives of a few incidents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from similarity.incidents.state import TIME_FORMAT
from similarity.vectors import Vector
from snapshot_server import Host
from snapshots import Snapshot, duplicate, embedding, form_hash, incident, report

PAGE = "/research/snapshots/"

SUBJECTS = (
    *("A car without a driver", "A chatbot", "A court's program", "A trading program", "A robot in a warehouse"),
    *("A camera at a door", "A translator", "A recommender of films", "A drone", "A hospital's schedule"),
)
# Incident -> the text of its only report.
TEXTS = {number: f"{subject} did harm number {number}" for number, subject in enumerate(SUBJECTS, start=1)}


@dataclass(frozen=True)
class Content:
    """What a snapshot says. The report of incident n has the number 100 + n.

    texts: by incident. computed: the incidents without a vector of AIID's. merged: into which incident each became.
    """

    texts: Mapping[int, str] = field(default_factory=lambda: TEXTS)
    computed: frozenset[int] = frozenset()
    merged: Mapping[int, int] = field(default_factory=dict)

    def with_text(self, incident_id: int, text: str) -> Content:
        """A new incident, or a changed report; AIID has no vector of it yet."""
        return replace(self, texts={**self.texts, incident_id: text}, computed=self.computed | {incident_id})

    def with_merged(self, incident_id: int, became: int) -> Content:
        texts = {number: text for number, text in self.texts.items() if number != incident_id}
        return replace(self, texts=texts, merged={**self.merged, incident_id: became})

    def without(self, *incident_ids: int) -> Content:
        return replace(self, texts={number: text for number, text in self.texts.items() if number not in incident_ids})


@dataclass
class Site:
    """Publishes a snapshot each Monday. encode: makes AIID's vectors (hidden,)."""

    host: Host
    encode: Callable[[str], Vector]
    folder: Path
    published: int = 0

    @property
    def url(self) -> str:
        return self.host.url + PAGE

    def archive(self, content: Content, name: str) -> Path:
        reports = []
        for number, text in content.texts.items():
            known = (
                {}
                if number in content.computed
                else {"embedding": embedding(self.encode(text).tolist(), form_hash(text))}
            )
            reports.append(report(100 + number, text, **known))
        snapshot = Snapshot(
            [incident(number, [100 + number]) for number in content.texts],
            reports,
            [duplicate(merged, became) for merged, became in content.merged.items()],
        )
        return snapshot.write(self.folder / name)

    def publish(self, content: Content) -> str:
        """Puts a snapshot on the page that is newer than all before. Returns its date as a state says it."""
        self.published += 1
        monday = datetime(2026, 1, 5, 10, tzinfo=UTC) + timedelta(weeks=self.published)
        name = f"backup-{monday:%Y%m%d%H%M%S}.tar.bz2"
        self.host.files[f"/{name}"] = self.archive(content, name).read_bytes()
        self.host.version = {"ETag": f'"{self.published}"'}
        self.host.pages[PAGE] = f'<a href="/{name}">{name}</a> {self.host.pages.get(PAGE, "")}'
        return f"{monday:{TIME_FORMAT}}"
