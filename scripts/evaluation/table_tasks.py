"""Tasks of an incidents.csv: one column asks for the other, or for the incidents of a state."""

from __future__ import annotations

from shared.command import Bar

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from evaluation.beginnings import BEGINNINGS, Beginning
from evaluation.states import made_from, state_of
from evaluation.tasks import NothingToMeasureError, Questions, Task, known_to, same_words
from evaluation.texts import Column, Query, read_incidents, spread
from similarity.encoder.text_encoder import TextEncoder
from similarity.encoder.tokens import prepare
from similarity.incidents.fit import Fit
from similarity.incidents.ranking import Own
from similarity.incidents.state import IncidentState
from similarity.incidents.words import WordIndex
from similarity.refresh.questions import Question, WordsFrom, words_from_option
from similarity.settings import TextPreparation
from similarity.sources.database import Incident
from similarity.vectors import Vector
from states.building import STORE_FILENAME

TableTask = Literal["title", "description", Beginning]


def table_task(name: TableTask, path: Path, encoder: TextEncoder, cache: Path, most: int | None = None) -> Task:
    """A task of an incidents.csv. The queries are of one column, the state of the other; see `_asked_column`.

    Queries that equal their incident's text stay and are counted. cache: the folder of the vectors' store. encoder:
    computes the state, in float32. most: of the queries to take.
    Raises NothingToMeasureError, SourceError, ModelError, StoreError.
    """
    column = _asked_column(name)
    other: Column = "description" if column == "title" else "title"
    asked, incidents = read_incidents(path, column), read_incidents(path, other, quiet=True)
    text_of = {each.incident_id: prepare(_column(each, other), encoder.text_preparation) for each in incidents}
    with Bar("chars") as progress:
        state = state_of(text_of, encoder, cache / STORE_FILENAME, progress)
    documents = [text_of[incident_id] for incident_id in state.incident_ids.tolist()]
    state = replace(state, fit=Fit(words=WordIndex.of(documents)))
    queries = spread(known_to(state, [Query(each.incident_id, _asked(each, name)) for each in asked]), most)
    repeated = sum(same_words(query.text, text_of[query.incident_id]) for query in queries)
    document_of = dict(zip(state.incident_ids.tolist(), documents, strict=True))
    return Task(
        queries,
        state,
        _titles(queries, state, encoder.text_preparation, lambda incident_id: document_of[incident_id]),
        [f"{repeated} queries repeat their incident's text."] if repeated else [],
    )


def state_task(
    name: TableTask, path: Path, encoder: TextEncoder, state: IncidentState, most: int | None = None
) -> Task:
    """The same queries, asked of a state. Those that it was made from are left out. encoder: computes in float32.

    A query that is in the state's word index is taken out of its incident there. most: of the others to take.
    Raises NothingToMeasureError, SourceError, ModelError.
    """
    column = _asked_column(name)
    asked = {each.incident_id: each for each in read_incidents(path, column)}
    queries = known_to(state, [Query(each.incident_id, _asked(each, name)) for each in asked.values()])
    ids = {query.incident_id for query in queries}
    as_built = [(each.incident_id, text) for each in asked.values() for text in each.texts]
    whole = read_incidents(path, "title-and-description", quiet=True)
    as_built += [(each.incident_id, text) for each in whole for text in each.texts]
    as_written = [(each.incident_id, _column(each, column)) for each in asked.values()]
    with Bar("texts") as progress:
        seen = made_from([each for each in [*as_written, *as_built] if each[0] in ids], encoder, state, progress)
    own = {incident_id for incident_id, _ in seen}
    kept = [query for query in queries if query.incident_id not in own]
    left_out = f"{len(queries) - len(kept)} queries left out: the state holds their own text"
    if not kept:
        raise NothingToMeasureError(f"{left_out}; build a state from other texts, see --help.")
    notes = [f"{left_out}."] if len(kept) < len(queries) else []
    kept = spread(kept, most)
    several = state.incident_ids[state.report_counts > 1].tolist()
    if untold := len({query.incident_id for query in kept}.intersection(several)):
        notes.append(f"{untold} incidents have several reports: one of these may be the query's own text.")
    words_from = words_from_option(state.options.get("words"))
    if state.fit.words is not None and "reports" in words_from:
        notes.append("The state's word index has the reports' texts, which may be the queries' own: it isn't asked.")
        state = replace(state, fit=replace(state.fit, words=None))

    def document(incident_id: int) -> str:
        parts: tuple[WordsFrom, ...] = ("title", "description")
        incident = asked[incident_id]
        texts = [_column(incident, part) for part in parts if part in words_from and part != column]
        return prepare("\n".join(texts), encoder.text_preparation)

    if state.fit.words is not None and column in words_from:
        kept = [replace(each, own=_own(state, each.incident_id, document(each.incident_id))) for each in kept]
    return Task(kept, state, _titles(kept, state, encoder.text_preparation, document), notes)


def _asked_column(name: TableTask) -> Column:
    """The column whose texts are asked: beginnings are those of descriptions."""
    return "title" if name == "title" else "description"


def _titles(
    queries: Sequence[Query], state: IncidentState, preparation: TextPreparation, document: Callable[[int], str]
) -> Questions:
    """Fits to the queries themselves. document: that of an incident in the word index, without its query."""

    def questions(vectors: Sequence[Vector]) -> list[Question]:
        return [
            Question(
                "title",
                prepare(query.text, preparation),
                vector,
                query.own or _own(state, query.incident_id, document(query.incident_id)),
            )
            for query, vector in zip(queries, vectors, strict=True)
        ]

    return questions


def _own(state: IncidentState, incident_id: int, document: str) -> Own:
    """The incident with its mean as the state has it."""
    return Own(incident_id, state.means[int(np.searchsorted(state.incident_ids, incident_id))], document)


def _column(incident: Incident, column: Column | WordsFrom) -> str:
    """A column's text as it stands in the table. `read_incidents` adds full stops."""
    return incident.title if column == "title" else incident.description


def _asked(incident: Incident, name: TableTask) -> str:
    text = _column(incident, _asked_column(name))
    return BEGINNINGS[name](text) if name in BEGINNINGS else text
