"""A bucket for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from published import make_bucket, stand_in_for_aws
from similarity.inbox.bucket import Bucket


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    with stand_in_for_aws(monkeypatch):
        yield make_bucket()
