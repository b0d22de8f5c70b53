"""Passes TCP connections on to Unix sockets: `python3 relay.py FOLDER PORT...`, in a container of its own.

An instance shares this container's network. There is nothing else in it, so these ports of 127.0.0.1 are all that the
instance can reach. FOLDER is shared with the host and has a socket for each port, e.g. `9001.sock`. The relay makes
`FOLDER/listening` when it listens on all ports. `PassingOn` leads such a socket on to a server of the host.
"""

from __future__ import annotations

import socket
import sys
from contextlib import suppress
from pathlib import Path
from threading import Thread

# Of the Runtime API.
PORT = 9001

# A port of a host, or the path of a Unix socket.
Address = tuple[str, int] | str


def main() -> None:
    folder, *ports = sys.argv[1:]
    threads = [PassingOn(("127.0.0.1", int(port)), f"{folder}/{port}.sock") for port in ports]
    Path(folder, "listening").touch()
    for thread in threads:
        thread.join()


class PassingOn(Thread):
    """Passes connections on, from construction to `close`."""

    def __init__(self, source: Address, target: Address) -> None:
        super().__init__(daemon=True)
        self._listener = socket.socket(_family(source))
        self._listener.bind(source)
        self._listener.listen(128)
        self._target = target
        self._connections: list[_Connection] = []
        self.start()

    def run(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(_family(self._target))
                try:
                    server.connect(self._target)
                except OSError:
                    client.close()
                    server.close()
                    continue
                self._connections = [each for each in self._connections if each.is_alive()]
                self._connections.append(_Connection(client, server))

    def close(self) -> None:
        _end(self._listener)  # wakes `accept`
        self.join()
        self._listener.close()
        for each in self._connections:
            each.close()


class _Connection(Thread):
    """Carries bytes in both directions until both have ended."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        super().__init__(daemon=True)
        self._client, self._server = client, server
        self.start()

    def run(self) -> None:
        with self._client, self._server:
            back = Thread(target=_pass_on, args=(self._server, self._client), daemon=True)
            back.start()
            _pass_on(self._client, self._server)
            back.join()

    def close(self) -> None:
        for each in (self._client, self._server):
            _end(each)
        self.join()


def _family(address: Address) -> int:
    return socket.AF_UNIX if isinstance(address, str) else socket.AF_INET


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        _end(source)
        _end(target)


def _end(either: socket.socket) -> None:
    with suppress(OSError):  # it has ended
        either.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    main()
