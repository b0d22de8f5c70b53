"""A proxy in front of a real server, which changes its replies or refuses requests."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import requests

from http_servers import running
from processes import PATIENCE_S
from signatures import Received
from similarity.api.routes import METHODS
from smoke.checks import HEALTH, OPENAPI, PAGE, ROUTES

# The routes that a stack guards, each with its methods.
GUARDED = {(method, route) for route in ROUTES for method in METHODS} | {("GET", HEALTH), ("GET", OPENAPI)}


@dataclass
class Exchange:
    """A request, and the real server's reply to it, which a proxy may change before it goes back.

    content: not compressed. It is compressed again if the headers say so in the end.
    """

    method: str
    route: str
    parameters: str
    status: int
    headers: dict[str, str]
    content: bytes
    close: bool = field(default=False)

    def change_envelope(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Changes the envelope of a reply that has one."""
        if self.method == "OPTIONS" or self.status == 404 or self.route in (OPENAPI, PAGE):
            return
        envelope = json.loads(self.content)
        change(envelope)
        self.content = json.dumps(envelope).encode()

    def change_body(self, change: Callable[[dict[str, Any]], None]) -> None:
        self.change_envelope(lambda envelope: change(envelope["body"]))


def _unchanged(exchange: Exchange) -> None:
    del exchange


@contextmanager
def proxy(
    real_url: str, change: Callable[[Exchange], None] = _unchanged, check: Callable[[Received], str] | None = None
) -> Iterator[str]:
    """URL of a server that passes requests on to the real one and changes its replies.

    check: why a request is refused, "" if it isn't. It is asked as API Gateway's authorizer is: for routes that exist,
    and not for preflights.
    """

    class Handler(BaseHTTPRequestHandler):
        def respond(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            received = Received(self.command, self.path, self.headers.items(), sent)
            if check and (self.command, self.path.partition("?")[0]) in GUARDED and check(received):
                self.answer(403, {"content-type": "application/json"}, b'{"message":"Forbidden"}')
                return
            headers = {
                name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")
            }
            with requests.request(
                self.command, real_url + self.path, data=sent, headers=headers, timeout=PATIENCE_S
            ) as reply:
                route, _, query = self.path.partition("?")
                kept = {name.lower(): value for name, value in reply.headers.items()}
                parameters = query if self.command == "GET" else sent.decode()
                exchange = Exchange(self.command, route, parameters, reply.status_code, kept, reply.content)
            change(exchange)
            if exchange.close:
                self.close_connection = True
                return
            packed = exchange.headers.get("content-encoding") == "gzip"
            content = gzip.compress(exchange.content) if packed else exchange.content
            self.answer(exchange.status, exchange.headers, content)

        def answer(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name not in ("content-length", "date", "server"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_OPTIONS = do_DELETE = respond  # noqa: N815  # the names are http.server's

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002

    with running(Handler) as url:
        yield url
