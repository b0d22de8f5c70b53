"""Where this process reads model and state from: its image, or the cache that all Lambdas share.

The first start of an image finds its versions not in the cache. It answers from the image at once and fills the cache
in a thread afterwards; later starts load from the cache what they have verified. Filling first would keep the first
caller waiting for the copying: with a model of 595 MB, two cores and a local disk in place of EFS, a process gave its
first answer after 0.23 s from the image, after 1.3 to 1.6 s where it filled the cache first, and after 0.48 s from the
cache, 0.22 s of which are the verification; with nothing in the page cache, after 0.67 s from the image and 0.89 s from
the cache.

A Lambda is frozen when it has answered, so that the thread goes on with the next request only; `prime`, which a
deployment calls, fills before it answers.

A state in the cache may be newer than the image's. At most every LOOK_S a request looks for one
(`similarity.cached_state`).

Nothing that goes wrong with the cache fails a request: the image has everything. Each part has a time limit, since a
network file system may hang for ever, and why the image had to serve is logged once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from similarity.background import Timer, in_background
from similarity.cache import Cache, Kind
from similarity.cache_lock import LockError
from similarity.cached_state import CachedState
from similarity.filling import fill
from similarity.logs import log_event, reason_of
from similarity.manifest import STATE_FILENAME, ImageManifest, MismatchError
from similarity.settings import Settings

T = TypeVar("T")

LOOK_S = 10.0
# What a request may wait for the cache: the first one, and any later one.
START_LIMIT_S, LOOK_LIMIT_S = 5.0, 1.0
# How long a deployment waits for the cache to be filled.
PRIME_LIMIT_S = 60.0
# How often a process sees to it that the cache is whole, and notes that it uses its model.
FILL_S, MARK_USED_S = 300.0, 3600.0


class ImageFiles:
    """All is read from the image, or the laptop's folder: what there is without a cache."""

    def __init__(self, settings: Settings) -> None:
        self.model_dir = settings.model_dir
        # Of several, the last that is there counts.
        self.state_paths = [settings.state_path]

    def state_path(self) -> Path:
        return next((path for path in reversed(self.state_paths) if path.exists()), self.state_paths[0])

    def load_model(self, load: Callable[[Path], T]) -> T:
        """What `load` makes of a folder with the model."""
        return load(self.model_dir)

    def refresh(self, *, state: bool) -> None:
        """To be called before a request is answered; `state`: whether it needs the state."""

    def fill_later(self) -> None:
        """To be called when a request has been answered."""

    def prime(self) -> None:
        """Fills the cache now with what this process has used."""


class CachedFiles(ImageFiles):
    """The cache where it has what is needed, else the image. Safe to use from several threads.

    check_state: as `CachedState`. Raises OSError where there is no room for a state of its own.
    """

    def __init__(
        self, settings: Settings, cache: Cache, manifest: ImageManifest, check_state: Callable[[Path], None]
    ) -> None:
        super().__init__(settings)
        self._cache = cache
        self._manifest = manifest
        self._state = CachedState(cache, manifest.state.id, check_state)
        self.state_paths = [settings.state_path, self._state.path]
        self._uses: set[Kind] = set()
        self._asking = Lock()
        self._asked: Future[Any] = _done()
        self._filling: Future[Any] = _done()
        self._look_again, self._fill_again, self._mark_again = Timer(), Timer(), Timer()
        self._is_available = True
        self._logged: set[tuple[str, str]] = set()

    def load_model(self, load: Callable[[Path], T]) -> T:
        self._uses.add("models")
        with self._asking:
            loaded = self._ask(partial(self._load_cached, load), START_LIMIT_S)
        return load(self.model_dir) if loaded is None else loaded

    def refresh(self, *, state: bool) -> None:
        if state:
            self._uses.add("states")
        with self._asking:
            limit_s = LOOK_LIMIT_S if self._look_again.was_set else START_LIMIT_S
            if self._look_again.is_due():
                self._look_again.set(LOOK_S)
                self._ask(self._look, limit_s)

    def fill_later(self) -> None:
        if self._fill_again.is_due() and self._may_fill():
            self._fill_again.set(FILL_S)
            self._filling = in_background(partial(self._guarded, partial(self._fill, 0.0)))

    def prime(self) -> None:
        deadline = time.monotonic() + PRIME_LIMIT_S
        wait([self._filling], PRIME_LIMIT_S)
        if self._may_fill():
            remaining_s = deadline - time.monotonic()
            self._fill_again.set(FILL_S)
            self._filling = in_background(partial(self._guarded, partial(self._fill, remaining_s)))
            wait([self._filling], remaining_s)
        if not self._filling.done():
            self._log_once("cache-unavailable", f"not filled within {PRIME_LIMIT_S:g} s")

    def _ask(self, work: Callable[[], T], limit_s: float) -> T | None:
        """What `work` gives, or None where it fails, takes too long, or one before it still does."""
        if not self._asked.done():
            return None
        self._asked = job = in_background(partial(self._guarded, work))
        try:
            return job.result(limit_s)
        except TimeoutError:
            self._log_once("cache-unavailable", f"no answer within {limit_s:g} s")
            return None

    def _guarded(self, work: Callable[[], T]) -> T | None:
        try:
            value = work()
        except LockError:  # another Lambda is filling the cache
            self._fill_again.set(LOOK_S)
        except MismatchError as error:
            self._fill_again.set(0.0)
            self._log_once("cache-corrupt", str(error), key=str(error))
        except Exception as error:
            self._is_available = False
            self._log_once("cache-unavailable", reason_of(error))
        else:
            self._is_available = True
            return value
        return None

    def _load_cached(self, load: Callable[[Path], T]) -> T | None:
        folder = self._verified_model()
        return None if folder is None else load(folder)

    def _verified_model(self) -> Path | None:
        version = self._manifest.model.id
        try:
            folder = self._cache.require_same("models", version)
        except FileNotFoundError:  # not cached yet
            return None
        self._mark_used()
        return folder

    def _look(self) -> None:
        if self._mark_again.was_set and self._mark_again.is_due():
            self._mark_used()
        if "states" in self._uses:
            self._state.take_up()

    def _mark_used(self) -> None:
        self._mark_again.set(MARK_USED_S)
        with suppress(OSError):  # a cache that can't be written to can be read
            self._cache.mark_used(self._manifest.model.id)

    def _may_fill(self) -> bool:
        return self._is_available and self._asked.done() and self._filling.done()

    def _fill(self, wait_s: float) -> None:
        fill(self._cache, self._manifest, self.model_dir, self._uses, wait_s)

    def _log_once(self, event: str, reason: str, key: str = "") -> None:
        if (event, key) not in self._logged:
            self._logged.add((event, key))
            log_event("warning", event, reason=reason, serves="image")


def open_files(settings: Settings, check_state: Callable[[Path], None]) -> ImageFiles:
    """With the cache where there is a folder for one and the image has a manifest."""
    if settings.cache_dir is None or settings.state_path != settings.model_dir / STATE_FILENAME:
        return ImageFiles(settings)
    try:
        manifest = ImageManifest.read(settings.model_dir)
        if manifest is not None:
            return CachedFiles(settings, Cache(settings.cache_dir), manifest, check_state)
    except (OSError, MismatchError) as error:
        log_event("warning", "cache-unavailable", reason=reason_of(error), serves="image")
    return ImageFiles(settings)


def _done() -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(None)
    return future
