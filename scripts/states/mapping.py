"""Makes the map of a state: a point for each incident, so that similar incidents lie close together.

Two maps are made: by PCA, and by t-SNE (van der Maaten and Hinton 2008, https://jmlr.org/papers/v9/vandermaaten08a.html)
with scikit-learn. The one that keeps more of each incident's nearest is taken. docs/states.md has figures, also of
UMAP. `similarity.incidents.points` has the rest: how incidents are compared, PCA, and how others are placed on a map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from similarity.incidents.points import blocks, directions, evenly, pca, placed, scaled
from similarity.incidents.state import IncidentState
from similarity.incidents.vector_index import Index
from similarity.vectors import Vector

# A map is measured by how many of an incident's nearest are its nearest on the map too.
NEAREST = 10
# So many incidents are measured, evenly chosen.
_MEASURED = 1000
# With more, t-SNE gets so many of them, evenly chosen, and the others are placed beside them. The page shows no more.
TSNE_MOST = 10_000

# The number of neighbours that t-SNE looks at. Few incidents have fewer.
_PERPLEXITY = 30.0
# Memory for the distances that are computed at a time.
_WORKING_MIB = 64
# The spread of the points that t-SNE starts with, as scikit-learn's own from PCA have it.
_START_SPREAD = 1e-4


@dataclass(frozen=True, eq=False)
class Map:
    """points: (incidents, 2). kept: by method, best first, the share of the nearest that it keeps, 0 to 1.

    kept is empty if there is nothing to choose: each map keeps the nearest of so few incidents, or all are alike.
    """

    points: Vector
    kept: Mapping[str, float] = field(default_factory=dict)


def map_of(state: IncidentState) -> Map:
    """The better map of the two. On one machine, the same state has the same map."""
    index = Index(state.means, state.fit.whitening)
    plain = pca(index)
    if len(state) <= NEAREST + 1 or not plain.any():
        return Map(plain)
    points = {"PCA": plain, "t-SNE": _tsne(index, plain)}
    kept = kept_shares(index, points)
    best = max(points, key=lambda method: kept[method])  # of equal ones PCA
    return Map(points[best], dict(sorted(kept.items(), key=lambda each: each[0] != best)))


def _tsne(index: Index, start: Vector) -> Vector:
    """The map by t-SNE, which starts from the points `start` (incidents, 2)."""
    # It takes a second or two, so small states and other commands do without.
    from sklearn import config_context
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    incidents = len(start)
    rows = evenly(incidents, TSNE_MOST)
    first = start[rows].astype(np.float64)
    first *= _START_SPREAD / max(first[:, 0].std(), np.finfo(np.float32).tiny)
    method = TSNE(
        perplexity=min(_PERPLEXITY, (len(rows) - 1) / 3),
        metric="cosine",
        init=first.astype(np.float32),
        random_state=0,
    )
    # The sum of several threads depends on their order, and with it the map.
    with threadpool_limits(1, user_api="openmp"), config_context(working_memory=_WORKING_MIB):
        found = scaled(method.fit_transform(directions(index, rows)))
    points = np.empty((incidents, 2), dtype=np.float32)
    points[rows] = found
    others = np.setdiff1d(np.arange(incidents), rows)
    if len(others):
        points[others] = placed(index, others, rows, found)
    return points


def kept_shares(index: Index, maps: Mapping[str, Vector]) -> dict[str, float]:
    """The share of incidents' NEAREST nearest that are among their NEAREST nearest on each map: 0 to 1.

    It is the mean over up to 1,000 incidents. There must be more than NEAREST incidents.
    """
    rows = evenly(len(index.means), _MEASURED)
    asked = directions(index, rows)
    right = _nearest(rows, len(index.means), lambda some: asked @ directions(index, some).T)
    return {
        name: _shared(right, _nearest(rows, len(points), partial(_closeness, points, rows)))
        for name, points in maps.items()
    }


def _closeness(points: Vector, rows: NDArray[np.intp], some: slice) -> Vector:
    """The negative squares of distances on a map: (rows, some)."""
    found: Vector = -((points[rows, None] - points[some]) ** 2).sum(axis=-1)
    return found


def _nearest(rows: NDArray[np.intp], total: int, scores: Callable[[slice], Vector]) -> NDArray[np.intp]:
    """The rows with the NEAREST largest scores, beside the row itself: (rows, NEAREST).

    scores: gives those of some rows, (rows, some).
    """
    best = np.full((len(rows), NEAREST), -np.inf, dtype=np.float32)
    found = np.full((len(rows), NEAREST), -1, dtype=np.intp)
    for some in blocks(total):
        columns = np.arange(some.start, some.stop)
        here = np.where(columns == rows[:, None], -np.inf, scores(some))
        both = np.hstack([best, here.astype(np.float32)])  # (rows, NEAREST + some)
        places = np.argpartition(both, -NEAREST, axis=1)[:, -NEAREST:]
        both_rows = np.hstack([found, np.broadcast_to(columns, here.shape)])
        best, found = np.take_along_axis(both, places, axis=1), np.take_along_axis(both_rows, places, axis=1)
    return found


def _shared(first: NDArray[np.intp], second: NDArray[np.intp]) -> float:
    """The mean share of the numbers in each row of `first` that are in the same row of `second`."""
    return float((first[:, :, None] == second[:, None, :]).any(axis=2).mean())
