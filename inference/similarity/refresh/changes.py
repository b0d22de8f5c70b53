"""Compares a new state with the state before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from similarity.incidents.state import IncidentState

# Rounding on another CPU changes a number by less, a changed text by more.
_SAME = 1e-4


@dataclass(frozen=True)
class Changes:
    """Ids of incidents, ascending. changed: those with another mean, number of reports, title, date or own URL."""

    added: tuple[int, ...]
    changed: tuple[int, ...]
    removed: tuple[int, ...]


def changes(before: IncidentState, now: IncidentState) -> Changes | None:
    """None if the states are of different models, precisions or limits of tokens: then all means differ."""
    if not made_alike(before, now):
        return None
    common, rows_before, rows_now = np.intersect1d(before.incident_ids, now.incident_ids, return_indices=True)
    differs = np.array(
        [
            (before.report_counts[old], before.titles[old], _at(before.dates, old), _at(before.urls, old))
            != (now.report_counts[new], now.titles[new], _at(now.dates, new), _at(now.urls, new))
            or np.abs(before.means[old] - now.means[new]).max() > _SAME
            for old, new in zip(rows_before, rows_now, strict=True)
        ],
        dtype=bool,
    )
    return Changes(
        added=tuple(np.setdiff1d(now.incident_ids, before.incident_ids).tolist()),
        changed=tuple(common[differs].tolist()),
        removed=tuple(np.setdiff1d(before.incident_ids, now.incident_ids).tolist()),
    )


def made_alike(before: IncidentState, now: IncidentState) -> bool:
    """Whether model, precision and limit are the same. A state of published vectors names its model only."""
    fingerprints = before.model_fingerprint, now.model_fingerprint
    same_model = fingerprints[0] == fingerprints[1] if all(fingerprints) else before.model == now.model
    first, second = ((state.dimension, state.precision, state.max_tokens) for state in (before, now))
    return same_model and first == second


def _at(values: Sequence[str], row: int) -> str:
    """The value of an incident; "" if the state has none of any."""
    return values[row] if values else ""
