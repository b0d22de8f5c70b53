"""Passes TCP connections to 127.0.0.1:9001 on to a Unix socket: `python3 relay.py FOLDER`, in a container of its own.

An instance shares this container's network, in which there is nothing else, so that the Runtime API is all that it can
reach; FOLDER, which the host shares, holds the Runtime API's socket `api.sock`. Makes `FOLDER/listening` when it does.
"""

import socket
import sys
from pathlib import Path
from threading import Thread

PORT = 9001


def main() -> None:
    folder = Path(sys.argv[1])
    listener = socket.create_server(("127.0.0.1", PORT))
    (folder / "listening").touch()
    while True:
        client, _ = listener.accept()
        api = socket.socket(socket.AF_UNIX)
        api.connect(str(folder / "api.sock"))
        for source, target in ((client, api), (api, client)):
            Thread(target=pass_on, args=(source, target), daemon=True).start()


def pass_on(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        source.close()
        target.close()


if __name__ == "__main__":
    main()
