"""Put a newer incident state in the cache, where all Lambdas find it within a minute, without a deployment.

To be run where the file system is mounted:
    INCIDENT_CACHE_DIR=/mnt/hf_models_cache/incidents python -m similarity.publish incident_cls.pt
"""

from __future__ import annotations

import sys
from pathlib import Path

from similarity.cache import Cache
from similarity.errors import StateError
from similarity.manifest import STATE_FILENAME, FileEntry, Version, digest_of
from similarity.settings import Settings


def publish_state(path: Path, cache_dir: Path, wait_s: float = 120.0) -> str:
    """Puts the state in the file `path` in use; gives its version.

    Whether the Lambdas can use it is theirs to judge; they refuse one that was made with another model. Raises
    LockError where others write to the cache for longer than `wait_s`, or OSError.
    """
    cache = Cache(cache_dir)
    with cache.prepare().hold(wait_s) as beat:
        # The version of a state does not depend on what its file was called.
        version = Version((FileEntry(STATE_FILENAME, path.stat().st_size, digest_of(path)),))
        cache.publish(version, path, beat)
    return version.id


def main(argv: list[str] | None = None) -> int:
    [path] = map(Path, sys.argv[1:] if argv is None else argv)
    cache_dir = Settings.from_environment().cache_dir
    if cache_dir is None:
        print("similarity.publish: INCIDENT_CACHE_DIR is not set", file=sys.stderr)
        return 1
    from similarity.state import IncidentState

    try:
        IncidentState.load(path)
        print(publish_state(path, cache_dir))
    except StateError as error:
        print(f"similarity.publish: {error.detail}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"similarity.publish: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
