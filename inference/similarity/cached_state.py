"""The newest state of the cache, as a file of this process's own.

It is copied out of the cache, verified, tried, and only then put where `similarity.reloading.FromFiles` looks, so that
no request reads the cache itself, and a state that can't be used never takes the place of one that can.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path

from similarity.cache import Cache
from similarity.errors import SimilarityError
from similarity.logs import log_event, reason_of
from similarity.manifest import STATE_FILENAME, MismatchError


class CachedState:
    """For one thread at a time.

    path: the file, which is not there before a state was taken up. image_version: the image's own state.
    check: raises SimilarityError for a state file that can't be used.
    """

    def __init__(self, cache: Cache, image_version: str, check: Callable[[Path], None]) -> None:
        self._cache = cache
        self._image_version = image_version
        self._check = check
        self._version = ""
        self._refused: set[str] = set()
        folder = Path(tempfile.mkdtemp(prefix="incident-state-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.path = folder / STATE_FILENAME

    def take_up(self) -> None:
        """Puts the state that is in use by now at `path`. Raises MismatchError for a broken one, or OSError."""
        pointer = self._cache.pointer()
        # As long as the image's own state was never in the cache, it is the newest.
        if pointer is None or not self._cache.has_seen(self._image_version):
            return
        # Where the newest is refused, a process that has just started takes what all others serve on with.
        versions = [pointer.version]
        if not self._version and pointer.previous and self._cache.folder("states", pointer.previous).exists():
            versions.append(pointer.previous)
        for version in versions:
            if version == self._version or (version not in self._refused and self._took_up(version)):
                return

    def _took_up(self, version: str) -> bool:
        """False where the state was refused."""
        new = self.path.with_name("new")
        new.unlink(missing_ok=True)
        try:
            self._cache.copy_state(version, new)
        except FileNotFoundError as error:
            raise MismatchError(f"the state {version} is not there") from error
        try:
            self._check(new)
        except SimilarityError as error:
            self._refused.add(version)
            log_event("error", "state-refused", version=version, reason=reason_of(error))
            return False
        new.replace(self.path)
        self._version = version
        log_event("info", "state-taken-up", version=version)
        return True
