"""The incidents' vectors, prepared once so that a query costs one product of a matrix and a vector.

Kept are the means less their center, each of length 1, and three numbers an incident. From the product of those with
a query q less the center both metrics follow, with c the center, m = c + d the mean of an incident and u = d / |d|:

    centered  u . (q - c) / |q - c|
    cosine    (m . c + c . (q - c) + |d| (u . (q - c))) / (|m| |q|)

Only u takes room. It is what `dtype` is about: float16 takes half, int8 a quarter of the memory. With those the product
only chooses candidates, whose similarities are then computed from the means themselves: these may lie in a mapped file,
of which a few rows are read.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from similarity.encoding import Vector

Metric = Literal["cosine", "centered"]
METRICS: tuple[Metric, ...] = get_args(Metric)
IndexDtype = Literal["float32", "float16", "int8"]

# How many candidates there are for each incident asked for, where the product is not exact.
_CANDIDATES = 32
# Rows taken through float32 at a time where a copy of all of them would not fit.
_CHUNK = 65_536
_LARGEST_INT8 = 127


def unit(vectors: Vector) -> Vector:
    """Vectors, in the last dimension, of length 1; one of length 0 stays what it is."""
    return _divide(vectors, np.linalg.norm(vectors, axis=-1, keepdims=True))


def _divide(numerator: Vector, length: Vector | np.float32) -> Vector:
    return np.divide(numerator, np.maximum(length, np.float32(1e-12)), dtype=np.float32)


def _length(vector: NDArray[np.float64]) -> float:
    return math.sqrt(vector @ vector)


def _direction(vector: NDArray[np.float64], length: float) -> Vector:
    """A vector of length 1, or 0 where `vector` is 0."""
    return (vector / (length or 1.0)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Index:
    """For means (incidents, hidden): `product` gives u . q, (hidden,) -> (incidents,), float32, or nearly so.

    The means are kept only where the product is not exact.
    center (hidden,); along, spreads and shrink (incidents,): c, m . c, |d| and 1 / |m| (0 where m is 0) as above.
    """

    center: Vector
    along: Vector
    spreads: Vector
    shrink: Vector
    product: Callable[[Vector], Vector]
    means: Vector | None

    @classmethod
    def of(cls, means: Vector, dtype: IndexDtype = "float32") -> Index:
        """Needs torch where `dtype` is not float32: numpy has no fast product of anything else."""
        incidents, hidden = means.shape
        center = means.mean(axis=0) if incidents else np.zeros(hidden, dtype=np.float32)
        lengths = np.linalg.norm(means, axis=1).astype(np.float32)
        spreads = np.empty(incidents, dtype=np.float32)
        directions: NDArray[np.float32 | np.float16 | np.int8] = np.empty((incidents, hidden), dtype=dtype)
        scales = np.ones(incidents, dtype=np.float32)
        for start in range(0, incidents, _CHUNK):
            rows = slice(start, start + _CHUNK)
            differences = means[rows] - center
            spreads[rows] = np.linalg.norm(differences, axis=1)
            differences = _divide(differences, spreads[rows, None])
            if dtype == "int8":
                scales[rows] = np.abs(differences).max(axis=1) / _LARGEST_INT8
                differences = np.rint(_divide(differences, scales[rows, None]))
            directions[rows] = differences
        shrink = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)
        return cls(
            center, means @ center, spreads, shrink, _product(directions, scales), None if dtype == "float32" else means
        )

    def top(self, vector: Vector, num: int, metric: Metric) -> tuple[NDArray[np.intp], Vector]:
        """The rows of the `num` incidents most like `vector` (hidden,), best first, and their similarities, -1 to 1.

        What has no direction has similarity 0; ties are in the order of the rows.
        """
        similarities = self._similarities(vector, metric)
        if self.means is None:
            best = _largest(similarities, num)
            return best, similarities[best]
        # Where all are asked for, all are computed anew.
        candidates = np.sort(_largest(similarities, min(_CANDIDATES * num, len(similarities))))
        exact = self._exact(self.means[candidates], vector, metric)
        best = _largest(exact, num)
        return candidates[best], exact[best]

    def _exact(self, means: Vector, vector: Vector, metric: Metric) -> Vector:
        offset = self.center if metric == "centered" else np.float32(0)
        difference = vector.astype(np.float64) - offset
        similarities: Vector = unit(means - offset) @ _direction(difference, _length(difference))
        return np.clip(similarities, -1.0, 1.0)

    def _similarities(self, vector: Vector, metric: Metric) -> Vector:
        # Squares of what float32 holds may be more than it holds.
        query, center = vector.astype(np.float64), self.center.astype(np.float64)
        if metric == "cosine" and (length := _length(query)) and center.any():
            # Its length does not matter. With about the center's own, neither of the two vanishes beside the other; a
            # power of two rounds nothing.
            query = np.ldexp(query, int(math.log2(_length(center) / length)))
        difference = query - center
        distance = _length(difference)
        similarities = self.product(_direction(difference, distance))  # (incidents,)
        if metric == "cosine":
            similarities = self.along + float(center @ difference) + (self.spreads * distance) * similarities
            length = _length(query)
            similarities *= self.shrink * (1 / length if length else 0.0)
        return np.clip(similarities, -1.0, 1.0, out=similarities)  # rounding may lead past 1


def _product(directions: NDArray[np.float32 | np.float16 | np.int8], scales: Vector) -> Callable[[Vector], Vector]:
    """Query (hidden,) -> directions (incidents, hidden) times it, each multiplied with its scale."""
    if directions.dtype == np.float32:
        exact: Vector = directions.view(np.float32)
        return lambda query: exact @ query
    import torch

    matrix = torch.from_numpy(directions)
    if directions.dtype == np.float16:

        def half(query: Vector) -> Vector:
            product: Vector = (matrix @ torch.from_numpy(query).half()).float().numpy()
            return product

        return half

    def int8(query: Vector) -> Vector:
        step = max(float(np.abs(query).max()) / _LARGEST_INT8, 1e-30)
        column = torch.from_numpy(np.rint(query / step).astype(np.int8)).unsqueeze(1)  # (hidden, 1)
        sums: Vector = torch._int_mm(matrix, column).float().squeeze(1).numpy()  # (incidents,)
        return sums * (scales * np.float32(step))

    return int8


def _largest(values: Vector, k: int) -> NDArray[np.intp]:
    """(n,) -> (k,): where the k largest values are, largest first, ties in order."""
    if k == 0:
        return np.empty(0, dtype=np.intp)
    threshold = np.partition(values, len(values) - k)[len(values) - k]
    candidates = np.flatnonzero(values >= threshold)  # (n,) -> (k or more,)
    order = np.argsort(-values[candidates], kind="stable")
    return candidates[order[:k]]
