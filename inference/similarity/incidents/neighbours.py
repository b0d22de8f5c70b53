"""The incidents most like each incident, for all of them at once: what AIID stores as `nlp_similar_incidents`.

One text or vector at a time is the job of `similarity.incidents.ranking`, which also says what a metric is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from similarity.incidents.ranking import Match, Metric, largest, origin_of
from similarity.incidents.state import IncidentState
from similarity.vectors import exact_unit

# Similarities in memory at a time: 64 MiB.
_BLOCK = 8 << 20


def neighbours(state: IncidentState, num: int, metric: Metric = "cosine") -> Iterator[tuple[int, list[Match]]]:
    """Each incident's id, ascending, with the `num` others most like it, best first, ties by id; all if num < 0.

    Left out are the incident itself, those that were merged with it, and those that people marked as dissimilar. So
    there may be fewer than `num`.
    """
    # Several incidents may be so alike that float32 can't tell which is nearer.
    exact = exact_unit(state.means - origin_of(state.means, metric))  # (incidents, hidden)
    # Rounding moves a sum of so many products of unit vectors by less.
    margin = 4 * exact.shape[1] * np.finfo(np.float64).eps
    left_out = _left_out(state)
    rows_at_once = max(_BLOCK // len(state), 1)
    for start in range(0, len(state), rows_at_once):
        products = exact[start : start + rows_at_once] @ exact.T  # (rows, hidden) -> (rows, incidents)
        for row, similarities in enumerate(products, start):
            similarities[left_out[row]] = -np.inf
            others = len(state) - len(left_out[row])
            count = others if num < 0 else min(num, others)
            least = similarities[largest(similarities, count)].min(initial=np.inf)
            candidates = np.flatnonzero(similarities >= least - margin)
            # Row by row: a product of matrices may give equal rows different last digits.
            found = np.clip(np.vecdot(exact[candidates], exact[row]), -1, 1)
            best = largest(found, count)
            yield (
                int(state.incident_ids[row]),
                [
                    Match(int(state.incident_ids[place]), similarity, state.titles[place])
                    for place, similarity in zip(candidates[best].tolist(), found[best].tolist(), strict=True)
                ],
            )


def _left_out(state: IncidentState) -> list[list[int]]:
    """For each row the rows that aren't its neighbours: itself, those merged with it, those marked as dissimilar."""
    ids: list[int] = state.incident_ids.tolist()
    became: dict[int, int] = dict(state.duplicates.tolist())
    merged = defaultdict(list)
    for row, incident_id in enumerate(ids):
        merged[became.get(incident_id, incident_id)].append(row)
    found = [set(merged[became.get(incident_id, incident_id)]) for incident_id in ids]
    row_of = {incident_id: row for row, incident_id in enumerate(ids)}
    for pair in state.dissimilar.tolist():
        if all(incident_id in row_of for incident_id in pair):
            one, other = (row_of[incident_id] for incident_id in pair)
            found[one].add(other)
            found[other].add(one)
    return list(map(sorted, found))
