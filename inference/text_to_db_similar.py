"""GET and POST /text-to-db-similar: `/similar` under the name that the AIID site calls."""

import similar

handler = similar.handler.for_module(__name__)
