"""Sends requests to other servers, by https only, with the project's own User-Agent. `download` fetches files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from http.client import HTTPException, InvalidURL
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from similarity import __version__
from similarity.errors import one_line
from similarity.sources.problems import SourceError

USER_AGENT = f"similar-ai-incidents/{__version__}"

# The longest silence of a server.
TIMEOUT_S = 60

_LOCAL = ("localhost", "127.0.0.1", "::1")
# Statuses that may change soon: Request Timeout, Too Many Requests.
_PASSING = (408, 429)


class UnreachableError(SourceError):
    """The server may answer if it is asked again."""


def require_https(url: str) -> None:
    """Raises SourceError for a URL that isn't https. A URL of this machine may be http."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError as error:
        raise SourceError(f"{one_line(url)} isn't a URL: {error}.") from error
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and host in _LOCAL)):
        raise SourceError(f"{one_line(url)} isn't an https URL; other URLs are allowed only on localhost.")


@contextmanager
def get(url: str, headers: Mapping[str, str] | None = None) -> Iterator[Any]:
    """The answer to a GET, an http.client.HTTPResponse with a status from 200 to 299. `read` reads its body.

    Raises SourceError; UnreachableError if another request may help.
    """
    require_https(url)
    with _speaking(url):
        # A new opener for each request, because an opener reads the environment's proxies when it is made.
        request = Request(url, headers={"User-Agent": USER_AGENT, **(headers or {})})  # noqa: S310
        response = build_opener(_HttpsAlone).open(request, timeout=TIMEOUT_S)
    with response:
        yield response


def read(response: Any, size: int) -> bytes:
    """Up to `size` bytes of an answer's body; b"" at its end. Raises UnreachableError."""
    with _speaking(response.geturl()):
        content: bytes = response.read(size)
    return content


class _HttpsAlone(HTTPRedirectHandler):
    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> Request | None:
        try:
            require_https(newurl)
        except SourceError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


@contextmanager
def _speaking(url: str) -> Iterator[None]:
    try:
        yield
    except HTTPError as error:
        error.close()
        kind = UnreachableError if error.code >= 500 or error.code in _PASSING else SourceError
        raise kind(
            f"{one_line(url)} can't be fetched: its server answers {error.code} {one_line(error.reason)}."
        ) from error
    except (OSError, HTTPException, ValueError) as error:
        # The error of a certificate is both an OSError and a ValueError.
        if isinstance(error, InvalidURL) or not isinstance(error, OSError | HTTPException):
            raise SourceError(f"{one_line(url)} isn't a URL that can be fetched: {one_line(str(error))}.") from error
        reason = error.reason if isinstance(error, URLError) else error
        raise UnreachableError(
            f"{one_line(url)} can't be reached: {one_line(str(reason)) or type(error).__name__}."
        ) from error
