"""What a caller sent: an event of API Gateway, or of a direct invoke, becomes a `Request`.

Understands payload format 2.0 (HTTP API), 1.0 (REST API) and a direct invoke, in which the event itself holds the
parameters. The encodings of a body are left to `charsets`, its JSON to `json_input`, and the meaning of the parameters
to `parameters`.

The formats: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
"""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from similarity.answer import Answer, Facts
from similarity.api.charsets import charset_of, decode
from similarity.api.json_input import NotJsonError, kind, parse_json
from similarity.errors import RequestError

T = TypeVar("T")

# API Gateway sends all of them; a direct invoke holds parameters only.
_GATEWAY_KEYS = ("requestContext", "httpMethod", "queryStringParameters", "body")


@dataclass
class Request:
    """The caller's parameters, wherever they stood; and the warnings and facts gathered while answering.

    from_query: the names of those that stood in the query string.
    """

    parameters: Mapping[str, Any]
    from_query: Collection[str] = ()
    warnings: list[str] = field(default_factory=list)
    facts: Facts = field(default_factory=Facts)

    def take(self, answer: Answer[T]) -> T:
        """The value of an answer of the service. Its warnings go to the caller, its facts to the log."""
        self.warnings += answer.warnings
        self.facts = answer.facts
        return answer.value


def is_from_gateway(event: Any) -> bool:
    """Whether API Gateway sent the event, rather than a direct invoke."""
    return isinstance(event, Mapping) and any(key in event for key in _GATEWAY_KEYS)


def accepts_gzip(event: Any) -> bool:
    """Whether the caller can read an answer that is compressed with gzip, and gets it as bytes.

    A REST API hands base64 on as text, unless its settings say otherwise. Its events have no version:
    https://docs.aws.amazon.com/apigateway/latest/developerguide/lambda-proxy-binary-media.html
    """
    if not is_from_gateway(event) or "version" not in event:
        return False
    accepted = _header(event, "accept-encoding")
    for coding in accepted.lower().split(","):
        name, _, weight = "".join(coding.split()).partition(";")
        if name == "gzip":
            return not re.fullmatch(r"q=0(\.0*)?", weight)
    return False


def read_request(event: Any) -> Request:
    """The parameters of the query string and of the body, or of a direct invoke. Raises RequestError."""
    if not isinstance(event, Mapping):
        raise RequestError("request_invalid", f"Error! The event must be a JSON object, not {kind(event)}.")
    if not is_from_gateway(event):
        return Request(event)
    query = event.get("queryStringParameters") or {}
    if not isinstance(query, Mapping):
        raise RequestError(
            "request_invalid", f'Error! "queryStringParameters" must be a JSON object, not {kind(query)}.'
        )
    body = event.get("body")
    if _method(event) == "GET" or not body:
        return Request(query, query.keys())
    values = _read_body(body, _header(event, "content-type"), is_base64=event.get("isBase64Encoded") is True)
    # A name that stands in the body counts there, whatever its value, null included: as in the service that AIID runs.
    return Request({**query, **values}, query.keys() - values.keys())


def _method(event: Mapping[str, Any]) -> str:
    """Format 1.0 has the method at the top, 2.0 inside the context."""
    context = event.get("requestContext")
    http = context.get("http") if isinstance(context, Mapping) else None
    method = http.get("method") if isinstance(http, Mapping) else event.get("httpMethod")
    return str(method or ("POST" if event.get("body") else "GET")).upper()


def _header(event: Mapping[str, Any], wanted: str) -> str:
    """The value of a header, "" without it. Format 1.0 has its headers twice, the second time as lists."""
    for headers in (event.get("headers"), event.get("multiValueHeaders")):
        for name, value in headers.items() if isinstance(headers, Mapping) else ():
            if str(name).lower() == wanted:
                return str(value[-1]) if isinstance(value, list) and value else str(value)
    return ""


def _read_body(body: Any, content_type: str, *, is_base64: bool) -> Mapping[str, Any]:
    """A body as text, as base64, or as the object that a test of AWS's console sends. Raises RequestError."""
    content = body
    if isinstance(body, str):
        try:
            content = base64.b64decode(body, validate=True) if is_base64 else body
        except ValueError as error:
            raise RequestError(
                "request_invalid", f"Error! The body must be valid base64, got {len(body)} characters."
            ) from error
        try:
            content = parse_json(decode(content, charset_of(content_type)))
        except NotJsonError as error:
            raise RequestError("request_invalid", f"Error! The body must be a JSON object; {error}.") from error
    if not isinstance(content, Mapping):
        raise RequestError("request_invalid", f"Error! The body must be a JSON object, not {kind(content)}.")
    return content
