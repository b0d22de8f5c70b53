"""Documents beside the envelope: their headers and status, compression, and pages that say an error."""

from __future__ import annotations

import base64
import gzip
import json
import logging
from typing import Any

import pytest

from metric_lines import parsed
from similarity.api import request as request_module
from similarity.api.answers import Document, document_response
from similarity.api.events import Endpoint, Request, endpoint
from similarity.errors import RequestError, StateError, UnknownIncidentError
from similarity.metrics import NAMESPACE_VARIABLE

TEXT = "<p>Größe: 🤖</p>" * 100
PAGE = "text/html; charset=utf-8"
ENVELOPE = {"isBase64Encoded", "statusCode", "headers", "multiValueHeaders", "body"}


def event(version: str = "2.0", **headers: str) -> dict[str, Any]:
    """A GET, as API Gateway sends it."""
    if version == "2.0":
        return {"version": version, "requestContext": {"http": {"method": "GET"}}, "headers": headers}
    lists = {name: [value] for name, value in headers.items()}
    return {
        "version": version,
        "httpMethod": "GET",
        "requestContext": {},
        "headers": headers,
        "multiValueHeaders": lists,
    }


def accepting(value: str, version: str = "2.0", name: str = "accept-encoding") -> dict[str, Any]:
    return event(version, **{name: value})


@endpoint(media_type=PAGE)
def page(request: Request) -> Document:
    del request
    return Document(TEXT, PAGE, {"Cache-Control": "no-cache"})


def is_compressed(response: dict[str, Any]) -> bool:
    """After a check that the content is right, and that no header differs but the one that says so."""
    packed = response["headers"].pop("Content-Encoding", None)
    assert response["isBase64Encoded"] is (packed == "gzip")
    assert response["statusCode"] == 200
    assert response["headers"] == {"Content-Type": PAGE, "Vary": "Accept-Encoding", "Cache-Control": "no-cache"}
    body = response["body"]
    assert (gzip.decompress(base64.b64decode(body, validate=True)).decode() if packed else body) == TEXT
    return packed is not None


# Of https://www.rfc-editor.org/rfc/rfc9110#name-accept-encoding. "*" would allow gzip, too, but doesn't ask for it.
ACCEPTED = {
    "gzip": True,
    "gzip, deflate, br, zstd": True,
    "br, GZIP;q=0.5": True,
    "br;q=1.0, gzip ; q=0.001": True,
    "deflate,gzip;q=1": True,
    "": False,
    "identity": False,
    "br": False,
    "*": False,
    "gzip;q=0": False,
    "gzip; q=0.000, identity": False,
    "GZIP;Q=0": False,
    "br,\tgzip": True,
    "gzip;\tq=0": False,
    "gzipped": False,
    "x-gzip-not": False,
    ";q=1,,": False,
}


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("accepted", ACCEPTED)
def test_a_document_is_compressed_for_whoever_reads_that(accepted: str, version: str) -> None:
    assert is_compressed(page(accepting(accepted, version), None)) is ACCEPTED[accepted]


@pytest.mark.parametrize("name", ["Accept-Encoding", "accept-encoding", "ACCEPT-ENCODING"])
def test_the_header_s_name_may_be_written_in_any_case(name: str) -> None:
    assert is_compressed(page(accepting("gzip", "1.0", name), None))


@pytest.mark.parametrize("broken", [None, [], "gzip", {"accept-encoding": None}, {"accept-encoding": ["gzip", 1]}])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_without_such_a_header_nothing_is_compressed(version: str, broken: object) -> None:
    assert not is_compressed(page(event(version) | {"headers": broken, "multiValueHeaders": None}, None))


def test_format_1_0_may_have_the_header_as_a_list_alone() -> None:
    found = event("1.0") | {"headers": None, "multiValueHeaders": {"Accept-Encoding": ["br, gzip"]}}
    assert is_compressed(page(found, None))


def test_a_direct_invoke_gets_the_text_whatever_it_sends() -> None:
    for direct in ({}, {"accept-encoding": "gzip"}, {"headers": {"accept-encoding": "gzip"}}):
        assert not is_compressed(page(direct, None))


def test_a_rest_api_gets_the_text_because_it_hands_base64_on() -> None:
    """Its events are those of format 1.0, but without a version."""
    found = accepting("gzip", "1.0")
    del found["version"]
    assert request_module.is_from_gateway(found)
    assert not is_compressed(page(found, None))


def test_the_same_document_has_the_same_bytes() -> None:
    first, second = (document_response(Document(TEXT, PAGE), compressed=True) for _ in range(2))
    assert first == second
    # Neither a name nor a time in the header: https://www.rfc-editor.org/rfc/rfc1952#page-5
    assert base64.b64decode(first["body"])[3:8] == bytes(5)


def test_a_document_has_a_status_and_headers_of_its_own() -> None:
    response = document_response(Document("no", "text/plain", {"Retry-After": "5"}, 503), compressed=False)
    headers = {"Content-Type": "text/plain", "Vary": "Accept-Encoding", "Retry-After": "5"}
    assert response == {"isBase64Encoded": False, "statusCode": 503, "headers": headers, "body": "no"}
    plain = document_response(Document("yes", "text/plain"), compressed=False)
    assert (plain["statusCode"], plain["headers"]) == (200, {"Content-Type": "text/plain", "Vary": "Accept-Encoding"})


def error_page(status: int, sentence: str) -> Document:
    return Document(f"<p>{status}: {sentence}", PAGE, status=status)


def failing(error: Exception) -> Endpoint:
    @endpoint(media_type=PAGE, error_page=error_page)
    def respond(request: Request) -> Document:
        raise error

    return respond


OURS = "Error! Something went wrong on our side; the cause is in our log."
ERRORS: list[tuple[Exception, int, str]] = [
    (RequestError("request_invalid", '"num" must be a number.'), 400, '"num" must be a number.'),
    (UnknownIncidentError("No incident."), 404, "No incident."),
    (StateError("a detail for the log"), 503,
     "Error! The incident state could not be loaded on our side; the cause is in our log."),
    (ValueError("a caller's text"), 500, OURS),
]  # fmt: skip


@pytest.mark.parametrize(("error", "status", "sentence"), ERRORS)
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_an_error_becomes_a_page_for_the_gateway(version: str, error: Exception, status: int, sentence: str) -> None:
    written = f"<p>{status}: {sentence}"
    plain = failing(error)(event(version), None)
    assert (plain["statusCode"], plain["body"], plain["isBase64Encoded"]) == (status, written, False)
    assert plain["headers"] == {"Content-Type": PAGE, "Vary": "Accept-Encoding"}
    packed = failing(error)(accepting("gzip", version), None)
    assert (packed["statusCode"], packed["headers"]["Content-Encoding"]) == (status, "gzip")
    assert gzip.decompress(base64.b64decode(packed["body"])).decode() == written


@pytest.mark.parametrize(("error", "status", "sentence"), ERRORS)
def test_a_direct_invoke_gets_an_error_in_the_envelope(error: Exception, status: int, sentence: str) -> None:
    found = failing(error)({"text": "a"}, None)
    assert set(found) == ENVELOPE
    assert (found["statusCode"], found["body"]["msg"]) == (status, sentence)


def test_without_an_error_page_the_gateway_gets_the_envelope() -> None:
    @endpoint(media_type=PAGE)
    def respond(request: Request) -> Document:
        raise StateError("a detail")

    found = respond(accepting("gzip"), None)
    assert (found["statusCode"], found["headers"]) == (503, {"Content-Type": "application/json"})
    assert json.loads(found["body"])["body"]["code"] == "state_unavailable"


def broken_page(status: int, sentence: str) -> Document:
    raise KeyError("template")


def text_that_is_none(status: int, sentence: str) -> Document:
    return Document("\ud800", PAGE)


@pytest.mark.parametrize("made", [broken_page, text_that_is_none])
def test_an_error_page_that_fails_itself_leaves_the_envelope_of_a_500(
    made: Any, caplog: pytest.LogCaptureFixture
) -> None:
    @endpoint(media_type=PAGE, error_page=made)
    def respond(request: Request) -> Document:
        raise StateError("the state is broken")

    found = respond(accepting("gzip"), None)
    envelope = json.loads(found["body"])
    assert found["statusCode"] == envelope["statusCode"] == 500
    assert found["headers"] == {"Content-Type": "application/json"}
    assert envelope["body"] == {"warnings": [], "msg": OURS, "code": "internal_error"}
    # Both causes are in the log.
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.getMessage() for record in errors] == ["not answered", "unexpected error"]


def test_a_page_that_fails_is_told_by_the_error_page() -> None:
    """A text that isn't Unicode can be found out only where it is compressed."""

    @endpoint(media_type=PAGE, error_page=error_page)
    def respond(request: Request) -> Document:
        return Document("\ud800", PAGE)

    found = respond(accepting("gzip"), None)
    assert found["statusCode"] == 500
    assert gzip.decompress(base64.b64decode(found["body"])).decode() == f"<p>500: {OURS}"


def test_the_same_endpoint_of_another_file_has_the_same_error_page() -> None:
    other = failing(StateError("no")).for_module("other")
    assert (other.route, other(event(), None)["headers"]["Content-Type"]) == ("/other", PAGE)


def test_errors_of_a_page_are_logged_and_counted_as_others_are(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setenv(NAMESPACE_VARIABLE, "A")
    failing(StateError("no"))(event(), None)
    [answered] = [vars(record) for record in caplog.records if record.getMessage() == "answered"]
    assert (answered["status"], answered["error"]) == (503, "StateError")
    by_route, rest = (parsed(line, "A") for line in capsys.readouterr().out.splitlines())
    assert by_route["Status"] == "503"
    assert rest["FailedAnswers"] == 1
