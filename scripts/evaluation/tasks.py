"""A task: texts to ask with, and the state that is asked. A text's only right answer is its own incident.

A state that holds a text would find it almost every time. So a task takes the text out of its incident, or leaves it
out, or counts it. `table_tasks`, `snapshot_tasks` and `own_tasks` make tasks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evaluation.texts import Query, Unrelated
from similarity.incidents.state import IncidentState
from similarity.refresh.questions import Question
from similarity.vectors import Vector

# Makes the questions that a state is fitted to. Gets the vectors of the task's queries, each (hidden,).
Questions = Callable[[Sequence[Vector]], Sequence[Question]]


class NothingToMeasureError(Exception):
    """No query is left. The message says why."""


@dataclass(frozen=True, eq=False)
class Task:
    """Queries whose incidents the state has.

    state: with its word index; the rest of its fit counts only if `questions` is None: then no query was fitted to.
    notes: lines about queries that the state knows. unrelated: texts without an incident, beside the sample's.
    """

    queries: Sequence[Query]
    state: IncidentState
    questions: Questions | None
    notes: Sequence[str] = ()
    unrelated: Sequence[Unrelated] = ()


def same_words(first: str, second: str) -> bool:
    """Whether two texts are the same but for punctuation and capitals."""
    return _words(first) == _words(second)


def known_to(state: IncidentState, queries: Sequence[Query]) -> list[Query]:
    """The queries whose incident the state has. Raises NothingToMeasureError."""
    if not queries:
        raise NothingToMeasureError("no text names an incident.")
    ids = set(state.incident_ids.tolist())
    if known := [query for query in queries if query.incident_id in ids]:
        return known
    raise NothingToMeasureError("the state has none of the incidents.")


def _words(text: str) -> list[str]:
    """The words of a text. Punctuation and capitals make no other text."""
    return re.findall(r"\w+", text.casefold())
