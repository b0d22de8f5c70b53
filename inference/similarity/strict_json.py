"""JSON that a caller sent: read strictly, and what is wrong with it told without repeating it.

Python's own reader takes NaN, which isn't JSON, and of two values of one name the last.
"""

from __future__ import annotations

import json
import sys
from typing import Any, NoReturn

_LONGEST_NAME = 40


class NotJsonError(ValueError):
    """The end of a sentence: what came, how long it is, and where the reader gave up."""


def parse_json(text: str, *, nan_is_a_number: bool = False) -> Any:
    """What `text` says. Raises NotJsonError, also for what Python can't read: 4,300 digits, hundreds of brackets."""
    try:
        return json.loads(
            text, object_pairs_hook=_object, parse_constant=float if nan_is_a_number else _refuse_constant
        )
    except json.JSONDecodeError as error:
        reason = f"{error.msg.rstrip(': ')} (line {error.lineno}, column {error.colno})"
    except _UnusableError as error:
        reason = str(error)
    except RecursionError:
        reason = "it is nested too deeply"
    except ValueError:  # of int()
        reason = f"a number has more than {sys.get_int_max_str_digits()} digits"
    received = "1 character received is" if len(text) == 1 else f"{len(text)} characters received are"
    raise NotJsonError(f"the {received} not valid JSON: {reason}")


class _UnusableError(Exception):
    """Why a reader's hook refuses a value."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise _UnusableError(f'an object has the name "{shown(name)}" twice')
        values[name] = value
    return values


def _refuse_constant(name: str) -> NoReturn:
    raise _UnusableError(f"{name} is not a JSON number")


def shown(name: str) -> str:
    """A name that a caller chose, fit for an answer and a log: cut, and without line breaks or control characters."""
    escaped = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in name[:_LONGEST_NAME])
    return "".join(escaped) + ("…" if len(name) > _LONGEST_NAME else "")
