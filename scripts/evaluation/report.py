"""Figures as lines of text, and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

from evaluation.figures import COVERED, KEPT, RANKS, Estimate
from evaluation.pairs import PairResult
from evaluation.results import VERDICTS, MetricResult, NotNone, Result
from similarity.errors import one_line
from similarity.incidents.confidence import Verdict

# Of the first column of tables of texts, and of a metric's.
_LABEL, _CELL = 54, 10
# Texts that are named, and characters of each.
_MOST_NAMED, _NAMED = 20, 60


def lines(result: Result, notes: Sequence[str]) -> Iterator[str]:
    """The tables of a task whose queries have a right incident, with notes below the first."""
    metrics = result.metrics
    yield from _ranks(metrics)
    yield from notes
    if "whitened" in metrics:
        yield f"power of the whitening map, by fold: {', '.join(f'{power:g}' for power in result.powers)}"
    yield ""
    yield from _groups("right incident first, by words in the text", {n: m.by_length for n, m in metrics.items()})
    if any(len(each.by_language) > 1 for each in metrics.values()):
        yield ""
        yield from _groups("right incident first, by language", {n: m.by_language for n, m in metrics.items()})
    yield ""
    yield from _table("AUC of the largest score", {name: each.auc for name, each in metrics.items()})
    yield ""
    title = f"false alarms at a threshold that keeps {KEPT:.0%}".replace("%", " %")
    yield from _table(title, {name: each.false_alarms for name, each in metrics.items()})
    yield ""
    yield from _table(
        "first three, right incident removed",
        {
            name: {
                "answers with the most frequent incident": each.unevenness.largest,
                "incidents in no answer": each.unevenness.never,
                "Gini coefficient": each.unevenness.gini,
                "Spearman's correlation with the number of reports": each.unevenness.reports,
            }
            for name, each in metrics.items()
        },
    )
    calibrated = {name: each for name, each in metrics.items() if each.verdicts}
    if calibrated:
        yield ""
        yield from _table(
            "calibration error of the confidence",
            {
                name: {"first match": each.calibration_error, "next two": each.later_calibration_error}
                for name, each in calibrated.items()
            },
        )
        yield ""
        yield from _verdicts({name: each.verdicts for name, each in calibrated.items()})
        yield from _not_none(result.not_none)


def pair_lines(result: PairResult) -> Iterator[str]:
    """The table of the task of pairs."""
    yield f"{result.similar} similar and {result.dissimilar} dissimilar pairs; {result.incidents} incidents have both."
    yield f"{'metric':<{_CELL}}{'the similar one is nearer':<28}AUC"
    for name, each in result.metrics.items():
        yield f"{name:<{_CELL}}{_estimate(each.nearer):<28}{_number(each.auc)}"


def to_json(content: object) -> str:
    """Indented, with null for NaN."""
    return json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False)


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _ranks(metrics: Mapping[Any, MetricResult]) -> Iterator[str]:
    width = 24
    first = next(iter(metrics.values())).ranks
    asked = f"{_count(first.queries, 'query', 'queries')} about {_count(first.incidents, 'incident', 'incidents')}"
    yield f"{asked}; in parentheses: {100 * COVERED:.0f} % intervals"
    header = "".join(f"{f'first {limit}':<{width}}" for limit in RANKS)
    yield f"{'metric':<{_CELL}}{header}mean 1/rank"
    for name, each in metrics.items():
        shares = "".join(f"{_estimate(each.ranks.recall[limit]):<{width}}" for limit in RANKS)
        yield f"{name:<{_CELL}}{shares}{_estimate(each.ranks.mean_reciprocal_rank)}"


def _groups(title: str, metrics: Mapping[Any, Mapping[str, Any]]) -> Iterator[str]:
    """The share of first places by group, with the number of texts of each."""
    names = next(iter(metrics.values()))
    yield from _table(
        title,
        {
            metric: {
                f"{name} ({_count(names[name].queries, 'text', 'texts')})": figures.recall[1].value
                for name, figures in by_group.items()
            }
            for metric, by_group in metrics.items()
        },
    )


def _table(title: str, columns: Mapping[Any, Mapping[str, float]]) -> Iterator[str]:
    """A column for each metric, and a row for each figure."""
    yield f"{title:<{_LABEL}}{''.join(f'{name:<{_CELL}}' for name in columns)}".rstrip()
    for row in next(iter(columns.values()), {}):
        cells = "".join(f"{_number(column[row]):<{_CELL}}" for column in columns.values())
        yield f"{row:<{_LABEL}}{cells}".rstrip()


def _verdicts(metrics: Mapping[Any, Mapping[str, Mapping[Verdict, float]]]) -> Iterator[str]:
    label, cell = 26, 23
    yield f"{' / '.join(VERDICTS):<{label}}{''.join(f'{name:<{cell}}' for name in metrics)}".rstrip()
    for kind in next(iter(metrics.values())):
        cells = (" / ".join(f"{by_kind[kind][each]:.3f}" for each in VERDICTS) for by_kind in metrics.values())
        yield f"{kind:<{label}}{''.join(f'{shares:<{cell}}' for shares in cells)}".rstrip()


def _not_none(found: Sequence[NotNone]) -> Iterator[str]:
    for each in found[:_MOST_NAMED]:
        kind = ", ".join(filter(None, (each.kind, each.language)))
        yield f'not "none" by {", ".join(each.metrics)}: ({kind}) {one_line(each.text[:_NAMED])}'
    if len(found) > _MOST_NAMED:
        yield f'not "none": {len(found) - _MOST_NAMED} more texts; --json names all'


def _estimate(each: Estimate) -> str:
    return f"{each.value:.3f} ({each.low:.3f} to {each.high:.3f})"


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _plain(content: Any) -> Any:
    """Dataclasses become dicts, and NaN becomes None, at any depth."""
    if is_dataclass(content) and not isinstance(content, type):
        content = asdict(content)
    if isinstance(content, Mapping):
        return {str(key): _plain(value) for key, value in content.items()}
    if isinstance(content, Sequence) and not isinstance(content, str):
        return [_plain(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
