"""GET and POST /embed-to-db-similar: the recorded incidents most like a CLS vector. Loads no model."""

from similarity.api import answers, parameters
from similarity.api.events import Request, endpoint
from similarity.service import service

# API Gateway gives up after 30 s, but a first start that takes longer still ends: the second try finds it warm.
TIMEOUT_S = 60
# It loads no model, and took 35 MiB. This much buys more than half a CPU, so that it starts in a second.
MEMORY_MIB = 1024


@endpoint(
    parameters=("embed", "num", "metric", "exclude"),
    ready=lambda: service().dimension(),
    fields=answers.RankedFields,
)
def handler(request: Request) -> answers.RankedFields:
    vector, asked = parameters.embed(request, service().dimension()), parameters.asked_of_vector(request)
    return answers.ranked(request.take(service().similar_to_vector(vector, asked)))
