"""Stand-ins for Lambdas that share a shelf: an image of the tiny model, and handlers of this process that serve it."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from similarity.inbox.bucket import STATE_KEY
from similarity.incidents.state import TIME_FORMAT, IncidentState, state_version
from similarity.service import service
from similarity.shelf.versions import STATE_FILENAME, put, state_name


@dataclass(frozen=True)
class Image:
    """A model folder with a state, and the folder that all Lambdas mount."""

    model_dir: Path
    mount: Path

    @property
    def shelf(self) -> Path:
        return self.mount / "shelf"

    @property
    def states(self) -> Path:
        return self.shelf / "states"

    @property
    def state_path(self) -> Path:
        return self.model_dir / "incident_cls.pt"

    def shelve(self, state: IncidentState | None = None) -> dict[str, Any]:
        """What the job answers at a deployment of this image, with another state if one is given."""
        if state is not None:
            state.save(self.state_path)
        return self.call_job({})

    def call_job(self, event: dict[str, Any]) -> dict[str, Any]:
        """What the job answers to an event: SCHEDULED, or OBJECT_CREATED as S3 reports a new state."""
        answer: dict[str, Any] = importlib.import_module("jobs.shelve_state").handler(event, None)
        return answer

    def put(self, state: IncidentState) -> str:
        """Puts a state on the shelf, as a job of any image would; gives its name there."""
        path = self.mount / "new.pt"
        state.save(path)
        name = state_name(state.built_at, state_version(path))
        self.states.mkdir(parents=True, exist_ok=True)
        put(self.states / name, {STATE_FILENAME: path})
        path.unlink()
        return name


# Events of the job that aren't deployments, as EventBridge sends them; shortened.
SCHEDULED = {"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}}
OBJECT_CREATED = {"source": "aws.s3", "detail-type": "Object Created", "detail": {"object": {"key": STATE_KEY}}}

PassTime = Callable[[float], None]
QUESTION = {"text": "a robot in a warehouse", "num": -1}


def log_lines(stderr: str) -> list[dict[str, Any]]:
    """The lines of JSON in what a process logged, without those of metrics."""
    lines = [json.loads(line) for line in stderr.splitlines() if line.startswith("{")]
    return [line for line in lines if "_aws" not in line]


def ask(module: str = "similar", event: dict[str, Any] | None = None) -> dict[str, Any]:
    """The body of an answer of status 200."""
    envelope = importlib.import_module(module).handler(QUESTION if event is None else event, None)
    assert envelope["statusCode"] == 200, envelope
    body: dict[str, Any] = envelope["body"]
    return body


def start_again() -> None:
    """What follows is answered as by a process that has just started."""
    service.cache_clear()


def with_titles(state: IncidentState, title: str, built_at: str = "") -> IncidentState:
    return dataclasses.replace(state, titles=[title] * len(state), built_at=built_at)


def days_ago(days: float) -> str:
    """A time as a state says when it was built."""
    return f"{datetime.now(UTC) - timedelta(days=days):{TIME_FORMAT}}"


def make_old(folder: Path, seconds: float) -> None:
    """As if it had been written so long ago."""
    then = time.time() - seconds
    os.utime(folder, (then, then))


def titles() -> set[str]:
    return {incident["title"] for incident in ask()["incidents"]}
