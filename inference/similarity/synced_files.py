"""Files that are on disk when a function returns, and are removed as a whole: what `similarity.cache` is made of.

All functions raise OSError; a full disk shows in the one that writes, because it waits for the disk.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from similarity.manifest import CHUNK_BYTES, Digest

# What is being removed has a name that starts so.
OLD = ".old-"


def _no_beat() -> None:
    pass


def copy_file(source: Path, destination: Path, beat: Callable[[], None] = _no_beat) -> str:
    """The digest of what was copied. What `beat` reports is on disk, so that a full one shows here."""
    digest = Digest()
    with source.open("rb", buffering=0) as read, destination.open("xb", buffering=0) as write:
        while chunk := read.read(CHUNK_BYTES):
            while len(chunk) < CHUNK_BYTES and (more := read.read(CHUNK_BYTES - len(chunk))):
                chunk += more
            digest.add(hashlib.sha256(chunk).digest())
            _write_all(write.fileno(), chunk)
            os.fsync(write.fileno())
            beat()
    return digest.hex()


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def write_synced(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Out of the way first, so that no reader finds a half of it. Of several that remove at once one does."""
    with suppress(FileNotFoundError):
        old = path.rename(path.with_name(OLD + uuid.uuid4().hex))
        if old.is_dir():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.unlink()
