"""The fields of an answer that ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from similarity.incidents.ranking import Match

CITE_URL = "https://incidentdatabase.ai/cite/"


def ranked(matches: Sequence[Match]) -> dict[str, Any]:
    """The fields in which a caller gets matches: `msg`, `best_url`, `incidents`.

    `msg` stays what callers have always parsed: a Python literal that becomes JSON when its parentheses are replaced.
    """
    return {
        "msg": str([(match.similarity, match.incident_id) for match in matches]),
        "best_url": f"{CITE_URL}{matches[0].incident_id}" if matches else None,
        "incidents": [
            {
                "incident_id": match.incident_id,
                "similarity": match.similarity,
                "title": match.title or None,
                "url": f"{CITE_URL}{match.incident_id}",
            }
            for match in matches
        ],
    }
