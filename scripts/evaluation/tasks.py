"""Tasks: the queries, and the state that is asked. A query's only right answer is its own incident.

A state that holds a query's own text would be found almost every time, so a task leaves such queries out or counts
them. Titles are asked for descriptions here, or descriptions for titles.
"""

from __future__ import annotations

from shared.command import Bar

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.states import made_from, state_of
from evaluation.texts import Column, as_written, read_incidents, spread
from similarity.encoder.text_encoder import TextEncoder
from similarity.incidents.state import IncidentState
from similarity.sources.database import Incident
from states.building import STORE_FILENAME


class NothingToMeasureError(Exception):
    """No query is left. The message says why."""


@dataclass(frozen=True)
class Task:
    """Queries whose incidents the state has; each has one text. notes: lines about queries that know the answer."""

    queries: list[Incident]
    state: IncidentState
    notes: list[str]


def in_memory(path: Path, column: Column, encoder: TextEncoder, cache: Path, most: int | None = None) -> Task:
    """The queries are of `column`; the state is made of the other one. Queries that equal their incident's text stay.

    cache: the folder of the vectors' store. encoder: computes the state, in float32. most: of the queries to take.
    Raises NothingToMeasureError, SourceError, ModelError, StoreError.
    """
    other: Column = "description" if column == "title" else "title"
    queries = as_written(path, column, read_incidents(path, column))
    incidents = as_written(path, other, read_incidents(path, other, quiet=True))
    with Bar("chars") as progress:
        state = state_of(incidents, encoder, cache / STORE_FILENAME, progress)
    queries = spread(_known(queries, state), most)
    words_of = {each.incident_id: _words(each) for each in incidents}
    repeated = sum(_words(query) == words_of[query.incident_id] for query in queries)
    return Task(queries, state, [f"{repeated} queries repeat their incident's text."] if repeated else [])


def of_state(path: Path, column: Column, encoder: TextEncoder, state: IncidentState, most: int | None = None) -> Task:
    """The queries are of `column`; those that the state was made from are left out. encoder: computes in float32.

    most: of the others to take. Raises NothingToMeasureError, SourceError, ModelError.
    """
    as_built = [*read_incidents(path, column), *read_incidents(path, "title-and-description", quiet=True)]
    queries = _known(as_written(path, column, read_incidents(path, column, quiet=True)), state)
    asked = {query.incident_id for query in queries}
    with Bar("texts") as progress:
        own = made_from([each for each in [*queries, *as_built] if each.incident_id in asked], encoder, state, progress)
    kept = [query for query in queries if query.incident_id not in own]
    left_out = f"{len(queries) - len(kept)} queries left out: the state holds their own text"
    if not kept:
        raise NothingToMeasureError(f"{left_out}; build a state from other texts, see --help.")
    notes = [f"{left_out}."] if len(kept) < len(queries) else []
    kept = spread(kept, most)
    several = state.incident_ids[state.report_counts > 1].tolist()
    if untold := len({query.incident_id for query in kept}.intersection(several)):
        notes.append(f"{untold} incidents have several reports: one of these may be the query's own text.")
    return Task(kept, state, notes)


def _known(queries: Sequence[Incident], state: IncidentState) -> list[Incident]:
    """The queries whose incident the state has. Raises NothingToMeasureError."""
    ids = set(state.incident_ids.tolist())
    if known := [query for query in queries if query.incident_id in ids]:
        return known
    raise NothingToMeasureError("the state has none of the incidents.")


def _words(incident: Incident) -> list[str]:
    """The words of its text. Punctuation and capitals make no other text."""
    return re.findall(r"\w+", incident.texts[0].casefold())
