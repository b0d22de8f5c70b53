"""Texts to ask with: of an incidents.csv, a user's own, unrelated ones, and long texts around a query."""

from __future__ import annotations

from shared.command import SCRIPTS_DIR

import csv
import io
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stderr
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Literal

from similarity.incidents.ranking import Own
from similarity.sources.database import Incident, TextMode
from similarity.sources.parts import whole_number
from similarity.sources.problems import Problems, SourceError
from similarity.sources.read import read_database
from similarity.sources.tables import is_text, read_rows
from similarity.vectors import Vector

UNRELATED_PATH = SCRIPTS_DIR / "sample" / "unrelated.csv"

Column = Literal["title", "description"]
Place = Literal["start", "middle", "end"]


@dataclass(frozen=True, eq=False)
class Query:
    """A text to ask with, and the incident that it is about.

    language: as a report's. own: the incident as a state would have it without the text; None if the state has nothing
    of the text. vector: (hidden,), the text's as a query; None if it isn't known yet.
    """

    incident_id: int
    text: str
    language: str = ""
    own: Own | None = None
    vector: Vector | None = None


@dataclass(frozen=True)
class Unrelated:
    """A text that no incident is about.

    kind: news, household, short or language; yours for a user's own. language: its code, "" for none.
    """

    kind: str
    language: str
    text: str


def read_incidents(path: Path, text: TextMode, *, quiet: bool = False) -> list[Incident]:
    """The incidents of an incidents.csv, each with the text of a column as its only report. Raises SourceError.

    quiet: bad rows aren't reported.
    """
    if not is_text(path):
        raise SourceError(f"{path} isn't a CSV file in UTF-8.")
    with redirect_stderr(io.StringIO()) if quiet else nullcontext():
        return list(read_database(path, Problems(), text=text).incidents)


def read_own(path: Path, problems: Problems) -> tuple[list[Query], list[Unrelated]]:
    """A user's texts with their incidents, and those without one, of the kind "yours". Bad rows are reported.

    The columns are text and incident_id, perhaps language too. Raises SourceError.
    """
    queries, unrelated = [], []
    rows = read_rows(lambda: path.open("rb"), path.name, ("text", "incident_id"), problems, ("language",))
    for line, row in rows:
        text, language = row["text"].strip(), row.get("language", "").strip()
        incident_id = whole_number(row["incident_id"])
        if not text:
            problems.report(path.name, line, "text is blank")
        elif incident_id is not None:
            queries.append(Query(incident_id, text, language))
        elif row["incident_id"].strip():
            problems.report(path.name, line, "incident_id isn't a whole number above 0")
        else:
            unrelated.append(Unrelated("yours", language, text))
    return queries, unrelated


def read_unrelated(path: Path = UNRELATED_PATH) -> list[Unrelated]:
    """The texts of the sample that no incident is about. Raises SourceError if the file isn't this project's."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            texts = [Unrelated(**row) for row in csv.DictReader(file, strict=True)]
    except (OSError, TypeError, ValueError, csv.Error) as error:
        raise SourceError(f"{path} can't be read: {error}; take the file of this project again.") from error
    if not any(each.kind == "news" and each.text.split() for each in texts):
        raise SourceError(f"{path} has no news; take the file of this project again.")
    return texts


def spread(queries: Sequence[Query], most: int | None) -> list[Query]:
    """At most `most` of the queries, in even steps from the first; always the same ones. None: all."""
    if most is None or most >= len(queries):
        return list(queries)
    return [queries[number * len(queries) // most] for number in range(most)]


@dataclass(frozen=True)
class Surroundings:
    """Unrelated English prose to put around a text.

    pieces: the prose. words: how many of its words stand around a text. place: of the text among them.
    """

    pieces: Sequence[str]
    words: int
    place: Place

    @classmethod
    def of(cls, unrelated: Sequence[Unrelated], words: int, place: Place) -> Surroundings:
        return cls([each.text for each in unrelated if each.kind == "news"], words, place)

    def around(self, text: str, number: int) -> str:
        """The text in `words` words. The prose begins with piece `number`, and with the first after the last."""
        first = number % len(self.pieces)
        prose = cycle(word for piece in (*self.pieces[first:], *self.pieces[:first]) for word in piece.split())
        words = list(islice(prose, self.words))
        at = {"start": 0, "middle": self.words // 2, "end": self.words}[self.place]
        return " ".join([*words[:at], text, *words[at:]])

    def around_each(self, queries: Sequence[Query]) -> list[Query]:
        """The queries, each in prose that begins with the piece of its incident's id."""
        return [replace(each, text=self.around(each.text, each.incident_id), vector=None) for each in queries]

    def around_unrelated(self, unrelated: Sequence[Unrelated]) -> list[Unrelated]:
        """The texts, each in prose that begins with the piece after it."""
        return [replace(each, text=self.around(each.text, number)) for number, each in enumerate(unrelated, start=1)]
