"""Figures of ranks, scores, probabilities and counts. All are of arrays; nothing here knows a model or a state.

Intervals are those of a bootstrap that draws incidents, because texts about one incident aren't independent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

RANKS = (1, 3, 10)
# Draws of the bootstrap, its seed, and the share of them between the two ends of an interval.
DRAWS, SEED, COVERED = 1000, 26, 0.95
# Of the true matches that a threshold keeps, see `threshold`.
KEPT = 0.99
BINS = 10
# The fewest words of each length of text but the first.
LENGTHS = (5, 20, 100, 1000)


@dataclass(frozen=True)
class Estimate:
    """A mean, and the interval around it in which 95 % of the bootstrap's means lie. NaN without any value."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class RankFigures:
    """recall: share of queries (0 to 1) with the right incident at rank r or better, for each r of RANKS."""

    queries: int
    incidents: int
    recall: dict[int, Estimate]
    mean_reciprocal_rank: Estimate


@dataclass(frozen=True)
class Bin:
    """The probabilities above `low` and up to `high`: their number and mean, and how many of them came true."""

    low: float
    high: float
    count: int
    mean: float
    share: float


@dataclass(frozen=True)
class Unevenness:
    """How unevenly incidents are recommended.

    largest: number of answers with the incident that is in the most of them. never: share of incidents that are in
    none. gini: 0 if all incidents are in equally many, almost 1 if one incident is in all. reports: Spearman's
    correlation with the number of reports, -1 to 1; NaN if all incidents have equally many.
    """

    largest: int
    never: float
    gini: float
    reports: float


def estimates(values: ArrayLike, incident_ids: ArrayLike) -> list[Estimate]:
    """The means of values (queries, figures) over the queries, each with its interval.

    Each draw of the bootstrap takes as many incidents as there are, with replacement, and all queries of each (Field
    and Welsh 2007, cluster bootstrap). Draws depend on the number of incidents alone, so figures of the same queries
    can be compared. The interval is the percentile interval (Efron and Tibshirani 1993, chapter 13).
    """
    array = _values(values)
    if not len(array):
        return [Estimate(math.nan, math.nan, math.nan)] * array.shape[1]
    ids, cluster = np.unique(np.asarray(incident_ids), return_inverse=True)
    counts = np.bincount(cluster).astype(np.float64)  # (incidents,)
    sums = np.zeros((len(ids), array.shape[1]))
    np.add.at(sums, cluster, array)  # (queries, figures) -> (incidents, figures)
    random = np.random.default_rng(SEED)
    drawn = random.multinomial(len(ids), np.full(len(ids), 1 / len(ids)), size=DRAWS)  # (draws, incidents)
    means = (drawn @ sums) / (drawn @ counts)[:, None]  # (draws, figures)
    low, high = np.quantile(means, [(1 - COVERED) / 2, (1 + COVERED) / 2], axis=0)
    return [
        Estimate(float(mean), float(least), float(most))
        for mean, least, most in zip(array.mean(axis=0), low, high, strict=True)
    ]


def rank_figures(ranks: ArrayLike, incident_ids: ArrayLike) -> RankFigures:
    """ranks (queries,): of the right incident, from 1. incident_ids (queries,): of the right incidents."""
    array = _values(ranks)
    values = np.stack([*(array <= limit for limit in RANKS), 1 / array], axis=1)  # (queries, figures)
    *recall, reciprocal = estimates(values, incident_ids)
    incidents = len(np.unique(np.asarray(incident_ids)))
    return RankFigures(len(array), incidents, dict(zip(RANKS, recall, strict=True)), reciprocal)


def auc(positive: ArrayLike, negative: ArrayLike) -> float:
    """The share of pairs in which the positive value is the larger one; a tie counts half. NaN without any pair.

    This is the area under the ROC curve (Mann and Whitney 1947). 1: a threshold parts all. 0.5: the values say nothing.
    """
    high, low = _values(positive), np.sort(_values(negative))
    if not len(high) or not len(low) or np.isnan([*high, *low]).any():
        return math.nan
    below, not_above = np.searchsorted(low, high, side="left"), np.searchsorted(low, high, side="right")
    return float((below + not_above).sum() / (2 * len(high) * len(low)))


def threshold(positive: ArrayLike, kept: float = KEPT) -> float:
    """The largest value that at least the share `kept` of the positive values reach. NaN without any."""
    values = np.sort(_values(positive))
    if not len(values) or np.isnan(values).any():
        return math.nan
    return float(values[len(values) - math.ceil(kept * len(values))])


def false_alarms(positive: ArrayLike, negative: ArrayLike, kept: float = KEPT) -> float:
    """The share of negative values that reach the threshold of the positive ones. NaN without any of either."""
    least, low = threshold(positive, kept), _values(negative)
    if math.isnan(least) or not len(low) or np.isnan(low).any():
        return math.nan
    return float((low >= least).mean())


def reliability(probabilities: ArrayLike, outcomes: ArrayLike, bins: int = BINS) -> list[Bin]:
    """The probabilities in bins of equal width, those without any left out. outcomes: whether each came true.

    A bin has its upper end, not its lower one; the first also has 0 (Guo et al. 2017, section 2).
    """
    given, came = _values(probabilities), _values(outcomes)
    edges = np.arange(bins + 1) / bins
    place = np.maximum(np.searchsorted(edges, given, side="left") - 1, 0)  # (queries,)
    found = []
    for number in np.unique(place):
        here = place == number
        low, high = float(edges[number]), float(edges[number + 1])
        found.append(Bin(low, high, int(here.sum()), float(given[here].mean()), float(came[here].mean())))
    return found


def calibration_error(probabilities: ArrayLike, outcomes: ArrayLike, bins: int = BINS) -> float:
    """The expected calibration error: the mean, over all probabilities, of their bin's |share - mean|. NaN without any.

    Naeini, Cooper and Hauskrecht 2015, "Obtaining Well Calibrated Probabilities Using Bayesian Binning"; Guo et al.
    2017, "On Calibration of Modern Neural Networks", equation 3.
    """
    found = reliability(probabilities, outcomes, bins)
    total = sum(each.count for each in found)
    return sum(each.count * abs(each.share - each.mean) for each in found) / total if total else math.nan


def gini(counts: ArrayLike) -> float:
    """The Gini coefficient of counts (incidents,). NaN if all are 0.

    It is the mean difference of two counts, divided by twice the mean count. Computed from the sorted counts x:
    sum((2 i - n - 1) x_i) / (n sum(x)), i from 1 to n (Damgaard and Weiner 2000).
    """
    ordered = np.sort(_values(counts))
    total, n = float(ordered.sum()), len(ordered)
    if not total:
        return math.nan
    return float(((2 * np.arange(1, n + 1) - n - 1) * ordered).sum() / (n * total))


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's correlation: Pearson's of the ranks. Equal values share their mean rank. NaN if all are equal."""
    a, b = (_ranks(_values(each)) for each in (first, second))
    a, b = a - a.mean(), b - b.mean()
    size = math.sqrt(float((a * a).sum() * (b * b).sum()))
    return float((a * b).sum() / size) if size else math.nan


def unevenness(answers: ArrayLike, report_counts: ArrayLike) -> Unevenness:
    """answers (queries, first): rows of the incidents in each answer, -1 for none. report_counts (incidents,)."""
    rows, counts = np.asarray(answers, dtype=np.int64).ravel(), np.asarray(report_counts)
    degrees = np.bincount(rows[rows >= 0], minlength=len(counts))  # (incidents,)
    return Unevenness(int(degrees.max()), float((degrees == 0).mean()), gini(degrees), spearman(degrees, counts))


def length(words: int) -> str:
    """The group of a text of so many words."""
    if words < LENGTHS[0]:
        return f"under {LENGTHS[0]}"
    *_, least = (each for each in LENGTHS if words >= each)
    above = LENGTHS[LENGTHS.index(least) + 1 :]
    return f"{least} to {above[0] - 1}" if above else f"{least} and more"


# All groups of texts, shortest first.
LENGTH_NAMES = tuple(length(least) for least in (0, *LENGTHS))


def _values(given: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(given, dtype=np.float64)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rank of each value (n,), from 1; equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[inverse]
    return ranks
