"""Computes vectors on a Ray cluster (https://docs.ray.io): each worker process has an encoder and embeds parts.

Ray Data spreads the parts over the workers. If a worker process or its machine is lost, Ray starts another process and
repeats the parts that weren't done. The parts come back as they finish, so a stopped build loses only the last few.

Workers get the code of this project from the driver, which is the process that builds the state. They don't get the
model: each machine needs the same model folder at the same path.
"""

from __future__ import annotations

import logging
import os
import platform
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

import similarity
from similarity.encoder.loading import load_encoder
from similarity.encoder.text_encoder import TextEncoder
from similarity.errors import ModelError, one_line
from similarity.refresh.compute import Compute, encode_part, parts
from similarity.settings import Precision
from similarity.vectors import Vector

# A worker's share of a machine. A worker computes with as many threads.
DEFAULT_CPUS = 1.0
# Ray keeps each block of a dataset in mind, so there shouldn't be millions. A worker gives back a block at a time.
_MOST_BLOCKS = 10_000

# The beginnings of their names.
_RAY_DATA_THREADS = ("StreamingExecutor", "iter_threaded")

_REACH_S = 10.0
# Ray tries for minutes to reach a cluster, and prints much meanwhile. So another process tries first, for this time:
# Ray looks for this machine among those of the cluster for up to 20 s.
_JOIN_S = 60.0
_JOIN = """
import sys
import ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False)
except (Exception, SystemExit) as error:
    sys.exit(f"{type(error).__name__}: {error}".replace(chr(10), " "))
"""


class ClusterError(Exception):
    """Ray is missing, the cluster can't be used, or its workers can't embed. The message is a sentence or two."""


class Embedder:
    """A worker: an encoder in a process of its own, on any machine of the cluster.

    A failure is an answer, because as an exception it would come to the driver inside Ray's own traces.
    """

    def __init__(self, model_dir: str, max_tokens: int, precision: Precision, fingerprint: str) -> None:
        """fingerprint: the driver's model, which the folder must have here too."""
        self._encoder: TextEncoder | None = None
        try:
            encoder = load_encoder(model_dir, engine="torch", precision=precision, max_tokens=max_tokens)
            encoder.files.require_weights_unchanged()
        except ModelError as error:
            self._problem = f"the model can't be loaded on {platform.node()}: {error.detail}"
            return
        if encoder.fingerprint == fingerprint:
            self._encoder = encoder
        else:
            self._problem = (
                f"{model_dir} on {platform.node()} holds another model than this build's (fingerprint "
                f"{encoder.fingerprint[:16]}, not {fingerprint[:16]}). Copy the model folder to the same path on each "
                "machine of the cluster."
            )

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """A batch is one part: its number and its texts. Gives the number, the vectors' bytes and "", or a problem."""
        number = int(batch["number"][0])
        if self._encoder is None:
            return {"number": [number], "vectors": [b""], "problem": [self._problem]}
        try:
            vectors = list(encode_part(self._encoder, [str(text) for text in batch["texts"][0]]).values())
        except ModelError as error:
            return {"number": [number], "vectors": [b""], "problem": [f"{platform.node()}: {error.detail}"]}
        return {"number": [number], "vectors": [np.stack(vectors).tobytes()], "problem": [""]}


@contextmanager
def ray_compute(
    model_dir: Path,
    *,
    max_tokens: int,
    precision: Precision,
    address: str | None,
    workers: int | None,
    fingerprint: str,
    cpus: float = DEFAULT_CPUS,
) -> Iterator[Compute]:
    """Joins or starts a cluster, which is left or ended with the context.

    max_tokens, precision: as for `load_encoder`.
    address: HOST:PORT of the cluster's head, or `auto` for a cluster that runs on this machine too. None: RAY_ADDRESS,
    or else a new cluster of this machine alone.
    workers: the number of worker processes; None: as many as the cluster has room for.
    fingerprint: of the model in `model_dir`. cpus: CPUs a worker, for its threads; 0.5 puts two workers on a CPU.
    Raises ClusterError, and so does the computation.
    """
    # Ray would report its use to its makers. Its processes inherit this.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray.data
    except ImportError as error:
        raise ClusterError(
            f"the package {error.name} isn't installed. Ray needs scripts/states/requirements-ray.txt: "
            "pip install --require-hashes -r scripts/locks/requirements-ray.txt"
        ) from error
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if address != "local":
        _require_cluster(address)
    environment = {
        # The folders of two packages. The model folder is beside them.
        "py_modules": [str(Path(similarity.__file__).parent), str(Path(__file__).parent)],
        "env_vars": {"OMP_NUM_THREADS": str(max(1, int(cpus)))},
    }
    try:
        try:
            ray.init(address=address, runtime_env=environment, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError) as error:
            raise ClusterError(f"Ray can't be started or joined: {_reason(error)}") from error
        ray.data.DataContext.get_current().enable_progress_bars = False
        # What goes wrong is said in the ClusterError.
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        pool = _pool_size(ray.cluster_resources().get("CPU", 0), workers, cpus)
        arguments = (str(model_dir.resolve()), max_tokens, precision, fingerprint)
        with ExitStack() as running:

            def compute(texts: Sequence[str]) -> Iterator[Mapping[str, Vector]]:
                return running.enter_context(closing(_embed(list(parts(texts)), arguments, pool, cpus)))

            yield compute
    finally:
        _join_threads()
        ray.shutdown()


def _join_threads() -> None:
    """Waits for Ray Data's threads. Ray would end this process if one of them asked for anything after its shutdown."""
    for thread in threading.enumerate():
        if thread.name.startswith(_RAY_DATA_THREADS):
            thread.join(_JOIN_S)


def _require_cluster(address: str) -> None:
    """Raises ClusterError, within about a minute, if `address` can't be joined."""
    if address != "auto":
        try:
            host, port = (parsed := urlsplit(f"//{address.rpartition('://')[2]}")).hostname, parsed.port
        except ValueError:
            host = port = None
        if not host or not port:
            raise ClusterError(f"{address} isn't an address of a Ray cluster. Give HOST:PORT of its head, or auto.")
        try:
            socket.create_connection((host, port), _REACH_S).close()
        except OSError as error:
            raise ClusterError(f"no Ray cluster answers at {address}: {error.strerror or error}") from error
    try:
        joined = subprocess.run(
            [sys.executable, "-c", _JOIN, address], capture_output=True, text=True, check=False, timeout=_JOIN_S
        )
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"no Ray cluster answers at {address} within {_JOIN_S:.0f} s") from error
    if joined.returncode:
        reason = (joined.stderr.strip().splitlines() or ["the attempt was ended"])[-1]
        hint = "" if "RAY_AUTH_MODE" in os.environ else ". If it wants a token, set RAY_AUTH_MODE=token"
        raise ClusterError(f"the Ray cluster at {address} can't be joined: {one_line(reason).rstrip('.')}{hint}.")


def _pool_size(cluster_cpus: float, workers: int | None, cpus: float) -> int:
    """Raises ClusterError if the cluster has no room for so many workers."""
    room = int(cluster_cpus / cpus)
    if room < (workers or 1):
        raise ClusterError(
            f"the Ray cluster has {cluster_cpus:g} CPUs, too few for {workers or 1} workers with {cpus:g} CPUs each"
        )
    return workers or room


def _embed(
    todo: Sequence[Sequence[str]], arguments: tuple[Any, ...], pool: int, cpus: float
) -> Generator[Mapping[str, Vector], None, None]:
    """Yields the vectors of each part, in the order in which they are done. arguments: of `Embedder`."""
    import ray.data

    if not todo:
        return
    rows = [{"number": number, "texts": list(texts)} for number, texts in enumerate(todo)]
    # Ray Data restarts lost workers and repeats their blocks, unless told otherwise.
    done = ray.data.from_items(rows, override_num_blocks=min(len(rows), _MOST_BLOCKS)).map_batches(
        Embedder,
        batch_size=1,
        fn_constructor_args=arguments,
        compute=ray.data.ActorPoolStrategy(size=min(pool, len(rows))),
        num_cpus=cpus,
    )
    try:
        # Without prefetching, a part comes as soon as it is done, not when the next one is.
        blocks = iter(done.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
        # Closing ends the work on other parts.
        with closing(blocks):
            for block in blocks:
                for row in block.to_pylist():
                    if row["problem"]:
                        raise ClusterError(row["problem"])
                    texts = todo[row["number"]]
                    vectors = np.frombuffer(row["vectors"], dtype=np.float32).reshape(len(texts), -1)
                    yield dict(zip(texts, vectors, strict=True))
    except ray.exceptions.RayError as error:
        raise ClusterError(f"the workers of the Ray cluster failed: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The last line of an error of Ray's: the lines above are traces of other machines, with colours."""
    return one_line((re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines() or [type(error).__name__])[-1])
