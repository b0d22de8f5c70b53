"""The vectors that all packages use: float32, with the model's hidden size as last dimension."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]


def unit(vectors: NDArray[np.floating[Any]]) -> Vector:
    """The vectors (…, hidden), each divided by its length, in float32. A vector of zeros stays as it is."""
    return exact_unit(vectors).astype(np.float32)


def exact_unit(vectors: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """The vectors (…, hidden), each divided by its length, in float64. A vector of zeros stays as it is."""
    exact = vectors.astype(np.float64)  # float64 can hold the squares of all float32 numbers
    return divide(exact, np.sqrt(np.vecdot(exact, exact)[..., None]))


def divide(vectors: NDArray[np.float64], lengths: NDArray[np.float64]) -> NDArray[np.float64]:
    """vectors / lengths; a length of 0 counts as 1."""
    quotients: NDArray[np.float64] = vectors / (lengths + (lengths == 0))
    return quotients
