"""GET and POST /text-to-db-similar: `/similar` under the name that the AIID site calls."""

from similar import handler

__all__ = ["handler"]
