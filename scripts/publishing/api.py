"""Asks the API which state it answers with, until it is the new one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aws.stack import Stack
from smoke.api_client import Api, NoReplyError, UnexpectedError
from smoke.signing import Signer

# A Lambda in use looks at the shelf every 10 s. NFS may show a new folder a minute late.
WAIT_S = 120.0
_PAUSE_S = 2.5
# A cold start takes some seconds.
_REPLY_S = 15.0


@dataclass(frozen=True)
class Answer:
    """What GET /health said of the state.

    state: its fields, empty if there was no such answer. problem: why. is_refused: whether API Gateway refused what was
    signed, which waiting doesn't change.
    """

    state: Mapping[str, Any]
    problem: str = ""
    is_refused: bool = False

    @property
    def version(self) -> str:
        return str(self.state.get("version", ""))


def client(stack: Stack, region: str) -> Api:
    """Raises NotSignedError if the stack's API takes signed requests only, and there are no credentials."""
    return Api(stack.api_url, _REPLY_S, Signer(region) if stack.takes_signed_only else None)


def health(api: Api) -> Answer:
    try:
        reply = api.get("/health", {})
        if api.signs and reply.refusal:
            return Answer({}, f'GET /health: status {reply.status}, "{reply.refusal}"', is_refused=True)
        state = reply.body().get("state")
        if not isinstance(state, dict):
            reply.fail('the body has no object "state"')
    except (NoReplyError, UnexpectedError) as error:
        return Answer({}, str(error))
    return Answer(state)


def wait_for(api: Api, version: str) -> Answer:
    """The first answer with this version; after WAIT_S, or if the API refuses, the last answer."""
    deadline = time.monotonic() + WAIT_S
    while True:
        answer = health(api)
        if answer.version == version or answer.is_refused or time.monotonic() > deadline:
            return answer
        time.sleep(_PAUSE_S)
