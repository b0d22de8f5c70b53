"""The parameters of a request: `text`, `num`, `metric`, `embed`; checked, with their defaults and warnings."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from similarity.api.json_input import NotJsonError, kind, parse_json, shown
from similarity.api.request import Request
from similarity.errors import RequestError, one_of
from similarity.incidents.metrics import METRICS, Metric

DEFAULT_NUM = 3

# How many unknown parameters are named.
_MOST_NAMES = 10

_INTEGER = re.compile(r"\s*[+-]?[0-9]+\s*", re.ASCII)
# Far more incidents than there will be; Python refuses to turn strings of over 4,300 digits into integers.
_MAX_DIGITS = 18

_MAX_FLOAT32 = float(np.finfo(np.float32).max)


def warn_of_unknown(request: Request, known: Sequence[str] | None) -> None:
    """Warns of parameters that the route doesn't know; of none if it doesn't say which it knows.

    Names are the caller's text: the answer repeats a few of them, and those cut.
    """
    names = [str(name) for name in request.parameters if known is not None and name not in known]
    request.warnings += [f'Unknown parameter "{shown(name)}" ignored.' for name in names[:_MOST_NAMES]]
    if len(names) > _MOST_NAMES:
        request.warnings.append(f"{len(names) - _MOST_NAMES} more unknown parameters ignored.")


def text(request: Request) -> str:
    """The text to compare. Raises RequestError where there is none."""
    value = request.parameters.get("text")
    if value is not None and not isinstance(value, str):
        raise RequestError(f'Error! "text" must be a string, not {kind(value)}.')
    value = value or ""
    if "text" in request.from_query and len(value) >= 2 and value[0] == value[-1] == '"':
        value = value[1:-1]
    if not value.strip():
        raise RequestError("Error! Valid input text not provided!")
    return value


def num(request: Request) -> int:
    """How many incidents to give; negative means all. What isn't an integer becomes the default, with a warning."""
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
    """How to compare. Raises RequestError for an unknown metric. The state may still lack the metric's data."""
    value = request.parameters.get("metric", METRICS[0])
    for known in METRICS:
        if value == known:
            return known
    raise RequestError(f'Error! "metric" must be {one_of(METRICS)}, not {kind(value)}.')


def embed(request: Request, dimension: int) -> NDArray[np.float64]:
    """The CLS vector to compare, of shape (dimension,). Raises RequestError for anything else.

    Each number is one that float32 can hold, but it may be nearer to 0 than those of float32.
    """
    value, must_be = request.parameters.get("embed"), f'Error! "embed" must be a JSON list of {dimension}'
    for _ in range(2):  # the string of a list, and perhaps with quotes around it
        if isinstance(value, str):
            try:
                value = parse_json(value)
            except NotJsonError as error:
                raise RequestError(f"{must_be} numbers; {error}.") from error
    if not isinstance(value, list):
        raise RequestError(f"{must_be} numbers, got {'nothing' if value is None else kind(value)}.")
    if len(value) != dimension:
        raise RequestError(f"{must_be} numbers, got {len(value)} entries.")
    for place, entry in enumerate(value):
        if isinstance(entry, bool) or not isinstance(entry, int | float):
            raise RequestError(f"{must_be} finite numbers; the entry at index {place} is {kind(entry)}.")
        if not abs(entry) <= _MAX_FLOAT32:  # NaN is neither more nor less
            raise RequestError(
                f"{must_be} finite numbers; the number at index {place} is NaN, infinite or too large for float32."
            )
    vector = np.array([float(entry) for entry in value])
    if not vector.any():
        raise RequestError('Error! "embed" must have a number other than 0 in it, got only zeros.')
    return vector
