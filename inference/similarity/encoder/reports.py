"""The export's report on a precision: the file `encoder.json` or `encoder.PRECISION.json`, beside the graph.

A JSON object:

    self_test   object. ids: list of int, the tokens of a short text; vector: list of float (hidden,), its CLS vector on
                the machine that exported; tolerance: float, the largest allowed distance from it, as a share of its
                length
    agreement   object or null, see `Agreement`; null if it wasn't measured

`scripts/models/export.py` writes it. Folders from earlier versions have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from similarity.encoder.model_folder import REPORT_FILENAMES, ModelFiles, export_script, read_object
from similarity.errors import ModelError
from similarity.settings import Precision
from similarity.vectors import Vector

_NOT_OURS = "it isn't a report of scripts/export_onnx.py"
# ENCODER_PRECISION=auto uses a precision only if this share of texts keeps its first incident.
ENOUGH = 0.995


@dataclass(frozen=True)
class Agreement:
    """How well vectors of a precision agree with those of float32, on the texts of a state.

    cosine, centered: share of texts with the same first incident by that metric. smallest_cosine: between a text's two
    vectors. texts: their number.
    """

    cosine: float
    centered: float
    smallest_cosine: float
    texts: int

    @property
    def is_enough(self) -> bool:
        return min(self.cosine, self.centered) >= ENOUGH

    def __str__(self) -> str:
        return (
            f"same first incident as float32: {self.cosine:.4f} by cosine, {self.centered:.4f} by centered; "
            f"smallest cosine: {self.smallest_cosine:.4f}; {self.texts} texts"
        )


@dataclass(frozen=True)
class Report:
    """As the module describes it. ids: (tokens,) int64. vector: (hidden,)."""

    ids: np.ndarray[Any, np.dtype[np.int64]]
    vector: Vector
    tolerance: float
    agreement: Agreement | None = None

    def distance(self, vector: Vector) -> float:
        """The distance of a vector (hidden,) from the expected one, as a share of its length. NaN for one with NaN."""
        expected = self.vector.astype(np.float64)
        if vector.shape != expected.shape:
            return float("inf")
        return float(np.linalg.norm(vector - expected) / np.linalg.norm(expected))

    def to_json(self) -> dict[str, Any]:
        return {
            "self_test": {"ids": self.ids.tolist(), "vector": self.vector.tolist(), "tolerance": self.tolerance},
            "agreement": None if self.agreement is None else asdict(self.agreement),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Report:
        """Raises ValueError if a value is missing or of another kind."""
        try:
            test, found = values["self_test"], values["agreement"]
            ids, tolerance = np.array(test["ids"]), float(test["tolerance"])
            with np.errstate(over="ignore"):  # refused below
                vector = np.array(test["vector"], np.float64).astype(np.float32)
            agreement = None if found is None else _agreement(found)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{_NOT_OURS} ({type(error).__name__}: {error})") from error
        if ids.dtype != np.int64 or ids.ndim != 1 or ids.min() < 0:
            raise ValueError(f"{_NOT_OURS} (the self-test has no ids of tokens)")
        if vector.ndim != 1 or not np.isfinite(vector).all() or not vector.any() or not 0 < tolerance < 1:
            raise ValueError(f"{_NOT_OURS} (the self-test has no vector or no limit)")
        return cls(ids, vector, tolerance, agreement)


def _agreement(values: Mapping[str, Any]) -> Agreement:
    cosine, centered, smallest = (float(values[name]) for name in ("cosine", "centered", "smallest_cosine"))
    found = Agreement(cosine, centered, smallest, int(values["texts"]))
    if not (0 <= cosine <= 1 and 0 <= centered <= 1 and -1 <= smallest <= 1 and found.texts > 0):
        raise ValueError("the agreement has a number out of its range")
    return found


def read_report(folder: Path, precision: Precision) -> Report | None:
    """The report on a precision, or None. Raises ModelError if it can't be read, or was changed."""
    path = folder / REPORT_FILENAMES[precision]
    if not path.exists():
        return None
    try:
        report = Report.from_json(read_object(path))
    except ValueError as error:
        raise ModelError(f"{path}: {error}; export it again with {export_script(precision)}") from error
    # One other digit could let a precision serve that doesn't agree, or the self-test pass any vector.
    ModelFiles(folder).require_graph_unchanged(path.name)
    return report
