"""How an answer looks: its fields, the envelope around them, the response to API Gateway.

`openapi` writes the types of the fields into the API's document.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, NotRequired, TypedDict

from similarity import __version__
from similarity.answer import Embedding, Health, Ranked
from similarity.errors import Code
from similarity.incidents.confidence import Verdict
from similarity.incidents.facts import StateFacts
from similarity.incidents.ranking import Match
from similarity.settings import Engine, Precision

HEADERS = {"Content-Type": "application/json"}

_PAIRS = (
    "The pairs (similarity, incident id), best first, as the string of a Python list. It becomes JSON when parentheses "
    "are replaced by brackets."
)
_PAGE = "The incident's page; null if it isn't known."


def _meta(**said: Any) -> Any:
    """msgspec's Meta. Python reads the types below as strings, so only the API's document calls this.

    It alone imports msgspec, which would take a tenth of the time that a handler needs for its imports.
    """
    from msgspec import Meta

    return Meta(**said)


class StateFields(TypedDict):
    """The state that answered. A fact is null if the state doesn't know it."""

    incidents: Annotated[int, _meta(description="The number of its incidents.", ge=1)]
    reports: Annotated[int, _meta(description="The number of their reports.", ge=1)]
    built_at: Annotated[str | None, _meta(description="The time at which it was built: UTC, ISO 8601.")]
    source_date: Annotated[str | None, _meta(description="The time of its data: UTC, ISO 8601.")]
    model: Annotated[str | None, _meta(description="The name of the model that made it.")]
    version: Annotated[str | None, _meta(description="The first 16 digits of its file's SHA-256.")]


class WhyFields(TypedDict):
    """What speaks most for a match, by BM25."""

    words: Annotated[list[str], _meta(description="Up to three words of the text, best first.", max_length=3)]
    sentence: Annotated[str | None, _meta(description="A sentence of the text; null if no word speaks for the match.")]


class IncidentFields(TypedDict):
    """An incident that was found."""

    incident_id: Annotated[int, _meta(ge=1)]
    similarity: Annotated[float, _meta(description="By the metric: -1 to 1, but `hybrid` has no bounds.")]
    confidence: Annotated[
        Annotated[float, _meta(ge=0, le=1)] | None,
        _meta(
            description="The probability that the text belongs to this incident. Null if the state can't "
            "say, or if there was an incident instead of a text."
        ),
    ]
    title: Annotated[str | None, _meta(description="Null if the state doesn't know it.")]
    date: Annotated[str | None, _meta(description="YYYY-MM-DD; null if the state doesn't know it.")]
    url: Annotated[str | None, _meta(description=_PAGE)]
    why: NotRequired[Annotated[WhyFields | None, _meta(description="With `explain`. Null if the state has no words.")]]


class EmbeddingFields(TypedDict):
    """The vector of a text."""

    vector: Annotated[list[float], _meta(description="The CLS vector.")]
    from_text_hash: Annotated[
        str, _meta(description="The SHA-1 of the prepared text, without a prefix.", pattern="^[0-9a-f]{40}$")
    ]


class RankedFields(TypedDict):
    """Incidents, best first."""

    msg: Annotated[str, _meta(description=_PAIRS, examples=["[(0.9975811839103699, 1), (0.996882975101471, 55)]"])]
    match: Annotated[
        Verdict | None,
        _meta(
            description="Whether the first incident is that of the text. Null if the state can't say, if there was "
            "an incident instead of a text, or if `exclude` leaves no incident."
        ),
    ]
    best_url: Annotated[str | None, _meta(description=_PAGE)]
    incidents: list[IncidentFields]
    embedding: NotRequired[EmbeddingFields]
    state: StateFields


class EmbedFields(TypedDict):
    """The answer to a text alone."""

    embedding: EmbeddingFields


class HealthFields(TypedDict):
    """What answers."""

    state: StateFields
    model_fingerprint: Annotated[str, _meta(description="Tells models apart.")]
    engine: Engine
    precision: Precision
    version: Annotated[str, _meta(description="The code's version.")]


class ErrorFields(TypedDict):
    """What went wrong."""

    warnings: Annotated[
        list[str], _meta(description="A sentence for each thing that was unexpected and was answered anyway.")
    ]
    msg: Annotated[str, _meta(description="One sentence for a person.")]
    code: Annotated[Code, _meta(description="One word for a program.")]


def ranked(found: Ranked) -> RankedFields:
    """The fields in which a caller gets matches.

    `msg` stays what callers have always parsed: a Python literal that becomes JSON when its parentheses are replaced.
    """
    matches = found.matches
    fields: RankedFields = {
        "msg": str([(match.similarity, match.incident_id) for match in matches]),
        "match": found.verdict,
        "best_url": matches[0].url if matches else None,
        "incidents": [_incident(match, explained=found.explained) for match in matches],
        "state": state(found.state),
    }
    if found.embedding:
        fields["embedding"] = _embedding(found.embedding)
    return fields


def embedding(found: Embedding) -> EmbedFields:
    """The fields of /text-to-embed."""
    return {"embedding": _embedding(found)}


def health(found: Health) -> HealthFields:
    """The fields of /health."""
    return {
        "state": state(found.state),
        "model_fingerprint": found.model_fingerprint,
        "engine": found.engine,
        "precision": found.precision,
        "version": __version__,
    }


def _incident(match: Match, *, explained: bool) -> IncidentFields:
    fields: IncidentFields = {
        "incident_id": match.incident_id,
        "similarity": match.similarity,
        "confidence": match.confidence,
        "title": match.title or None,
        "date": match.date or None,
        "url": match.url,
    }
    if explained:
        fields["why"] = {"words": list(match.why.words), "sentence": match.why.sentence} if match.why else None
    return fields


def _embedding(found: Embedding) -> EmbeddingFields:
    return {"vector": found.vector.tolist(), "from_text_hash": found.from_text_hash}


def state(facts: StateFacts) -> StateFields:
    """The fields about the state that answered."""
    return {
        "incidents": facts.incidents,
        "reports": facts.reports,
        "built_at": facts.built_at or None,
        "source_date": facts.source.get("date") or None,
        "model": facts.model or None,
        "version": facts.version or None,
    }


@dataclass(frozen=True)
class Document:
    """An answer that isn't put into the envelope.

    media_type: of its content, for the Content-Type header. headers: further ones. status: of HTTP.
    """

    content: str
    media_type: str
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200


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


def document_response(document: Document, *, compressed: bool) -> dict[str, Any]:
    """The response of a document, for API Gateway and a direct invoke alike. compressed: with gzip."""
    headers = {"Content-Type": document.media_type, "Vary": "Accept-Encoding", **document.headers}
    body = document.content
    if compressed:
        headers["Content-Encoding"] = "gzip"
        # Without a time, the same document has the same bytes.
        body = base64.b64encode(gzip.compress(body.encode(), compresslevel=6, mtime=0)).decode()
    return {"isBase64Encoded": compressed, "statusCode": document.status, "headers": headers, "body": body}
