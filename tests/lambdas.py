"""Stand-ins for Lambdas that share a cache: an image of the tiny model, and processes that start from it."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from similarity.manifest import ImageManifest
from similarity.service import service
from similarity.state import IncidentState
from tiny import ROOT

Logged = Callable[[], list[dict[str, Any]]]
PassTime = Callable[[float], None]
QUESTION = {"text": "a robot in a warehouse", "num": -1}


@dataclass(frozen=True)
class Image:
    """A model folder with state and manifest, and the folder that is shared."""

    model_dir: Path
    cache_dir: Path

    @property
    def manifest(self) -> ImageManifest:
        manifest = ImageManifest.read(self.model_dir)
        assert manifest is not None
        return manifest

    @property
    def model(self) -> Path:
        """Where the cache has, or would have, the model."""
        return self.cache_dir / "models" / self.manifest.model.id

    @property
    def state(self) -> Path:
        return self.cache_dir / "states" / self.manifest.state.id

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "MODEL_DIR": str(self.model_dir),
            "INCIDENT_CACHE_DIR": str(self.cache_dir),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def is_whole(self) -> bool:
        """Both versions are there to the last bit, the state is in use, and nothing lies about."""
        manifest = self.manifest
        manifest.model.require_same(self.model)
        manifest.state.require_same(self.state)
        pointer = json.loads((self.cache_dir / "states" / "current").read_text())
        names = {
            kind: sorted(path.name for path in (self.cache_dir / kind).iterdir())
            for kind in ("models", "states", "seen")
        }
        return pointer["version"] == manifest.state.id and names == {
            "models": [manifest.model.id],
            "states": sorted([manifest.state.id, "current"]),
            "seen": [manifest.state.id],
        }


def start(image: Image, program: str, *prefix: str, **options: Any) -> subprocess.Popen[str]:
    """A process that runs `program` with the handlers' modules at hand; `prefix` is a command to run it under."""
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", program],
        cwd=ROOT / "inference",
        env=image.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def log_lines(stderr: str) -> list[dict[str, Any]]:
    """The lines of JSON in what a process logged."""
    return [json.loads(line) for line in stderr.splitlines() if line.startswith("{")]


def ask(module: str = "similar", event: dict[str, Any] | None = None) -> dict[str, Any]:
    """The body of an answer of status 200."""
    envelope = importlib.import_module(module).handler(QUESTION if event is None else event, None)
    assert envelope["statusCode"] == 200, envelope
    body: dict[str, Any] = envelope["body"]
    return body


def prime(module: str = "similar") -> None:
    assert importlib.import_module(module).handler({"warm": True}, None)["statusCode"] == 200


def start_again() -> None:
    """What follows is answered as by a process that has just started."""
    service.cache_clear()


def with_titles(state: IncidentState, title: str) -> IncidentState:
    return dataclasses.replace(state, titles=[title] * len(state))


def titles() -> set[str]:
    return {incident["title"] for incident in ask()["incidents"]}
