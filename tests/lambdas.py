"""Asking the handlers of this process, as a Lambda that has just started or that runs on."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Callable
from typing import Any

from similarity.incidents.state import IncidentState
from similarity.service import service

PassTime = Callable[[float], None]
QUESTION = {"text": "a robot in a warehouse", "num": -1}


def log_lines(stderr: str) -> list[dict[str, Any]]:
    """The lines of JSON in what a process logged."""
    return [json.loads(line) for line in stderr.splitlines() if line.startswith("{")]


def ask(module: str = "similar", event: dict[str, Any] | None = None) -> dict[str, Any]:
    """The body of an answer of status 200."""
    envelope = importlib.import_module(module).handler(QUESTION if event is None else event, None)
    assert envelope["statusCode"] == 200, envelope
    body: dict[str, Any] = envelope["body"]
    return body


def start_again() -> None:
    """What follows is answered as by a process that has just started."""
    service.cache_clear()


def with_titles(state: IncidentState, title: str) -> IncidentState:
    return dataclasses.replace(state, titles=[title] * len(state))


def titles() -> set[str]:
    return {incident["title"] for incident in ask()["incidents"]}
