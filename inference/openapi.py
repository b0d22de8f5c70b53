"""GET /openapi: this document. Runs no model."""

import json
from pathlib import Path

from similarity.api.answers import Document
from similarity.api.events import Request, endpoint
from similarity.api.openapi import document
from similarity.api.routes import find_handlers
from similarity.errors import SimilarityError
from similarity.service import service

METHODS = ("GET",)
# As in similar.py: constants are read from each file by itself.
TIMEOUT_S = 60
# As in embed_to_db_similar.py.
MEMORY_MIB = 1024

JSON = "application/json"


def written() -> Document:
    """The document. Without a state that can be loaded it lacks the collection's name and the number of dimensions."""
    try:
        facts = service().facts()
    except SimilarityError:
        facts = None
    handlers = find_handlers(Path(__file__).resolve().parent)
    return Document(json.dumps(document(handlers, facts), ensure_ascii=False), JSON)


@endpoint(parameters=(), ready=written, media_type=JSON)
def handler(request: Request) -> Document:
    del request
    return written()
