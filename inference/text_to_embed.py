"""GET and POST /text-to-embed: the CLS vector of a text."""

from typing import Any

from similarity.api import parameters
from similarity.api.events import Request, endpoint
from similarity.service import service


@endpoint(parameters=("text",), ready=lambda: service().embedding("ready"))
def handler(request: Request) -> dict[str, Any]:
    return {"embedding": request.take(service().embedding(parameters.text(request)))}
