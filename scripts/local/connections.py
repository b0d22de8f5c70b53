"""The local server's connections: incomplete requests, callers that hang up, and the end by Ctrl-C.

uvicorn alone would wait for ever for the rest of a request. It would log a traceback after a hang-up or Ctrl-C.
"""

from __future__ import annotations

import asyncio
import logging

import h11
import uvicorn
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

log = logging.getLogger("uvicorn.error")

# A request must arrive within this time. API Gateway waits as long for a Lambda's answer.
REQUEST_S = 30.0
# Ctrl-C waits so long for unfinished answers.
GRACE_S = 5


class ImpatientProtocol(H11Protocol):
    """Closes a connection if no complete request arrives within REQUEST_S, even if the caller keeps sending."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        if self.conn.their_state is h11.SEND_BODY:  # uvicorn would wait for the rest of the body
            self.transport.close()
        super().shutdown()

    def _watch(self) -> None:
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._unwatch()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(REQUEST_S, self._give_up)

    def _unwatch(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        log.info("Closed a connection: no whole request arrived within %g s", REQUEST_S)
        self.transport.close()


def ending_quietly(app: ASGIApp) -> ASGIApp:
    """Wraps `app`: no traceback if the caller hangs up or Ctrl-C cuts off an answer."""

    async def quiet(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except ClientDisconnect:
            log.info("%s %s: the connection ended before the request was whole", scope["method"], scope["path"])
        except asyncio.CancelledError:
            await JSONResponse({"message": "Service Unavailable"}, status_code=503)(scope, receive, send)

    return quiet


def server(app: ASGIApp) -> uvicorn.Server:
    """A server for `app`. Its `run` takes a bound socket and ends with Ctrl-C."""
    config = uvicorn.Config(
        ending_quietly(app), http=ImpatientProtocol, ws="none", lifespan="off", timeout_graceful_shutdown=GRACE_S
    )
    return uvicorn.Server(config)
