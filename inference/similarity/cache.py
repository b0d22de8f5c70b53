"""Versions of model and state on a file system that many Lambdas share: written whole, read verified.

    models/<version>/...           the model's files and manifest.json
    states/<version>/...           incident_cls.pt and manifest.json
    states/current                 which state is in use, and which was before it
    seen/<version>                 empty: an image brought this state, or it was published, some time
    used/<version>                 empty: its time is when a Lambda last loaded this model
    lock/                          see `similarity.cache_lock`

A version is written into a folder beside, whose name starts with a dot, and renamed: there is all of it or nothing,
whoever is killed or frozen at whatever moment, with or without the lock. The file system may be NFS 4.1 (EFS), whose
rename is atomic and fails where another was first. The pointer `states/current` is replaced in the same way.

When to read and to write all this, and what to do when it fails, is left to `similarity.cached`, what to remove to
`similarity.pruning`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from similarity.cache_lock import Lock
from similarity.manifest import MANIFEST_FILENAME, MismatchError, Version
from similarity.synced_files import copy_file, sync_folder, write_synced

Kind = Literal["models", "states"]

_VERSION = re.compile("[0-9a-f]{64}")
# What is being written, and what was found broken, has a name that starts so.
NEW, BAD = ".new-", ".bad-"


@dataclass(frozen=True)
class Pointer:
    """The state in use, and the one before it where there was one."""

    version: str
    previous: str | None


class Cache:
    """The cache in the folder `root`, which is made by the first write; its parent must exist.

    Every method raises OSError where the file system fails.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, kind: Kind, version: str) -> Path:
        return self.root / kind / version

    def prepare(self) -> Lock:
        """Makes the folders. Their parent is a mount: without it nothing is to be written in its place."""
        self.root.mkdir(exist_ok=True)
        for name in ("models", "states", "seen", "used", "lock"):
            (self.root / name).mkdir(exist_ok=True)
        return Lock(self.root / "lock")

    def require_same(self, kind: Kind, version: str) -> Path:
        """The folder of a version, after reading all of it. Raises MismatchError where a bit differs."""
        folder = self.folder(kind, version)
        inode = folder.stat().st_ino
        try:
            self._read_manifest(kind, version).require_same(folder)
        except (MismatchError, FileNotFoundError) as error:
            self._set_aside(folder, inode)
            raise MismatchError(str(error)) from error
        return folder

    def copy_state(self, version: str, destination: Path) -> None:
        """Copies a state out of the cache. Raises MismatchError where it is not what was written."""
        folder = self.folder("states", version)
        inode = folder.stat().st_ino
        try:
            [entry] = self._read_manifest("states", version).files
            if copy_file(folder / entry.name, destination) != entry.digest:
                raise MismatchError(f"{folder / entry.name} is not what was written")
        except (MismatchError, FileNotFoundError) as error:
            self._set_aside(folder, inode)
            raise MismatchError(str(error)) from error

    def pointer(self) -> Pointer | None:
        """None where no state was published yet. Raises MismatchError for a broken pointer."""
        path = self.root / "states" / "current"
        try:
            values = json.loads(path.read_bytes())
            pointer = Pointer(values["version"], values["previous"])
            if not all(_VERSION.fullmatch(version) for version in (pointer.version, pointer.previous or "0" * 64)):
                raise ValueError("it names no versions")
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise MismatchError(f"{path} is broken: {type(error).__name__}: {error}") from error
        return pointer

    def has_seen(self, state: str) -> bool:
        return (self.root / "seen" / state).exists()

    def needs_state(self, state: str) -> bool:
        """Whether this state was never published, or none is in use that is there."""
        try:
            pointer = self.pointer()
        except MismatchError:
            return True
        return pointer is None or not self.has_seen(state) or not self.folder("states", pointer.version).exists()

    def write(self, kind: Kind, version: Version, sources: Sequence[Path], beat: Callable[[], None]) -> None:
        """Copies the files of a version from where they are, unless it is there. `beat` is called as it goes on.

        Raises OSError where they are other files than `version` says, too.
        """
        folder = self.folder(kind, version.id)
        if folder.exists():
            return
        new = folder.with_name(NEW + uuid.uuid4().hex)
        new.mkdir()
        try:
            for entry, source in zip(version.files, sources, strict=True):
                if copy_file(source, new / entry.name, beat) != entry.digest:
                    raise OSError(f"{source} is not what its manifest says")
            write_synced(new / MANIFEST_FILENAME, json.dumps(version.to_json(), separators=(",", ":")).encode())
            sync_folder(new)
            beat()
            try:
                new.rename(folder)
            except OSError:
                if not folder.exists():
                    raise
            else:
                sync_folder(folder.parent)
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def publish(self, version: Version, state: Path, beat: Callable[[], None]) -> None:
        """Puts the state in the file `state` in use; Lambdas take it up within a minute."""
        # A copy that is damaged would count as there.
        with suppress(FileNotFoundError, MismatchError):
            self.require_same("states", version.id)
        while True:
            self.write("states", version, [state], beat)
            # Who was frozen until now must not put its state in the place of a newer one.
            beat()
            self.point_to(version.id)
            # One may have been frozen for so long that its state was pruned before anything pointed to it.
            if self.folder("states", version.id).exists():
                break
        (self.root / "seen" / version.id).touch()

    def restore_state(self, version: Version, state: Path, beat: Callable[[], None]) -> None:
        """Mends what `needs_state` found: with an image's state, unless that gave way to one which is still there."""
        try:
            pointer = self.pointer()
        except MismatchError:
            pointer = None
        gave_way = self.has_seen(version.id) and pointer is not None and pointer.version != version.id
        if pointer and gave_way and pointer.previous and self.folder("states", pointer.previous).exists():
            self.point_to(pointer.previous)
        else:
            self.publish(version, state, beat)

    def point_to(self, state: str) -> None:
        """Makes a state that is in the cache the one in use."""
        try:
            old = self.pointer()
        except MismatchError:
            old = None
        if old is not None and old.version == state:
            return
        pointer = Pointer(state, old.version if old else None)
        new = self.root / "states" / (NEW + uuid.uuid4().hex)
        try:
            write_synced(new, json.dumps(asdict(pointer)).encode())
            new.replace(self.root / "states" / "current")
        finally:
            new.unlink(missing_ok=True)

    def mark_used(self, model: str) -> None:
        (self.root / "used" / model).touch()

    def _read_manifest(self, kind: Kind, version: str) -> Version:
        path = self.folder(kind, version) / MANIFEST_FILENAME
        try:
            manifest = Version.from_json(json.loads(path.read_bytes()))
        except ValueError as error:
            raise MismatchError(f"{path} is broken: {error}") from error
        if manifest.id != version:
            raise MismatchError(f"{path} is that of another version")
        return manifest

    def _set_aside(self, folder: Path, inode: int) -> None:
        """Makes way for a whole copy, unless there is one already; other Lambdas may still use what is not broken."""
        with suppress(OSError):
            if folder.stat().st_ino == inode:
                aside = folder.rename(folder.with_name(BAD + uuid.uuid4().hex))
                os.utime(aside)
