"""GET /health: which state, model and code answer; 503 if a text couldn't be answered. Runs no model."""

from similarity.api import answers
from similarity.api.events import Request, endpoint
from similarity.service import service

METHODS = ("GET",)
# As in similar.py: constants are read from each file by itself.
TIMEOUT_S = 60
# As in embed_to_db_similar.py.
MEMORY_MIB = 1024


# A deployment fails if this would answer 503.
@endpoint(parameters=(), ready=lambda: service().health(), fields=answers.HealthFields)
def handler(request: Request) -> answers.HealthFields:
    return answers.health(request.take(service().health()))
