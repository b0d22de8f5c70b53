"""An HTTP server on this machine in front of instances, as API Gateway is in front of Lambdas."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Thread
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from container.instance import Instance
from local.gateway import to_event, to_response


@contextmanager
def serving_instances(instances: Mapping[str, Instance]) -> Iterator[str]:
    """The server's URL. instances: by route."""
    app = Starlette(
        routes=[Route(route, _endpoint(each), methods=["GET", "POST"]) for route, each in instances.items()]
    )
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, ws="none", lifespan="off", log_level="warning"))
    thread = Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def _endpoint(instance: Instance) -> Callable[[Request], Any]:
    async def respond(request: Request) -> Response:
        event = to_event(request, await request.body())
        invoked = await run_in_threadpool(instance.invoke, event)
        return to_response(invoked.json())

    return respond
