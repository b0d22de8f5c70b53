"""GET and POST /text-to-db-similar: `/similar` under the name that the AIID site calls."""

from similar import handler

# As in similar.py: constants are read from each file by itself.
TIMEOUT_S = 60

__all__ = ["handler"]
