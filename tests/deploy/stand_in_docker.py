#!/usr/bin/env python3
"""Docker for the rehearsal: what the CDK's command line is told to run as CDK_DOCKER.

Pushing an image puts it into the stand-in of ECR. Everything else is played, or done by the program that
REHEARSAL_DOCKER names (with REHEARSAL_BUILD_OPTIONS added to a build, e.g. a network). Every call is a line of JSON
in the folder REHEARSAL_DOCKER_DIR, which also keeps the images that were played.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

import boto3

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"


class Docker:
    """Images by name and registries that were logged in to, kept in a folder from one call to the next."""

    def __init__(self, folder: Path, program: str | None) -> None:
        self._images, self._registries = folder / "images", folder / "registries"
        self._images.mkdir(parents=True, exist_ok=True)
        self._registries.mkdir(exist_ok=True)
        self._program = program

    def run(self, arguments: list[str]) -> int:
        match arguments:
            case ["login", "--username", "AWS", "--password-stdin", registry]:
                return self._login(registry, sys.stdin.read())
            case ["push", name]:
                return self._push(name)
            case ["build", *options] if self._program:
                added = shlex.split(os.environ.get("REHEARSAL_BUILD_OPTIONS", ""))
                return subprocess.run([self._program, "build", *added, *options]).returncode
            case _ if self._program:
                return subprocess.run([self._program, *arguments]).returncode
            case ["info", "--format", "{{json .}}"]:
                print(json.dumps(self._info()))
                return 0
            case ["inspect", name]:
                return 0 if self._image(name).exists() else fail(f"No such object: {name}")
            case ["build", *options] if Path("Dockerfile").exists() and options[-1] == ".":
                name = options[options.index("--tag") + 1]
                self._image(name).write_text(hashlib.sha256(Path("Dockerfile").read_bytes()).hexdigest())
                return 0
            case ["tag", name, other] if self._image(name).exists():
                self._image(other).write_bytes(self._image(name).read_bytes())
                return 0
        return fail(f"can't do this: docker {shlex.join(arguments)}")

    def _image(self, name: str) -> Path:
        return self._images / name.replace("/", "_")

    def _info(self) -> dict[str, str]:
        """What Docker says of itself, where it runs on this machine."""
        return {
            "ServerVersion": "28.1.1",
            "Architecture": "x86_64",
            "OperatingSystem": "Debian GNU/Linux 12 (bookworm)",
            "DockerRootDir": str(self._images),
            "Name": platform.node(),
            "KernelVersion": platform.release(),
        }

    def _login(self, registry: str, password: str) -> int:
        if not password.strip():
            return fail("no password")
        (self._registries / registry).touch()
        return 0

    def _push(self, name: str) -> int:
        registry, _, path = name.partition("/")
        repository, _, tag = path.rpartition(":")
        known = self.run(["inspect", name]) == 0
        if not known or not (self._registries / registry).exists():
            return fail(f"An image does not exist locally with the tag: {name}" if not known else "denied: no login")
        # One image, no list of images. Its digest is another for each tag, as it is for each content.
        digest = f"sha256:{hashlib.sha256(tag.encode()).hexdigest()}"
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"digest": digest, "size": 1},
            # Models and packages are the same in all images.
            "layers": [layer("model and packages", 600_000_000), layer(tag, 5_000_000)],
        }
        region = registry.split(".")[3]
        boto3.client("ecr", region_name=region).put_image(
            repositoryName=repository, imageManifest=json.dumps(manifest), imageTag=tag, imageDigest=digest
        )
        return 0


def layer(content: str, size: int) -> dict[str, str | int]:
    return {"digest": f"sha256:{hashlib.sha256(f'layer of {content}'.encode()).hexdigest()}", "size": size}


def fail(message: str) -> int:
    print(f"Error: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    folder = Path(os.environ["REHEARSAL_DOCKER_DIR"])
    call = {"arguments": sys.argv[1:], "no_attestations": os.environ.get("BUILDX_NO_DEFAULT_ATTESTATIONS")}
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "calls.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps(call) + "\n")
    sys.exit(Docker(folder, os.environ.get("REHEARSAL_DOCKER")).run(sys.argv[1:]))
