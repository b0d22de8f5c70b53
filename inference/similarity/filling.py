"""Copying an image's model and state into the cache, once for all Lambdas."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from pathlib import Path

from similarity.cache import Cache, Kind
from similarity.logs import log_event
from similarity.manifest import STATE_FILENAME, ImageManifest
from similarity.pruning import prune


def fill(cache: Cache, manifest: ImageManifest, model_dir: Path, kinds: Collection[Kind], wait_s: float) -> None:
    """Adds what the cache lacks of `kinds`, from `model_dir`, and prunes it.

    Raises LockError where another Lambda is at it for longer than `wait_s`, or OSError, also where `model_dir` is not
    what the manifest says.
    """
    started = time.monotonic()
    lock = cache.prepare()
    if _missing(cache, manifest, kinds):
        with lock.hold(wait_s) as beat:
            missing = _missing(cache, manifest, kinds)
            prune(cache, manifest.model.id)  # makes room
            if "models" in missing:
                cache.write("models", manifest.model, [model_dir / entry.name for entry in manifest.model.files], beat)
            if "states" in missing:
                cache.restore_state(manifest.state, model_dir / STATE_FILENAME, beat)
            if missing:
                log_event("info", "cache-filled", filled=missing, seconds=round(time.monotonic() - started, 3))
    prune(cache, manifest.model.id)


def _missing(cache: Cache, manifest: ImageManifest, kinds: Collection[Kind]) -> list[Kind]:
    is_there: dict[Kind, Callable[[], bool]] = {
        "models": lambda: cache.folder("models", manifest.model.id).exists(),
        "states": lambda: not cache.needs_state(manifest.state.id),
    }
    return [kind for kind in sorted(kinds) if not is_there[kind]()]
