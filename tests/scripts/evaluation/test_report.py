"""Figures are printed as a table, and as JSON that every reader takes."""

from __future__ import annotations

import json
import math

from evaluation.figures import Estimate
from evaluation.pairs import PairFigures, PairResult
from evaluation.report import pair_lines, to_json

RESULT = PairResult(3, 4, 2, {"cosine": PairFigures(Estimate(0.75, 0.5, 1.0), math.nan)})


def test_pairs_are_a_table() -> None:
    assert list(pair_lines(RESULT)) == [
        "3 similar and 4 dissimilar pairs; 2 incidents have both.",
        "metric    the similar one is nearer   AUC",
        "cosine    0.750 (0.500 to 1.000)      -",
    ]


def test_json_has_null_for_nan() -> None:
    assert json.loads(to_json({"pairs": RESULT, 1: ["ü", math.nan]}), parse_constant=str) == {
        "pairs": {
            "similar": 3,
            "dissimilar": 4,
            "incidents": 2,
            "metrics": {"cosine": {"nearer": {"value": 0.75, "low": 0.5, "high": 1.0}, "auc": None}},
        },
        "1": ["ü", None],
    }
