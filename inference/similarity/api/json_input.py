"""JSON that a caller sent, and how errors speak of it without repeating it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

_LONGEST_NAME = 40


class NotJsonError(ValueError):
    """The end of a sentence: how long the text is, and where and why the parser gave up."""


def parse_json(text: str) -> Any:
    """What `text` says. Raises NotJsonError, also for what Python can't read: 4,300 digits, hundreds of brackets."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        reason = f"{error.msg.rstrip(': ')} (line {error.lineno}, column {error.colno})"
    except RecursionError:
        reason = "it is nested too deeply"
    except ValueError:  # of int()
        reason = f"a number has more than {sys.get_int_max_str_digits()} digits"
    received = "1 character received is" if len(text) == 1 else f"{len(text)} characters received are"
    raise NotJsonError(f"the {received} not valid JSON: {reason}")


def shown(name: str) -> str:
    """A name that a caller chose, fit for an answer and a log: cut, and without line breaks or control characters."""
    escaped = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in name[:_LONGEST_NAME])
    return "".join(escaped) + ("…" if len(name) > _LONGEST_NAME else "")


def kind(value: object) -> str:
    """The kind of a JSON value in JSON's words, for an error message."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return f"a string of {len(value)} characters"
        case list():
            return f"an array of {len(value)}"
        case Mapping():
            return "an object"
    return f"a {type(value).__name__}"
