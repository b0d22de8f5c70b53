"""How sure a match is: the probability that a text belongs to the incident.

It is a logistic function of a match's scores, and of their distances to the runner-up's (for the first match) or to
the first match's (for later ones). `similarity.refresh.fitting` fits the weights to texts whose incidents are known.
Half of these were asked of a state without their incident. So 0.5 means: of such matches, half are right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from similarity.incidents.metrics import Metric

# The scores that each metric's confidence is computed from. One alone isn't enough: punctuation has a cosine as large
# as that of a right incident, but another centered cosine.
# words: ln(1 + BM25). words_each: BM25 by the number of the text's words.
EVIDENCE: dict[Metric, tuple[str, ...]] = {
    "cosine": ("cosine", "centered"),
    "centered": ("cosine", "centered"),
    "whitened": ("cosine", "centered", "whitened"),
    "hybrid": ("cosine", "centered", "words", "words_each", "hybrid"),
}

Verdict = Literal["likely", "possible", "none"]
LIKELY = 0.5
# Summing in another order may change a confidence by so much. That mustn't change a verdict.
_ROUNDING = 1e-6
# Of the texts that were fitted to and had their incident, this share is below `none_below`.
MISSED = 0.02

# A larger weight comes from a damaged file. The products of such weights may overflow, and their sum may be NaN.
_LARGEST = 1e30


def features(scores: Mapping[str, NDArray[np.float64]], metric: Metric) -> NDArray[np.float64]:
    """Scores (matches,), best match first -> (matches, 2 * scores): each score and its distance, as above."""
    columns = np.array([scores[name] for name in EVIDENCE[metric]]).T  # (scores, matches) -> (matches, scores)
    distances = columns - columns[:1]
    if len(columns) > 1:
        distances[0] = columns[0] - columns[1]
    return np.concatenate([columns, distances], axis=1)


@dataclass(frozen=True)
class Confidence:
    """The fitted numbers of a metric.

    first, later: for the first match and for later: a weight for each feature, in their order, and a constant. Fitted
        weights are 0 or more, so that a larger score or distance never makes a match less sure.
    none_below: a first match with less confidence means that no incident matches.
    """

    first: tuple[float, ...]
    later: tuple[float, ...]
    none_below: float

    def of(self, found: NDArray[np.float64]) -> NDArray[np.float64]:
        """Features (matches, features), best match first -> (matches,), 0 to 1, never more than the match before's."""
        weights = np.array([self.first, *[self.later] * (len(found) - 1)])[: len(found)]
        return np.minimum.accumulate(logistic(np.vecdot(found, weights[:, :-1]) + weights[:, -1]))

    def verdict(self, confidence: float) -> Verdict:
        """What the first match's confidence means."""
        if confidence < self.none_below - _ROUNDING:
            return "none"
        return "likely" if confidence >= LIKELY else "possible"

    def to_plain(self) -> dict[str, Any]:
        return {"first": list(self.first), "later": list(self.later), "none_below": self.none_below}

    @classmethod
    def from_plain(cls, metric: Metric, content: Any) -> Confidence:
        """Raises ValueError if `content` isn't what `to_plain` gives."""
        if not isinstance(content, dict) or not {"first", "later", "none_below"} <= set(content):
            raise ValueError(f"the calibration of {metric} must have first, later and none_below")
        first, later, none_below = content["first"], content["later"], content["none_below"]
        size = 2 * len(EVIDENCE[metric]) + 1
        if not all(isinstance(each, list) and len(each) == size for each in (first, later)):
            raise ValueError(f"the calibration of {metric} must have {size} numbers for the first match and for later")
        if not all(type(each) is float and abs(each) <= _LARGEST for each in (*first, *later)):  # NaN isn't
            raise ValueError(f"the calibration of {metric} must have numbers from -{_LARGEST:g} to {_LARGEST:g}")
        if type(none_below) is not float or not 0 <= none_below <= 1:
            raise ValueError(f"the calibration of {metric} must have a none_below from 0 to 1")
        return cls(tuple(first), tuple(later), none_below)


Calibration = Mapping[Metric, Confidence]


def logistic(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(-values)), without overflow."""
    found: NDArray[np.float64] = 0.5 * (1 + np.tanh(0.5 * values))
    return found
