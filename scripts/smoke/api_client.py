"""Sends requests to a deployed API, and checks what all its replies have in common.

Uses only the standard library for HTTP, and doesn't follow redirects. `smoke.checks` knows each route's answers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage, HTTPResponse
from typing import IO, Any, NoReturn
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import HTTPRedirectHandler, Request, build_opener

JSON_TYPE = "application/json"
_CHUNK = 1 << 16
# At least as many as those of the headers that urllib adds, without the host's name.
_OWN_HEADERS = 100

# A method, a URL, headers with names in lower case and a content; gives the URL and all headers that are to be sent.
# Raises NotSignedError.
Sign = Callable[[str, str, Mapping[str, str], bytes | None], tuple[str, Mapping[str, str]]]


class NoReplyError(Exception):
    """There was no complete reply. The message is one sentence."""


class NotSignedError(NoReplyError):
    """A request can't be signed, so it wasn't sent. The message is one sentence."""


class UnexpectedError(Exception):
    """A reply differs from what callers rely on. The message is one sentence."""


class SkippedError(Exception):
    """A check can't be made with this caller's credentials. The message is one sentence."""


@dataclass(frozen=True)
class Reply:
    """request: method and route, e.g. `POST /similar`. headers: with names in lower case."""

    request: str
    status: int
    headers: Mapping[str, str]
    content: bytes
    seconds: float

    def fail(self, problem: str) -> NoReturn:
        """Raises UnexpectedError with the request in front of the problem."""
        raise UnexpectedError(f"{self.request}: {problem}")

    def body(self, status: int = 200) -> dict[str, Any]:
        """The `body` of the envelope. Raises UnexpectedError if there is none or the status is another."""
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

    @property
    def refusal(self) -> str:
        """The message with which API Gateway itself refuses a request; "" if it is another reply."""
        try:
            match parse_json(self.content):
                case {"message": str(message)} if self.status == 403:
                    return message
        except ValueError:
            pass
        return ""


class _NoRedirects(HTTPRedirectHandler):
    """Treats a redirect as any other reply."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        del req, fp, code, msg, headers, newurl


class Api:
    """The API at a URL. A request without a complete reply after timeout_s fails.

    sign: signs all requests but preflights, which browsers don't sign either.
    """

    def __init__(self, url: str, timeout_s: float, sign: Sign | None = None) -> None:
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._sign = sign
        self._opener = build_opener(_NoRedirects)

    @property
    def signs(self) -> bool:
        return self._sign is not None

    def unsigned(self) -> Api:
        """The same API without signatures."""
        return Api(self._url, self._timeout_s)

    def get(self, route: str, parameters: Mapping[str, str], *, headers: Mapping[str, str] | None = None) -> Reply:
        return self.send("GET", route, query=_query(parameters), headers=headers)

    def post(self, route: str, parameters: Mapping[str, object], *, headers: Mapping[str, str] | None = None) -> Reply:
        content = json.dumps(parameters).encode()
        return self.send("POST", route, content=content, headers={"content-type": JSON_TYPE, **_lower(headers)})

    def size(self, route: str, parameters: Mapping[str, str]) -> int:
        """Bytes of the request line and the headers of a GET, at most. Raises NotSignedError."""
        request = self._request("GET", route, _query(parameters), None, None)
        headers = sum(len(name) + len(value) + len(": \r\n") for name, value in request.header_items())
        return len(f"GET {request.selector} HTTP/1.1\r\n") + headers + _OWN_HEADERS + len(request.host)

    def send(
        self,
        method: str,
        route: str,
        *,
        query: str = "",
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Sends any request. Raises NoReplyError if no complete reply arrives in time."""
        name = f"{method} {route}"
        try:
            request = self._request(method, route, query, content, headers)
        except NotSignedError as error:
            raise NotSignedError(f"{name}: {error}") from error
        started = time.monotonic()
        try:
            try:
                response: HTTPResponse | HTTPError = self._opener.open(request, timeout=self._timeout_s)
            except HTTPError as error:  # a reply with an error status
                response = error
            with response:
                received = self._read(response, started + self._timeout_s)
        except (OSError, HTTPException) as error:
            raise NoReplyError(f"{name}: {self._cause(error)}") from error
        lower_case = {key.lower(): value for key, value in response.headers.items()}
        return Reply(name, response.status or 0, lower_case, received, time.monotonic() - started)

    def _request(
        self, method: str, route: str, query: str, content: bytes | None, headers: Mapping[str, str] | None
    ) -> Request:
        url, sent = f"{self._url}{route}{f'?{query}' if query else ''}", _lower(headers)
        if self._sign and method != "OPTIONS":
            url, signed = self._sign(method, url, sent, content)
            sent = dict(signed)
        return Request(url, data=content, headers=sent, method=method)  # noqa: S310  # main checks it

    def _read(self, response: HTTPResponse | HTTPError, deadline: float) -> bytes:
        """All of a reply's content. The deadline is needed because the socket's timeout restarts with every byte."""
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


def _lower(headers: Mapping[str, str] | None) -> dict[str, str]:
    """With names in lower case, so that a header of another case replaces one, and isn't signed as its second value."""
    return {name.lower(): value for name, value in (headers or {}).items()}


def _query(parameters: Mapping[str, str]) -> str:
    # Commas needn't be encoded. A vector has many, and encoding them makes the URL longer.
    return urlencode(parameters, safe=",")


def parse_json(content: str | bytes) -> Any:
    """Parses JSON as browsers do, without NaN and Infinity. Raises ValueError."""

    def refuse(name: str) -> NoReturn:
        raise ValueError(f"{name} isn't JSON")

    return json.loads(content, parse_constant=refuse)


def shortened(content: bytes) -> str:
    """The start of a reply's content, for a one-line message."""
    start = " ".join(content[:400].decode(errors="replace").split())
    return f'"{start[:100]}{"…" if len(start) > 100 or len(content) > 400 else ""}"'
