"""The layout of the shelf, the folder that all Lambdas share, and the writing of whole versions.

    states/<time>-<digest>/incident_cls.pt
    models/<version>/…

<time> is in UTC, e.g. 20261126T070405Z: when the state was published or, for the state of an image, when it was built.
It is UNDATED if an image's state doesn't say that. <digest> is the first 16 digits of the file's SHA-256.
`similarity.shelf.models` computes a model's <version>.

A version is written into a temporary folder beside its place, and then renamed. The temporary name starts with a dot.
So a reader sees the whole version or nothing, whenever a process is killed. Two writers of the same version only waste
bandwidth, as in huggingface_hub's cache, so there is no lock. The file system may be NFS 4.1 (EFS), where a rename is
atomic.

`similarity.shelf.writer` decides which versions to keep. `similarity.shelf.served` decides which state to serve.
"""

from __future__ import annotations

import errno
import filecmp
import hashlib
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from similarity.incidents.state import TIME_FORMAT

STATES, MODELS = "states", "models"
STATE_FILENAME = "incident_cls.pt"
UNDATED = "00000000T000000Z"
# The owner (jobs) writes, the group (handlers) reads, nobody else does either.
FOLDER_MODE, FILE_MODE = 0o750, 0o640

_STATE_NAME = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{16}")
_STAMP_FORMAT = "%Y%m%dT%H%M%SZ"
_NEW, _OLD = ".new-", ".old-"
# A writer ends within the 15 minutes of a Lambda. A replaced Lambda ends within an hour.
_LEFTOVER_S = 3600.0
_CHUNK_BYTES = 1 << 20


def state_name(at: str, digest: str) -> str:
    """The name of a state's folder. at: its time, UTC, ISO 8601, "" if unknown. digest: 16 hex digits."""
    stamp = f"{datetime.fromisoformat(at):{_STAMP_FORMAT}}" if at else UNDATED
    return f"{stamp}-{digest}"


def digest_in(name: str) -> str:
    return name.rpartition("-")[2]


def time_in(name: str) -> str:
    """The time in a state's name, UTC, ISO 8601; "" if there is none."""
    with suppress(ValueError):
        return f"{datetime.strptime(name.partition('-')[0], _STAMP_FORMAT):{TIME_FORMAT}}"
    return ""


def state_names(shelf: Path) -> list[str]:
    """The names of all states on the shelf, newest first. Raises OSError."""
    names = os.listdir(shelf / STATES)  # noqa: PTH208 (only names are needed)
    return sorted((name for name in names if _STATE_NAME.fullmatch(name)), reverse=True)


def copy_hashed(source: Path, target: Path) -> str:
    """Copies a file, waits until it is on disk, and returns the SHA-256 of its bytes, hex. Raises OSError."""
    # Opening a pipe would wait for a writer for ever.
    if not stat.S_ISREG(source.stat().st_mode):
        raise OSError(errno.EINVAL, "It isn't a file", str(source))
    digest = hashlib.sha256()
    with source.open("rb") as read, target.open("wb") as write:
        while chunk := read.read(_CHUNK_BYTES):
            digest.update(chunk)
            write.write(chunk)
        write.flush()
        os.fsync(write.fileno())
    return digest.hexdigest()


def put(folder: Path, files: Mapping[str, Path]) -> bool:
    """Copies `files` to `folder`, all or none. Returns False if the same files are there already. Raises OSError.

    files: by name in `folder`. Other files in `folder` are put aside: its name depends on its content, so the content
    is damaged.
    """
    if _holds(folder, files):
        return False
    new = folder.with_name(_NEW + uuid.uuid4().hex)
    new.mkdir()
    try:
        for name, source in files.items():
            copy_hashed(source, new / name)
            (new / name).chmod(FILE_MODE)
        new.chmod(FOLDER_MODE)
        _sync(new)
        while True:
            try:
                new.rename(folder)
                break
            except OSError:
                if not os.path.lexists(folder):
                    raise
                if _holds(folder, files):  # another writer was first
                    return False
                with suppress(FileNotFoundError):  # another writer has put it aside
                    put_aside(folder)
        _sync(folder.parent)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return True


def put_aside(path: Path) -> Path:
    """Renames a file or folder, and returns its new path. `remove_leftovers` removes it later.

    A process that has it open, or mapped into memory, can still read it. Raises OSError.
    """
    aside = path.rename(path.with_name(_OLD + uuid.uuid4().hex))
    os.utime(aside)
    return aside


def remove(folder: Path) -> None:
    """Removes a version at once. No reader sees a part of it. Raises OSError if it can't be renamed."""
    with suppress(FileNotFoundError):
        shutil.rmtree(put_aside(folder), ignore_errors=True)


def remove_leftovers(parent: Path) -> None:
    """Removes what was put aside, and leftovers of killed writers, after an hour. Raises OSError."""
    for prefix in (_NEW, _OLD):
        for path in parent.glob(f"{prefix}*"):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _LEFTOVER_S:
                    if path.is_dir():
                        shutil.rmtree(path, ignore_errors=True)
                    else:
                        path.unlink()


def _holds(folder: Path, files: Mapping[str, Path]) -> bool:
    """Whether `folder` has exactly these files, byte for byte."""
    try:
        if {path.name for path in folder.iterdir()} != set(files):
            return False
        return all(filecmp.cmp(source, folder / name, shallow=False) for name, source in files.items())
    except (FileNotFoundError, NotADirectoryError):
        return False


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
