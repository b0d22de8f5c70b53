"""The map of all incidents: a point for each, so that similar incidents lie close together.

Points are float32 (incidents, 2), from -1 to 1. `scripts/states/mapping.py` computes a map with scikit-learn. A state
that is refreshed keeps that map, see `kept_points`. Without a map to keep it gets `pca`, which needs numpy alone.

Incidents are compared by their directions: the unit vectors that `whitened` compares, or `centered` in a state without
a whitening map. The page asks for an incident's neighbours by the same metric.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from similarity.incidents.vector_index import Index
from similarity.vectors import Vector, unit

# A new point is the mean of those of so many incidents.
NEAREST = 5

# Directions that are computed at a time.
_ROWS_AT_ONCE = 4096
# Similarities in memory at a time: 32 MiB.
_BLOCK = 8 << 20
# Places that differ by less are equal: directions are rounded to float32.
_SAME = 1e-6


def no_points() -> Vector:
    """Those of a state without a map: (0, 2)."""
    return np.empty((0, 2), dtype=np.float32)


def require_points(points: Any, incidents: int) -> None:
    """Raises ValueError if these aren't the points of so many incidents, and not `no_points`."""
    if not isinstance(points, np.ndarray) or points.dtype != np.float32 or points.shape not in ((incidents, 2), (0, 2)):
        raise ValueError("points must be a tensor of float32 with the shape (incidents, 2), or (0, 2) without a map")
    if not (np.abs(points) <= 1).all():  # NaN isn't
        raise ValueError("points must have numbers from -1 to 1")


def directions(index: Index, rows: NDArray[np.intp] | slice) -> Vector:
    """The directions of some incidents: (rows, hidden). That of an incident without one is 0."""
    return unit(index.moved(index.means[rows], "centered" if index.whitening is None else "whitened"))


def blocks(incidents: int, at_once: int = 0) -> Iterator[slice]:
    """The rows of all incidents, some at a time. at_once: 0 for as many directions as are computed at a time."""
    step = at_once or _ROWS_AT_ONCE
    return (slice(start, min(start + step, incidents)) for start in range(0, incidents, step))


def evenly(total: int, most: int) -> NDArray[np.intp]:
    """Rows of `total`, at most `most`, ascending, from the first to the last."""
    return np.linspace(0, total - 1, min(total, most)).round().astype(np.intp)


def scaled(places: NDArray[np.floating[Any]]) -> Vector:
    """The places (incidents, 2), moved and scaled into -1 to 1. Both axes get the same factor, so the form stays.

    The longer axis reaches from -1 to 1. Places that are all equal become 0.
    """
    exact = places.astype(np.float64)
    low, high = exact.min(axis=0), exact.max(axis=0)
    length = float((high - low).max())
    if length < _SAME:
        return np.zeros(places.shape, dtype=np.float32)
    moved: Vector = ((exact - (low + high) / 2) * (2 / length)).clip(-1, 1).astype(np.float32)
    return moved


def pca(index: Index) -> Vector:
    """The map by the two directions in which the incidents differ most (principal component analysis)."""
    incidents, hidden = index.means.shape
    total, products = np.zeros(hidden), np.zeros((hidden, hidden))
    for rows in blocks(incidents):
        some = directions(index, rows).astype(np.float64)
        total += some.sum(axis=0)
        products += some.T @ some
    centre = total / incidents
    _, axes = np.linalg.eigh(products - incidents * np.outer(centre, centre))  # ascending
    axes = axes[:, :-3:-1]  # (hidden, 2), or (1, 1)
    # An axis may point either way. Its largest number is positive here.
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    places = np.zeros((incidents, 2))
    for rows in blocks(incidents):
        places[rows, : axes.shape[1]] = (directions(index, rows) - centre) @ axes
    return scaled(places)


def placed(index: Index, rows: NDArray[np.intp], known: NDArray[np.intp], points: Vector) -> Vector:
    """The points of the incidents in `rows`, which have none: (rows, 2).

    known: rows of the incidents that have points, at least one. points: (known, 2).
    A new point is the mean of those of the NEAREST most similar incidents, weighted by the similarities. A negative
    similarity counts as 0. If all of them do, the mean isn't weighted.
    """
    there = directions(index, known)  # (known, hidden)
    count = min(NEAREST, len(known))
    found = np.empty((len(rows), 2), dtype=np.float32)
    for some in blocks(len(rows), max(_BLOCK // len(known), 1)):
        similarities = directions(index, rows[some]) @ there.T  # (some, known)
        nearest = np.argpartition(similarities, -count, axis=1)[:, -count:]  # (some, count)
        weights = np.take_along_axis(similarities, nearest, axis=1).clip(0).astype(np.float64)
        weights[weights.sum(axis=1) == 0] = 1
        weights /= weights.sum(axis=1, keepdims=True)
        found[some] = np.vecdot(weights[:, None, :], points[nearest].transpose(0, 2, 1)).clip(-1, 1)
    return found


def kept_points(
    index: Index, incident_ids: NDArray[np.int64], before_ids: NDArray[np.int64], before_points: Vector
) -> Vector:
    """The points of the incidents in `index`: those of a state before, bit by bit, and new ones beside their nearest.

    before_ids: (before,), ascending. before_points: (before, 2), or (0, 2) without a map. If the state before has no
    point of these incidents, the map is `pca`.
    """
    if not len(before_points):
        return pca(index)
    _, known, before = np.intersect1d(incident_ids, before_ids, assume_unique=True, return_indices=True)
    if not len(known):
        return pca(index)
    points = np.empty((len(incident_ids), 2), dtype=np.float32)
    points[known] = before_points[before]
    new = np.setdiff1d(np.arange(len(incident_ids)), known)
    if len(new):
        points[new] = placed(index, new, known, points[known])
    return points
