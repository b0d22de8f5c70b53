"""Texts to ask with: those of an incidents.csv, texts that no incident is about, and long texts around a query."""

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

from similarity.sources.database import Incident, Report, TextMode
from similarity.sources.parts import whole_number
from similarity.sources.problems import HeldProblems, Problems, SourceError
from similarity.sources.read import read_database
from similarity.sources.tables import is_text, read_rows

UNRELATED_PATH = SCRIPTS_DIR / "sample" / "unrelated.csv"

Column = Literal["title", "description"]
Place = Literal["start", "middle", "end"]


@dataclass(frozen=True)
class Unrelated:
    """A text that no incident is about. kind: news, household, short or language. language: its code, "" for none."""

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


def as_written(path: Path, column: Column, incidents: Sequence[Incident]) -> list[Incident]:
    """These incidents of an incidents.csv, with the column's text as it stands there. `read_incidents` adds full stops.

    Raises SourceError.
    """
    text_of: dict[int | None, str] = {}
    for _, row in read_rows(lambda: path.open("rb"), path.name, ("incident_id", column), HeldProblems()):
        if row[column].strip(" ."):  # the first one that isn't blank, as there
            text_of.setdefault(whole_number(row["incident_id"]), row[column].strip())
    return [replace(each, reports=(Report(None, text_of[each.incident_id]),)) for each in incidents]


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


def spread(queries: Sequence[Incident], most: int | None) -> list[Incident]:
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

    def around_each(self, queries: Sequence[Incident]) -> list[Incident]:
        """The queries, each in prose that begins with the piece of its incident's id."""
        return [
            replace(query, reports=(Report(None, self.around(query.texts[0], query.incident_id)),)) for query in queries
        ]

    def around_unrelated(self, unrelated: Sequence[Unrelated]) -> list[Unrelated]:
        """The texts, each in prose that begins with the piece after it."""
        return [replace(each, text=self.around(each.text, number)) for number, each in enumerate(unrelated, start=1)]
