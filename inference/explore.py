"""GET /explore: a page for people, with matches and a map of all incidents.

Not deployed with API_AUTH=iam: see `Config.deploys`.
"""

from similarity.api.answers import Document
from similarity.api.events import Request, endpoint
from similarity.explore.page import MEDIA_TYPE, error_page, page_of
from similarity.service import service

METHODS = ("GET",)
# As in similar.py: constants are read from each file by itself.
TIMEOUT_S = 60
# As in embed_to_db_similar.py.
MEMORY_MIB = 1024
PAGE = True


@endpoint(parameters=(), ready=lambda: page_of(service().ranking()), media_type=MEDIA_TYPE, error_page=error_page)
def handler(request: Request) -> Document:
    del request
    return page_of(service().ranking())
