"""The parameters of a request: how they are described, and read, with their defaults and warnings.

`openapi` writes the descriptions into the API's document.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from similarity.api.json_input import NotJsonError, kind, parse_json, shown
from similarity.api.request import Request
from similarity.asked import DEFAULT_NUM, Asked
from similarity.errors import RequestError, one_of
from similarity.incidents.metrics import METRICS, Metric
from similarity.incidents.state import MAX_ID

# How many unknown parameters are named.
_MOST_NAMES = 10

_INTEGER = re.compile(r"\s*[+-]?[0-9]+\s*", re.ASCII)
_DIGITS = re.compile(r"\s*[0-9]+\s*", re.ASCII)
# Far more incidents than there will be; Python refuses to turn strings of over 4,300 digits into integers.
_MAX_DIGITS = 18

_MAX_FLOAT32 = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Parameter:
    """A parameter as callers know it.

    meaning: one sentence or more. schema: JSON Schema of the values that need no warning, in a body.
    in_query: the same for a query string; None if it is `schema`. example: a value.
    required: whether a route that knows it needs it, or one of those parameters that are `instead_of` it.
    """

    meaning: str
    schema: Mapping[str, Any]
    in_query: Mapping[str, Any] | None = None
    example: Any = None
    required: bool = False
    instead_of: str | None = None


_ID = {"type": "integer", "minimum": 1}
_FLAG = {"type": "boolean", "default": False}
_FLOAT32 = {"type": "number", "minimum": -_MAX_FLOAT32, "maximum": _MAX_FLOAT32}

PARAMETERS: dict[str, Parameter] = {
    "text": Parameter(
        "The text to compare.",
        {"type": "string", "minLength": 1},
        example="A chatbot insulted its users",
        required=True,
    ),
    "incident_id": Parameter(
        "The id of an incident, instead of a text: the others are ranked by its stored vector. It is left out itself. "
        "The id of a merged incident counts as that of the incident that it became.",
        _ID,
        example=23,
        instead_of="text",
    ),
    "embed": Parameter(
        "The CLS vector to compare, as /text-to-embed gives it: a list of numbers, or that list as a string.",
        {"oneOf": [{"type": "array", "items": _FLOAT32}, {"type": "string"}]},
        in_query={"type": "string"},
        required=True,
    ),
    "num": Parameter(
        "The number of incidents, or the string of one. A negative number asks for all.",
        {"oneOf": [{"type": "integer"}, {"type": "string", "pattern": "^[+-]?[0-9]+$"}], "default": DEFAULT_NUM},
        in_query={"type": "integer", "default": DEFAULT_NUM},
        example=5,
    ),
    "metric": Parameter(
        "How to compare. `hybrid` compares the words of the text too, so it needs a text.",
        {"type": "string", "enum": list(METRICS), "default": METRICS[0]},
        example="centered",
    ),
    "exclude": Parameter(
        "Ids of incidents to leave out: a list, or a string with commas between the ids.",
        {"oneOf": [{"type": "array", "items": _ID}, {"type": "string", "pattern": "^[1-9][0-9]*(,[1-9][0-9]*)*$"}]},
        in_query={"type": "array", "items": _ID},
        example=[1, 2, 3],
    ),
    "explain": Parameter("Whether each incident says why it was found, in the words of the text.", _FLAG),
    "embedding": Parameter("Whether the answer has the vector of the text too, as /text-to-embed gives it.", _FLAG),
}


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
        raise RequestError("text_invalid", f'Error! "text" must be a string, not {kind(value)}.')
    value = value or ""
    if "text" in request.from_query and len(value) >= 2 and value[0] == value[-1] == '"':
        value = value[1:-1]
    if not value.strip():
        raise RequestError("text_missing", "Error! Valid input text not provided!")
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
    raise RequestError("metric_unknown", f'Error! "metric" must be {one_of(METRICS)}, not {kind(value)}.')


def text_or_incident(request: Request) -> str | int:
    """The text to compare, or the id of the incident that stands for one. Raises RequestError for both or neither."""
    value = request.parameters.get("incident_id")
    if _is_missing(value):
        return text(request)
    if not _is_missing(request.parameters.get("text")):
        raise RequestError("parameters_conflict", 'Error! Either "text" or "incident_id" must be provided, not both.')
    incident_id = _id(value)
    if incident_id is None:
        raise RequestError(
            "incident_id_invalid", f'Error! "incident_id" must be a whole number above 0, not {_no_id(value)}.'
        )
    return incident_id


def asked(request: Request) -> Asked:
    """The parameters of a ranking beside the text or incident that is compared. Raises RequestError."""
    return replace(asked_of_vector(request), explain=flag(request, "explain"), embedding=flag(request, "embedding"))


def asked_of_vector(request: Request) -> Asked:
    """As `asked`, without the parameters that are about a text."""
    return Asked(num=num(request), metric=metric(request), exclude=exclude(request))


def exclude(request: Request) -> frozenset[int]:
    """The ids of the incidents to leave out. Raises RequestError for anything but ids."""
    value = request.parameters.get("exclude")
    if _is_missing(value):
        return frozenset()
    if isinstance(value, str):  # perhaps a list that was made a string
        entries: Sequence[object] = [
            entry for entry in value.strip().removeprefix("[").removesuffix("]").split(",") if entry.strip()
        ]
    else:
        entries = value if isinstance(value, list) else [value]
    ids = [_id(entry) for entry in entries]
    for place, (entry, incident_id) in enumerate(zip(entries, ids, strict=True)):
        if incident_id is None:
            raise RequestError(
                "exclude_invalid",
                'Error! "exclude" must be a list of incident ids, each a whole number above 0; the entry at index '
                f"{place} is {_no_id(entry)}.",
            )
    return frozenset(incident_id for incident_id in ids if incident_id is not None)


def flag(request: Request, name: str) -> bool:
    """A parameter that is true or false, false by default. Anything else counts as false, with a warning."""
    value = request.parameters.get(name, False)
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    if not isinstance(value, bool):
        request.warnings.append(f'Provided value for "{name}" invalid, using default of false.')
        return False
    return value


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _id(value: object) -> int | None:
    """An incident's id, or the string of one; None for anything else. MAX_ID + 1 stands for all larger ones."""
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        # MAX_ID has fewer digits than 20.
        value = int(value.strip().lstrip("0")[:20] or "0")
    elif isinstance(value, float) and value.is_integer():  # to JSON, 3.0 is an integer
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        return None
    return min(value, MAX_ID + 1)


def _no_id(value: object) -> str:
    """What came instead of an id, for an error."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return kind(value)
    return "a number below 1" if value < 1 else "a number that isn't whole"


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
                raise RequestError("embed_invalid", f"{must_be} numbers; {error}.") from error
    if not isinstance(value, list):
        raise RequestError(
            "embed_missing" if value is None else "embed_invalid",
            f"{must_be} numbers, got {'nothing' if value is None else kind(value)}.",
        )
    if len(value) != dimension:
        raise RequestError("embed_invalid", f"{must_be} numbers, got {len(value)} entries.")
    for place, entry in enumerate(value):
        if isinstance(entry, bool) or not isinstance(entry, int | float):
            raise RequestError(
                "embed_invalid", f"{must_be} finite numbers; the entry at index {place} is {kind(entry)}."
            )
        if not abs(entry) <= _MAX_FLOAT32:  # NaN is neither more nor less
            raise RequestError(
                "embed_invalid",
                f"{must_be} finite numbers; the number at index {place} is NaN, infinite or too large for float32.",
            )
    vector = np.array([float(entry) for entry in value])
    if not vector.any():
        raise RequestError("embed_invalid", 'Error! "embed" must have a number other than 0 in it, got only zeros.')
    return vector
