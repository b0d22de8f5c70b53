"""Answers of `docker info`, and the engines that they describe."""

from __future__ import annotations

import platform

from deployment.machine.docker import Engine

# Parts of what `docker info --format '{{json .}}'` prints.
ENGINE = {
    "ServerVersion": "28.2.2",
    "Architecture": "x86_64",
    "OperatingSystem": "Debian GNU/Linux 12 (bookworm)",
    "DockerRootDir": "/var/lib/docker",
    "Name": platform.node(),
    "KernelVersion": platform.release(),
    "ClientInfo": {"Version": "28.2.2", "Context": "default", "Plugins": []},
}
ON_A_MAC = {
    "ServerVersion": "24.0.2",
    "Architecture": "aarch64",
    "OperatingSystem": "Docker Desktop",
    "DockerRootDir": "/var/lib/docker",
    "Name": "docker-desktop",
    "KernelVersion": "5.15.49-linuxkit-pr",
}


def engine_of(**changes: str) -> Engine:
    return Engine.from_info({**ENGINE, **changes})
