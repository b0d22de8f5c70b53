"""A server that fails before it hands requests on to another one, as a busy or broken service does."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler

import requests

from http_servers import running
from processes import PATIENCE_S


@dataclass(frozen=True)
class FailingFirst:
    """Its URL, and when each request came, in seconds."""

    url: str
    times: list[float]


@contextmanager
def failing_first(service: str, statuses: Sequence[int], retry_after: str | None = None) -> Iterator[FailingFirst]:
    """Answers the first POST requests with the statuses, one each, and all later ones as the service does.

    service: its URL. retry_after: the header of that name in the failures.
    """
    times: list[float] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            number = len(times)
            times.append(time.monotonic())
            content = self.rfile.read(int(self.headers["Content-Length"]))
            if number < len(statuses):
                # As API Gateway answers by itself.
                self.answer(statuses[number], b'{"message": "Not this time"}', retry_after)
                return
            headers = {"Content-Type": self.headers["Content-Type"]}
            reply = requests.post(service + self.path, data=content, headers=headers, timeout=PATIENCE_S)
            self.answer(reply.status_code, reply.content)

        def answer(self, status: int, content: bytes, retry_after: str | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            if retry_after is not None:
                self.send_header("Retry-After", retry_after)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    with running(Handler) as url:
        yield FailingFirst(url, times)
