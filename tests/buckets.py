"""A stack's bucket, on this machine, and what people put into it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from similarity.inbox.bucket import STATE_KEY, Bucket, s3_client
from similarity.inbox.publications import publish
from similarity.incidents.state import IncidentState

BUCKET = "a-stack-of-states"
REGION = "eu-central-1"

SetTime = Callable[[datetime], None]


def make_bucket() -> Bucket:
    """Makes it where boto3 finds S3."""
    client = s3_client()
    client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    return Bucket(BUCKET, client)


def publish_state(bucket: Bucket, state: IncidentState) -> str:
    """Publishes a state; gives its version."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "state.pt")
        state.save(path)
        return publish(bucket, path)


def put_by_hand(bucket: Bucket, content: bytes, key: str = STATE_KEY) -> str:
    """As `aws s3 cp` does; gives the id of the version."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        path.write_bytes(content)
        return bucket.upload(path, key)


def content_of(state: IncidentState) -> bytes:
    """The bytes of the state's file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "state.pt")
        state.save(path)
        return path.read_bytes()
