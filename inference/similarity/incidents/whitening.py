"""The whitening map of a state: it makes directions in which all incidents differ count less.

The covariance of the incidents' means has the eigenvalues l and the eigenvectors V. The map is
V (l / l_max + SHRINKAGE)^-p V^T. With the power p = 0 it changes nothing, with p = 0.5 it whitens fully (Su et al.
2021, section 3). Full whitening goes too far. `similarity.refresh.fitting` chooses p for each state.
"""

from __future__ import annotations

import numpy as np

from similarity.vectors import Vector

POWERS = (0.0, 0.125, 0.25, 0.375, 0.5)
# For a state without texts to choose by.
DEFAULT_POWER = 0.125

# Directions in which the incidents hardly differ are noise, and would get the largest factors.
SHRINKAGE = 1e-3


def whitening(means: Vector, power: float) -> Vector:
    """The map of means: (incidents, hidden) -> float32 (hidden, hidden), symmetric.

    It is for vectors from which the mean of the means was subtracted. With a single incident, or equal ones, it changes
    nothing.
    """
    exact = means.astype(np.float64)
    exact -= exact.mean(axis=0)
    if power == 0 or not exact.any():
        return np.eye(means.shape[1], dtype=np.float32)
    values, directions = np.linalg.eigh(exact.T @ exact)  # (hidden,), (hidden, hidden)
    factors = (np.maximum(values, 0) / values.max() + SHRINKAGE) ** -power
    found: Vector = ((directions * factors) @ directions.T).astype(np.float32)
    return found
