"""The task of a user's own texts, asked of a state that was made in memory, or read from a file."""

from __future__ import annotations

from shared.command import Bar

from collections.abc import Sequence

from evaluation.snapshots import Snapshot
from evaluation.states import made_from
from evaluation.tasks import NothingToMeasureError, Questions, Task, known_to, same_words
from evaluation.texts import Query, Unrelated, spread
from similarity.encoder.text_encoder import TextEncoder
from similarity.incidents.state import IncidentState


def own_task_in_memory(
    queries: Sequence[Query], unrelated: Sequence[Unrelated], snapshot: Snapshot, most: int | None = None
) -> Task:
    """Texts that a title, a description or a report of their incident repeats are left out.

    unrelated: the texts without an incident. most: of the others to take. Raises NothingToMeasureError.
    """
    texts_of = {
        known.incident.incident_id: [
            known.incident.title,
            known.incident.description,
            *(report.text for report in known.reports),
        ]
        for known in snapshot.known
    }
    known = known_to(snapshot.state, queries)
    unseen = [each for each in known if not any(same_words(each.text, text) for text in texts_of[each.incident_id])]
    return _task(queries, known, unseen, unrelated, snapshot.state, lambda _: snapshot.questions, most)


def own_task_of_state(
    queries: Sequence[Query],
    unrelated: Sequence[Unrelated],
    state: IncidentState,
    encoder: TextEncoder,
    most: int | None = None,
) -> Task:
    """Texts that are their incident's only report are left out. The state is asked as it is, with its own fit.

    encoder: computes in float32. The rest is as above. Raises ModelError too.
    """
    known = known_to(state, queries)
    with Bar("texts") as progress:
        seen = made_from([(each.incident_id, each.text) for each in known], encoder, state, progress)
    unseen = [each for each in known if (each.incident_id, each.text) not in seen]
    return _task(queries, known, unseen, unrelated, state, None, most)


def _task(
    queries: Sequence[Query],
    known: Sequence[Query],
    unseen: Sequence[Query],
    unrelated: Sequence[Unrelated],
    state: IncidentState,
    questions: Questions | None,
    most: int | None,
) -> Task:
    notes = []
    if len(known) < len(queries):
        notes.append(f"{len(queries) - len(known)} queries left out: the state doesn't have their incident.")
    if len(unseen) < len(known):
        notes.append(f"{len(known) - len(unseen)} queries left out: the state holds their own text.")
    if not unseen:
        raise NothingToMeasureError(" ".join(notes))
    return Task(spread(unseen, most), state, questions, notes, unrelated)
