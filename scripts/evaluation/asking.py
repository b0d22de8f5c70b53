"""Asks a state with texts whose incidents are known, and with texts that no incident is about.

Whitening's power and the calibration are fitted to texts. So that no text is asked of a state that was fitted to it,
there are FOLDS states: each is fitted to the incidents of the other folds, and only those of its own fold are asked of
it. Unrelated texts weren't fitted to, so they are asked of all of them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evaluation.texts import Query
from similarity.encoder.tokens import prepare
from similarity.incidents.confidence import Verdict
from similarity.incidents.metrics import Metric
from similarity.incidents.ranking import Ranking, Scores
from similarity.incidents.state import IncidentState
from similarity.incidents.vector_index import largest
from similarity.settings import TextPreparation
from similarity.vectors import Vector

FOLDS = 5
# Matches of an answer that are looked at: AIID's site shows so many.
SHOWN = 3

# The metrics, and BM25 alone.
Compared = Metric | Literal["words"]


@dataclass(frozen=True, eq=False)
class Sure:
    """How sure answers are.

    confidence: (queries, SHOWN), NaN where there is none. is_right: (queries, SHOWN), whether the match is the query's
    incident. verdicts: of the first matches.
    """

    confidence: NDArray[np.float64]
    is_right: NDArray[np.bool_]
    verdicts: Sequence[Verdict | None]


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers by one metric to all queries.

    rank (queries,): of the right incident: 1, and one more for each incident with a larger score. So two incidents with
        the same text share a rank. The API puts the smaller id first.
    right, best (queries,): the right incident's score, and the largest of all incidents.
    rival (queries,): the largest score if the state doesn't have the right incident; NaN if it has no other.
    others (queries, SHOWN): the rows of the first incidents then, -1 where there are fewer.
    there, removed: how sure the answers are with the right incident, and without it.
    """

    rank: NDArray[np.int64]
    right: NDArray[np.float64]
    best: NDArray[np.float64]
    rival: NDArray[np.float64]
    others: NDArray[np.int64]
    there: Sure
    removed: Sure


@dataclass(frozen=True, eq=False)
class Unmatched:
    """The answers by one metric to texts without an incident.

    best: (folds, texts), the largest scores. verdicts: of each text, by fold.
    """

    best: NDArray[np.float64]
    verdicts: Sequence[Sequence[Verdict | None]]


@dataclass(frozen=True)
class _One:
    """An answer's first matches. best: the largest score, NaN without incidents. rows (SHOWN or fewer,), best first.

    confidence: (rows,); empty if there is none.
    """

    best: float
    rows: NDArray[np.intp]
    confidence: NDArray[np.float64]
    verdict: Verdict | None


@dataclass(frozen=True)
class _Both:
    """A query's answers with the right incident, and without it. row, rank, right: of that incident."""

    row: int
    rank: int
    right: float
    there: _One
    removed: _One


def fold_of(incident_id: int) -> int:
    """From 0 to FOLDS - 1. It depends on the id alone, so it is the same for all tasks."""
    return hashlib.sha256(str(incident_id).encode()).digest()[0] % FOLDS


def compared(ranking: Ranking) -> tuple[Compared, ...]:
    """What a state can be asked by."""
    return (*ranking.metrics, *(("words",) if ranking.state.fit.words is not None else ()))


def cross_fitted(fit: Callable[[frozenset[int]], IncidentState], incident_ids: Iterable[int]) -> list[Ranking]:
    """For each fold, the state that `fit` makes of the incidents of all other folds."""
    ids = frozenset(incident_ids)
    return [
        Ranking(fit(frozenset(incident_id for incident_id in ids if fold_of(incident_id) != fold)))
        for fold in range(FOLDS)
    ]


def answers(
    queries: Sequence[Query],
    vectors: Sequence[Vector],
    rankings: Sequence[Ranking],
    preparation: TextPreparation,
    done: Callable[[], object],
) -> dict[Compared, Answers]:
    """The answers to all queries, by metric.

    vectors: of the queries, each (hidden,). rankings: by fold; they must have the queries' incidents. preparation: of
    the texts of the states. done: is called after each query.
    """
    names = compared(rankings[0])
    found: dict[Compared, list[_Both]] = {name: [] for name in names}
    ids = rankings[0].state.incident_ids
    for query, vector in zip(queries, vectors, strict=True):
        ranking = rankings[fold_of(query.incident_id)]
        scores = ranking.scores(vector, prepare(query.text, preparation), query.own)
        removed = scores.without(query.incident_id)
        row = int(np.searchsorted(ids, query.incident_id))
        for name in names:
            values = values_of(scores, name)
            rank = 1 + int((np.delete(values, row) > values[row]).sum())
            there, without = _one(scores, ranking, name), _one(removed, ranking, name)
            found[name].append(_Both(row, rank, float(values[row]), there, without))
        done()
    return {name: _answers(each) for name, each in found.items()}


def unmatched(
    texts: Sequence[str], vectors: Sequence[Vector], rankings: Sequence[Ranking], preparation: TextPreparation
) -> dict[Compared, Unmatched]:
    """The answers to texts without an incident, by metric. The rest is as for `answers`."""
    found: dict[Compared, Unmatched] = {}
    for name in compared(rankings[0]):
        each = [
            [
                _one(ranking.scores(vector, prepare(text, preparation)), ranking, name)
                for text, vector in zip(texts, vectors, strict=True)
            ]
            for ranking in rankings
        ]
        best = np.array([[one.best for one in by_fold] for by_fold in each])
        verdicts = [[one.verdict for one in by_fold] for by_fold in each]
        found[name] = Unmatched(best.reshape(len(rankings), len(texts)), verdicts)
    return found


def values_of(scores: Scores, name: Compared) -> NDArray[np.float64]:
    """(incidents,). Raises ValueError if the state can't be asked by it."""
    if name != "words":
        return scores.of(name)
    if scores.words is None:
        raise ValueError("the state has no word index")
    return scores.words


def _one(scores: Scores, ranking: Ranking, name: Compared) -> _One:
    if not len(scores.incident_ids):
        return _One(math.nan, np.empty(0, dtype=np.intp), np.empty(0), None)
    values = values_of(scores, name)
    rows = largest(values, min(SHOWN, len(values)))
    best = float(values[rows[0]])
    calibration = ranking.state.fit.calibration
    if name == "words" or name not in calibration:
        return _One(best, rows, np.empty(0), None)
    confidence = calibration[name].of(scores.evidence(name, rows))
    return _One(best, rows, confidence, calibration[name].verdict(float(confidence[0])))


def _answers(found: Sequence[_Both]) -> Answers:
    others = np.full((len(found), SHOWN), -1, dtype=np.int64)
    for place, each in enumerate(found):
        # Rows behind the removed one have moved up.
        others[place, : len(each.removed.rows)] = each.removed.rows + (each.removed.rows >= each.row)
    return Answers(
        rank=np.array([each.rank for each in found], dtype=np.int64),
        right=np.array([each.right for each in found]),
        best=np.array([each.there.best for each in found]),
        rival=np.array([each.removed.best for each in found]),
        others=others,
        there=_sure([each.there for each in found], [each.row for each in found]),
        removed=_sure([each.removed for each in found], [-1] * len(found)),
    )


def _sure(found: Sequence[_One], right: Sequence[int]) -> Sure:
    """right: the row of each query's incident, -1 without it."""
    confidence = np.full((len(found), SHOWN), math.nan)
    is_right = np.zeros((len(found), SHOWN), dtype=np.bool_)
    for place, (one, row) in enumerate(zip(found, right, strict=True)):
        confidence[place, : len(one.confidence)] = one.confidence
        is_right[place, : len(one.rows)] = one.rows == row
    return Sure(confidence, is_right, [one.verdict for one in found])
