"""Checks a new state against the served one, and against what was taken back, before it is published."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from similarity.errors import StateError, one_line
from similarity.inbox.bucket import Bucket
from similarity.inbox.notes import SNAPSHOT_KIND, Hold, Served
from similarity.incidents.facts import StateFacts
from similarity.incidents.state import IncidentState, state_version

# AIID removes or merges a few incidents a year.
MOST_LOST = 0.1


class RefusedError(Exception):
    """The state can be used, but publishing it may be a mistake. The message is one sentence."""


class LossError(RefusedError):
    """The new state lacks too many incidents of the served one."""


def require_same_kind(facts: StateFacts, served: StateFacts) -> None:
    """Raises RefusedError if a state of AIID's snapshots would replace other records. Unknown ones may be replaced."""
    kind, before = facts.source.get("kind", ""), served.source.get("kind", "")
    if kind == SNAPSHOT_KIND and before not in ("", SNAPSHOT_KIND):
        raise RefusedError(f"the new state is made of AIID's snapshot, the served one of other records ({before}).")


def require_same_collection(facts: StateFacts, served: StateFacts) -> None:
    """Raises RefusedError if a state would replace one of another database, whose ids may be the same numbers."""
    if facts.collection != served.collection:
        names = one_line(facts.collection), one_line(served.collection)
        raise RefusedError(f"the new state is of {names[0]}, the served one of {names[1]}.")


def require_not_older(facts: StateFacts, served: StateFacts) -> None:
    """Raises RefusedError if a state's data is older than that of the served one. An unknown time isn't older."""
    date, before = facts.source.get("date", ""), served.source.get("date", "")
    if date and date < before:
        raise RefusedError(f"the new state is made of data of {date}, the served one of newer data, of {before}.")


def require_not_held(facts: StateFacts, hold: Hold) -> None:
    """Raises RefusedError for a state that was taken back, or for a snapshot that isn't later than one taken back."""
    if facts.version in hold.versions:
        raise RefusedError(f"a rollback has taken this state back, {facts.version}.")
    date = facts.source.get("date", "")
    if hold.source_date and facts.source.get("kind") == SNAPSHOT_KIND and date <= hold.source_date:
        raise RefusedError(
            f"the state is made of the snapshot of {date or 'an unknown date'}, and a rollback has taken back a state "
            f"of that of {hold.source_date}; only a later snapshot can be published."
        )


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


def require_about_as_many(facts: StateFacts, before: StateFacts) -> None:
    """The same by numbers alone, if the incidents of the served state aren't known."""
    if facts.incidents < (1 - MOST_LOST) * before.incidents:
        raise LossError(
            f"the new state has {facts.incidents} incidents, the served one {before.incidents}; at most "
            f"{MOST_LOST:.0%} may be lost."
        )
