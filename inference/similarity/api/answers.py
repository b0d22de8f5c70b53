"""How an answer looks: its fields, the envelope around them, the response to API Gateway."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from similarity import __version__
from similarity.answer import Health, Ranked
from similarity.incidents.facts import StateFacts

CITE_URL = "https://incidentdatabase.ai/cite/"
HEADERS = {"Content-Type": "application/json"}


def ranked(found: Ranked) -> dict[str, Any]:
    """The fields in which a caller gets matches: `msg`, `match`, `best_url`, `incidents`, `state`.

    `msg` stays what callers have always parsed: a Python literal that becomes JSON when its parentheses are replaced.
    """
    matches = found.matches
    return {
        "msg": str([(match.similarity, match.incident_id) for match in matches]),
        "match": found.verdict,
        "best_url": f"{CITE_URL}{matches[0].incident_id}" if matches else None,
        "incidents": [
            {
                "incident_id": match.incident_id,
                "similarity": match.similarity,
                "confidence": match.confidence,
                "title": match.title or None,
                "url": f"{CITE_URL}{match.incident_id}",
            }
            for match in matches
        ],
        "state": _state(found.state),
    }


def health(found: Health) -> dict[str, Any]:
    """The fields of /health."""
    return {
        "state": _state(found.state),
        "model_fingerprint": found.model_fingerprint,
        "engine": found.engine,
        "precision": found.precision,
        "version": __version__,
    }


def _state(facts: StateFacts) -> dict[str, Any]:
    """The state that answers, for the caller. An unknown fact is null."""
    return {
        "incidents": facts.incidents,
        "reports": facts.reports,
        "built_at": facts.built_at or None,
        "source_date": facts.source.get("date") or None,
        "model": facts.model or None,
        "version": facts.version or None,
    }


def envelope(status: int, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON that callers read. It repeats the status of the response."""
    return {
        "isBase64Encoded": False,
        "statusCode": status,
        "headers": HEADERS,
        "multiValueHeaders": {},
        "body": fields,
    }


def response(status: int, fields: Mapping[str, Any], *, to_gateway: bool) -> dict[str, Any]:
    """API Gateway gets the envelope as the text of a body, a direct invoke gets the envelope itself.

    Raises nearly anything for fields that JSON can't hold.
    """
    # allow_nan: a NaN would make a body that no JSON parser takes.
    content = json.dumps(envelope(status, fields), allow_nan=False)
    if to_gateway:
        return {"isBase64Encoded": False, "statusCode": status, "headers": HEADERS, "body": content}
    # Lambda will serialise this once more, and can.
    plain: dict[str, Any] = json.loads(content)
    return plain
