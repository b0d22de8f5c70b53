"""Removing from the cache what no Lambda uses any more: old versions, and what a killed one left half done."""

from __future__ import annotations

from pathlib import Path

from similarity.cache import BAD, Cache
from similarity.cache_lock import server_time
from similarity.manifest import MismatchError
from similarity.synced_files import remove

# A model's weights may be mapped into the memory of a Lambda, which a removal would kill on NFS (ESTALE). Lambda keeps
# none for a day, and each notes once an hour that it uses its model.
MODEL_UNUSED_S = 24 * 3600.0
# States are copied when they are taken up, so an old one has to outlive only that and its own publication.
STATE_UNUSED_S = 3600.0
# What nobody has written to for so long, nobody is writing any more.
LEFTOVER_S = 600.0


def prune(cache: Cache, model: str) -> None:
    """Keeps `model` and the one used before it, the state in use and the one before it, and whatever is young.

    Safe while others read, write and prune. Raises OSError.
    """
    _prune_models(cache, model)
    _prune_states(cache)
    for name in ("models", "states", "lock"):
        for path in (cache.root / name).glob(".*"):
            keep_s = MODEL_UNUSED_S if path.name.startswith(BAD) else LEFTOVER_S
            if _age_s(cache, _last_written(path)) > keep_s:
                remove(path)


def _prune_models(cache: Cache, model: str) -> None:
    others = {path: _last_used(cache, path) for path in _versions(cache.root / "models") if path.name != model}
    for path in sorted(others, key=lambda path: others[path])[:-1]:
        if _age_s(cache, others[path]) > MODEL_UNUSED_S:
            remove(path)
            (cache.root / "used" / path.name).unlink(missing_ok=True)


def _prune_states(cache: Cache) -> None:
    try:
        pointer = cache.pointer()
    except MismatchError:
        return
    kept = {pointer.version, pointer.previous} if pointer else set()
    for path in _versions(cache.root / "states"):
        if path.name not in kept and _age_s(cache, _last_written(path)) > STATE_UNUSED_S:
            remove(path)


def _age_s(cache: Cache, written: float) -> float:
    return server_time(cache.root / "lock") - written


def _versions(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]


def _last_used(cache: Cache, model: Path) -> float:
    return max(_last_written(model), _last_written(cache.root / "used" / model.name))


def _last_written(path: Path) -> float:
    """When a file, or anything in a folder, was last written to; 0 where it is not there."""
    try:
        inside = list(path.iterdir()) if path.is_dir() else []
        return max(each.stat().st_mtime for each in (path, *inside))
    except FileNotFoundError:
        return 0.0
