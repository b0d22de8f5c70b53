"""Vectors as all rooms pass them on: float32, the last dimension the model's hidden size."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]


def unit(vectors: NDArray[np.floating[Any]]) -> Vector:
    """As `exact_unit`, in float32."""
    return exact_unit(vectors).astype(np.float32)


def exact_unit(vectors: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Vectors, in the last dimension, of length 1; one of zeros stays as it is. Takes every number of float32."""
    exact = vectors.astype(np.float64)  # which holds the squares of all float32
    return divide(exact, np.sqrt(np.vecdot(exact, exact)[..., None]))


def divide(vectors: NDArray[np.float64], lengths: NDArray[np.float64]) -> NDArray[np.float64]:
    """vectors / lengths, where a length of 0 counts as 1."""
    quotients: NDArray[np.float64] = vectors / (lengths + (lengths == 0))
    return quotients
