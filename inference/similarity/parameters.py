"""The parameters of a request: `text`, `num`, `metric`, `embed`; checked, with their defaults and warnings."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np

from similarity.encoding import Vector
from similarity.errors import RequestError
from similarity.index import METRICS, Metric
from similarity.proxy import Request, kind

DEFAULT_NUM = 3

_INTEGER = re.compile(r"\s*[+-]?[0-9]+\s*", re.ASCII)
# Far more incidents than there will be; Python refuses to turn strings of over 4,300 digits into integers.
_MAX_DIGITS = 18

_MAX_FLOAT32 = float(np.finfo(np.float32).max)


def text(request: Request) -> str:
    """The text to compare. Raises RequestError where there is none."""
    value = request.parameters.get("text")
    if value is not None and not isinstance(value, str):
        raise RequestError(f'Error! "text" must be a string, not {kind(value)}.')
    value = value or ""
    if request.from_query and len(value) >= 2 and value[0] == value[-1] == '"':
        value = value[1:-1]
    if not value.strip():
        raise RequestError("Error! Valid input text not provided!")
    return value


def num(request: Request) -> int:
    """How many incidents to give; negative means all. What is no integer becomes the default, with a warning."""
    value = request.parameters.get("num", DEFAULT_NUM)
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        digits = value.strip().lstrip("+-").lstrip("0") or "0"
        value = int(digits[:_MAX_DIGITS]) * (-1 if "-" in value else 1)
    if not isinstance(value, int) or isinstance(value, bool):
        request.warnings.append(f'Provided value for "num" invalid, using default of {DEFAULT_NUM}.')
        return DEFAULT_NUM
    if value == 0:
        request.warnings.append('Zero results requested with the "num" value of 0. Use value <0 for maximum possible.')
    return value


def metric(request: Request) -> Metric:
    """How to compare. Raises RequestError for a metric there is not."""
    value = request.parameters.get("metric", METRICS[0])
    for known in METRICS:
        if value == known:
            return known
    allowed = " or ".join(f'"{known}"' for known in METRICS)
    raise RequestError(f'Error! "metric" must be {allowed}, not {kind(value)}.')


def embed(request: Request, dimension: int) -> Vector:
    """The CLS vector to compare, float32 of shape (dimension,). Raises RequestError for anything else."""
    value = request.parameters.get("embed")
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            length = len(request.parameters["embed"])
            raise RequestError(
                f'Error! "embed" must be a JSON list of {dimension} numbers, got {length} characters that are no JSON.'
            ) from error
    if not isinstance(value, list):
        got = "nothing" if value is None else kind(value)
        raise RequestError(f'Error! "embed" must be a JSON list of {dimension} numbers, got {got}.')
    if len(value) != dimension:
        raise RequestError(f'Error! "embed" must be a JSON list of {dimension} numbers, got {len(value)} entries.')
    for place, entry in enumerate(value):
        if not _is_float32(entry):
            raise RequestError(
                f'Error! "embed" must be a JSON list of {dimension} finite numbers, got {kind(entry)} at index {place} '
                "that is not one."
            )
    vector = np.array([float(entry) for entry in value], dtype=np.float32)
    if not vector.any():
        raise RequestError('Error! "embed" must have a number other than 0 in it, got only zeros.')
    return vector


def _is_float32(value: Any) -> bool:
    """Whether a JSON value is a number that float32 can hold; NaN is not, nor what would become infinite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _MAX_FLOAT32
