"""Fits a state's rankings and confidence: the power of its whitening map, its word index, its calibration.

Each question is asked twice: of the state with its incident, as it would be without the question, and of the state
without the incident. So "no match" is as frequent as a match. Reports and titles count equally in all, however many
there are of each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from similarity.incidents.confidence import MISSED, Calibration, Confidence, logistic
from similarity.incidents.fit import Fit
from similarity.incidents.metrics import Metric
from similarity.incidents.ranking import Ranking, Scores
from similarity.incidents.state import IncidentState
from similarity.incidents.vector_index import Index, largest
from similarity.incidents.whitening import DEFAULT_POWER, POWERS, whitening
from similarity.incidents.words import WordIndex
from similarity.refresh.questions import Question
from similarity.vectors import Vector, unit

# With fewer questions nothing is fitted.
FEWEST = 30
# The later matches of an answer that are fitted to.
LATER = 9

# Incidents that are compared with all questions at a time.
_AT_ONCE = 4096

# The weight of the sum of squares of the standardised weights. It keeps them small where few questions tell little.
_RIDGE = 1.0
_ROUNDS, _SMALL_STEP = 100, 1e-9
# Cosines of equal means differ by less, in ways that depend on the processor and the number of threads.
_SAME_COSINE = 1e-5
# Equal scores differ by less, because they are computed in float32. A feature that differs by less tells nothing, and
# would get a weight so large that every real difference made a confidence of 0 or 1.
_ROUNDING = 1e-6


def fitted(state: IncidentState, documents: Sequence[str], questions: Sequence[Question]) -> IncidentState:
    """The state with all that can be fitted. documents: prepared, of each incident, for the word index."""
    return fitted_to(questions, state, WordIndex.of(documents))


def fitted_to(questions: Sequence[Question], state: IncidentState, words: WordIndex | None) -> IncidentState:
    """The state with this word index, and all else fitted."""
    power = chosen_power(state.means, state.incident_ids, questions)
    fit = Fit(whitening(state.means, power), power, words)
    searchable = replace(state, fit=fit)
    return replace(state, fit=replace(fit, calibration=calibrate(Ranking(searchable), questions)))


def chosen_power(means: Vector, incident_ids: NDArray[np.int64], questions: Sequence[Question]) -> float:
    """The power of POWERS with the best mean reciprocal rank of the questions' incidents; of equal ones, the smallest.

    means: (incidents, hidden).
    """
    if len(questions) < FEWEST or len(means) < 2:
        return DEFAULT_POWER
    means, rows = _without(means, incident_ids, questions)
    asked, own = np.stack([each.vector for each in questions]), np.stack([each.own.mean for each in questions])
    weights = weights_of(questions)
    best, best_power = -1.0, DEFAULT_POWER
    for power in POWERS:
        index = Index(means, whitening(means, power))
        queries = unit(index.moved(asked, "whitened"))  # (questions, hidden)
        right = np.vecdot(queries, unit(index.moved(own, "whitened")))  # (questions,)
        better = np.zeros(len(rows), dtype=np.int64)
        for start in range(0, len(means), _AT_ONCE):
            found = queries @ unit(index.moved(means[start : start + _AT_ONCE], "whitened")).T  # (questions, incidents)
            here = np.flatnonzero((rows >= start) & (rows < start + _AT_ONCE))
            found[here, rows[here] - start] = right[here]
            better += (found > right[:, None] + _SAME_COSINE).sum(axis=1)
        reciprocal = 1 / (1 + better)
        figure = float(weights @ reciprocal)
        if figure > best + 1e-9:  # Other processors round in other ways.
            best, best_power = figure, power
    return best_power


def _without(
    means: Vector, incident_ids: NDArray[np.int64], questions: Sequence[Question]
) -> tuple[Vector, NDArray[np.intp]]:
    """The means without the questions (incidents, hidden), and the rows of the questions' incidents (questions,).

    A whitening map suits the means that it was made of: those in it look shorter than others, and so more similar. The
    means of the questions' incidents must be among them, as those of real queries are.
    """
    rows = np.searchsorted(incident_ids, [each.incident_id for each in questions])
    left = means.copy()
    # The first question of an incident counts.
    for row, question in zip(rows[::-1].tolist(), reversed(questions), strict=True):
        left[row] = question.own.mean
    return left, rows


def weights_of(questions: Sequence[Question]) -> NDArray[np.float64]:
    """(questions,): each kind has the same sum, and the mean is 1."""
    count = Counter(each.kind for each in questions)
    return np.array([len(questions) / (len(count) * count[each.kind]) for each in questions])


@dataclass(frozen=True, eq=False)
class Asked:
    """The best matches of a question by a metric.

    evidence: (matches, features), best match first. right: (matches,), 1 for the question's incident, otherwise 0.
    """

    evidence: NDArray[np.float64]
    right: NDArray[np.float64]


def asked(scores: Scores, incident_id: int, metric: Metric) -> Asked:
    rows = largest(scores.of(metric), min(1 + LATER, len(scores.incident_ids)))
    return Asked(scores.evidence(metric, rows), (scores.incident_ids[rows] == incident_id).astype(np.float64))


def calibrate(ranking: Ranking, questions: Sequence[Question]) -> Calibration:
    """The confidence of each metric that the state can be searched by. Empty if there are too few questions."""
    if len(questions) < FEWEST or len(ranking.state) < 3:
        return {}
    state = ranking.state
    means, _ = _without(state.means, state.incident_ids, questions)
    fit = replace(state.fit, whitening=None if state.fit.whitening is None else whitening(means, state.fit.power))
    ranking = Ranking(replace(state, means=means, fit=fit))
    there: dict[Metric, list[Asked]] = {metric: [] for metric in ranking.metrics}
    removed: dict[Metric, list[Asked]] = {metric: [] for metric in ranking.metrics}
    for each in questions:
        scores = ranking.scores(each.vector, each.text, each.own)
        others = scores.without(each.incident_id)
        for metric in ranking.metrics:
            there[metric].append(asked(scores, each.incident_id, metric))
            removed[metric].append(asked(others, each.incident_id, metric))
    return {metric: _confidence(questions, there[metric], removed[metric]) for metric in ranking.metrics}


def _confidence(questions: Sequence[Question], there: Sequence[Asked], gone: Sequence[Asked]) -> Confidence:
    """there, gone: the matches with the questions' incidents and without them."""
    weights = np.tile(weights_of(questions), 2)  # (2 * questions,)
    both = [*there, *gone]
    first = _logistic_regression(
        np.stack([each.evidence[0] for each in both]), np.array([each.right[0] for each in both]), weights
    )
    later = _logistic_regression(
        np.concatenate([each.evidence[1:] for each in both]),
        np.concatenate([each.right[1:] for each in both]),
        np.repeat(weights, [len(each.right) - 1 for each in both]),
    )
    found = Confidence(first, later, 0.0)
    confidences = np.array([found.of(each.evidence[:1])[0] for each in there])
    return replace(found, none_below=_quantile(confidences, weights_of(questions), MISSED))


def _logistic_regression(
    features: NDArray[np.float64], right: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[float, ...]:
    """A weight for each feature, 0 or more, and a constant. features: (rows, features). right, weights: (rows,).

    A feature that would get a negative weight is left out. With few questions, weights of related scores would have
    opposite signs. Then a match with larger scores and distances than any that was fitted to would be less sure.
    """
    kept = list(range(features.shape[1]))
    while True:
        *found, constant = _ridge_regression(features[:, kept], right, weights)
        if min(found, default=0.0) >= 0:
            break
        standardised = np.array(found) * features[:, kept].std(axis=0)
        del kept[int(np.argmin(standardised))]
    plain = np.zeros(features.shape[1])
    plain[kept] = found
    return (*plain.tolist(), constant)


def _ridge_regression(
    features: NDArray[np.float64], right: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[float, ...]:
    """The same with weights of any sign.

    Newton's method with a ridge (le Cessie and van Houwelingen 1992). The features are standardised for it.
    """
    mean, spread = features.mean(axis=0), features.std(axis=0)
    spread = np.where(spread > _ROUNDING, spread, 1.0)
    rows = np.column_stack([(features - mean) / spread, np.ones(len(features))])
    ridge = _RIDGE * np.eye(rows.shape[1])
    ridge[-1, -1] = 1e-6  # The constant is free, but for where all rows are right, or none.
    found = np.zeros(rows.shape[1])
    for _ in range(_ROUNDS):
        chances = logistic(rows @ found)
        gradient = rows.T @ (weights * (right - chances)) - ridge @ found
        curvature = (rows * (weights * chances * (1 - chances))[:, None]).T @ rows + ridge
        step = np.linalg.solve(curvature, gradient)
        found += step * min(1, 5 / max(np.abs(step).max(), 1e-12))  # A long step may overshoot.
        if np.abs(step).max() < _SMALL_STEP:
            break
    plain = found[:-1] / spread
    return (*plain.tolist(), float(found[-1] - plain @ mean))


def _quantile(values: NDArray[np.float64], weights: NDArray[np.float64], share: float) -> float:
    """The largest value below which lies less than `share` of the weight."""
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weights[order]) / weights.sum()
    return float(values[order[min(int(np.searchsorted(below, share)), len(values) - 1)]])
