"""Connections that are opened and left silent. The server closes one after a while; another takes its place."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from threading import Event, Thread


class Idle:
    """opened: so many, all in all. trouble: why one couldn't be opened."""

    def __init__(self, port: int, count: int) -> None:
        self._port = port
        self._count = count
        self._selector = selectors.DefaultSelector()
        self.opened = 0
        self.trouble: list[str] = []

    @property
    def open(self) -> int:
        return len(self._selector.get_map() or ())

    def run(self, end: Event) -> None:
        with ExitStack() as stack:
            stack.callback(self._close)
            while not end.is_set():
                self.fill()
                for key, _ in self._selector.select(timeout=0.2):  # nothing is sent, so this is its end
                    assert isinstance(key.fileobj, socket.socket)
                    self._selector.unregister(key.fileobj)
                    key.fileobj.close()

    def fill(self) -> None:
        while self.open < self._count:
            try:
                connection = socket.create_connection(("127.0.0.1", self._port), timeout=10)
            except OSError as error:
                self.trouble.append(repr(error))
                return
            self._selector.register(connection, selectors.EVENT_READ)
            self.opened += 1

    def _close(self) -> None:
        for key in list((self._selector.get_map() or {}).values()):
            with suppress(OSError):
                assert isinstance(key.fileobj, socket.socket)
                key.fileobj.close()
        self._selector.close()


@contextmanager
def idle_connections(port: int, count: int) -> Iterator[Idle]:
    idle, end = Idle(port, count), Event()
    idle.fill()
    thread = Thread(target=idle.run, args=(end,))
    thread.start()
    try:
        yield idle
    finally:
        end.set()
        thread.join()
