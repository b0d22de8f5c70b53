"""The task of editors' pairs: is an incident nearer to those that people marked as similar than to the dissimilar ones?

An incident is asked with its mean as vector, and with title and description as text.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.asking import Compared, compared, fold_of, values_of
from evaluation.figures import Estimate, auc, estimates
from evaluation.snapshots import Snapshot
from evaluation.tasks import NothingToMeasureError
from similarity.encoder.tokens import prepare
from similarity.incidents.ranking import Ranking


@dataclass(frozen=True)
class PairFigures:
    """nearer: share of an incident's combinations of a similar and a dissimilar one in which the similar one is nearer.

    It is the mean over incidents that have both; a tie counts half. auc: of the scores of all similar pairs against
    those of all dissimilar ones. Each pair counts twice, because either incident asks for the other.
    """

    nearer: Estimate
    auc: float


@dataclass(frozen=True)
class PairResult:
    """similar, dissimilar: numbers of pairs whose incidents the state has. incidents: how many of those have both."""

    similar: int
    dissimilar: int
    incidents: int
    metrics: Mapping[Compared, PairFigures]


def marked_pairs(snapshot: Snapshot) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The similar and the dissimilar pairs whose incidents the state has. Raises NothingToMeasureError without any.

    A pair that people marked as both is left out.
    """
    ids = {known.incident.incident_id for known in snapshot.known}
    similar, dissimilar = snapshot.database.similar, snapshot.database.dissimilar
    kept = [
        sorted(pair for pair in pairs if ids.issuperset(pair)) for pairs in (similar - dissimilar, dissimilar - similar)
    ]
    if not all(kept):
        raise NothingToMeasureError(
            f"the snapshot has {len(kept[0])} similar and {len(kept[1])} dissimilar pairs; only its dumps have labels."
        )
    return kept[0], kept[1]


def pair_result(
    snapshot: Snapshot,
    rankings: Sequence[Ranking],
    similar: Sequence[tuple[int, int]],
    dissimilar: Sequence[tuple[int, int]],
) -> PairResult:
    """rankings: by fold, of the snapshot's state."""
    near, far = _others(similar), _others(dissimilar)
    ids = snapshot.state.incident_ids
    scores: dict[Compared, dict[int, tuple[list[float], list[float]]]] = defaultdict(dict)
    for known in snapshot.known:
        incident_id = known.incident.incident_id
        if not near[incident_id] and not far[incident_id]:
            continue
        ranking = rankings[fold_of(incident_id)]
        text = prepare(f"{known.incident.title}\n{known.incident.description}", snapshot.documents.preparation)
        found = ranking.scores(known.mean, text)
        for name in compared(ranking):
            values = values_of(found, name)
            of_near, of_far = (
                [float(values[np.searchsorted(ids, other)]) for other in others[incident_id]] for others in (near, far)
            )
            scores[name][incident_id] = of_near, of_far
    both = [incident_id for incident_id in near if near[incident_id] and far[incident_id]]
    return PairResult(
        len(similar),
        len(dissimilar),
        len(both),
        {
            name: PairFigures(
                nearer=estimates(np.reshape([auc(*by_id[incident_id]) for incident_id in both], (-1, 1)), both)[0],
                auc=auc(
                    [score for of_near, _ in by_id.values() for score in of_near],
                    [score for _, of_far in by_id.values() for score in of_far],
                ),
            )
            for name, by_id in scores.items()
        },
    )


def _others(pairs: Iterable[tuple[int, int]]) -> defaultdict[int, list[int]]:
    """The other incident of each of an incident's pairs."""
    found: defaultdict[int, list[int]] = defaultdict(list)
    for first, second in pairs:
        found[first].append(second)
        found[second].append(first)
    return found
