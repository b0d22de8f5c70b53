"""Asks the API which state it answers with, until it is the new one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from smoke.api_client import Api, NoReplyError, UnexpectedError

# A Lambda in use looks at the shelf every 10 s. NFS may show a new folder a minute late.
WAIT_S = 120.0
_PAUSE_S = 2.5
# A cold start takes some seconds.
_REPLY_S = 15.0


@dataclass(frozen=True)
class Answer:
    """What GET /health said of the state. state: its fields, empty if there was no such answer. problem: why."""

    state: Mapping[str, Any]
    problem: str = ""

    @property
    def version(self) -> str:
        return str(self.state.get("version", ""))


def health(url: str) -> Answer:
    try:
        reply = Api(url, _REPLY_S).get("/health", {})
        state = reply.body().get("state")
        if not isinstance(state, dict):
            reply.fail('the body has no object "state"')
    except (NoReplyError, UnexpectedError) as error:
        return Answer({}, str(error))
    return Answer(state)


def wait_for(url: str, version: str) -> Answer:
    """The first answer with this version; after WAIT_S the last answer."""
    deadline = time.monotonic() + WAIT_S
    while True:
        answer = health(url)
        if answer.version == version or time.monotonic() > deadline:
            return answer
        time.sleep(_PAUSE_S)
