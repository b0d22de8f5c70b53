"""What a Lambda does with an event: prime, keep warm, or answer; one line in the log about it, and its metrics.

An event becomes a request in `request`, an answer becomes a response in `answers`.

The log never holds a caller's text or another value that a caller chose. Its lines are made for Lambda's JSON format,
in which each field of `extra` is a field of the line, without those that are None; awslambdaric adds the request's id.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from functools import update_wrapper
from typing import Any, overload

from similarity import __version__
from similarity.answer import Facts
from similarity.api import parameters as checks
from similarity.api.answers import Document, document_response, envelope, response
from similarity.api.request import Request, accepts_gzip, is_from_gateway, read_request
from similarity.api.routes import route_of
from similarity.errors import SimilarityError, reason_of
from similarity.metrics import Metric, write_metrics

__all__ = ["Endpoint", "Request", "endpoint"]

log = logging.getLogger(__name__)

# Counts the calls of this process. The first one is the cold start.
_calls = itertools.count()

Respond = Callable[[Request], Mapping[str, Any] | Document]
Ready = Callable[[], object]
ErrorPage = Callable[[int, str], Document]


def _nothing() -> None:
    """Gets ready a handler that needs nothing."""


@dataclass(frozen=True)
class _Outcome:
    """What became of a request. error: the kind of the error; None if it was answered."""

    status: int
    facts: Facts
    error: str | None = None

    def log_fields(self) -> dict[str, object]:
        return {"status": self.status, "error": self.error, **self.facts.log_fields()}

    def measure(self, route: str, *, cold_start: bool) -> None:
        write_metrics({Metric.REQUESTS: 1}, {"Route": route, "Status": str(self.status)})
        values = self.facts.measured()
        if self.status >= 500:
            values[Metric.FAILED_ANSWERS] = 1
        write_metrics(values | _starts(cold_start=cold_start))


def _starts(*, cold_start: bool) -> dict[Metric, float]:
    return {Metric.COLD_STARTS: 1} if cold_start else {}


class Endpoint:
    """A Lambda handler made of a function from a request to the fields of the answer.

    API Gateway gets a response whose body is the JSON envelope; a direct invoke gets the envelope itself. Answering
    raises nothing: a SimilarityError becomes its status and sentence. Any other error, and an answer that JSON can't
    hold, becomes a 500 whose cause is logged.

    A Document is sent without the envelope, compressed if the caller can read that. Errors have the envelope, unless
    there is an `error_page`.

    parameters: the names that the route knows, or None where it doesn't say. Others are ignored with a warning.
    fields: the type of the answer's fields, of `similarity.api.answers`, for the API's document; None where it doesn't
        say. media_type: for the API's document too, of a handler that answers with a Document; else "".
    error_page: makes the page that API Gateway gets for an error of its status and sentence. It has the media_type.
    ready: loads and tries what answers need. Two events call it: a deployment *primes* with an event that is empty, a
    schedule keeps the Lambda *warm* with `{"warm": true}`. If it raises, the event raises, because deployment and
    schedule take any answer for success.
    """

    def __init__(
        self,
        respond: Respond,
        parameters: Sequence[str] | None = None,
        ready: Ready = _nothing,
        fields: type | None = None,
        media_type: str = "",
        error_page: ErrorPage | None = None,
    ) -> None:
        update_wrapper(self, respond)
        self.parameters = parameters
        self.fields = fields
        self.media_type = media_type
        self.route = route_of(respond.__module__)
        self._respond = respond
        self._ready = ready
        self.error_page = error_page

    def for_module(self, module: str) -> Endpoint:
        """The same endpoint for another handler file: `handler = similar.handler.for_module(__name__)`."""
        other = copy(self)
        other.route = route_of(module)
        return other

    def __call__(self, event: Any, context: Any) -> dict[str, Any]:
        del context
        route: dict[str, object] = {"route": self.route}
        cold_start = next(_calls) == 0
        process = {"cold_start": cold_start, "version": __version__}
        warming = _is_warming(event)
        if warming or event is None or event == {}:
            write_metrics(_starts(cold_start=cold_start))
            self._get_ready()
            if warming:
                _log("warmed", route | process)
                return envelope(200, {"warnings": [], "warm": True})
            _log("primed", route | process)
            return self._answer(event)[0]
        answer, outcome = self._answer(event)
        _log("answered", route | outcome.log_fields() | process)
        outcome.measure(self.route, cold_start=cold_start)
        return answer

    def _get_ready(self) -> None:
        try:
            self._ready()
        except Exception as error:
            # An alarm reads this. A service that nobody calls would else fail unseen.
            write_metrics({Metric.FAILED_ANSWERS: 1})
            if isinstance(error, SimilarityError):  # awslambdaric logs the stack trace, but not `detail`
                _log("not ready", {"route": self.route, "reason": reason_of(error)}, logging.ERROR)
            raise

    def _answer(self, event: Any) -> tuple[dict[str, Any], _Outcome]:
        to_gateway = is_from_gateway(event)
        request = Request({})
        try:
            request = read_request(event)
            checks.warn_of_unknown(request, self.parameters)
            answer = self._respond(request)
            if isinstance(answer, Document):
                return self._document(answer, event), _Outcome(200, request.facts)
            fields = {"warnings": request.warnings, **answer}
            return response(200, fields, to_gateway=to_gateway), _Outcome(200, request.facts)
        except Exception as raised:
            error = raised
        status, told = _told(error)
        try:
            if self.error_page and to_gateway:
                page = self.error_page(status, told["msg"])
                return self._document(page, event), _failed(status, request.facts, error)
            fields = {"warnings": request.warnings, **told}
            return response(status, fields, to_gateway=to_gateway), _failed(status, request.facts, error)
        except Exception as raised:  # of a warning or a status that JSON can't hold
            error = raised
        status, told = _told(error)
        fields = {"warnings": [], **told}
        return response(status, fields, to_gateway=to_gateway), _failed(status, request.facts, error)

    def _document(self, document: Document, event: Any) -> dict[str, Any]:
        return document_response(document, compressed=accepts_gzip(event))


@overload
def endpoint(respond: Respond) -> Endpoint: ...


@overload
def endpoint(
    *,
    parameters: Sequence[str] | None = None,
    ready: Ready = _nothing,
    fields: type | None = None,
    media_type: str = "",
    error_page: ErrorPage | None = None,
) -> Callable[[Respond], Endpoint]: ...


def endpoint(
    respond: Respond | None = None,
    *,
    parameters: Sequence[str] | None = None,
    ready: Ready = _nothing,
    fields: type | None = None,
    media_type: str = "",
    error_page: ErrorPage | None = None,
) -> Endpoint | Callable[[Respond], Endpoint]:
    """Makes an `Endpoint` of a function, as `@endpoint` or `@endpoint(parameters=…, ready=…, fields=…)`."""
    if respond is not None:
        return Endpoint(respond, parameters, ready, fields, media_type, error_page)
    return lambda respond: Endpoint(respond, parameters, ready, fields, media_type, error_page)


def _is_warming(event: Any) -> bool:
    """Python takes 1 for equal to True; a schedule sends true."""
    return isinstance(event, Mapping) and set(event) == {"warm"} and event["warm"] is True


def _told(error: Exception) -> tuple[int, dict[str, str]]:
    """Status, and sentence and code for the caller. Logs the cause of a 500 or 503. Raises nothing."""
    try:
        if isinstance(error, SimilarityError):
            status, told, detail = error.status, {"msg": str(error), "code": error.code}, error.detail
            if status >= 500:
                _log("not answered", level=logging.ERROR, error=_cause(error, detail))
            return status, told
    except Exception as unforeseen:
        error = unforeseen
    _log("unexpected error", level=logging.ERROR, error=_cause(error, "its message may quote the caller"))
    msg = "Error! Something went wrong on our side; the cause is in our log."
    return 500, {"msg": msg, "code": SimilarityError.code}


def _cause(error: Exception, message: str) -> Exception:
    """An error of the same name and with the same stack trace, but with a message that is fit for the log."""
    kind = type(type(error).__name__, (Exception,), {"__module__": type(error).__module__})
    cause: Exception = kind(message)
    return cause.with_traceback(error.__traceback__)


def _failed(status: int, facts: Facts, error: Exception) -> _Outcome:
    return _Outcome(status, facts, type(error).__name__)


def _log(
    message: str, fields: Mapping[str, object] | None = None, level: int = logging.INFO, error: Exception | None = None
) -> None:
    """A log that can't be written to is no reason to withhold an answer."""
    with suppress(Exception):
        log.log(level, message, extra=fields, exc_info=error)
