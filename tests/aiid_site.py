"""The site of the AI Incident Database, the caller that the API was made for."""

from __future__ import annotations

import json


def read_msg(msg: str) -> list[list[float]]:
    r"""The site's `JSON.parse(msg.replace(/\(/g,'[').replace(/\)/g,']'))`: [similarity, incident id], best first."""
    pairs: list[list[float]] = json.loads(msg.replace("(", "[").replace(")", "]"))
    return pairs
