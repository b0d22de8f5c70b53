"""What becomes of callers who hang up or never finish, and of their requests when the server ends: by real sockets."""

from __future__ import annotations

import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from processes import PATIENCE_S, Command, running, wait_until
from tiny import ROOT

# Of requests: short, but long enough for one that a busy machine sends in one go.
LIMIT_S = 1.0
NEVER_S = 3600.0

# The server as local_server.py starts it, with limits and handlers that a test can wait for.
PROGRAM = """
import sys
from contextlib import suppress
from pathlib import Path

folder, scripts, request_s, grace_s = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
sys.path[:0] = [str(folder), scripts]
from local.server import listen  # first: with it `similarity` can be imported
from local import connections
from local.gateway import gateway
from similarity.api.routes import HandlerFile

connections.REQUEST_S, connections.GRACE_S = request_s, grace_s
listener = listen("127.0.0.1", 0)
listener.listen()
app = gateway([HandlerFile(folder / "echo.py"), HandlerFile(folder / "waiting.py")], [])
print(listener.getsockname()[1], flush=True)
with suppress(KeyboardInterrupt):
    connections.server(app).run(sockets=[listener])
"""
HANDLERS = {
    "echo.py": "def handler(event, context):\n    return {'statusCode': 200, 'body': event.get('body', 'nothing')}\n",
    # Says that it has started, and answers once it may.
    "waiting.py": """
from pathlib import Path

FOLDER = Path(__file__).parent

def handler(event, context):
    (FOLDER / "started").touch()
    while not (FOLDER / "go").exists():
        time.sleep(0.01)
    (FOLDER / "done").touch()
    return {"statusCode": 200, "body": "waited"}
""",
}
HALF_A_HEAD = b"GET /echo HTTP/1.1\r\nHo"
WHOLE = b"GET /echo HTTP/1.1\r\nHost: here\r\n\r\n"
HALF_A_BODY = b"POST /echo HTTP/1.1\r\nHost: here\r\nContent-Length: 100\r\n\r\nabc"


@dataclass(frozen=True)
class Running:
    """A server, and the folder with its handlers, what they say and its log; `stack` closes the connections to it."""

    process: subprocess.Popen[str]
    port: int
    folder: Path
    stack: ExitStack

    @property
    def log(self) -> str:
        return (self.folder / "stderr.txt").read_text()

    def send(self, content: bytes) -> socket.socket:
        connection = self.stack.enter_context(socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S))
        connection.sendall(content)
        return connection

    def answers(self) -> bool:
        """Whether it serves somebody else, which also shows that it has read all that was sent before."""
        return b"nothing" in answer(self.send(WHOLE))

    def end(self) -> str:
        """Ends it as Ctrl-C does; gives all that it has logged."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(PATIENCE_S)
        return self.log


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    for name, content in HANDLERS.items():
        (tmp_path / name).write_text(content)
    stack = ExitStack()

    def start(request_s: float = NEVER_S, grace_s: float = NEVER_S) -> Running:
        command: Command = [sys.executable, "-c", PROGRAM, tmp_path, ROOT / "scripts", str(request_s), str(grace_s)]
        with (tmp_path / "stderr.txt").open("w") as stderr:
            process = stack.enter_context(running(command, stdout=subprocess.PIPE, stderr=stderr))
        assert process.stdout is not None
        server = Running(process, int(process.stdout.readline()), tmp_path, stack)
        assert server.answers()  # from here on Ctrl-C is uvicorn's
        return server

    with stack:
        yield start


def answer(connection: socket.socket) -> bytes:
    """One whole answer."""
    received = b""
    while b"\r\n\r\n" not in received or len(received.partition(b"\r\n\r\n")[2]) < content_length(received):
        part = connection.recv(1000)
        assert part, f"the connection ended after {received!r}"
        received += part
    return received


def content_length(received: bytes) -> int:
    return int(received.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])


def is_closed(connection: socket.socket) -> bool:
    """Waits for the end. What is sent to a connection that is already closed resets it."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    "content", [b"", HALF_A_HEAD, HALF_A_BODY, HALF_A_BODY.replace(b"/echo", b"/nowhere")],
    ids=["nothing", "head", "body", "body to nowhere"],
)  # fmt: skip
def test_a_request_that_stays_half_sent_is_closed(content: bytes, start: Callable[..., Running]) -> None:
    server = start(request_s=LIMIT_S)
    connection = server.send(content)
    if b"nowhere" in content:  # that is answered without reading on
        assert b"404" in answer(connection)
    assert is_closed(connection)
    assert server.answers()
    assert "no whole request" in server.log
    assert "Traceback" not in server.end()


def test_half_a_request_after_a_whole_one_is_closed(start: Callable[..., Running]) -> None:
    server = start(request_s=LIMIT_S)
    connection = server.send(WHOLE)
    answer(connection)
    connection.sendall(HALF_A_BODY)
    assert is_closed(connection)
    assert "Traceback" not in server.end()


@pytest.mark.parametrize("start_of_it", [HALF_A_HEAD, HALF_A_BODY], ids=["head", "body"])
def test_a_request_that_drips_in_is_closed(start_of_it: bytes, start: Callable[..., Running]) -> None:
    server = start(request_s=LIMIT_S)
    connection = server.send(start_of_it.replace(b"100", b"1000000"))
    connection.settimeout(0.01)

    def is_cut_off() -> bool:
        try:
            connection.sendall(b"x")
            return connection.recv(1) == b""
        except TimeoutError:
            return False
        except OSError:
            return True

    wait_until(is_cut_off, "the end of the connection")
    assert "Traceback" not in server.end()


def test_the_limit_does_not_count_while_the_answer_is_made(start: Callable[..., Running]) -> None:
    server = start(request_s=LIMIT_S)
    patient = server.send(WHOLE.replace(b"/echo", b"/waiting"))
    wait_until((server.folder / "started").exists, "the handler")
    # One that began later has come to its limit, so the first one would have too.
    assert is_closed(server.send(HALF_A_HEAD))
    (server.folder / "go").touch()
    assert b"waited" in answer(patient)


def test_a_request_in_parts_is_answered(start: Callable[..., Running]) -> None:
    server = start()
    connection = server.send(b"POST /echo HTTP/1.1\r\nHo")
    assert server.answers()
    connection.sendall(b"st: here\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\nabc")
    assert server.answers()
    connection.sendall(b"def")
    assert b"abcdef" in answer(connection)
    connection.sendall(WHOLE)
    assert b"nothing" in answer(connection)


def hang_up(connection: socket.socket) -> None:
    connection.close()


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize("leave", [hang_up, reset])
@pytest.mark.parametrize(
    "content",
    [
        HALF_A_HEAD,
        HALF_A_BODY,
        b"POST /echo HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"POST /echo HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\nno length\r\n",
    ],
    ids=["head", "body", "chunks", "broken chunks"],
)
def test_a_caller_who_hangs_up_amid_the_request_leaves_no_traceback(
    content: bytes, leave: Callable[[socket.socket], None], start: Callable[..., Running]
) -> None:
    server = start()
    connection = server.send(content)
    assert server.answers()
    leave(connection)
    if content.startswith(b"POST"):
        wait_until(lambda: "before the request was whole" in server.log, "a word about it")
    assert server.answers()
    assert "Traceback" not in server.end()


@pytest.mark.parametrize("leave", [hang_up, reset])
def test_a_caller_who_hangs_up_while_the_answer_is_made_leaves_no_traceback(
    leave: Callable[[socket.socket], None], start: Callable[..., Running]
) -> None:
    server = start()
    connection = server.send(WHOLE.replace(b"/echo", b"/waiting"))
    wait_until((server.folder / "started").exists, "the handler")
    leave(connection)
    (server.folder / "go").touch()
    wait_until((server.folder / "done").exists, "the handler's end")
    assert server.answers()
    assert "Traceback" not in server.end()


def test_ctrl_c_does_not_wait_for_half_sent_requests(start: Callable[..., Running]) -> None:
    server = start()  # which would wait for an answer for an hour
    halves = [server.send(HALF_A_HEAD), server.send(HALF_A_BODY)]
    assert server.answers()
    log = server.end()
    assert server.process.returncode == 0
    assert all(is_closed(connection) for connection in halves)
    assert "Traceback" not in log


def test_ctrl_c_cuts_off_an_answer_that_takes_too_long(start: Callable[..., Running]) -> None:
    server = start(grace_s=0.2)
    connection = server.send(WHOLE.replace(b"/echo", b"/waiting"))
    wait_until((server.folder / "started").exists, "the handler")
    server.process.send_signal(signal.SIGINT)
    assert b"503 Service Unavailable" in answer(connection)
    (server.folder / "go").touch()  # a thread can't be cut off
    assert server.process.wait(PATIENCE_S) == 0
    assert "Traceback" not in server.log
