"""The API's document for tests: its answers stay open for further fields, but a test mustn't pass over one."""

from __future__ import annotations

import copy
from typing import Any


def answers_closed(document: dict[str, Any]) -> dict[str, Any]:
    """The document without objects of answers that may have a field that isn't described."""
    closed = copy.deepcopy(document)
    closed["components"] = _closed(closed["components"])
    for operation in (operation for methods in closed["paths"].values() for operation in methods.values()):
        operation["responses"] = _closed(operation["responses"])
    return closed


def _closed(part: Any) -> Any:
    if isinstance(part, list):
        return [_closed(each) for each in part]
    if not isinstance(part, dict):
        return part
    own = {"additionalProperties": False} if "properties" in part else {}
    return own | {name: _closed(each) for name, each in part.items()}
