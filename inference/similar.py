"""GET and POST /similar: the recorded incidents most like a text, or like a recorded incident."""

from similarity.api import answers, parameters
from similarity.api.events import Request, endpoint
from similarity.asked import Asked
from similarity.service import service

# API Gateway gives up after 30 s, but a first start that takes longer still ends: the second try finds it warm.
TIMEOUT_S = 60


@endpoint(
    parameters=("text", "incident_id", "num", "metric", "exclude", "explain", "embedding"),
    ready=lambda: service().similar_to_text("ready", Asked(num=1)),
    fields=answers.RankedFields,
)
def handler(request: Request) -> answers.RankedFields:
    query, asked = parameters.text_or_incident(request), parameters.asked(request)
    return answers.ranked(request.take(service().similar(query, asked)))
