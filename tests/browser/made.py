"""Answers that the tests make in the place of /similar: of the API in its form, and of API Gateway without one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from browser.states import BY_ID
from similarity.api.answers import envelope
from similarity.incidents.collection import DEFAULT_RECORD_URL, url_of

Fields = dict[str, Any]

STATE: Fields = {
    "incidents": 12,
    "reports": 12,
    "built_at": "2026-11-24T06:00:00Z",
    "source_date": "2026-11-23T10:00:00Z",
    "model": "tiny",
}
NO_MATCH = "No incident in the database is close enough: this text probably belongs to none of them."


@dataclass(frozen=True)
class Made:
    """An answer; without a status, the connection breaks."""

    status: int | None
    content: str = ""
    media_type: str = "application/json"


LOST = Made(None)
NO_JSON = Made(200, "<!DOCTYPE html><title>Log in to this network</title>", "text/html")


def incident(incident_id: int, confidence: float | None = None, **fields: Any) -> Fields:
    """A match, as the API gives it. fields: in the place of those of INCIDENTS."""
    known = BY_ID.get(incident_id)
    return {
        "incident_id": incident_id,
        "similarity": 0.5,
        "confidence": confidence,
        "title": known.title if known else None,
        "date": known.date if known else None,
        "url": url_of(DEFAULT_RECORD_URL, incident_id),
        "why": None,
        **fields,
    }


def found(
    *incidents: Fields, match: str | None = None, warnings: tuple[str, ...] = (), version: str | None = None
) -> Made:
    """The answer with these matches.

    match: likely, possible or none; None without calibration. version: of the state; None if it doesn't know it.
    """
    fields = {
        "warnings": list(warnings),
        "msg": str([(each["similarity"], each["incident_id"]) for each in incidents]),
        "match": match,
        "best_url": incidents[0]["url"] if incidents else None,
        "incidents": list(incidents),
        "state": {**STATE, "version": version},
    }
    return _enveloped(200, fields)


def refused(status: int, code: str, message: str) -> Made:
    """An error of the API."""
    return _enveloped(status, {"warnings": [], "msg": message, "code": code})


def gateway(status: int, message: str) -> Made:
    """An error of API Gateway itself."""
    return Made(status, json.dumps({"message": message}))


def _enveloped(status: int, fields: Mapping[str, Any]) -> Made:
    return Made(status, json.dumps(envelope(status, fields)))
