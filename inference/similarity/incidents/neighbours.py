"""Finds the incidents most like each incident, for all incidents at once. AIID stores them as `nlp_similar_incidents`.

`similarity.incidents.ranking` compares one vector with all incidents, and explains the metrics.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from similarity.incidents.metrics import VectorMetric
from similarity.incidents.ranking import Match
from similarity.incidents.state import IncidentState
from similarity.incidents.vector_index import Index, largest
from similarity.vectors import exact_unit

# So many similarities are in memory at a time: 64 MiB.
_BLOCK = 8 << 20


def neighbours(state: IncidentState, num: int, metric: VectorMetric = "cosine") -> Iterator[tuple[int, list[Match]]]:
    """Yields the id of each incident, in ascending order, and the `num` incidents most like it.

    The best match comes first, of equal ones the smaller id. A negative `num` means all. An incident isn't matched with
    itself, with incidents that were merged with it, or with incidents that people marked as dissimilar. So there may be
    fewer than `num`. Raises ValueError for `whitened` if the state has no whitening map.
    """
    # Cosines may differ by less than the precision of float32.
    exact = exact_unit(Index(state.means, state.fit.whitening).moved(state.means, metric))  # (incidents, hidden)
    # A sum of so many products has a smaller rounding error.
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
            # A product of matrices may give equal rows different last digits, so these are computed row by row.
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
    """For each row, the rows that aren't its neighbours: itself, merged incidents, and dissimilar incidents."""
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
