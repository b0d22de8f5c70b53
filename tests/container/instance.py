"""An instance of a function, started as Lambda would: the image with its handler, and all that Lambda takes away.

Read-only root, a user that is not root and has no capabilities, a memory limit without swap, /tmp of 512 MB, no
/dev/shm, 1,024 files and processes, and no network but the Runtime API on 127.0.0.1:9001, and the servers that a test
names.
https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html and .../configuration-envvars.html
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Any

from container.engine import DockerError, docker, logs
from container.relay import PORT, PassingOn
from container.runtime_api import TIMEOUT_S, Invoked, RuntimeApi, RuntimeApiError

RELAY = Path(__file__).with_name("relay.py")
LAMBDAS_USER = "993:990"  # what `id` says in a Lambda
# Of the two access points.
JOBS_USER, HANDLERS_USER = "1001:1001", "1002:1001"
MOUNT_PATH = "/mnt/hf_models_cache"
FULL_CPU_MIB = 1769  # at this memory a function has one vCPU: .../dg/configuration-memory.html


@dataclass(frozen=True)
class Function:
    """What a deployment says of a function, and where it differs from that in a test.

    The user is the access point's, not Lambda's: EFS does everything in the name of the access point's user, whoever
    asks, and that is how a local volume does the same. `mounts` are further arguments of `docker run --mount`.
    `servers` are what else it can reach: ports of this machine, by the port of 127.0.0.1 that stands for it in there.
    """

    image: str
    handler: str
    memory_mib: int
    environment: Mapping[str, str] = field(default_factory=dict)
    volume: str | None = None
    user: str = HANDLERS_USER
    mounts: tuple[str, ...] = ()
    read_only: bool = True
    volume_read_only: bool = False
    cpus: float | None = None
    tmp_mib: int = 512
    timeout_s: float = TIMEOUT_S
    servers: Mapping[int, int] = field(default_factory=dict)

    def arguments(self, network: str) -> list[str]:
        """Those of `docker run`."""
        environment = {
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{PORT}",
            "AWS_LAMBDA_FUNCTION_NAME": self.handler.partition(".")[0],
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(self.memory_mib),
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_FORMAT": "JSON",
            "AWS_LAMBDA_LOG_LEVEL": "INFO",
            "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/similar",
            "AWS_LAMBDA_LOG_STREAM_NAME": "2026/01/01/[$LATEST]0123456789abcdef",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "LAMBDA_TASK_ROOT": "/var/task",
            "LAMBDA_RUNTIME_DIR": "/var/runtime",
            "TZ": ":UTC",
            "_HANDLER": self.handler,
            **self.environment,
        }
        mounts = list(self.mounts)
        if self.volume is not None:
            mounts.append(f"type=volume,src={self.volume},dst={MOUNT_PATH}{',readonly' * self.volume_read_only}")
        return [
            *("--user", self.user, "--cap-drop=ALL", "--security-opt=no-new-privileges"),
            *("--memory", f"{self.memory_mib}m", "--memory-swap", f"{self.memory_mib}m"),
            *("--network", network, "--ipc=none"),
            *(["--read-only"] if self.read_only else []),
            f"--tmpfs=/tmp:rw,exec,nosuid,nodev,size={self.tmp_mib}m,mode=1777",
            *("--pids-limit=1024", "--ulimit=nofile=1024:1024"),
            *([f"--cpus={self.cpus}"] if self.cpus else []),
            *(f"--env={name}={value}" for name, value in environment.items()),
            *(f"--mount={mount}" for mount in mounts),
            *(self.image, self.handler),
        ]


@dataclass(frozen=True)
class Traffic:
    """What was sent, or tried, in the instance's network since it was made: counters of the kernel."""

    tcp_connects: int
    udp_sent: int
    without_route: int


@dataclass(frozen=True)
class PeakMemory:
    """Bytes: of the process; of the container, whose page cache counts but makes room when there is need."""

    resident: int
    container: int


class Instance:
    """Runs from construction to `close`. Raises DockerError where it can't be started."""

    def __init__(self, function: Function) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="runtime-api-"))
        self.function = function
        self.container = f"similar-incidents-{uuid.uuid4().hex[:12]}"
        self._relay = f"{self.container}-relay"
        self.api = RuntimeApi(self._folder / f"{PORT}.sock")
        self._passing_on: list[PassingOn] = []
        try:
            for port, on_host in function.servers.items():
                self._passing_on.append(PassingOn(str(self._folder / f"{port}.sock"), ("127.0.0.1", on_host)))
            self._start_relay()
            docker("run", "--detach", "--name", self.container, *function.arguments(f"container:{self._relay}"))
            self._watch = Thread(target=self._give_up_at_its_end, daemon=True)
            self._watch.start()
        except BaseException:
            self.close()
            raise

    def _start_relay(self) -> None:
        docker(
            *("run", "--detach", "--name", self._relay, "--network=none", "--user=0:0", "--entrypoint=python3"),
            *(f"--volume={self._folder}:/api", f"--volume={RELAY}:/relay.py:ro"),
            *(self.function.image, "/relay.py", "/api", str(PORT), *map(str, self.function.servers)),
        )
        deadline = time.monotonic() + TIMEOUT_S
        while not (self._folder / "listening").exists():
            if time.monotonic() > deadline:
                raise DockerError(f"the relay does not listen: {docker('logs', self._relay)}")
            time.sleep(0.01)

    def _give_up_at_its_end(self) -> None:
        with suppress(DockerError):  # removed meanwhile
            docker("wait", self.container, timeout_s=None)
        self.api.give_up()

    def close(self) -> None:
        for container in (self.container, self._relay):
            with suppress(DockerError):  # one that was never made
                docker("rm", "--force", "--volumes", container)
        self.api.close()
        for each in self._passing_on:
            each.close()
        shutil.rmtree(self._folder)

    def __enter__(self) -> Instance:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def invoke(self, event: object, timeout_s: float | None = None) -> Invoked:
        """Raises RuntimeApiError with the instance's end and log where it does not answer in the function's time."""
        try:
            return self.api.invoke(event, self.function.timeout_s if timeout_s is None else timeout_s)
        except RuntimeApiError as error:
            raise RuntimeApiError(f"{error}; {self.state()}; log: {self.log()[-3000:]}") from error

    def ask(self, event: object, timeout_s: float | None = None) -> dict[str, Any]:
        """The envelope in the answer to an event, API Gateway's or a direct one."""
        answer = self.invoke(event, timeout_s).json()
        return dict(json.loads(answer["body"]) if isinstance(answer["body"], str) else answer)

    def init_s(self) -> float:
        """From the start of the process to its first request for an event, which ends what Lambda calls init."""
        ready = self.api.wait_until_ready()
        started = datetime.fromisoformat(re.sub(r"(\.\d{6})\d*Z", r"\1+00:00", self.state()["StartedAt"]))
        return time.time() - started.timestamp() - (time.monotonic() - ready)

    def state(self) -> dict[str, Any]:
        """Docker's: Running, ExitCode, OOMKilled, StartedAt."""
        return dict(json.loads(docker("inspect", "--format", "{{json .State}}", self.container)))

    def log(self) -> str:
        return logs(self.container)

    def run(self, *command: str, user: str | None = None) -> str:
        """What a command in the instance prints, as the instance's user or another. Raises DockerError."""
        return docker("exec", *(["--user", user] if user else []), self.container, *command)

    def peak_memory(self) -> PeakMemory:
        """Of the process that runs the handler, and of the container with the files that it has read."""
        resident = int(re.findall(r"^VmHWM:\s+(\d+) kB", self.run("cat", "/proc/1/status"), re.MULTILINE)[0]) << 10
        paths = "/sys/fs/cgroup/memory.peak /sys/fs/cgroup/memory/memory.max_usage_in_bytes"  # of cgroups 2 and 1
        return PeakMemory(resident, int(self.run("sh", "-c", f"cat {paths} 2>/dev/null || true")))

    def traffic(self) -> Traffic:
        lines = docker("exec", self._relay, "cat", "/proc/net/snmp", "/proc/net/snmp6").splitlines()
        pairs = [line.split() for line in lines]
        counters = {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}
        for names, values in pairwise(pairs):  # snmp has a line of names, then one of values, for each protocol
            if names[0] == values[0] and len(names) > 2:
                counters |= {f"{names[0]}{name}": int(value) for name, value in zip(names[1:], values[1:], strict=True)}
        return Traffic(
            tcp_connects=counters["Tcp:ActiveOpens"],
            udp_sent=counters["Udp:OutDatagrams"] + counters["Udp6OutDatagrams"],
            without_route=counters["Ip:OutNoRoutes"] + counters["Ip6OutNoRoutes"],
        )
