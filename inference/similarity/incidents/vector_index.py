"""Compares a vector with all incidents, by the metrics that need no text. `similarity.incidents.ranking` explains them.

Each metric has a matrix of unit vectors, 4 MB for 1,400 incidents of 768 numbers. The first query with the metric makes
it. Then a query costs one dot product per incident.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from similarity.incidents.metrics import VectorMetric
from similarity.vectors import Vector, divide, unit

# Rows that are converted to float64 at a time. So few fit into the processor's cache and a small Lambda's memory.
_CHUNK = 256

# Squares between this and its inverse have all the digits of float64.
_LEAST_SQUARE = 1e-200

# Bytes of a cache line, and the offset that leaves a vector unaligned. With matrix and vector aligned to cache lines,
# the products of a matrix that stays in the cache take a third less time. Those of a larger one take a quarter more,
# and the least if the matrix alone is aligned. docs/speed.md has the figures.
_LINE, _OFFSET = 64, 16
_CACHED = 16 << 20

# Rows that a thread multiplies at a time. For fewer, no threads are started: that takes 0.1 ms.
_PART = 8192

# Up to so many largest values are found faster one by one.
_FEW = 16


@dataclass(frozen=True, eq=False)
class Index:
    """Searches means (incidents, hidden), which must be finite. Safe to use from several threads.

    whitening: the map (hidden, hidden) for `whitened`.
    """

    means: Vector
    whitening: Vector | None = None
    # Two threads may make the same one, with the same result.
    _directions: dict[VectorMetric, Vector] = field(default_factory=dict, init=False)
    _origins: dict[VectorMetric, NDArray[np.float64]] = field(default_factory=dict, init=False)

    def top(self, vector: NDArray[np.floating[Any]], num: int, metric: VectorMetric) -> tuple[NDArray[np.intp], Vector]:
        """The rows of the `num` incidents most like `vector` (hidden,), best first, and their similarities, -1 to 1.

        A vector without a direction has similarity 0. Ties are in the order of the rows.
        """
        similarities = self.similarities(vector, metric)
        best = largest(similarities, num)
        return best, similarities[best]

    def similarities(self, vector: NDArray[np.floating[Any]], metric: VectorMetric) -> Vector:
        """The similarity of each incident to `vector`: (hidden,) -> (incidents,), -1 to 1."""
        directions = self.directions(metric)
        direction = _placed((len(vector),), _OFFSET if directions.nbytes > _CACHED else 0)
        direction[:] = self._direction(vector, metric)
        similarities = _products(directions, direction)
        return similarities.clip(-1, 1, out=similarities)  # rounding may exceed 1

    def directions(self, metric: VectorMetric) -> Vector:
        """The unit vectors from the metric's origin to the means (incidents, hidden), whitened for `whitened`."""
        if metric not in self._directions:
            self._directions[metric] = self._prepare(metric)
        return self._directions[metric]

    def between(self, vector: NDArray[np.floating[Any]], means: Vector, metric: VectorMetric) -> NDArray[np.float64]:
        """The similarities of `vector` and some means: (hidden,), (n, hidden) -> (n,). Makes no matrix."""
        others = self.moved(means, metric)
        found = divide(np.vecdot(others, self._direction(vector, metric)), np.sqrt(np.vecdot(others, others)))
        return found.clip(-1, 1, out=found)

    def moved(self, vectors: NDArray[np.floating[Any]], metric: VectorMetric) -> NDArray[np.float64]:
        """The vectors (n, hidden) whose cosines the metric takes: from its origin, and whitened for `whitened`."""
        differences = vectors.astype(np.float64)
        if metric != "cosine":
            differences -= self._origin(metric)
        return differences if metric != "whitened" else differences @ self._map().T.astype(np.float64)

    def _direction(self, vector: NDArray[np.floating[Any]], metric: VectorMetric) -> NDArray[np.float64]:
        """The unit vector whose products with those of the incidents are the cosines: (hidden,) -> (hidden,)."""
        direction = _direction(vector.astype(np.float64) - self._origin(metric))
        if metric != "whitened":
            return direction
        # In float64, the map would have twice as many bytes to read.
        return _direction(np.vecdot(self._map(), direction.astype(np.float32)).astype(np.float64))

    def _map(self) -> Vector:
        if self.whitening is None:
            raise ValueError("the state has no whitening map")
        return self.whitening

    def _origin(self, metric: VectorMetric) -> NDArray[np.float64]:
        if metric not in self._origins:
            self._origins[metric] = origin_of(self.means, metric)
        return self._origins[metric]

    def _prepare(self, metric: VectorMetric) -> Vector:
        directions = _placed(self.means.shape, 0)
        for start in range(0, len(self.means), _CHUNK):
            rows = slice(start, start + _CHUNK)
            directions[rows] = unit(self.moved(self.means[rows], metric))
        return directions


def _direction(difference: NDArray[np.float64]) -> NDArray[np.float64]:
    """(hidden,) -> (hidden,): the vector with length 1; zeros stay zeros."""
    square = float(difference @ difference)
    if not _LEAST_SQUARE < square < 1 / _LEAST_SQUARE:
        # float64 can't hold the squares of its numbers.
        difference = divide(difference, np.abs(difference).max(keepdims=True))
        square = float(difference @ difference)
    return difference / (math.sqrt(square) or 1.0)


def _products(directions: Vector, direction: Vector) -> Vector:
    """The product of each row with a vector: (n, hidden), (hidden,) -> (n,)."""
    # vecdot goes row by row. A matrix product may give equal rows different last digits.
    if len(directions) <= _PART:
        found: Vector = np.vecdot(directions, direction)
        return found
    parts = np.split(directions, range(_PART, len(directions), _PART))
    affinity = getattr(os, "sched_getaffinity", None)  # Linux
    with ThreadPoolExecutor(len(affinity(0)) if affinity else os.cpu_count()) as pool:
        return np.concatenate(list(pool.map(partial(np.vecdot, direction), parts)))


def _placed(shape: tuple[int, ...], offset: int) -> Vector:
    """An uninitialised array of float32 that begins `offset` bytes after the start of a cache line."""
    size = 4 * math.prod(shape)
    memory = np.empty(size + 2 * _LINE, dtype=np.uint8)
    start = -memory.__array_interface__["data"][0] % _LINE + offset
    placed: Vector = memory[start : start + size].view(np.float32).reshape(shape)
    return placed


def origin_of(means: Vector, metric: VectorMetric) -> NDArray[np.float64]:
    """The vector that the metric subtracts from every other: (incidents, hidden) -> (hidden,)."""
    origin = np.zeros(means.shape[1])
    if metric != "cosine" and len(means):
        origin = means.mean(axis=0, dtype=np.float64)
    return origin


def largest(values: NDArray[np.floating[Any]], k: int) -> NDArray[np.intp]:
    """(n,) -> (k,): the indices of the k largest values, largest first, ties in order.

    None of these k may be minus infinity.
    """
    if k <= _FEW:
        left = values.copy()
        found = np.empty(k, dtype=np.intp)
        for place in range(k):
            found[place] = row = left.argmax()  # the first one, if several are equal
            left[row] = -np.inf
        return found
    threshold = np.partition(values, len(values) - k)[len(values) - k]
    candidates = np.flatnonzero(values >= threshold)  # (n,) -> (k or more,)
    order = np.argsort(-values[candidates], kind="stable")
    return candidates[order[:k]]
