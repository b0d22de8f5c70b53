"""The figures of a task, computed from its answers. `report` prints them, `plots` draws them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from evaluation.asking import FOLDS, Answers, Compared, Sure, Unmatched, fold_of
from evaluation.figures import (
    LENGTH_NAMES,
    Bin,
    Estimate,
    RankFigures,
    Unevenness,
    auc,
    calibration_error,
    false_alarms,
    length,
    rank_figures,
    reliability,
    unevenness,
)
from evaluation.texts import Query, Unrelated
from similarity.incidents.confidence import Verdict

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


@dataclass(frozen=True)
class MetricResult:
    """The figures of one metric.

    by_length, by_language: of the texts in each group. auc, false_alarms: by the kinds of texts that are compared, of
    the largest score. calibration_error: of first matches. later_calibration_error: of the next two. verdicts: the
    share of each, by kind of text; empty without calibration. reliability: of first matches.
    """

    ranks: RankFigures
    by_length: Mapping[str, RankFigures]
    by_language: Mapping[str, RankFigures]
    unevenness: Unevenness
    auc: Mapping[str, float]
    false_alarms: Mapping[str, float]
    calibration_error: float
    later_calibration_error: float
    verdicts: Mapping[str, Mapping[Verdict, float]]
    reliability: Sequence[Bin]


@dataclass(frozen=True)
class Group:
    """Texts of about the same length. first: the share of them whose right incident comes first."""

    name: str
    queries: int
    first: Estimate


@dataclass(frozen=True)
class Plotted:
    """What the plots show of one metric.

    right: each query's score with its own incident. wrong: its largest one with any other. unrelated: the largest of
    each unrelated text. groups: shortest texts first. bins: of the first match's confidence; empty without calibration.
    """

    right: Sequence[float]
    wrong: Sequence[float]
    unrelated: Sequence[float]
    groups: Sequence[Group] = ()
    bins: Sequence[Bin] = ()


@dataclass(frozen=True)
class NotNone:
    """An unrelated text that some fold's state doesn't answer with "none". metrics: those by which it doesn't."""

    kind: str
    language: str
    text: str
    metrics: Sequence[Compared]


@dataclass(frozen=True)
class Result:
    """powers: of the whitening map, by fold."""

    metrics: Mapping[Compared, MetricResult]
    powers: Sequence[float]
    not_none: Sequence[NotNone]


def result_of(
    queries: Sequence[Query],
    answers: Mapping[Compared, Answers],
    unrelated: Sequence[Unrelated],
    unmatched: Mapping[Compared, Unmatched],
    report_counts: NDArray[np.int64],
    powers: Sequence[float],
) -> Result:
    """report_counts: of the state's incidents, (incidents,). unmatched: the answers to `unrelated`."""
    metrics = {
        name: _metric_result(queries, each, unrelated, unmatched[name], report_counts) for name, each in answers.items()
    }
    not_none = []
    for place, text in enumerate(unrelated):
        told = {name: {by_fold[place] for by_fold in each.verdicts} for name, each in unmatched.items()}
        if names := [name for name, verdicts in told.items() if verdicts & {"likely", "possible"}]:
            not_none.append(NotNone(text.kind, text.language, text.text, names))
    return Result(metrics, powers, not_none)


def plotted(answers: Answers, unmatched: Unmatched, result: MetricResult) -> Plotted:
    """What the plots show of a metric."""
    groups = [Group(name, each.queries, each.recall[1]) for name, each in result.by_length.items()]
    unrelated = unmatched.best.mean(axis=0).tolist()  # (folds, texts) -> (texts,)
    return Plotted(answers.right.tolist(), answers.rival.tolist(), unrelated, groups, list(result.reliability))


def _metric_result(
    queries: Sequence[Query],
    answers: Answers,
    unrelated: Sequence[Unrelated],
    unmatched: Unmatched,
    report_counts: NDArray[np.int64],
) -> MetricResult:
    ids = np.array([query.incident_id for query in queries])
    by_length = _grouped(queries, answers, ids, lambda query: length(len(query.text.split())))
    aucs, alarms = _separation(answers, unrelated, unmatched, np.array([fold_of(int(each)) for each in ids]))
    both = [answers.there, answers.removed]
    first = np.concatenate([each.confidence[:, 0] for each in both])
    is_calibrated = bool(np.isfinite(first).all())
    first_is_right = np.concatenate([each.is_right[:, 0] for each in both])
    return MetricResult(
        ranks=rank_figures(answers.rank, ids),
        by_length={name: by_length[name] for name in LENGTH_NAMES if name in by_length},
        by_language=_grouped(queries, answers, ids, lambda query: query.language or "unknown"),
        unevenness=unevenness(answers.others, report_counts),
        auc=aucs,
        false_alarms=alarms,
        calibration_error=calibration_error(first, first_is_right) if is_calibrated else math.nan,
        later_calibration_error=_later_error(both),
        verdicts=_verdicts(answers, unrelated, unmatched) if is_calibrated else {},
        reliability=reliability(first, first_is_right) if is_calibrated else [],
    )


def _grouped(
    queries: Sequence[Query], answers: Answers, ids: NDArray[np.int64], group: Callable[[Query], str]
) -> dict[str, RankFigures]:
    names = np.array([group(query) for query in queries])
    return {str(name): rank_figures(answers.rank[names == name], ids[names == name]) for name in np.unique(names)}


def _separation(
    answers: Answers, unrelated: Sequence[Unrelated], unmatched: Unmatched, folds: NDArray[np.int64]
) -> tuple[dict[str, float], dict[str, float]]:
    """AUC and false alarms of the largest score, by the kinds of texts that are compared.

    The scores of one fold's state are compared with each other. The thresholds come from the other folds.
    """
    asked_of = np.bincount(folds, minlength=FOLDS).astype(np.float64)  # (folds,)
    kinds = np.array([each.kind for each in unrelated])
    groups = {
        f"{sum(kinds == 'news')} unrelated news": kinds == "news",
        f"all {len(kinds)} unrelated texts": kinds != "",
    }
    aucs: dict[str, float] = {}
    alarms: dict[str, float] = {}
    for name, chosen in groups.items():
        for asked, scores in (("queries", answers.best), ("without their incident", answers.rival)):
            by_fold = [auc(scores[folds == fold], unmatched.best[fold][chosen]) for fold in range(FOLDS)]
            aucs[f"{asked}, {name}"] = _mean(by_fold, asked_of)
        alarms[name] = _mean(
            [false_alarms(answers.best[folds != fold], unmatched.best[fold][chosen]) for fold in range(FOLDS)],
            np.ones(FOLDS),
        )
    aucs["queries, the same without their incident"] = auc(answers.best, answers.rival)
    alarms["queries without their incident"] = _mean(
        [false_alarms(answers.best[folds != fold], answers.rival[folds == fold]) for fold in range(FOLDS)],
        asked_of,
    )
    return aucs, alarms


def _mean(values: Sequence[float], weights: NDArray[np.float64]) -> float:
    """The weighted mean of the values that aren't NaN; NaN without any."""
    kept = ~np.isnan(values)
    return float(np.average(np.asarray(values)[kept], weights=weights[kept])) if weights[kept].any() else math.nan


def _later_error(both: Sequence[Sure]) -> float:
    confidence = np.concatenate([each.confidence[:, 1:].ravel() for each in both])
    is_right = np.concatenate([each.is_right[:, 1:].ravel() for each in both])
    known = np.isfinite(confidence)
    return calibration_error(confidence[known], is_right[known])


def _verdicts(
    answers: Answers, unrelated: Sequence[Unrelated], unmatched: Unmatched
) -> dict[str, dict[Verdict, float]]:
    by_kind: dict[str, list[Verdict | None]] = defaultdict(list)
    by_kind["queries"] += answers.there.verdicts
    by_kind["without their incident"] += answers.removed.verdicts
    for by_fold in unmatched.verdicts:
        for each, verdict in zip(unrelated, by_fold, strict=True):
            by_kind[f"unrelated: {each.kind}"].append(verdict)
            by_kind["all unrelated"].append(verdict)
    return {kind: {each: found.count(each) / len(found) for each in VERDICTS} for kind, found in by_kind.items()}
