"""GET and POST /similar: the recorded incidents most like a text."""

from typing import Any

from similarity.api import answers, parameters
from similarity.api.events import Request, endpoint
from similarity.service import service

# API Gateway gives up after 30 s, but a first start that takes longer still ends: the second try finds it warm.
TIMEOUT_S = 60


@endpoint(parameters=("text", "num", "metric"), ready=lambda: service().similar_to_text("ready", 1, "cosine"))
def handler(request: Request) -> dict[str, Any]:
    text, num, metric = parameters.text(request), parameters.num(request), parameters.metric(request)
    return answers.ranked(request.take(service().similar_to_text(text, num, metric)))
