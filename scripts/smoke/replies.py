"""The form of the API's answers, whatever was asked: pairs, incidents, state, vector, page.

Each function reads a part of a reply, and raises UnexpectedError if it hasn't the form of docs/api.md. `checks` sends
the requests.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import math
import re
import zlib
from collections.abc import Sequence
from typing import Any

from smoke.api_client import Reply, parse_json, shortened

# The text that most checks send.
TEXT = "A chatbot insulted its users"
NO_MATCH = re.compile(
    r"No incident in the database is close enough: this (text|vector) probably belongs to none of them\."
)

# Two Lambdas may run on different processors.
TOLERANCE = 1e-4

Matches = list[tuple[float, int]]


def matches(reply: Reply, *, warnings: tuple[str, ...] | None = (), is_cosine: bool = True) -> Matches:
    """The pairs in a reply's `msg`, parsed as the AIID site does it. Checks the other fields of the reply too.

    warnings: exactly these must come, and that nothing matches if so; None allows any.
    """
    body = reply.body()
    verdict(reply)
    others = [warning for warning in body["warnings"] if not NO_MATCH.fullmatch(str(warning))]
    if warnings is not None and others != list(warnings):
        reply.fail(f"the warnings are {others} instead of {list(warnings)}")
    try:
        pairs = parse_json(body["msg"].replace("(", "[").replace(")", "]"))
        found = [(float(similarity), int(incident_id)) for similarity, incident_id in pairs]
    except (KeyError, AttributeError, TypeError, ValueError):
        reply.fail('the site can\'t parse "msg": it must be a list of pairs (similarity, incident id)')
    if found != sorted(found, key=lambda pair: -pair[0]):
        reply.fail('"msg" doesn\'t have the most similar incident first')
    if is_cosine and any(not -1 - TOLERANCE <= similarity <= 1 + TOLERANCE for similarity, _ in found):
        reply.fail('"msg" has a similarity that isn\'t a cosine, from -1 to 1')
    if [_structured(entry) for entry in body.get("incidents") or []] != found:
        reply.fail('"incidents" and "msg" differ')
    expected_url = body["incidents"][0]["url"] if found else None
    if body.get("best_url", "missing") != expected_url:
        reply.fail(f'"best_url" is {body.get("best_url", "missing")} instead of {expected_url}')
    state(reply)
    return found


def _structured(entry: Any) -> tuple[float, int] | None:
    match entry:
        case {
            "incident_id": int(id_),
            "similarity": float(similarity),
            "confidence": float() | None,
            "title": str() | None,
            "date": str() | None as date,
            "url": str() | None as url,
        }:
            is_date = date is None or re.fullmatch(r"\d{4}-\d\d-\d\d", date)
            is_page = url is None or re.match(r"https?://", url)
            return (similarity, id_) if is_date and is_page else None
    return None


def verdict(reply: Reply) -> None:
    """Checks the fields of a reply that say how sure its incidents are."""
    body = reply.body()
    found = body.get("match", "missing")
    if found not in ("likely", "possible", "none", None):
        reply.fail(f'"match" is {found} instead of likely, possible, none or null')
    for entry in body.get("incidents") or []:
        match entry:
            case {"confidence": None} if found is None:
                pass
            case {"confidence": float(confidence)} if found is not None and 0 <= confidence <= 1:
                pass
            case _:
                expected = "null" if found is None else "a number from 0 to 1"
                reply.fail(f'the match is {found}, but not each incident has a "confidence" that is {expected}')
    if any(NO_MATCH.fullmatch(str(warning)) for warning in body["warnings"]) != (found == "none"):
        reply.fail(f"the match is {found}, but the warnings are {body['warnings']}")


def state(reply: Reply) -> dict[str, Any]:
    """The state that answered, as a reply describes it. Raises UnexpectedError."""
    found: dict[str, Any] = reply.body().get("state") or {}
    match found:
        case {
            "incidents": int(incidents),
            "reports": int(),
            "built_at": str() | None,
            "source_date": str() | None,
            "model": str() | None,
            "version": str(version),
        }:
            if incidents < 1 or not re.fullmatch("[0-9a-f]{16}", version):
                reply.fail(f'"state" has {incidents} incidents and the version {shortened(version.encode())}')
        case _:
            reply.fail('the body has no "state" with incidents, reports, built_at, source_date, model and version')
    return found


def vector(reply: Reply, prepared: Sequence[str] = (TEXT,)) -> list[float]:
    """The vector in a reply of TO_EMBED. prepared: the texts that the model may have made of the one that was sent."""
    embedding = reply.body().get("embedding")
    if not isinstance(embedding, dict) or not isinstance(embedding.get("vector"), list):
        reply.fail('the body has no "embedding" with a list "vector"')
    found: list[float] = embedding["vector"]
    if not found or not all(isinstance(number, float) and math.isfinite(number) for number in found):
        reply.fail('"vector" isn\'t a list of finite numbers')
    hashes = {hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest() for text in prepared}
    if embedding.get("from_text_hash") not in hashes:
        reply.fail('"from_text_hash" isn\'t the SHA-1 of the prepared text')
    return found


def page_data(reply: Reply) -> dict[str, Any]:
    """The data in a page that may run its own script and no other. Raises UnexpectedError."""
    if reply.status != 200:
        reply.fail(f"status {reply.status} instead of 200: {shortened(reply.content)}")
    if not (content_type := reply.headers.get("content-type", "")).startswith("text/html"):
        reply.fail(f'the content type is "{content_type}" instead of "text/html"')
    try:
        is_packed = reply.headers.get("content-encoding") == "gzip"
        page = (gzip.decompress(reply.content) if is_packed else reply.content).decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError):
        reply.fail("the page can't be decompressed, or isn't text")
    policy = reply.headers.get("content-security-policy", "")
    scripts = re.findall("<script>(.*?)</script>", page, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    own = " ".join(f"'sha256-{each}'" for each in hashes)
    if not own or f"script-src {own};" not in policy or "default-src 'none'" not in policy:
        reply.fail(f"its Content-Security-Policy isn't that of its script: {shortened(policy.encode())}")
    data = re.search('<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    try:
        found = parse_json(data[1] if data else "")
    except ValueError:
        found = None
    match found:
        case {"error": None, "state": {}, "map": {"total": int(), "ids": list()}}:
            pass
        case _:
            reply.fail("the page has no data with a state and a map")
    return dict(found)


def require_same_first(reply: Reply, found: Matches, expected: Matches, tolerance: float = TOLERANCE) -> None:
    """Checks that the first incident found is one of those that a reply to another request has first."""
    if not found or not expected or abs(found[0][0] - expected[0][0]) > tolerance:
        reply.fail(f"finds {found[:1]} first, but POST /similar finds {expected[:1]}")
    # Any incident within the tolerance of the best may be the first.
    if found[0][1] not in {id_ for similarity, id_ in expected if expected[0][0] - similarity <= tolerance}:
        reply.fail(f"finds incident {found[0][1]} first, but POST /similar finds {expected[0][1]}")
