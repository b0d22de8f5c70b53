"""HTTP servers that run in a thread of the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@contextmanager
def running(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """URL of a server on a free port, without a slash at its end."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def answering_xml(answer: Callable[[str], tuple[int, str]]) -> Iterator[str]:
    """URL of a server that takes POST requests, as AWS's query APIs do.

    answer: gets the body of a request, and returns status and XML.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status, text = answer(self.rfile.read(int(self.headers["Content-Length"])).decode())
            content = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/xml")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    with running(Handler) as url:
        yield url
