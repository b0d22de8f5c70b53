"""GET and POST /text-to-embed: the CLS vector of a text."""

from similarity.api import answers, parameters
from similarity.api.events import Request, endpoint
from similarity.service import service

# API Gateway gives up after 30 s, but a first start that takes longer still ends: the second try finds it warm.
TIMEOUT_S = 60


@endpoint(parameters=("text",), ready=lambda: service().embedding("ready"), fields=answers.EmbedFields)
def handler(request: Request) -> answers.EmbedFields:
    return answers.embedding(request.take(service().embedding(parameters.text(request))))
