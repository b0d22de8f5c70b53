"""Checks a new state against the served one before it is published."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from similarity.errors import StateError
from similarity.inbox.bucket import Bucket
from similarity.inbox.notes import Served
from similarity.incidents.state import IncidentState, state_version

# AIID removes or merges a few incidents a year.
MOST_LOST = 0.1


class LossError(Exception):
    """The new state lacks too many incidents of the served one. The message is one sentence."""


def served_state(bucket: Bucket, served: Served) -> IncidentState | None:
    """The served state, read from the bucket; None if the bucket hasn't got it whole. Raises InboxError or OSError."""
    if not served.key:
        return None
    with tempfile.TemporaryDirectory(prefix="served-") as folder:
        path = Path(folder, "state.pt")
        if bucket.download(served.key, path, served.version_id) is None:
            return None
        if state_version(path) != served.state.version:
            return None
        try:
            return IncidentState.load(path)
        except StateError:
            return None


def require_most_incidents(state: IncidentState, before: IncidentState) -> None:
    """Raises LossError if `state` lacks more than MOST_LOST of the incidents in `before`.

    An incident that was merged into another one isn't lost.
    """
    kept = np.isin(before.incident_ids, np.concatenate([state.incident_ids, state.duplicates[:, 0]]))
    lost = before.incident_ids[~kept]
    if len(lost) > MOST_LOST * len(before):
        named = ", ".join(map(str, lost[:5])) + (" …" if len(lost) > 5 else "")
        raise LossError(
            f"the new state lacks {len(lost)} of the {len(before)} incidents of the served one ({named}); at most "
            f"{MOST_LOST:.0%} may be lost."
        )
