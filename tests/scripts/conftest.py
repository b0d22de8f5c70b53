"""Fixtures for what fetches models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hub_server import Hub, running_hub


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture(scope="session")
def tiny_files(tiny_model_dir: Path) -> dict[str, bytes]:
    """The tiny model as a hub has it: without what this project's scripts add."""
    return {
        name: (tiny_model_dir / name).read_bytes() for name in ("config.json", "tokenizer.json", "model.safetensors")
    }
