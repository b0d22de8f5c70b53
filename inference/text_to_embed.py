"""GET and POST /text-to-embed: the CLS vector of a text."""

from typing import Any

from similarity.api import parameters
from similarity.api.events import Request, endpoint
from similarity.service import service

# API Gateway gives up after 30 s, but a first start that takes longer still ends: the second try finds it warm.
TIMEOUT_S = 60


@endpoint(parameters=("text",), warm=lambda: service().prime(model=True, state=False))
def handler(request: Request) -> dict[str, Any]:
    embedding, warnings = service().embedding(parameters.text(request))
    request.warnings += warnings
    return {"embedding": embedding}
