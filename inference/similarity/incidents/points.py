"""The map of all incidents: a point for each, so that similar incidents lie close together.

Points are float32 (incidents, 2), from -1 to 1. `scripts/states/mapping.py` computes a map. A state that is refreshed
keeps it: see `kept_points`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from similarity.vectors import Vector

# A new point is the mean of those of so many incidents.
NEAREST = 5


def no_points() -> Vector:
    """Those of a state without a map: (0, 2)."""
    return np.empty((0, 2), dtype=np.float32)


def require_points(points: Any, incidents: int) -> None:
    """Raises ValueError if these aren't the points of so many incidents, and not `no_points`."""
    if not isinstance(points, np.ndarray) or points.dtype != np.float32 or points.shape not in ((incidents, 2), (0, 2)):
        raise ValueError("points must be a tensor of float32 with the shape (incidents, 2), or (0, 2) without a map")
    if not (np.abs(points) <= 1).all():  # NaN isn't
        raise ValueError("points must have numbers from -1 to 1")
