"""Tells whether a lock file has every version that a requirements file pins.

scripts/local/venv.sh asks before it installs a lock, so this needs the standard library only. scripts/lock.py writes
locks.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

# torch is in no lock: it is installed first, from an index of its own, whose builds have hashes of their own.
UNLOCKED = "torch"

_PIN = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?\s*==\s*(?P<version>[^\s;\\#]+)")
_INCLUDE = re.compile(r"(?:-r|--requirement)[\s=]+(?P<path>\S+)")


def canonical(name: str) -> str:
    """A package's name as locks spell it (https://packaging.python.org/en/latest/specifications/name-normalization/)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(path: Path) -> dict[str, str]:
    """Versions by name, of a requirements or lock file and of those that it includes. Names are canonical.

    Raises OSError where a file can't be read.
    """
    found: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if include := _INCLUDE.match(line):
            found |= pins(path.parent / include["path"])
        elif pin := _PIN.match(line):
            found[canonical(pin["name"])] = pin["version"]
    return found


def differences(requirements: Path, lock: Path) -> list[str]:
    """A sentence for each pin of `requirements` that `lock` doesn't have. Raises OSError where a file can't be read."""
    locked = pins(lock)
    return [
        f"{requirements} asks for {name}=={version}, but {lock} has {locked.get(name, 'none')}."
        for name, version in pins(requirements).items()
        if name != UNLOCKED and locked.get(name) != version
    ]


if __name__ == "__main__":
    found = differences(Path(sys.argv[1]), Path(sys.argv[2]))
    for sentence in found:
        print(sentence, file=sys.stderr)
    sys.exit(1 if found else 0)
