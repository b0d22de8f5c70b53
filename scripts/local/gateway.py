"""API Gateway's HTTP API as an ASGI app: HTTP request to event, handler's answer to HTTP response.

The events have payload format 2.0 as API Gateway sends it; answers are read by the same rules. Starting a server and
finding model and state is left to `local.server`.

Source of the formats and rules:
https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
"""

from __future__ import annotations

import base64
import importlib
import json
import logging
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from similarity.api.charsets import charset_of
from similarity.api.routes import ALLOWED_HEADERS, HandlerFile, methods_of

log = logging.getLogger("uvicorn.error")

Handler = Callable[[dict[str, Any], object], Any]

# Bodies of these types, and of text/*, reach the handler as text, all others as base64; so do those without a type, and
# those in another encoding than UTF-8. AWS's page does not say so; measured in https://github.com/floci-io/floci/issues/2172.
_TEXT_TYPES = ("application/json", "application/javascript", "application/xml", "application/graphql")


def gateway(handlers: Iterable[HandlerFile], allowed_origins: Sequence[str]) -> Starlette:
    """An app with a route for each handler file, which is imported by its module's name. A page is also at `/`."""
    handlers = list(handlers)
    routes = []
    for found in handlers:
        endpoint = _endpoint(importlib.import_module(found.module).handler)
        # A person who opens the server in a browser sees the page.
        for path in (found.route, "/") if found.page else (found.route,):
            route = Route(path, endpoint)
            # Given to Route(), GET would bring HEAD along. In API Gateway it doesn't.
            route.methods = set(found.methods)
            routes.append(route)
    cors = Middleware(
        CORSMiddleware,
        allow_origins=list(allowed_origins),
        allow_methods=methods_of(handlers),
        allow_headers=list(ALLOWED_HEADERS),
        allow_credentials=True,
    )
    # API Gateway answers a route that it doesn't know and a method that the route doesn't have alike.
    not_found = {404: _not_found, 405: _not_found}
    app = Starlette(routes=routes, middleware=[cors], exception_handlers=not_found)
    # To API Gateway /similar/ is another route than /similar.
    app.router.redirect_slashes = False
    return app


def _endpoint(handler: Handler) -> Callable[[Request], Any]:
    async def respond(request: Request) -> Response:
        event = to_event(request, await request.body())
        try:
            return to_response(await run_in_threadpool(handler, event, None))
        except Exception:
            log.exception("%s raised", event["rawPath"])
            return JSONResponse({"message": "Internal Server Error"}, status_code=500)

    return respond


async def _not_found(request: Request, error: Exception) -> Response:
    del request, error
    return JSONResponse({"message": "Not Found"}, status_code=404)


def to_event(request: Request, body: bytes) -> dict[str, Any]:
    """The event, payload format 2.0, that API Gateway would make of a request.

    A broken percent escape in the query stays as it is, as in browsers. No page of AWS says what API Gateway does with
    one. A REST API was seen to answer 400 by itself: https://github.com/adamchainz/apig-wsgi/pull/102.
    """
    headers = _joined(request.headers.items())
    query = _joined(request.query_params.multi_items())
    text = _as_text(body, headers.get("content-type", ""))
    method, path, now = request.method, request.url.path, time.time()
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": f"{method} {path}",
        "rawPath": path,
        "rawQueryString": request.url.query,
        "headers": headers,
        "requestContext": {
            "accountId": "anonymous",
            "apiId": "local",
            "domainName": headers.get("host", ""),
            "domainPrefix": "local",
            "http": {
                "method": method,
                "path": path,
                "protocol": f"HTTP/{request.scope['http_version']}",
                "sourceIp": request.client.host if request.client else "",
                "userAgent": headers.get("user-agent", ""),
            },
            "requestId": uuid.uuid4().hex,
            "routeKey": f"{method} {path}",
            "stage": "$default",
            "time": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now)),
            "timeEpoch": int(now * 1000),
        },
        "isBase64Encoded": text is None,
    }
    if query:
        event["queryStringParameters"] = query
    if body:
        event["body"] = base64.b64encode(body).decode() if text is None else text
    return event


def _as_text(body: bytes, content_type: str) -> str | None:
    """A body that reaches the handler as text; None for one that does as base64.

    Bytes that are not UTF-8 although their type says so go as base64, so that none is lost.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    is_text = media_type.startswith("text/") or media_type in _TEXT_TYPES
    if body and not (is_text and charset_of(content_type).lower() in ("", "utf-8")):
        return None
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _joined(items: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Repeated headers and parameters are joined with commas in format 2.0."""
    joined: dict[str, str] = {}
    for name, value in items:
        joined[name] = f"{joined[name]},{value}" if name in joined else value
    return joined


def to_response(answer: Any) -> Response:
    """The HTTP response that API Gateway would make of a handler's answer.

    Raises ValueError or TypeError where it would give up: a body that is no string, a status that is no number.
    """
    if isinstance(answer, str):
        return Response(answer, media_type="application/json")
    if not isinstance(answer, dict) or "statusCode" not in answer:
        return JSONResponse(answer)
    content = answer.get("body", "")
    if not isinstance(content, str):
        raise TypeError(f"body must be a string, not {type(content).__name__}: {json.dumps(content)[:80]}")
    headers = {name.lower(): value for name, value in answer.get("headers", {}).items()}
    return Response(
        base64.b64decode(content) if answer.get("isBase64Encoded") else content,
        status_code=int(answer["statusCode"]),
        headers={"content-type": "text/plain;charset=UTF-8"} | headers,
    )
