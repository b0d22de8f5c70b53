"""The host of the snapshots that tests of the page and of downloads share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from snapshot_server import Host, running_host


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A host on this machine, which no proxy stands before."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    with running_host() as host:
        yield host
