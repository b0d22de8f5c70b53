"""Runs the local server. It looks at the shelf all the time, so that no test waits ten seconds for a look."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT / "scripts")

from shared import command  # noqa: E402

from local import server  # noqa: E402
from similarity.shelf import served  # noqa: E402

if __name__ == "__main__":
    served.LOOK_S = 0.05
    command.run(server.main)
