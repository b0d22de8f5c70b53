"""What a state's rankings and confidence were fitted to its incidents: whitening map, word index, calibration.

Each part may be absent. `similarity.refresh.fitting` makes them. The docstring of `similarity.incidents.state`
specifies their fields in a state's file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from similarity.incidents.confidence import Calibration, Confidence
from similarity.incidents.metrics import METRICS
from similarity.incidents.words import WordIndex
from similarity.vectors import Vector

# The factors of `similarity.incidents.whitening` are at most 1000. Sums of far larger numbers are infinite in float32.
_LARGEST_FACTOR = 1e6


@dataclass(frozen=True, eq=False)
class Fit:
    """whitening: (hidden, hidden), None without one. power: its power, 0 to 1. calibration: by metric."""

    whitening: Vector | None = None
    power: float = 0.0
    words: WordIndex | None = None
    calibration: Calibration = field(default_factory=dict)

    def require_of(self, incidents: int, hidden: int) -> None:
        """Raises ValueError if this isn't of a state with means of the shape (incidents, hidden)."""
        if self.whitening is not None:
            if not isinstance(self.whitening, np.ndarray) or self.whitening.dtype != np.float32:
                raise ValueError("whitening must be a tensor of float32")
            # A comparison with NaN is false.
            if self.whitening.shape != (hidden, hidden) or not (np.abs(self.whitening) <= _LARGEST_FACTOR).all():
                raise ValueError(
                    f"whitening must have the shape ({hidden}, {hidden}) and numbers from -{_LARGEST_FACTOR:.0f} to "
                    f"{_LARGEST_FACTOR:.0f}"
                )
        if type(self.power) is not float or not 0 <= self.power <= 1:
            raise ValueError("whitening_power must be a number from 0 to 1")
        if self.words is not None and self.words.incidents != incidents:
            raise ValueError("the word index must have as many documents as there are incidents")

    def to_plain(self) -> dict[str, Any]:
        """The fields in a state's file. Those of absent parts are left out."""
        found: dict[str, Any] = {}
        if self.whitening is not None:
            found |= {"whitening": self.whitening, "whitening_power": self.power}
        if self.words is not None:
            found |= {
                "words": "\n".join(self.words.words),
                "word_starts": self.words.starts,
                "word_rows": self.words.rows,
                "word_weights": self.words.weights,
                "word_mean_length": self.words.mean_length,
            }
        if self.calibration:
            found["calibration"] = {metric: each.to_plain() for metric, each in self.calibration.items()}
        return found

    @classmethod
    def from_plain(cls, content: Mapping[str, Any], incidents: int) -> Fit:
        """The parts that a state's file has. Raises ValueError."""
        words = None
        if "words" in content:
            parts: list[Any] = [content.get(f"word_{name}") for name in ("starts", "rows", "weights")]
            if not isinstance(content["words"], str) or not all(isinstance(each, np.ndarray) for each in parts):
                raise ValueError("words must be a string; word_starts, word_rows and word_weights must be tensors")
            starts, rows, weights = parts
            mean_length: Any = content.get("word_mean_length")
            words = WordIndex(content["words"].split("\n"), starts, rows, weights, mean_length, incidents)
        calibration = content.get("calibration", {})
        if not isinstance(calibration, dict):
            raise ValueError("calibration must be a dict")
        known = {metric: calibration[metric] for metric in METRICS if metric in calibration}
        return cls(
            whitening=content.get("whitening"),
            power=content.get("whitening_power", 0.0),
            words=words,
            calibration={metric: Confidence.from_plain(metric, each) for metric, each in known.items()},
        )
