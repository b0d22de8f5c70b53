"""One line of JSON in the log for what went another way than planned without failing a request.

CloudWatch takes each line as an event of its own and finds the fields of JSON by itself. What fails a request is logged
by `similarity.proxy`, with its traceback.
"""

from __future__ import annotations

import json
import sys
from typing import Literal

from similarity.errors import SimilarityError


def log_event(level: Literal["info", "warning", "error"], event: str, **fields: object) -> None:
    """Writes `event` and what belongs to it, e.g. `reason`, to stderr."""
    print(json.dumps({"level": level, "event": event, **fields}, default=str), file=sys.stderr, flush=True)


def reason_of(error: BaseException) -> str:
    """What an error says to us rather than to a caller, on one line."""
    text = error.detail if isinstance(error, SimilarityError) and error.detail else str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
