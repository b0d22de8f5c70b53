"""The state of a snapshot with reports, made in memory, and with it all that a state doesn't keep: texts and vectors.

It is made as `build_state.py` makes it, from the same store of vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from similarity.incidents.state import IncidentState
from similarity.refresh.build import VectorsFrom, build_state, has_published, token_limit
from similarity.refresh.compute import Computer
from similarity.refresh.questions import (
    DEFAULT_WORDS_FROM,
    Documents,
    Known,
    Question,
    WordsFrom,
)
from similarity.settings import DEFAULT_TEXT_PREPARATION, TextPreparation
from similarity.sources.database import Database


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A snapshot's state, and its parts.

    known: of each incident of the state, in its order. documents: of the word index. questions: those that
    build_state.py would fit the state to. has_query_vectors: whether a report's vector is also the one it asks with.
    """

    database: Database
    state: IncidentState
    known: Sequence[Known]
    documents: Documents
    questions: Sequence[Question]
    has_query_vectors: bool


def build_snapshot(
    database: Database,
    vectors: VectorsFrom,
    computer: Computer | None,
    words_from: Sequence[WordsFrom] = DEFAULT_WORDS_FROM,
) -> Snapshot:
    """computer: None without a model. words_from: the parts of an incident in the word index.

    Raises SourceError, ModelError, StoreError.
    """
    known: list[Known] = []
    if vectors == "auto" and not has_published(database):
        vectors = "computed"
    limit = computer.encoder.max_tokens if computer else token_limit("published", 0, None)
    built = build_state(
        database,
        vectors=vectors,
        responses="include",
        max_tokens=limit,
        computer=computer,
        words_from=words_from,
        told=known.append,
    )
    preparation: TextPreparation = computer.encoder.text_preparation if computer else DEFAULT_TEXT_PREPARATION
    has_query_vectors = computer is None or computer.for_queries() is computer
    documents = Documents(words_from, preparation)
    return Snapshot(database, built.state, known, documents, built.questions, has_query_vectors)
