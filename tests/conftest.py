"""Fixtures that several test modules share; what they are made of is in tiny.py."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from hub_server import Hub, running_hub
from lambdas import Image, PassTime
from similarity.encoder.loading import load_encoder
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.incidents.state import IncidentState
from similarity.service import service
from tiny import TINY_TEXTS, VARIABLES, Deployed, state_of_texts, write_tiny_longformer

# The same examples in every run, on any machine, and however slow it is.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("same")

# A shell starts what it puts in the background with Ctrl-C switched off, and every process passes that on.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random Longformer. Shared: don't write to it."""
    return write_tiny_longformer(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="session")
def tiny_encoder(tiny_model_dir: Path) -> TorchEncoder:
    return TorchEncoder.load(tiny_model_dir)


@pytest.fixture(scope="session")
def tiny_state(tiny_encoder: TorchEncoder) -> IncidentState:
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
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MODEL_DIR", str(model_dir))
    service.cache_clear()
    yield Deployed(model_dir, state_path)
    service.cache_clear()


@pytest.fixture
def image(deployed: Deployed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Image:
    """What the handlers serve, as an image; they share a file system that is empty yet."""
    mount = tmp_path / "mount"
    mount.mkdir()
    monkeypatch.setenv("SHELF_DIR", str(mount / "shelf"))
    service.cache_clear()
    return Image(deployed.model_dir, mount)


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> PassTime:
    """Moves the clock of this process on."""
    ahead = [0.0]
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + ahead[0])

    def pass_time(seconds: float) -> None:
        ahead[0] += seconds

    return pass_time


@pytest.fixture
def loaded_from(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders from which models are loaded."""
    folders: list[Path] = []

    def load_and_note(folder: Path, *names: str, **options: Any) -> Any:
        folders.append(folder)
        return load_encoder(folder, *names, **options)

    monkeypatch.setattr("similarity.service.load_encoder", load_and_note)
    return folders


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture(scope="session")
def tiny_files(tiny_model_dir: Path) -> dict[str, bytes]:
    """The tiny model as a hub has it: without the files that this project's scripts add."""
    return {
        name: (tiny_model_dir / name).read_bytes() for name in ("config.json", "tokenizer.json", "model.safetensors")
    }
