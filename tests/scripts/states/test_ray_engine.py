"""Ray's workers compute the local engine's vectors, whatever happens to a worker; failures are said in a sentence.

Each test with Ray starts a cluster on this machine and ends it.
"""

from __future__ import annotations

import gc
import logging
import os
import re
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import build_state
from processes import PATIENCE_S, wait_until
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.incidents.state import IncidentState
from similarity.refresh.compute import Compute, Computer, in_this_process, parts
from similarity.refresh.vector_store import VectorStore
from similarity.vectors import Vector
from states import ray_engine
from states.ray_engine import ClusterError, Embedder, ray_compute
from tiny import SAMPLE_DIR, write_tiny_longformer

# Ray's own code warns, and its pipes and sockets are collected late.
pytestmark = pytest.mark.filterwarnings("ignore")

OnRay = Callable[..., AbstractContextManager[Compute]]

# So many parts that each worker gets several.
TEXTS = [f"Incident {number}: a robot dropped a parcel " + "on and on " * (100 + 3 * number) for number in range(120)]


@pytest.fixture(autouse=True)
def usual_log_records() -> Iterator[None]:
    """Ray gives every log record of the process a field, from its import on."""
    yield
    logging.setLogRecordFactory(logging.LogRecord)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where Ray keeps its token, which a process reads once."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def ray(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Ray, whose files go to a folder of this test. A Ray that hangs fails the test."""
    module = pytest.importorskip("ray", reason="needs scripts/states/requirements-ray.txt")

    def give_up(*_: object) -> None:
        raise TimeoutError(f"Ray isn't done within {PATIENCE_S:g} s")

    # Its sockets' paths must be short.
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        monkeypatch.setenv("HOME", str(home))
        # By default Ray's workers give way to all other processes of the machine, such as other tests.
        monkeypatch.setenv("RAY_worker_niceness", "0")
        before = signal.signal(signal.SIGALRM, give_up)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)
        try:
            yield module
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            module.shutdown()
            # What Ray leaves open would be complained about in a later test.
            gc.collect()


@pytest.fixture
def on_ray(tiny_model_dir: Path, tiny_encoder: TorchEncoder) -> OnRay:
    """Two workers on this machine, unless told otherwise. With half a CPU each, both fit on any machine."""
    return partial(
        ray_compute,
        tiny_model_dir,
        max_tokens=0,
        precision="float32",
        address=None,
        workers=2,
        fingerprint=tiny_encoder.fingerprint,
        cpus=0.5,
    )


def require_local_vectors(found: list[Mapping[str, Vector]], encoder: TorchEncoder) -> None:
    """Each text once, in more than one part, with the vector that the encoder gives it here."""
    assert len(found) == len(list(parts(TEXTS))) > 4
    assert sorted(text for part in found for text in part) == sorted(TEXTS)
    ours = {text: vector for part in in_this_process(encoder)(TEXTS) for text, vector in part.items()}
    for part in found:
        for text, vector in part.items():
            assert vector.dtype == np.float32
            assert np.abs(vector - ours[text]).max() < 1e-5


@pytest.mark.slow
def test_all_vectors_come_though_a_worker_is_killed_at_work(
    ray: Any, on_ray: OnRay, tiny_encoder: TorchEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = str(tmp_path / "killed")

    # Defined here, so that Ray sends the class itself: workers can't import this module.
    class KilledOnce(Embedder):
        def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
            if int(batch["number"][0]) == 3:
                try:
                    os.close(os.open(note, os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    pass
                else:
                    os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(batch)

    monkeypatch.setattr(ray_engine, "Embedder", KilledOnce)
    with on_ray() as compute:
        found = list(compute(TEXTS))
    assert Path(note).exists()
    require_local_vectors(found, tiny_encoder)
    assert not ray.is_initialized()


@pytest.mark.slow
def test_a_stopped_build_goes_on_from_the_store(
    ray: Any, on_ray: OnRay, tiny_encoder: TorchEncoder, tmp_path: Path
) -> None:
    def stop(done: int, _: int) -> None:
        if done:
            raise KeyboardInterrupt

    with VectorStore(tmp_path / "store") as store:
        with pytest.raises(KeyboardInterrupt), on_ray(workers=1) as compute:
            Computer(tiny_encoder, store, compute, stop).compute(TEXTS)
        assert not ray.is_initialized()
        with on_ray(workers=None, cpus=1) as compute:
            computer = Computer(tiny_encoder, store, compute)
            stored = computer.get(TEXTS)
            assert computer.compute(TEXTS) == set(TEXTS) - set(stored)
        found = computer.get(TEXTS)
    assert set(stored) in [set(part) for part in parts(TEXTS)]
    require_local_vectors([{text: found[text] for text in part} for part in parts(TEXTS)], tiny_encoder)


@pytest.mark.slow
def test_all_vectors_come_though_a_machine_is_lost_at_work(
    ray: Any, on_ray: OnRay, tiny_encoder: TorchEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.cluster_utils import Cluster

    at_work, lost = tmp_path / "at work", tmp_path / "lost"
    at_work.mkdir()

    class Waits(Embedder):
        """Does one part, and goes on with the next when the machine is lost."""

        parts = 0

        def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
            self.parts += 1
            if self.parts > 1:
                (at_work / str(os.getpid())).touch()
                # Workers can't import the tests' own way of waiting.
                while not lost.exists():
                    time.sleep(0.01)
            return super().__call__(batch)

    monkeypatch.setattr(ray_engine, "Embedder", Waits)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        # A worker needs the whole of a machine here.
        other = cluster.add_node(num_cpus=1)
        with on_ray(address=cluster.address, cpus=1) as compute:
            coming = compute(TEXTS)
            found = [next(coming)]
            wait_until(lambda: len(list(at_work.iterdir())) == 2, "work on both machines")
            cluster.remove_node(other, allow_graceful=False)
            lost.touch()
            found += coming
        require_local_vectors(found, tiny_encoder)
        assert [node.remaining_processes_alive() for node in cluster.list_all_nodes()] == [True]
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_another_model_at_the_path_is_refused(ray: Any, on_ray: OnRay) -> None:
    with on_ray(fingerprint="0123456789abcdef01234567", workers=1) as compute, pytest.raises(ClusterError) as refused:
        next(compute(TEXTS))
    assert re.search(
        r" holds another model than .* not 0123456789abcdef\)\. Copy the model folder ", str(refused.value)
    )


def test_a_worker_says_why_it_can_not_embed(tiny_model_dir: Path, tiny_encoder: TorchEncoder, tmp_path: Path) -> None:
    batch = {"number": np.array([7]), "texts": np.array([["a text"]], dtype=object)}

    def problem(folder: Path) -> str:
        answer = Embedder(str(folder), 0, "float32", tiny_encoder.fingerprint)(batch)
        assert (answer["number"], answer["vectors"]) == ([7], [b""])
        return str(answer["problem"][0])

    assert f"there is no model in {tmp_path / 'none'}" in problem(tmp_path / "none")
    other = write_tiny_longformer(tmp_path / "other", seed=1)
    assert f"{other} on " in problem(other)
    assert "another model" in problem(other)


def test_a_worker_computes_the_vectors_of_one_part(tiny_model_dir: Path, tiny_encoder: TorchEncoder) -> None:
    texts = ["one text", "and another one"]
    worker = Embedder(str(tiny_model_dir), 0, "float32", tiny_encoder.fingerprint)
    answer = worker({"number": np.array([7]), "texts": np.array([texts], dtype=object)})
    assert (answer["number"], answer["problem"]) == ([7], [""])
    vectors = np.frombuffer(answer["vectors"][0], dtype=np.float32).reshape(2, -1)
    assert np.array_equal(vectors, np.stack([tiny_encoder.encode(text).vector for text in texts]))


def test_a_missing_ray_is_said_in_a_sentence(on_ray: OnRay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(ClusterError, match=r"^the package ray.* isn't installed\. .*requirements-ray\.txt"), on_ray():
        pass


@pytest.mark.slow
def test_a_cluster_that_can_not_be_reached_is_said_in_a_sentence(
    ray: Any, on_ray: OnRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusal(address: str | None) -> str:
        with pytest.raises(ClusterError) as refused, on_ray(address=address):
            pass
        assert not ray.is_initialized()
        assert len(str(refused.value).splitlines()) == 1
        return str(refused.value)

    assert refusal("nowhere") == "nowhere isn't an address of a Ray cluster. Give HOST:PORT of its head, or auto."
    assert refusal("a:b:c") == "a:b:c isn't an address of a Ray cluster. Give HOST:PORT of its head, or auto."
    assert "Could not find any running Ray instance" in refusal("auto")
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        # It takes connections, but doesn't speak as Ray does.
        monkeypatch.setattr(ray_engine, "_JOIN_S", 3.0)
        assert refusal(address) == f"no Ray cluster answers at {address} within 3 s"
    assert refusal(address) == f"no Ray cluster answers at {address}: Connection refused"
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert refusal(None) == f"no Ray cluster answers at {address}: Connection refused"


def test_the_pool_fits_into_the_cluster() -> None:
    assert ray_engine._pool_size(2, 2, 0.5) == 2
    assert ray_engine._pool_size(2, None, 0.5) == 4
    assert ray_engine._pool_size(7, None, 4) == 1
    with pytest.raises(ClusterError, match=r"has 2 CPUs, too few for 3 workers with 1 CPUs each"):
        ray_engine._pool_size(2, 3, 1)
    with pytest.raises(ClusterError, match=r"has 2 CPUs, too few for 1 workers with 4 CPUs each"):
        ray_engine._pool_size(2, None, 4)


@pytest.mark.slow
def test_the_command_builds_the_same_state_on_ray(ray: Any, tiny_model_dir: Path, tmp_path: Path) -> None:
    del ray
    states = {}
    for engine, options in {"torch": [], "ray": ["--workers", "2", "--cpus-per-worker", "0.5"]}.items():
        out = tmp_path / f"{engine}.pt"
        arguments = [str(SAMPLE_DIR), "--model", str(tiny_model_dir), "--out", str(out), "--engine", engine, *options]
        assert build_state.main([*arguments, "--cache", str(tmp_path / engine)]) == 0
        states[engine] = IncidentState.load(out)
    assert np.array_equal(states["ray"].incident_ids, states["torch"].incident_ids)
    assert np.allclose(states["ray"].means, states["torch"].means, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_the_command_says_in_a_line_that_there_is_no_cluster(
    tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray", reason="needs scripts/states/requirements-ray.txt")
    out = tmp_path / "state.pt"
    arguments = [str(SAMPLE_DIR), "--model", str(tiny_model_dir), "--out", str(out), "--cache", str(tmp_path / "cache")]
    assert build_state.main([*arguments, "--engine", "ray", "--address", "nowhere"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "build_state: nowhere isn't an address of a Ray cluster. Give HOST:PORT of its head, or auto."
    ]
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--workers", "2"], "--address, --workers and --cpus-per-worker are for --engine ray"),
        (["--engine", "ray", "--workers", "0"], "must be a whole number from 1"),
        (["--engine", "ray", "--cpus-per-worker", "0"], "must be a number above 0"),
        (["--engine", "ray", "--cpus-per-worker", "nan"], "must be a number above 0"),
    ],
)
def test_options_of_ray_are_checked(arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        build_state.main([str(SAMPLE_DIR), *arguments])
    assert exit_.value.code == 2
    assert reason in capsys.readouterr().err.splitlines()[-1]
