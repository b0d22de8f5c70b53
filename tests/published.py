"""A bucket of a stack in a stand-in for S3, states for it, and the short version of what the stack does with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

import boto3
import moto
import numpy as np
import pytest

from similarity.inbox.bucket import STATE_KEY, Bucket, s3_client
from similarity.inbox.history import current_of
from similarity.inbox.notes import Deployed, Served, now
from similarity.inbox.publications import publications
from similarity.incidents.facts import StateFacts
from similarity.incidents.state import IncidentState, state_version

REGION = "eu-west-1"
BUCKET = "states-of-a-stack"
DEPLOYED = Deployed(
    model="tiny", fingerprint="f1", dimension=4, longest_input=128, max_tokens=128, text_preparation="unidecode"
)
IDS = range(1, 21)


@contextmanager
def stand_in_for_aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": REGION}.items():
        monkeypatch.setenv(name, value)
    with moto.mock_aws():
        yield


@cache
def raw_client(service: Literal["s3", "cloudformation"] = "s3") -> Any:
    """Made once, because that takes half a second."""
    return boto3.client(service, region_name=REGION)


our_client = cache(s3_client)


def make_bucket() -> Bucket:
    client = raw_client()
    client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    return Bucket(BUCKET, our_client(REGION))


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


def run_job(bucket: Bucket, deployed: Deployed = DEPLOYED) -> Served | None:
    """Notes what is served, as the job does after each publication."""
    found = current_of(publications(bucket), deployed)
    if found is None or found.facts is None:
        return None
    served = Served(found.facts, found.time, found.stored.key, found.stored.version_id, deployed, now())
    served.write(bucket)
    return served


def put_by_hand(content: bytes, key: str = STATE_KEY, **options: Any) -> None:
    raw_client().put_object(Bucket=BUCKET, Key=key, Body=content, **options)


def versions_of(key: str = STATE_KEY) -> list[str]:
    """The ids of an object's versions, newest first."""
    found = raw_client().list_object_versions(Bucket=BUCKET, Prefix=key).get("Versions", [])
    return [each["VersionId"] for each in found if each["Key"] == key]
