"""Reads a source of AIID's data into a Database: a snapshot in a folder, zip or tar, or an incidents.csv alone.

If a snapshot has dumps (*.bson), they are read, otherwise its tables (*.csv). Only the files that are named here are
read. The files that nobody has reviewed (submissions, candidates, quickadd) aren't named here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from similarity.sources.archive import Content, Member, members
from similarity.sources.bson_files import (
    read_bson_duplicates,
    read_bson_incidents,
    read_bson_reports,
    read_bson_translations,
)
from similarity.sources.csv_files import (
    read_csv_duplicates,
    read_csv_incidents,
    read_csv_reports,
    read_incidents_alone,
)
from similarity.sources.database import Database, Responses, Source, SourceKind, TextMode, snapshot_date
from similarity.sources.parts import link, pairs, resolve
from similarity.sources.problems import HeldProblems, Problems, SourceError, Unit, reading
from similarity.sources.tables import is_text

# Reads the file of a collection. Takes a function that opens it, its name, and the problems to report bad rows to.
Read = Callable[[Callable[[], Content], str, Problems], Any]


@dataclass(frozen=True)
class _Form:
    """One of the two forms of a snapshot's files. ending: of their names. readers: by collection."""

    ending: str
    unit: Unit
    kind: SourceKind
    readers: Mapping[str, Read]

    def file(self, collection: str) -> str:
        return f"{collection}.{self.ending}"

    @property
    def files(self) -> dict[str, Read]:
        return {self.file(collection): read for collection, read in self.readers.items()}


def read_database(
    path: Path, problems: Problems, *, text: TextMode = "title-and-description", responses: Responses = "include"
) -> Database:
    """All incidents in `path` with a report that counts. Bad rows and documents are reported to `problems`.

    text: the columns that stand in for reports if `path` is an incidents.csv.
    responses: whether companies' answers count as reports.
    Raises SourceError if `path` doesn't exist, can't be read, or has no usable incident.
    """
    if path.is_file() and is_text(path):
        incidents = read_incidents_alone(lambda: path.open("rb"), path.name, problems, text)
        return Database(incidents, {}, frozenset(), Source("csv", path.name))
    return _Snapshot(path, responses).database(problems)


@dataclass
class _Part:
    """The content of one file, or the error of reading it. Only at the end it is known whether the file counts."""

    content: Any = None
    error: SourceError | None = None
    problems: HeldProblems = field(default_factory=HeldProblems)

    def take(self, problems: Problems) -> Any:
        self.problems.release(problems)
        if self.error:
            raise self.error
        return self.content


class _Snapshot:
    """The files of a snapshot. They are read in the order of the tar, whatever that is."""

    def __init__(self, path: Path, responses: Responses) -> None:
        self._path = path
        self._dumps = _Form(
            "bson",
            "document",
            "records",
            {
                "incidents": _opened(read_bson_incidents),
                "reports": _opened(partial(read_bson_reports, responses=responses)),
                "duplicates": _opened(read_bson_duplicates),
                "reports_en": _opened(read_bson_translations),
            },
        )
        self._tables = _Form(
            "csv",
            "line",
            "csv",
            {
                "incidents": read_csv_incidents,
                "reports": partial(read_csv_reports, responses=responses),
                "duplicates": read_csv_duplicates,
            },
        )
        # The paths of the files by `_known_as`; the content of the first of each; files that aren't read, with reasons.
        self._found: dict[str, list[str]] = {}
        self._parts: dict[str, _Part] = {}
        self._refused: list[tuple[Member, str]] = []

    def database(self, problems: Problems) -> Database:
        """Raises SourceError."""
        for member in members(self._path):
            self._read(member)
        form = self._dumps if self._has_dumps() else self._tables

        def content(collection: str, otherwise: object = None) -> Any:
            name = form.file(collection)
            if otherwise is None or name in self._found:
                self._require_one(name)
                return self._parts[name].take(problems)
            return otherwise

        reports = content("reports")
        if form is self._dumps:
            reports = reports.translated(content("reports_en", {}))
        found = content("incidents")
        if form is self._dumps:
            self._require_one_folder()
        duplicates = resolve(content("duplicates", []), form.file("duplicates"), problems, form.unit)
        incidents = link(found, reports, form.file("incidents"), problems, form.unit)
        name = self._path.absolute().name  # "." has none.
        date = "" if self._path.is_dir() else snapshot_date(name)
        source = Source("aiid-snapshot" if date else form.kind, name, date)
        dissimilar = pairs(((each.incident_id, each.dissimilar) for each in found), duplicates)
        similar = pairs(((each.incident_id, each.similar) for each in found), duplicates)
        return Database(incidents, duplicates, dissimilar, source, similar)

    def _read(self, member: Member) -> None:
        name = _known_as(member)
        read = {**self._dumps.files, **self._tables.files}.get(name)
        if member.refused:
            self._refused.append((member, member.refused))
        elif name in self._dumps.files and member.leads_elsewhere:
            # The names of tables aren't checked: people pack tables by hand, on any system.
            self._refused.append((member, "leads out of the archive"))
        elif read:
            self._found.setdefault(name, []).append(member.name)
            if len(self._found[name]) == 1 and not (name in self._tables.files and self._has_dumps()):
                part = self._parts[name] = _Part()
                try:
                    part.content = read(member.open, name, part.problems)
                except SourceError as error:
                    part.error = error
            if self._has_dumps():
                for table in self._tables.files:
                    self._parts.pop(table, None)  # Tables take much memory.

    def _has_dumps(self) -> bool:
        given = {*self._found, *(_known_as(member) for member, _ in self._refused)}
        return not given.isdisjoint(map(self._dumps.file, ("incidents", "reports")))

    def _require_one_folder(self) -> None:
        """Raises SourceError if the dumps are in several folders. Each database has a folder of its own."""
        files = map(self._dumps.file, ("incidents", "reports", "duplicates"))
        first, *others = [self._found[file][0] for file in files if file in self._found]
        for path in others:
            if _folder(path) != _folder(first):
                raise SourceError(
                    f"{self._path} has {first!r} and {path!r}; the dumps of one database must be in one folder."
                )

    def _require_one(self, name: str) -> None:
        """Raises SourceError if there isn't exactly one file of that name. The error names a link that wasn't read."""
        found = self._found.get(name, [])
        if len(found) > 1:
            raise SourceError(
                f"{self._path} has {len(found)} files named {name}, e.g. {found[0]!r} and {found[1]!r}; it "
                "must have one."
            )
        if not self._found and not self._refused:
            raise SourceError(
                f"{self._path} has neither AIID's dumps (incidents.bson, reports.bson) nor its tables (incidents.csv, "
                "reports.csv)."
            )
        if not found:
            refused = sorted(self._refused, key=lambda each: (_known_as(each[0]) != name, each[0].name))[:1]
            reasons = [f"{member.name!r} {reason}" for member, reason in refused]
            raise SourceError("; ".join([f"{self._path} has no file named {name}", *reasons]) + ".")


def _folder(name: str) -> PurePosixPath:
    return PurePosixPath(name.replace("\\", "/")).parent


def _known_as(member: Member) -> str:
    """The name of a file, with its folder if that is translations: only reports_en.bson is read from there."""
    *folders, name = member.parts
    return f"translations/{name}" if folders[-1:] == ["translations"] and name != "reports_en.bson" else name


def _opened(read: Callable[[IO[bytes], str, Problems], Any]) -> Read:
    def open_and_read(open_it: Callable[[], Content], name: str, problems: Problems) -> Any:
        with reading(name), open_it() as file:
            return read(file, name, problems)

    return open_and_read
