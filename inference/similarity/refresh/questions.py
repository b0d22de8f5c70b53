"""Questions: texts whose incident is known, each with what a state would know of that incident without the text.

A state's ranking and confidence are fitted to its own questions (`fitting`), because there are no others. A report asks
without its part in the incident's mean. A title asks without the title in the texts that stand in for reports, and in
the word index. Which texts ask doesn't change when incidents are added, so that an update computes few vectors for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from similarity.encoder.tokens import prepare
from similarity.incidents.ranking import Own
from similarity.refresh.compute import Computer
from similarity.settings import TextPreparation
from similarity.sources.database import Incident, Report, stand_in
from similarity.vectors import Vector

Kind = Literal["report", "title"]
# The parts of an incident that its document in the word index may have.
WordsFrom = Literal["title", "description", "reports"]
# Report texts are left out: with them, a report finds its incident less often. docs/evaluation.md has the figures.
DEFAULT_WORDS_FROM: tuple[WordsFrom, ...] = ("title", "description")


def words_from_option(text: str | None) -> tuple[WordsFrom, ...]:
    """The parts in a list with commas, each once, in the usual order; the default for None and an unknown part."""
    named = text.split(",") if text is not None else []
    known = tuple(part for part in get_args(WordsFrom) if part in named)
    return known if len(known) == len(named) > 0 else DEFAULT_WORDS_FROM


# The most questions of each kind. More hardly change what is fitted.
MOST = 500


@dataclass(frozen=True, eq=False)
class Question:
    """A text of an incident.

    text: prepared. vector: (hidden,), the text's as a query. own: the incident as a state would have it without the
    text. number: the report's; None for a title. language: as a report's.
    """

    kind: Kind
    text: str
    vector: Vector
    own: Own
    number: int | None = None
    language: str = "en"

    @property
    def incident_id(self) -> int:
        return self.own.incident_id


@dataclass(frozen=True, eq=False)
class Known:
    """An incident in a state. reports: those with a vector. vectors: (reports, hidden). mean: (hidden,), of them."""

    incident: Incident
    reports: Sequence[Report]
    vectors: Sequence[Vector]
    mean: Vector


def mean_of(vectors: Sequence[Vector]) -> Vector:
    """(reports, hidden) -> (hidden,)"""
    mean: Vector = np.stack(vectors).mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean


class Documents:
    """What the word index has of each incident. words_from: the parts of an incident."""

    def __init__(self, words_from: Sequence[WordsFrom], preparation: TextPreparation) -> None:
        self._from, self.preparation = words_from, preparation

    def of(self, incident: Incident, *, title: bool = True, without: str | None = None) -> str:
        """The incident's document, prepared; perhaps without its title, or without the reports of a text."""
        parts = []
        if "title" in self._from and title:
            parts.append(incident.title)
        if "description" in self._from:
            parts.append(incident.description)
        if "reports" in self._from:
            # A text that stands in for reports is title and description.
            parts += [each.text for each in incident.reports if each.number is not None and each.text != without]
        return prepare("\n".join(parts), self.preparation)


class ReportQuestions:
    """Chooses reports to ask, while a build has the vectors of some incidents at a time in memory.

    shared: the texts that stand in several incidents. They don't ask, because each of their incidents would be right.
    """

    def __init__(self, documents: Documents, most: int = MOST, shared: frozenset[str] = frozenset()) -> None:
        self._documents, self._most, self._shared = documents, most, shared
        self._chosen: list[tuple[tuple[int, str], Question]] = []

    def offer(self, known: Known) -> None:
        """An incident with one text is passed over: without it, there would be no incident.

        Reports with the same text ask once, and are left out together.
        """
        place_of = {report.text: place for place, report in reversed(list(enumerate(known.reports)))}
        if len(place_of) < 2:
            return
        incident_id = known.incident.incident_id
        places = [place for text, place in place_of.items() if text not in self._shared]
        places.sort(key=lambda place: _order(incident_id, known.reports[place].text))
        # Every incident asks with one report before any asks with two.
        for turn, place in enumerate(places):
            report = known.reports[place]
            key = (turn, _order(incident_id, report.text))
            if len(self._chosen) >= self._most and key > self._chosen[-1][0]:
                break
            others = [v for r, v in zip(known.reports, known.vectors, strict=True) if r.text != report.text]
            own = Own(incident_id, mean_of(others), self._documents.of(known.incident, without=report.text))
            text = prepare(report.text, self._documents.preparation)
            question = Question("report", text, known.vectors[place], own, report.number, report.language)
            self._chosen.append((key, question))
            self._chosen.sort(key=lambda each: each[0])
            del self._chosen[self._most :]

    def chosen(self) -> list[Question]:
        return [question for _, question in self._chosen]


def has_title_to_ask(incident: Incident, preparation: TextPreparation) -> bool:
    """Whether the title isn't blank once it is prepared, and the incident has a text without it."""
    return _title_to_ask(incident, preparation) is not None


def title_questions(
    known: Iterable[tuple[Incident, Vector]],
    documents: Documents,
    computer: Computer,
    most: int = MOST,
) -> list[Question]:
    """Titles to ask, as many as the computer may compute vectors for. known: incidents with their means (hidden,).

    Raises ModelError, StoreError.
    """
    asked, preparation = computer.for_queries(), documents.preparation
    found: list[tuple[Incident, Vector, str, str]] = []
    room = computer.room()
    for incident, mean in sorted(known, key=lambda each: _order(each[0].incident_id, "title")):
        if len(found) == most:
            break
        to_ask = _title_to_ask(incident, preparation)
        if not to_ask:
            continue
        title, own_text = to_ask
        if room is not None:
            room -= len(asked.missing([title])) + (len(computer.missing([own_text])) if own_text else 0)
            if room < 0:
                break
        found.append((incident, mean, title, own_text))
    titles, own_texts = [title for _, _, title, _ in found], [text for *_, text in found if text]
    asked.compute(titles)
    computer.compute(own_texts)
    vectors, own_vectors = asked.computed(titles), computer.computed(own_texts)
    asked.keep(titles)
    computer.keep(own_texts)
    return [
        Question(
            "title",
            title,
            vectors[title],
            Own(incident.incident_id, own_vectors.get(text, mean), documents.of(incident, title=False)),
        )
        for incident, mean, title, text in found
    ]


def as_queries(questions: Sequence[Question], computer: Computer) -> list[Question]:
    """The same reports with their vectors as queries. Most models make no difference. Raises as `title_questions`."""
    asked = computer.for_queries()
    if asked is computer:
        return list(questions)
    room = asked.room()
    texts = [question.text for question in questions]
    if room is not None:
        missing = frozenset(asked.missing(texts)[room:])
        questions = [question for question in questions if question.text not in missing]
        texts = [question.text for question in questions]
    asked.compute(texts)
    vectors = asked.computed(texts)
    asked.keep(texts)
    return [
        Question(each.kind, each.text, vectors[each.text], each.own, each.number, each.language) for each in questions
    ]


def _title_to_ask(incident: Incident, preparation: TextPreparation) -> tuple[str, str] | None:
    """The title and the text without it that takes the place of the incident's only text; "" if that stays.

    Both are prepared. None: the title is blank or the text of a report, or there is no text without it.
    """
    title = prepare(incident.title, preparation)
    [first, *others] = incident.reports
    # A title that is a report's text would find itself.
    if not title.strip() or any(each.text.strip() == incident.title for each in incident.reports if each.number):
        return None
    described = stand_in(incident.description)
    if first.number is not None or others or first.text == described:
        return title, ""
    own_text = prepare(described, preparation) if first.text == stand_in(incident.title, incident.description) else ""
    return (title, own_text) if own_text.strip() else None


def _order(incident_id: int, text: str) -> str:
    """An order that has nothing to do with ids or texts, and that stays when others are added."""
    return hashlib.sha256(f"{incident_id} {text}".encode(errors="surrogatepass")).hexdigest()
