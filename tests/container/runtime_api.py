"""A stand-in for Lambda's Runtime API: hands events to one instance of a function and takes what it answers.

Speaks what https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html specifies for `runtime/invocation/next`,
`response`, `error` and `runtime/init/error`, and refuses what Lambda refuses: an answer to an invocation that is not
under way, one of more than 6 MB, an init error after the first `next`. Starting the instance is left to others.
"""

from __future__ import annotations

import json
import re
import socket
import time
import uuid
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Condition, Lock, Thread
from typing import Any

VERSION = "2018-06-01"
FUNCTION_ARN = "arn:aws:lambda:us-east-1:123456789012:function:similar"
TIMEOUT_S = 60.0

# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html says 6 MB; Lambda's message has this figure.
MAX_ANSWER_BYTES = 6 * 1024 * 1024 + 100

_ANSWER = re.compile(rf"/{VERSION}/runtime/invocation/([^/]+)/(response|error)")


class RuntimeApiError(RuntimeError):
    """The instance did not do what was waited for, in one sentence."""


@dataclass(frozen=True)
class Answer:
    """What an instance posted. `error_type` is the header that comes with an error, None with a response."""

    payload: bytes
    is_error: bool
    error_type: str | None
    at_s: float

    def json(self) -> Any:
        return json.loads(self.payload)


@dataclass
class _Invocation:
    request_id: str
    event: bytes
    deadline_ms: int
    handed_out_s: float | None = None
    answer: Answer | None = None


@dataclass(frozen=True)
class Invoked:
    """An answer, and the seconds from the moment that the instance took the event."""

    answer: Answer
    seconds: float

    def json(self) -> Any:
        return self.answer.json()


class RuntimeApi:
    """Listens from construction to `close`, on a Unix socket (a path) or on TCP (host and port; 0 for any free one)."""

    def __init__(self, address: Path | tuple[str, int]) -> None:
        self._changed = Condition()
        self._one_at_a_time = Lock()
        self._current: _Invocation | None = None
        self._closed = False
        self.ready_at_s: float | None = None
        self.init_error: Answer | None = None
        self.connections = 0
        self.refused: list[str] = []
        self._server = _Server(address, self)
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def give_up(self) -> None:
        """There is no instance any more: whoever waits for one need wait no longer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def close(self) -> None:
        self.give_up()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> RuntimeApi:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait_until_ready(self, timeout_s: float = TIMEOUT_S) -> float:
        """The moment (time.monotonic) at which the instance first asked for an event.

        Raises RuntimeApiError where it reports an init error instead, or neither in time.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.ready_at_s or self.init_error or self._closed, timeout_s)
            if self.init_error is not None:
                raise RuntimeApiError(f"init error: {self.init_error.payload.decode()}")
            if self.ready_at_s is None:
                raise RuntimeApiError(f"no request for an event {self._until(timeout_s)}")
            return self.ready_at_s

    def wait_for_init_error(self, timeout_s: float = TIMEOUT_S) -> Answer:
        """What the instance posted to init/error. Raises RuntimeApiError where it asks for an event instead."""
        with self._changed:
            self._changed.wait_for(lambda: self.ready_at_s or self.init_error or self._closed, timeout_s)
            if self.init_error is None:
                raise RuntimeApiError("no init error" + (", but a request for an event" if self.ready_at_s else ""))
            return self.init_error

    def invoke(self, event: object, timeout_s: float = TIMEOUT_S) -> Invoked:
        """Waits for the instance to take the event and to answer. Events go out one at a time, as in Lambda.

        Raises RuntimeApiError where no answer comes within timeout_s, which is the deadline that the instance is told.
        """
        with self._one_at_a_time, self._changed:
            now_ms = int(time.time() * 1000)
            invocation = _Invocation(str(uuid.uuid4()), json.dumps(event).encode(), now_ms + int(timeout_s * 1000))
            self._current = invocation
            self._changed.notify_all()
            self._changed.wait_for(lambda: invocation.answer or self.init_error or self._closed, timeout_s)
            self._current = None
            if invocation.answer is None:
                if self.init_error is not None:
                    raise RuntimeApiError(f"init error: {self.init_error.payload.decode()}")
                taken = "was taken" if invocation.handed_out_s else "was not taken"
                raise RuntimeApiError(f"no answer {self._until(timeout_s)} to an event that {taken}")
            assert invocation.handed_out_s is not None
            return Invoked(invocation.answer, invocation.answer.at_s - invocation.handed_out_s)

    def _until(self, timeout_s: float) -> str:
        return "before the instance ended" if self._closed else f"within {timeout_s} s"

    def _next(self, connection: socket.socket) -> _Invocation | None:
        """The next event to hand out; None where there will be none or the instance has gone."""
        with self._changed:
            self.ready_at_s = self.ready_at_s or time.monotonic()
            self._changed.notify_all()
            while not self._closed:
                if self._current is not None and self._current.handed_out_s is None:
                    if _has_hung_up(connection):
                        return None
                    self._current.handed_out_s = time.monotonic()
                    return self._current
                self._changed.wait()
            return None

    def _take(self, request_id: str, answer: Answer) -> bool:
        with self._changed:
            current = self._current
            if current is None or current.request_id != request_id or current.answer or not current.handed_out_s:
                return False
            current.answer = answer
            self._changed.notify_all()
            return True

    def _take_init_error(self, answer: Answer) -> bool:
        with self._changed:
            if self.ready_at_s is not None:
                return False
            self.init_error = answer
            self._changed.notify_all()
            return True


def _has_hung_up(connection: socket.socket) -> bool:
    """Whether the other side, which waits for a reply and so says nothing, has closed the connection."""
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a thread that waits for an instance's next request would never end

    def __init__(self, address: Path | tuple[str, int], api: RuntimeApi) -> None:
        self.api = api
        if isinstance(address, Path):
            self.address_family = socket.AF_UNIX
            super().__init__(str(address), _Requests)  # type: ignore[arg-type]
        else:
            super().__init__(address, _Requests)

    def server_bind(self) -> None:
        """Without HTTPServer's, which looks up a host's name and a port."""
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def get_request(self) -> tuple[socket.socket, Any]:
        self.api.connections += 1
        return super().get_request()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """An instance that ends in mid-request is no error of the stand-in's."""


class _Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        if self.path != f"/{VERSION}/runtime/invocation/next":
            self._refuse(HTTPStatus.NOT_FOUND, "NotFound", f"no GET {self.path}")
            return
        invocation = self.server.api._next(self.connection)
        if invocation is None:
            self.close_connection = True
            return
        self._reply(
            HTTPStatus.OK,
            invocation.event,
            {
                "Lambda-Runtime-Aws-Request-Id": invocation.request_id,
                "Lambda-Runtime-Deadline-Ms": str(invocation.deadline_ms),
                "Lambda-Runtime-Invoked-Function-Arn": FUNCTION_ARN,
                "Lambda-Runtime-Trace-Id": "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419;Sampled=0",
            },
        )

    def do_POST(self) -> None:
        payload = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        error_type = self.headers.get("Lambda-Runtime-Function-Error-Type")
        if self.path == f"/{VERSION}/runtime/init/error":
            if not self.server.api._take_init_error(Answer(payload, True, error_type, time.monotonic())):
                self._refuse(HTTPStatus.FORBIDDEN, "InvalidStateTransition", "init error after the first next")
                return
            self._reply(HTTPStatus.ACCEPTED, b'{"status": "OK"}')
            return
        answered = _ANSWER.fullmatch(self.path)
        if answered is None:
            self._refuse(HTTPStatus.NOT_FOUND, "NotFound", f"no POST {self.path}")
            return
        request_id, what = answered.groups()
        too_large = len(payload) > MAX_ANSWER_BYTES
        if too_large:  # what the caller of the function then gets
            message = f"Response payload size exceeded maximum allowed payload size ({MAX_ANSWER_BYTES} bytes)."
            error_type = "Function.ResponseSizeTooLarge"
            payload = json.dumps({"errorType": error_type, "errorMessage": message}).encode()
        is_error = too_large or what == "error"
        if not self.server.api._take(request_id, Answer(payload, is_error, error_type, time.monotonic())):
            self._refuse(HTTPStatus.BAD_REQUEST, "InvalidRequestID", f"no invocation {request_id} is under way")
        elif too_large:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "RequestEntityTooLarge", message)
        else:
            self._reply(HTTPStatus.ACCEPTED, b'{"status": "OK"}')

    def _refuse(self, status: HTTPStatus, error_type: str, message: str) -> None:
        self.server.api.refused.append(f"{status.value} {error_type}: {message}")
        self._reply(status, json.dumps({"errorType": error_type, "errorMessage": message}).encode())

    def _reply(self, status: HTTPStatus, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the overridden method's name)
        """Says nothing: what was refused is kept."""

    def address_string(self) -> str:
        return "instance"
