"""The progress bar of the scripts, on stderr, so that results on stdout stay clean."""

from __future__ import annotations

import sys
from typing import Never

from tqdm import tqdm


def progress_bar(total: int, unit: str) -> tqdm[Never]:
    """Counts to `total` with a rate and an estimate; in a log file, which can't redraw a line, every 10 s at most."""
    mininterval_s = 0.1 if sys.stderr.isatty() else 10.0
    return tqdm(
        total=total, unit=f" {unit}", unit_scale=True, file=sys.stderr, mininterval=mininterval_s, dynamic_ncols=True
    )
