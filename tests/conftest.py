"""Fixtures that several test modules share; what they are made of is in tiny.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from similarity.encoder import Encoder
from similarity.service import service
from similarity.state import IncidentState
from tiny import TINY_TEXTS, Deployed, state_of_texts, write_tiny_longformer


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random Longformer. Shared: don't write to it."""
    return write_tiny_longformer(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="session")
def tiny_encoder(tiny_model_dir: Path) -> Encoder:
    return Encoder.load(tiny_model_dir)


@pytest.fixture(scope="session")
def tiny_state(tiny_encoder: Encoder) -> IncidentState:
    """Five incidents (1, 4, 7, 10, 23), each with one text of TINY_TEXTS."""
    return state_of_texts(tiny_encoder, TINY_TEXTS)


@pytest.fixture(scope="session")
def tiny_state_path(tiny_state: IncidentState, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """File of `tiny_state`. Shared: don't write to it."""
    path = tmp_path_factory.mktemp("tiny-state") / "incident_cls.pt"
    tiny_state.save(path)
    return path


@pytest.fixture
def deployed(
    tiny_model_dir: Path, tiny_state: IncidentState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Deployed]:
    """The handlers serve a copy of the tiny model and state, which the test may break."""
    model_dir = tmp_path / "model"
    model_dir.mkdir()
    for path in tiny_model_dir.iterdir():
        (model_dir / path.name).write_bytes(path.read_bytes())
    state_path = model_dir / "incident_cls.pt"
    tiny_state.save(state_path)
    monkeypatch.setenv("MODEL_DIR", str(model_dir))
    for name in ("MODEL_FILENAME", "INCIDENTS_FILENAME", "HF_MODEL_URI"):
        monkeypatch.delenv(name, raising=False)
    service.cache_clear()
    yield Deployed(model_dir, state_path)
    service.cache_clear()
