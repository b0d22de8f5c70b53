"""What leads connections out of a container, on this machine alone. Needs no Docker."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from container.relay import PassingOn
from processes import PATIENCE_S

# More than sockets hold, so that it doesn't pass at once.
MUCH = bytes(range(256)) * (1 << 14)


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def read(connection: socket.socket) -> bytes:
    """All until the other side ends."""
    connection.settimeout(PATIENCE_S)
    found = b""
    while data := connection.recv(1 << 16):
        found += data
    return found


def connect(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    try:
        client.connect(str(path))
    except OSError:
        client.close()
        raise
    return client


def send_and_end(connection: socket.socket, content: bytes) -> None:
    connection.sendall(content)
    connection.shutdown(socket.SHUT_WR)


def test_both_sides_get_all_bytes_and_each_may_end_before_the_other(server: socket.socket, tmp_path: Path) -> None:
    passing_on = PassingOn(str(tmp_path / "9002.sock"), ("127.0.0.1", server.getsockname()[1]))
    with connect(tmp_path / "9002.sock") as client:
        connection, _ = server.accept()
        with connection:
            for sender, receiver, content in ((client, connection, MUCH), (connection, client, MUCH[::-1])):
                sending = Thread(target=send_and_end, args=(sender, content))
                sending.start()
                assert read(receiver) == content
                sending.join()
    passing_on.close()


def test_a_server_that_is_not_there_is_a_connection_that_ends(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    passing_on = PassingOn(str(tmp_path / "9002.sock"), ("127.0.0.1", port))
    with connect(tmp_path / "9002.sock") as client:
        assert read(client) == b""
    passing_on.close()


def test_it_ends_with_connections_under_way(server: socket.socket, tmp_path: Path) -> None:
    passing_on = PassingOn(str(tmp_path / "9002.sock"), ("127.0.0.1", server.getsockname()[1]))
    with connect(tmp_path / "9002.sock") as client:
        connection, _ = server.accept()
        with connection:
            client.sendall(b"half a request")
            assert connection.recv(100) == b"half a request"
            passing_on.close()
            assert read(connection) == b""
            assert read(client) == b""
    with pytest.raises(OSError, match=r"refused"):
        connect(tmp_path / "9002.sock")
