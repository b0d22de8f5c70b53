"""The policies of IAM in the pages, and what they allow."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pages import text_of


def policies_of(page: Path, title: str) -> list[dict[str, Any]]:
    """The policies in a section of a page, in their order."""
    _, _, after = text_of(page).partition(f"## {title}\n")
    section = after.split("\n## ")[0]
    return [json.loads(block) for block in re.findall(r"```json\n(.*?)```", section, re.DOTALL)]


def allowed_by(policy: dict[str, Any]) -> dict[str, set[str]]:
    """The resources of each action that a policy allows."""
    allowed: dict[str, set[str]] = {}
    for statement in policy["Statement"]:
        assert statement["Effect"] == "Allow"
        assert statement.keys() == {"Effect", "Action", "Resource"}
        for action in listed(statement["Action"]):
            allowed.setdefault(action, set()).update(listed(statement["Resource"]))
    return allowed


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
