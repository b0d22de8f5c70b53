"""API Gateway event to request; answer or error to response.

Understands payload format 2.0 (HTTP API), 1.0 (REST API) and a direct invoke, in which the event itself holds the
parameters. What the parameters mean is left to `similarity.parameters`.

The formats: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, overload

from similarity.errors import RequestError, SimilarityError

log = logging.getLogger(__name__)

Handler = Callable[[Any, Any], dict[str, Any]]
HEADERS = {"Content-Type": "application/json"}
WARM = {"warm": True}

# Each of them stands in what API Gateway sends; a direct invoke holds parameters only.
_PROXY_KEYS = ("requestContext", "httpMethod", "queryStringParameters", "body")


@dataclass
class Request:
    """The caller's parameters, wherever they stood, and the warnings gathered while answering."""

    parameters: Mapping[str, Any]
    from_query: bool = False
    warnings: list[str] = field(default_factory=list)


Respond = Callable[[Request], dict[str, Any]]


@overload
def endpoint(respond: Respond) -> Handler: ...


@overload
def endpoint(*, warm: Callable[[], object]) -> Callable[[Respond], Handler]: ...


def endpoint(
    respond: Respond | None = None, *, warm: Callable[[], object] = lambda: None
) -> Handler | Callable[[Respond], Handler]:
    """Makes a Lambda handler of a function from a request to the fields of the answer.

    To API Gateway the handler gives a response whose body is the JSON envelope; to a direct invoke the envelope itself.
    It does not raise: a SimilarityError becomes its status and sentence, anything else a 500 whose cause is logged.

    warm: gets ready what the first answer will need. It is called for two direct invokes: `{"warm": true}`, from a
    schedule, to which its success is the answer, and one without parameters, from a deployment. What it raises is
    raised, because they take everything else for success.
    """
    if respond is None:
        return lambda respond: _handler(respond, warm)
    return _handler(respond, warm)


def _handler(respond: Respond, warm: Callable[[], object]) -> Handler:
    @wraps(respond)
    def handler(event: Any, context: Any) -> dict[str, Any]:
        del context
        if event in ({}, None, WARM):
            _get_ready(warm)
        if event == WARM:
            return _envelope(200, {"warnings": [], "warm": True})
        request = Request({})
        try:
            parameters, from_query = _read_parameters(event)
            request = Request(parameters, from_query)
            status, body = 200, respond(request)
        except SimilarityError as error:
            _log_detail(error)
            status, body = error.status, {"msg": str(error)}
        except Exception:
            log.exception("unexpected error")
            status, body = 500, {"msg": "Error! Something went wrong on our side; the cause is in our log."}
        envelope = _envelope(status, {"warnings": request.warnings, **body})
        if not _is_proxy_event(event):
            return envelope
        # allow_nan: a NaN would make a body that no JSON parser takes.
        content = json.dumps(envelope, allow_nan=False)
        return {"isBase64Encoded": False, "statusCode": status, "headers": HEADERS, "body": content}

    return handler


def _get_ready(warm: Callable[[], object]) -> None:
    try:
        warm()
    except SimilarityError as error:
        _log_detail(error)
        raise


def _log_detail(error: SimilarityError) -> None:
    if error.detail:
        log.error("%s: %s", type(error).__name__, error.detail)


def _envelope(status: int, body: dict[str, Any]) -> dict[str, Any]:
    return {
        "isBase64Encoded": False,
        "statusCode": status,
        "headers": HEADERS,
        "multiValueHeaders": {},
        "body": body,
    }


def _is_proxy_event(event: Any) -> bool:
    return isinstance(event, Mapping) and any(key in event for key in _PROXY_KEYS)


def _read_parameters(event: Any) -> tuple[Mapping[str, Any], bool]:
    """The parameters, and whether they come from the query string. Raises RequestError."""
    if not isinstance(event, Mapping):
        raise RequestError(f"Error! The event must be a JSON object, not {kind(event)}.")
    if not _is_proxy_event(event):
        return event, False
    query = event.get("queryStringParameters") or {}
    if not isinstance(query, Mapping):
        raise RequestError(f'Error! "queryStringParameters" must be a JSON object, not {kind(query)}.')
    body = event.get("body")
    # A POST without a body may carry its parameters in the URL, as with the original service.
    if _method(event) == "GET" or not body:
        return query, True
    return _read_body(body, is_base64=event.get("isBase64Encoded") is True), False


def _method(event: Mapping[str, Any]) -> str:
    """Format 1.0 has the method at the top, 2.0 inside the context."""
    context = event.get("requestContext")
    http = context.get("http") if isinstance(context, Mapping) else None
    method = http.get("method") if isinstance(http, Mapping) else event.get("httpMethod")
    return str(method or ("POST" if event.get("body") else "GET")).upper()


def _read_body(body: Any, *, is_base64: bool) -> Mapping[str, Any]:
    content = body
    if isinstance(content, str):
        try:
            content = base64.b64decode(content, validate=True) if is_base64 else content
        except ValueError as error:
            raise RequestError(f"Error! The body must be valid base64, got {len(body)} characters.") from error
        try:
            content = json.loads(content)
        # json gives up on text that is no JSON, on too many digits (both ValueError) and on too many brackets.
        except (ValueError, RecursionError) as error:
            raise RequestError(
                f"Error! The body must be a JSON object, got {len(content)} characters that are none."
            ) from error
    if not isinstance(content, Mapping):
        raise RequestError(f"Error! The body must be a JSON object, not {kind(content)}.")
    return content


def kind(value: object) -> str:
    """What a JSON value is, in JSON's words, for an error message."""
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
