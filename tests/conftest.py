"""Fixtures that several test modules share; what they are made of is in tiny.py."""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # There are as many processes as cores. PyTorch reads this when it is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

import build_state
from buckets import BUCKET, REGION, SetTime, make_bucket, stand_in_for_aws
from hub_server import Hub, running_hub
from lambdas import Image, PassTime
from metric_lines import Printed
from similarity.encoder.loading import load_serving_encoder
from similarity.encoder.text_encoder import Encoding
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.inbox.bucket import Bucket
from similarity.incidents.state import IncidentState
from similarity.service import service
from snapshot_server import Host, running_host
from tiny import TINY_TEXTS, VARIABLES, Deployed, state_of_texts, write_tiny_longformer

# The same examples in every run, on any machine, and however slow it is.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("same")

# A shell starts what it puts in the background with Ctrl-C switched off, and every process passes that on.
signal.signal(signal.SIGINT, signal.default_int_handler)


class Sharing(LoadFileScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """Where there are several processes: which tests the same one runs, since they share what takes long to make."""

    def _split_scope(self, nodeid: str) -> str:
        """Those of a file. The tests with Docker are as one file, so that a single process makes base and image.

        So are those with a browser, which a single process starts.
        """
        if nodeid.startswith(("tests/container/", "tests/deploy/")):
            return "Docker"
        if nodeid.startswith("tests/browser/"):
            return "browser"
        return str(super()._split_scope(nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Sharing:
    return Sharing(config, log)


@pytest.fixture
def printed_metrics(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Printed:
    """Makes this process write metrics, as a Lambda does, and reads them."""
    return Printed(monkeypatch, capsys)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints what tests give to `record_property` as "figures", which nothing asserts."""
    for report in [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]:
        for name, value in report.user_properties:
            if name == "figures":
                terminalreporter.section(f"figures of {report.nodeid}")
                terminalreporter.line(str(value))


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
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """The bucket of the stack, for jobs of this process. It is empty yet."""
    with stand_in_for_aws(monkeypatch):
        monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
        monkeypatch.setenv("STATE_BUCKET", BUCKET)
        yield make_bucket()


@pytest.fixture
def set_s3_time(monkeypatch: pytest.MonkeyPatch) -> SetTime:
    """Sets the clock of `bucket`, which then stands still."""
    return lambda time: monkeypatch.setattr("moto.s3.models.utcnow", lambda: time.replace(tzinfo=None))


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
        return load_serving_encoder(folder, *names, **options)

    monkeypatch.setattr("similarity.service.load_serving_encoder", load_and_note)
    return folders


@pytest.fixture
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What build_state keeps between builds; the project's own cache stays as it is."""
    monkeypatch.setattr(build_state, "CACHE_DIR", tmp_path / "cache")
    for name in ("MAX_TOKENS", "SNAPSHOTS_URL", "RECORD_URL", "COLLECTION_NAME", "LICENCE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where to write, in a folder of its own so that leftovers show."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "incident_cls.pt"


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Several threads are slower on a tiny model, by far where other processes are busy too."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that this process encodes with torch."""
    texts: list[str] = []
    encode_batch = TorchEncoder.encode_batch

    def encode_and_note(encoder: TorchEncoder, batch: Sequence[str]) -> list[Encoding]:
        texts.extend(batch)
        return encode_batch(encoder, batch)

    monkeypatch.setattr(TorchEncoder, "encode_batch", encode_and_note)
    return texts


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A host of snapshots on this machine, which no proxy stands before."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    with running_host() as host:
        yield host


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
