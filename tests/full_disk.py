"""A stdout that is a full disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def full_stdout(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Meanwhile, this process and its children can't write to stdout. Needs /dev/full."""
    kept = os.dup(1)
    try:
        with Path("/dev/full").open("w") as full:
            os.dup2(full.fileno(), 1)
            monkeypatch.setattr("sys.stdout", os.fdopen(1, "w", closefd=False))
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
