"""A server for AIID's page and files on this machine. Tests tell it how to misbehave."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Headers = dict[str, str]


@dataclass
class Host:
    """The pages and files, by path, and the way in which they are sent."""

    pages: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    # The next requests for files get these status codes.
    refusals: list[int] = field(default_factory=list)
    # Bytes of a body after which the next connections are cut.
    cuts: list[int] = field(default_factory=list)
    # The header with the version of the files: ETag or Last-Modified.
    version: Headers = field(default_factory=lambda: {"ETag": '"1"'})
    # Changes the headers of an answer.
    change_headers: Callable[[Headers], Headers] = lambda headers: headers
    knows_ranges: bool = True
    checks_if_range: bool = True
    chunked: bool = False
    # Path and headers of all requests.
    asked: list[tuple[str, Headers]] = field(default_factory=list)
    url: str = ""

    @property
    def ranges(self) -> list[str | None]:
        """The Range of each request for a file."""
        return [headers.get("Range") for path, headers in self.asked if path in self.files]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *args: object) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        host = self.server.host
        path = self.path.partition("?")[0]
        host.asked.append((path, dict(self.headers)))
        if path in host.redirects:
            self.give(302, {"Location": host.redirects[path]}, b"")
        elif path in host.pages:
            self.give(200, {"Content-Type": "text/html; charset=utf-8"}, host.pages[path].encode())
        elif path in host.files and host.refusals:
            self.give(host.refusals.pop(0), {}, b"")
        elif path in host.files:
            self.give_file(host.files[path])
        else:
            self.give(404, {}, b"")

    def give_file(self, content: bytes) -> None:
        host = self.server.host
        start, status, headers = 0, 200, {**host.version}
        asked = re.fullmatch(r"bytes=([0-9]+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range") in host.version.values() or not host.checks_if_range
        if asked and same and host.knows_ranges:
            start, status = int(asked[1]), 206
            if start >= len(content):
                self.give(416, {"Content-Range": f"bytes */{len(content)}"}, b"")
                return
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:]
        self.give(status, headers, body, host.cuts.pop(0) if host.cuts else None)

    def give(self, status: int, headers: Headers, body: bytes, cut: int | None = None) -> None:
        host = self.server.host
        chunked = host.chunked and status == 200
        headers = {**headers, **({"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(len(body))})}
        self.send_response(status)
        for name, value in host.change_headers(headers).items():
            self.send_header(name, value)
        self.end_headers()
        given = body if cut is None else body[:cut]
        # A client may close the connection early.
        with contextlib.suppress(ConnectionError):
            for start in range(0, len(given), 4096) if chunked else [0]:
                piece = given[start : start + 4096] if chunked else given
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            if chunked and cut is None:
                self.wfile.write(b"0\r\n\r\n")
        # An answer without a length ends with the connection.
        self.close_connection = True


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, host: Host) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.host = host


@contextlib.contextmanager
def running_host() -> Iterator[Host]:
    host = Host()
    with _Server(host) as server:
        host.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield host
        server.shutdown()
        thread.join()
