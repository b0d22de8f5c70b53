"""The deployed API as a caller meets it: a request to a reply, and what every reply has in common.

Speaks HTTP with the standard library alone and follows no redirects. What the routes should answer is left to
`smoke_test.py`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage, HTTPResponse
from typing import IO, Any, NoReturn
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import HTTPRedirectHandler, Request, build_opener

JSON_TYPE = "application/json"
_CHUNK = 1 << 16


class NoReplyError(Exception):
    """There was no whole reply, in one sentence."""


class UnexpectedError(Exception):
    """A reply that is not what callers rely on, in one sentence."""


@dataclass(frozen=True)
class Reply:
    """What came back. `request` names what was sent, e.g. `POST /similar`; header names are in lower case."""

    request: str
    status: int
    headers: Mapping[str, str]
    content: bytes
    seconds: float

    def fail(self, problem: str) -> NoReturn:
        """Raises UnexpectedError with the request in front of the problem."""
        raise UnexpectedError(f"{self.request}: {problem}")

    def body(self, status: int = 200) -> dict[str, Any]:
        """The `body` of the envelope. Raises UnexpectedError where there is none or the status is another."""
        if self.status != status:
            self.fail(f"status {self.status} instead of {status}: {shortened(self.content)}")
        content_type = self.headers.get("content-type", "")
        if content_type.partition(";")[0].strip().lower() != JSON_TYPE:
            self.fail(f'the content type is "{content_type}" instead of "{JSON_TYPE}"')
        try:
            envelope = parse_json(self.content)
        except ValueError:
            self.fail(f"the reply isn't JSON: {shortened(self.content)}")
        if not isinstance(envelope, dict) or not isinstance(envelope.get("body"), dict):
            self.fail(f'the reply isn\'t an envelope with an object as its "body": {shortened(self.content)}')
        if envelope.get("statusCode") != status:
            self.fail(f'"statusCode" of the envelope is {envelope.get("statusCode")} in a reply of status {status}')
        body: dict[str, Any] = envelope["body"]
        if not isinstance(body.get("warnings"), list):
            self.fail('the body has no list "warnings"')
        return body


class _NoRedirects(HTTPRedirectHandler):
    """A redirect is a reply like any other."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        del req, fp, code, msg, headers, newurl


class Api:
    """The API at a URL. A request that has no whole reply after timeout_s is given up."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._opener = build_opener(_NoRedirects)

    def get(self, route: str, parameters: Mapping[str, str], *, headers: Mapping[str, str] | None = None) -> Reply:
        # A comma may stand for itself in a query, and a vector has many: encoded it would be too long.
        return self.send("GET", route, query=urlencode(parameters, safe=","), headers=headers)

    def post(self, route: str, parameters: Mapping[str, object], *, headers: Mapping[str, str] | None = None) -> Reply:
        content = json.dumps(parameters).encode()
        return self.send("POST", route, content=content, headers={"Content-Type": JSON_TYPE, **(headers or {})})

    def send(
        self,
        method: str,
        route: str,
        *,
        query: str = "",
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Any request. Raises NoReplyError where none arrives, or not in time."""
        name = f"{method} {route}"
        url = f"{self._url}{route}{f'?{query}' if query else ''}"
        started = time.monotonic()
        try:
            request = Request(url, data=content, headers=dict(headers or {}), method=method)  # noqa: S310  # main checks it
            try:
                response: HTTPResponse | HTTPError = self._opener.open(request, timeout=self._timeout_s)
            except HTTPError as error:  # a reply all the same
                response = error
            with response:
                received = self._read(response, started + self._timeout_s)
        except (OSError, HTTPException) as error:
            raise NoReplyError(f"{name}: {self._cause(error)}") from error
        lower_case = {key.lower(): value for key, value in response.headers.items()}
        return Reply(name, response.status or 0, lower_case, received, time.monotonic() - started)

    def _read(self, response: HTTPResponse | HTTPError, deadline: float) -> bytes:
        """All of a reply's content. The timeout of the socket starts anew with every byte that comes."""
        received = bytearray()
        while chunk := response.read1(_CHUNK):
            received += chunk
            if time.monotonic() > deadline:
                raise TimeoutError
        return bytes(received)

    def _cause(self, error: OSError | HTTPException) -> str:
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, TimeoutError):
            return f"no complete reply within {self._timeout_s:g} s"
        if isinstance(reason, OSError) and reason.strerror:
            return reason.strerror
        text = f"{type(reason).__name__}: {reason}" if isinstance(reason, Exception) else str(reason)
        return " ".join(text.split())


def parse_json(content: str | bytes) -> Any:
    """JSON as browsers take it, without NaN and Infinity. Raises ValueError."""

    def refuse(name: str) -> NoReturn:
        raise ValueError(f"{name} isn't JSON")

    return json.loads(content, parse_constant=refuse)


def shortened(content: bytes) -> str:
    """The beginning of a reply's content, for a message of one line."""
    start = " ".join(content[:400].decode(errors="replace").split())
    return f'"{start[:100]}{"…" if len(start) > 100 or len(content) > 400 else ""}"'
