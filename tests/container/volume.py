"""A Docker volume in place of EFS: its root belongs to the access point's user, with the access point's mode."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import PurePosixPath

from container.engine import docker

OWNER, MODE = "1001:1001", "750"
_MOUNT = "/volume"


@dataclass(frozen=True)
class Volume:
    """Looked into, and written to, by a container of its own in which root has it mounted."""

    name: str

    @classmethod
    def create(cls, image: str, *, size_mib: int | None = None) -> Volume:
        """An empty one; with a size, a file system of its own that has no room for more. `image` has a shell."""
        name = f"similar-incidents-volume-{uuid.uuid4().hex[:12]}"
        options = ["type=tmpfs", "device=tmpfs", f"o=size={size_mib}m"] if size_mib is not None else []
        docker("volume", "create", *(f"--opt={option}" for option in options), name)
        docker(
            *("run", "--detach", "--name", name, "--network=none", "--user=0:0", "--entrypoint=sleep"),
            *(f"--mount=type=volume,src={name},dst={_MOUNT}", image, "infinity"),
        )
        volume = cls(name)
        volume.run("sh", "-c", f"chown {OWNER} {_MOUNT} && chmod {MODE} {_MOUNT}")
        return volume

    def remove(self) -> None:
        docker("rm", "--force", self.name)
        docker("volume", "rm", "--force", self.name)

    def __enter__(self) -> Volume:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def run(self, *command: str, user: str = "0:0") -> str:
        """What a command prints whose working directory is the volume's root. Raises DockerError."""
        return docker("exec", "--user", user, "--workdir", _MOUNT, self.name, *command)

    def files(self) -> dict[PurePosixPath, str]:
        """SHA-256 of every file, by its path from the volume's root."""
        lines = self.run("sh", "-c", "find . -type f -exec sha256sum {} +").splitlines()
        return {PurePosixPath(line[64:].strip()): line[:64] for line in lines}
