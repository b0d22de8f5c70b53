"""A bucket of a stack in a stand-in for S3, and what gets into it without this project's commands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from typing import Any, Literal

import boto3
import moto
import pytest

from similarity.inbox.bucket import STATE_KEY, Bucket, s3_client

BUCKET = "states-of-a-stack"
REGION = "eu-west-1"

SetTime = Callable[[datetime], None]


@contextmanager
def stand_in_for_aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In this process alone."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "STACK_NAME"):
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


def make_bucket(client: Any = None) -> Bucket:
    """client: leads to the S3 that gets it; default: to that of `stand_in_for_aws`."""
    client = client or our_client(REGION)
    client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    return Bucket(BUCKET, client)


def put_by_hand(content: bytes, key: str = STATE_KEY, **options: Any) -> str:
    """As `aws s3 cp` does. Gives the id of the version."""
    answer = raw_client().put_object(Bucket=BUCKET, Key=key, Body=content, **options)
    return str(answer["VersionId"])


def versions_of(key: str = STATE_KEY) -> list[str]:
    """The ids of an object's versions, newest first."""
    found = raw_client().list_object_versions(Bucket=BUCKET, Prefix=key).get("Versions", [])
    return [each["VersionId"] for each in found if each["Key"] == key]
