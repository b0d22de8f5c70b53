"""API Gateway event to request; answer or error to response.

Understands payload format 2.0 (HTTP API), 1.0 (REST API) and a direct invoke, in which the event itself holds the
parameters. What the parameters mean is left to `similarity.api.parameters`.

The formats: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import update_wrapper
from typing import Any, overload

from similarity.api.charsets import charset_of, decode
from similarity.api.json_input import NotJsonError, parse_json, shown
from similarity.errors import RequestError, SimilarityError

log = logging.getLogger(__name__)

HEADERS = {"Content-Type": "application/json"}

# Each of them stands in what API Gateway sends; a direct invoke holds parameters only.
_PROXY_KEYS = ("requestContext", "httpMethod", "queryStringParameters", "body")
# How many unknown parameters are named.
_MOST_NAMES = 10


@dataclass
class Request:
    """The caller's parameters, wherever they stood, and the warnings gathered while answering.

    from_query: the names of those that stood in the query string.
    """

    parameters: Mapping[str, Any]
    from_query: Collection[str] = ()
    warnings: list[str] = field(default_factory=list)


Respond = Callable[[Request], Mapping[str, Any]]


class Endpoint:
    """A Lambda handler made of a function from a request to the fields of the answer.

    To API Gateway it gives a response whose body is the JSON envelope; to a direct invoke the envelope itself. It does
    not raise: a SimilarityError becomes its status and sentence, anything else a 500 whose cause is logged, and so does
    an answer that JSON can't hold.

    parameters: the names that the route knows, or None where it doesn't say. Others are ignored with a warning.
    warm: gets ready what the first answer will need. It is called for two direct invokes: `{"warm": true}`, from a
    schedule, to which its success is the answer, and one without parameters, from a deployment. What it raises is
    raised, because they take everything else for success.
    """

    def __init__(
        self, respond: Respond, parameters: Sequence[str] | None = None, warm: Callable[[], object] = lambda: None
    ) -> None:
        update_wrapper(self, respond)
        self.parameters = parameters
        self._respond = respond
        self._warm = warm

    def __call__(self, event: Any, context: Any) -> dict[str, Any]:
        del context
        if event is None or event == {} or _is_warming(event):
            self._get_ready()
        if _is_warming(event):
            return _envelope(200, {"warnings": [], "warm": True})
        request = Request({})
        try:
            request = Request(*_read_parameters(event))
            request.warnings += _unknown(request.parameters, self.parameters)
            answer = self._respond(request)
            return _response(event, 200, {"warnings": request.warnings, **answer})
        except Exception as error:
            status, message = _told(error)
        try:
            return _response(event, status, {"warnings": request.warnings, "msg": message})
        except Exception as error:
            status, message = _told(error)
        return _response(event, status, {"warnings": [], "msg": message})

    def _get_ready(self) -> None:
        try:
            self._warm()
        except SimilarityError as error:
            _log_detail(error)
            raise


@overload
def endpoint(respond: Respond) -> Endpoint: ...


@overload
def endpoint(
    *, parameters: Sequence[str] | None = None, warm: Callable[[], object] = lambda: None
) -> Callable[[Respond], Endpoint]: ...


def endpoint(
    respond: Respond | None = None,
    *,
    parameters: Sequence[str] | None = None,
    warm: Callable[[], object] = lambda: None,
) -> Endpoint | Callable[[Respond], Endpoint]:
    """Makes an `Endpoint` of a function, as `@endpoint` or `@endpoint(parameters=…, warm=…)`."""
    if respond is not None:
        return Endpoint(respond, parameters, warm)
    return lambda respond: Endpoint(respond, parameters, warm)


def _is_warming(event: Any) -> bool:
    """Python takes 1 for equal to True; a schedule sends true."""
    return isinstance(event, Mapping) and set(event) == {"warm"} and event["warm"] is True


def _unknown(given: Mapping[str, Any], known: Sequence[str] | None) -> list[str]:
    """Warnings for the caller. Names are the caller's text: a few of them are repeated, and those cut."""
    names = [str(name) for name in given if known is not None and name not in known]
    warnings = [f'Unknown parameter "{shown(name)}" ignored.' for name in names[:_MOST_NAMES]]
    if len(names) > _MOST_NAMES:
        warnings.append(f"{len(names) - _MOST_NAMES} more unknown parameters ignored.")
    return warnings


def _told(error: Exception) -> tuple[int, str]:
    """Status and sentence for the caller, once the cause is logged. Raises nothing."""
    try:
        if isinstance(error, SimilarityError):
            _log_detail(error)
            return error.status, str(error)
    except Exception as unforeseen:
        error = unforeseen
    with suppress(Exception):
        log.error("unexpected error", exc_info=error)
    return 500, "Error! Something went wrong on our side; the cause is in our log."


def _log_detail(error: SimilarityError) -> None:
    if error.detail:
        log.error("%s: %s", type(error).__name__, error.detail)


def _response(event: Any, status: int, body: dict[str, Any]) -> dict[str, Any]:
    """What API Gateway, or a direct invoke, gets. Raises nearly anything for a body that JSON can't hold."""
    envelope = _envelope(status, body)
    # allow_nan: a NaN would make a body that no JSON parser takes.
    content = json.dumps(envelope, allow_nan=False)
    if _is_proxy_event(event):
        return {"isBase64Encoded": False, "statusCode": status, "headers": HEADERS, "body": content}
    # Lambda will serialise this once more, and can.
    plain: dict[str, Any] = json.loads(content)
    return plain


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


def _read_parameters(event: Any) -> tuple[Mapping[str, Any], Collection[str]]:
    """The parameters, and the names of those that come from the query string. Raises RequestError."""
    if not isinstance(event, Mapping):
        raise RequestError(f"Error! The event must be a JSON object, not {kind(event)}.")
    if not _is_proxy_event(event):
        return event, ()
    query = event.get("queryStringParameters") or {}
    if not isinstance(query, Mapping):
        raise RequestError(f'Error! "queryStringParameters" must be a JSON object, not {kind(query)}.')
    body = event.get("body")
    if _method(event) == "GET" or not body:
        return query, query.keys()
    values = _read_body(body, _content_type(event), is_base64=event.get("isBase64Encoded") is True)
    # A name that stands in the body counts there, whatever its value, null included: as in the service that AIID runs.
    return {**query, **values}, query.keys() - values.keys()


def _method(event: Mapping[str, Any]) -> str:
    """Format 1.0 has the method at the top, 2.0 inside the context."""
    context = event.get("requestContext")
    http = context.get("http") if isinstance(context, Mapping) else None
    method = http.get("method") if isinstance(http, Mapping) else event.get("httpMethod")
    return str(method or ("POST" if event.get("body") else "GET")).upper()


def _content_type(event: Mapping[str, Any]) -> str:
    """Format 1.0 has its headers twice, the second time as lists."""
    for headers in (event.get("headers"), event.get("multiValueHeaders")):
        for name, value in headers.items() if isinstance(headers, Mapping) else ():
            if str(name).lower() == "content-type":
                return str(value[-1]) if isinstance(value, list) and value else str(value)
    return ""


def _read_body(body: Any, content_type: str, *, is_base64: bool) -> Mapping[str, Any]:
    content = body
    if isinstance(body, str):
        try:
            content = base64.b64decode(body, validate=True) if is_base64 else body
        except ValueError as error:
            raise RequestError(f"Error! The body must be valid base64, got {len(body)} characters.") from error
        try:
            content = parse_json(decode(content, charset_of(content_type)))
        except NotJsonError as error:
            raise RequestError(f"Error! The body must be a JSON object; {error}.") from error
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
