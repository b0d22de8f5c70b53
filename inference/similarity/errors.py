"""The errors that reach a caller. Each knows its HTTP status and says what happened in one sentence.

What the caller may not see (file names, causes) goes into `detail`, which `similarity.api.events` writes to the log.
"""

from collections.abc import Sequence
from typing import Literal

# The words by which programs tell errors apart. docs/api.md explains them.
Code = Literal[
    "text_missing",
    "text_invalid",
    "embed_missing",
    "embed_invalid",
    "metric_unknown",
    "metric_unavailable",
    "incident_id_invalid",
    "incident_unknown",
    "exclude_invalid",
    "parameters_conflict",
    "request_invalid",
    "model_unavailable",
    "state_unavailable",
    "internal_error",
]

# Characters of a detail that are kept at its start and at its end.
_KEPT = 1000


class SimilarityError(Exception):
    """Base of all of them. `str(error)` is the sentence for the caller; `detail` is for the log.

    status: of HTTP. code: for the caller's program.
    """

    status = 500
    code: Code = "internal_error"

    def __init__(self, message: str, *, detail: str = "") -> None:
        super().__init__(message)
        self.detail = one_line(detail)


class RequestError(SimilarityError):
    """The caller sent something we can't answer."""

    status = 400

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


class UnknownIncidentError(RequestError):
    """The caller named an incident that isn't there."""

    status = 404

    def __init__(self, message: str) -> None:
        super().__init__("incident_unknown", message)


class ModelError(SimilarityError):
    """The model's files are missing, broken or of a kind this project can't run."""

    status = 503
    code = "model_unavailable"

    def __init__(self, detail: str) -> None:
        super().__init__("Error! The model could not be loaded on our side; the cause is in our log.", detail=detail)


class StateError(SimilarityError):
    """The incident state is missing, broken, or made with another model than the one loaded."""

    status = 503
    code = "state_unavailable"

    def __init__(self, detail: str) -> None:
        super().__init__(
            "Error! The incident state could not be loaded on our side; the cause is in our log.", detail=detail
        )


def one_of(names: Sequence[str]) -> str:
    """The values that a caller may choose from, for a sentence: `"a", "b" or "c"`."""
    *others, last = [f'"{name}"' for name in names]
    return f"{', '.join(others)} or {last}" if others else last


def reason_of(error: BaseException) -> str:
    """What an error says to us rather than to a caller, on one line, for the log."""
    text = error.detail if isinstance(error, SimilarityError) and error.detail else one_line(str(error))
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def one_line(text: str) -> str:
    """`text` fit for a line of a log or a terminal: what can't be printed is escaped, and the middle of much left out.

    A file that somebody gave us may hold line breaks where a name belongs; they must not make lines of their own.
    """
    printable = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return printable if len(printable) <= 2 * _KEPT else f"{printable[:_KEPT]} … {printable[-_KEPT:]}"
