"""Loads and ranks every state in a folder, in a process with little memory: `pt_reader.py FOLDER` prints JSON.

For each file either "ranked" or the reason for which it was refused. Anything else ends the process.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import numpy as np

from similarity.errors import StateError
from similarity.incidents.ranking import Ranking
from similarity.incidents.state import IncidentState

SPARE_BYTES = 256 << 20


def limit_memory() -> None:
    """Asking for more than SPARE_BYTES on top of what the process has fails from here on. On Linux alone."""
    status = Path("/proc/self/status")
    if status.exists():
        [kib] = [int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmSize:")]
        resource.setrlimit(resource.RLIMIT_AS, (kib * 1024 + SPARE_BYTES,) * 2)


def outcome(path: Path) -> str:
    try:
        state = IncidentState.load(path)
    except StateError as error:
        return error.detail
    found = Ranking(state).most_similar(np.ones(state.dimension, dtype=np.float32), -1)
    assert len(found) == len(state), path
    assert all(-1 <= match.similarity <= 1 for match in found), path
    return "ranked"


def main() -> None:
    # What is loaded at first use: it must not count.
    state = IncidentState(np.array([1]), np.array([1]), np.ones((1, 2), dtype=np.float32), [""])
    Ranking(state).most_similar(np.ones(2, dtype=np.float32), 1)
    limit_memory()
    print(json.dumps({path.name: outcome(path) for path in sorted(Path(sys.argv[1]).iterdir())}))


if __name__ == "__main__":
    main()
