"""Publishes a state of AIID's newest snapshot, if the service serves an older one. A schedule calls this."""

from __future__ import annotations

from typing import Any

TIMEOUT_S = 900


def handler(event: Any, context: Any) -> dict[str, Any]:
    raise NotImplementedError
