"""How versions lie on the shelf, the folder that all Lambdas share, and how one is put there whole.

    states/<time>-<digest>/incident_cls.pt
    models/<version>/…

<time> is when the state was built, in UTC, e.g. 20261126T070405Z, or UNDATED where the state doesn't say. <digest> is
the first 16 digits of the file's SHA-256. `similarity.shelf.models` makes a model's <version>.

A version is written into a folder beside, whose name starts with a dot, and renamed. A reader sees all or nothing,
whoever is killed at whatever moment. Two writers of one version waste bandwidth and nothing else, as in
huggingface_hub's cache. So there is no lock. The file system may be NFS 4.1 (EFS), whose rename is atomic.

What to keep is left to `similarity.shelf.writer`, what to serve to `similarity.shelf.served`.
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

STATES, MODELS = "states", "models"
STATE_FILENAME = "incident_cls.pt"
UNDATED = "00000000T000000Z"
# Below every user's own: the group, which the handlers belong to, reads; nobody else does.
FOLDER_MODE, FILE_MODE = 0o750, 0o640

_STATE_NAME = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{16}")
_NEW, _OLD = ".new-", ".old-"
# A writer has no more than the 15 minutes of a Lambda, and no Lambda that was replaced goes on for an hour.
_LEFTOVER_S = 3600.0
_CHUNK_BYTES = 1 << 20


def state_name(built_at: str, digest: str) -> str:
    """The folder of a state. built_at: as `IncidentState.built_at`, "" where it doesn't say. digest: 16 hex digits."""
    stamp = f"{datetime.fromisoformat(built_at):%Y%m%dT%H%M%SZ}" if built_at else UNDATED
    return f"{stamp}-{digest}"


def digest_in(name: str) -> str:
    return name.rpartition("-")[2]


def state_names(shelf: Path) -> list[str]:
    """The names of all states on the shelf, newest first. Raises OSError."""
    names = os.listdir(shelf / STATES)  # noqa: PTH208 (names alone)
    return sorted((name for name in names if _STATE_NAME.fullmatch(name)), reverse=True)


def copy_hashed(source: Path, target: Path) -> str:
    """Copies a file, on disk when this returns; gives the SHA-256 of its bytes, hex. Raises OSError."""
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
    """Puts copies of `files`, by name, into `folder`, all or none; False where they were there. Raises OSError.

    Another content in `folder` is damage, since its name says what it holds: it is put aside.
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
    """Takes a file or folder out of its place, for `remove_leftovers` to remove it later; gives its new place.

    Who has it open, or mapped into memory, can go on. Raises OSError.
    """
    aside = path.rename(path.with_name(_OLD + uuid.uuid4().hex))
    os.utime(aside)
    return aside


def remove(folder: Path) -> None:
    """Removes a version at once. No reader finds a half of it. Raises OSError where it can't be renamed."""
    with suppress(FileNotFoundError):
        shutil.rmtree(put_aside(folder), ignore_errors=True)


def remove_leftovers(parent: Path) -> None:
    """Removes what was put aside an hour ago or more, and what a killed writer has left. Raises OSError."""
    for prefix in (_NEW, _OLD):
        for path in parent.glob(f"{prefix}*"):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _LEFTOVER_S:
                    if path.is_dir():
                        shutil.rmtree(path, ignore_errors=True)
                    else:
                        path.unlink()


def _holds(folder: Path, files: Mapping[str, Path]) -> bool:
    """Whether `folder` has exactly these files, to the last byte."""
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
