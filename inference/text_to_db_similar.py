"""GET and POST /text-to-db-similar: `/similar` under the name that the AIID site calls."""

import similar

# As in similar.py: constants are read from each file by itself.
TIMEOUT_S = 60

handler = similar.handler.for_module(__name__)
