"""States to publish, and the short version of what the stack does with them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from similarity.inbox.bucket import Bucket
from similarity.inbox.history import current_of
from similarity.inbox.notes import Deployed, Served, now
from similarity.inbox.publications import publications, publish
from similarity.incidents.facts import StateFacts
from similarity.incidents.state import IncidentState, state_version

DEPLOYED = Deployed(
    model="tiny", fingerprint="f1", dimension=4, longest_input=128, max_tokens=128, text_preparation="unidecode"
)
IDS = range(1, 21)


def state(number: int = 0, ids: Sequence[int] = IDS, *, date: str = "", kind: str = "", **facts: Any) -> IncidentState:
    """A state of the deployed model. number: makes its vectors, and so its version, its own."""
    source = {"kind": kind or "aiid-snapshot", "name": "backup", "date": date} if date or kind else {}
    given = {"model": DEPLOYED.model, "model_fingerprint": DEPLOYED.fingerprint, "source": source, **facts}
    return IncidentState(
        incident_ids=np.array(ids),
        report_counts=np.ones(len(ids), dtype=np.int64),
        means=np.random.default_rng(number).normal(size=(len(ids), given.pop("dimension", 4))).astype(np.float32),
        titles=[""] * len(ids),
        **given,
    )


def saved(path: Path, made: IncidentState) -> StateFacts:
    made.save(path)
    return made.facts(state_version(path))


def content_of(made: IncidentState) -> bytes:
    """The bytes of the state's file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "state.pt")
        made.save(path)
        return path.read_bytes()


def publish_state(bucket: Bucket, made: IncidentState) -> str:
    """Gives the state's version."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "state.pt")
        made.save(path)
        return publish(bucket, path)


def run_job(bucket: Bucket, deployed: Deployed = DEPLOYED) -> Served | None:
    """Notes what is served, as the job does after each publication."""
    found = current_of(publications(bucket), deployed)
    if found is None or found.facts is None:
        return None
    served = Served(found.facts, found.time, found.stored.key, found.stored.version_id, deployed, now())
    served.write(bucket)
    return served
