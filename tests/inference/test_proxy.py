"""Events of every kind become requests; answers and errors become envelopes and responses."""

from __future__ import annotations

import base64
import json
import logging
from typing import Any

import pytest

from similarity.errors import ModelError, RequestError
from similarity.proxy import Request, endpoint


@endpoint
def echo(request: Request) -> dict[str, Any]:
    request.warnings.append("a warning")
    return {"got": dict(request.parameters), "from_query": request.from_query}


def proxy_event(method: str = "POST", **fields: Any) -> dict[str, Any]:
    return {"version": "2.0", "requestContext": {"http": {"method": method}}, **fields}


def answer_to(event: Any) -> tuple[int, dict[str, Any]]:
    """Status and the envelope's body, after checking what all responses have in common."""
    response = echo(event, None)
    envelope = json.loads(response["body"])
    assert response["statusCode"] == envelope["statusCode"]
    assert response["headers"] == envelope["headers"] == {"Content-Type": "application/json"}
    assert response["isBase64Encoded"] is False
    assert set(envelope) == {"isBase64Encoded", "statusCode", "headers", "multiValueHeaders", "body"}
    assert envelope["isBase64Encoded"] is False
    assert envelope["multiValueHeaders"] == {}
    return response["statusCode"], envelope["body"]


def test_a_get_takes_the_query_string() -> None:
    event = proxy_event("GET", queryStringParameters={"a": "1"}, body='{"b": 2}')
    assert answer_to(event) == (200, {"warnings": ["a warning"], "got": {"a": "1"}, "from_query": True})


def test_a_get_without_query_string_has_no_parameters() -> None:
    assert answer_to(proxy_event("GET"))[1]["got"] == {}
    assert answer_to({"httpMethod": "GET", "queryStringParameters": None, "body": None})[1]["got"] == {}


@pytest.mark.parametrize(
    "body",
    ['{"a": [1, 2.5, "é"]}', '\n{"a": [1, 2.5, "\\u00e9"]} ', {"a": [1, 2.5, "é"]}],
    ids=["text", "escaped", "an object already"],
)
def test_a_post_takes_the_body(body: object) -> None:
    event = proxy_event(queryStringParameters={"q": "1"}, body=body)
    assert answer_to(event) == (200, {"warnings": ["a warning"], "got": {"a": [1, 2.5, "é"]}, "from_query": False})


def test_a_base64_body_is_decoded() -> None:
    body = base64.b64encode('{"a": "é"}'.encode()).decode()
    assert answer_to(proxy_event(body=body, isBase64Encoded=True))[1]["got"] == {"a": "é"}


def test_format_1_0_is_understood() -> None:
    event = {"version": "1.0", "httpMethod": "POST", "requestContext": {}, "body": '{"a": 1}'}
    assert answer_to(event)[1]["got"] == {"a": 1}
    event = {"httpMethod": "GET", "requestContext": {}, "queryStringParameters": {"a": "1"}, "body": None}
    assert answer_to(event)[1]["got"] == {"a": "1"}


def test_a_post_without_a_body_may_use_the_query_string() -> None:
    assert answer_to(proxy_event(queryStringParameters={"a": "1"}))[1] == {
        "warnings": ["a warning"],
        "got": {"a": "1"},
        "from_query": True,
    }


def test_a_direct_invoke_gets_the_envelope_itself() -> None:
    assert echo({"a": 1}, None) == {
        "isBase64Encoded": False,
        "statusCode": 200,
        "headers": {"Content-Type": "application/json"},
        "multiValueHeaders": {},
        "body": {"warnings": ["a warning"], "got": {"a": 1}, "from_query": False},
    }


BAD_BODIES = {
    "no JSON": ("text=foo", "The body must be a JSON object, got 8 characters that are none."),
    "cut off": ('{"text": "fo', "The body must be a JSON object, got 12 characters that are none."),
    "an array": ("[1, 2]", "The body must be a JSON object, not an array of 2."),
    "a string": ('"foo"', "The body must be a JSON object, not a string of 3 characters."),
    "a number": ("7", "The body must be a JSON object, not a number."),
    "null": ("null", "The body must be a JSON object, not null."),
    "true": ("true", "The body must be a JSON object, not a boolean."),
    "too deep": ("[" * 200_000, "The body must be a JSON object, got 200000 characters that are none."),
    "too many digits": ("9" * 5000, "The body must be a JSON object, got 5000 characters that are none."),
    "an array, parsed already": ([1], "The body must be a JSON object, not an array of 1."),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_bad_body_is_the_callers_error(name: str) -> None:
    body, message = BAD_BODIES[name]
    assert answer_to(proxy_event(body=body)) == (400, {"warnings": [], "msg": f"Error! {message}"})


@pytest.mark.parametrize("body", ["%%%", "YWJ", "é", base64.b64encode(b"\xff\xfe\xfa").decode()])
def test_bad_base64_is_the_callers_error(body: str) -> None:
    status, answer = answer_to(proxy_event(body=body, isBase64Encoded=True))
    assert status == 400
    assert answer["msg"].startswith("Error! The body must be ")


def test_what_came_is_counted_as_the_caller_sent_it() -> None:
    # curl -d text=a says that it is a form, which API Gateway hands on as base64.
    event = proxy_event(body=base64.b64encode(b"text=a").decode(), isBase64Encoded=True)
    assert answer_to(event)[1]["msg"] == "Error! The body must be a JSON object, got 6 characters that are none."


@pytest.mark.parametrize("event", [None, [], "text", 3])
def test_an_event_that_is_no_object_is_the_callers_error(event: object) -> None:
    envelope = echo(event, None)
    assert envelope["statusCode"] == 400
    assert envelope["body"]["msg"].startswith("Error! The event must be a JSON object")


def test_a_query_string_that_is_no_object_is_the_callers_error() -> None:
    assert answer_to(proxy_event("GET", queryStringParameters=["a"]))[0] == 400


def test_errors_know_their_status_and_keep_the_cause_for_the_log(caplog: pytest.LogCaptureFixture) -> None:
    @endpoint
    def broken(request: Request) -> dict[str, Any]:
        raise ModelError("/secret/path: gone")

    with caplog.at_level(logging.ERROR):
        envelope = broken({}, None)
    assert envelope["statusCode"] == 500
    assert envelope["body"] == {
        "warnings": [],
        "msg": "Error! The model could not be loaded on our side; the cause is in our log.",
    }
    assert "/secret/path: gone" in caplog.text


def test_warnings_survive_an_error() -> None:
    @endpoint
    def warns_then_fails(request: Request) -> dict[str, Any]:
        request.warnings.append("first")
        raise RequestError("Error! Then this.")

    assert warns_then_fails({}, None)["body"] == {"warnings": ["first"], "msg": "Error! Then this."}


def test_an_unexpected_error_shows_the_caller_nothing_and_the_log_everything(caplog: pytest.LogCaptureFixture) -> None:
    @endpoint
    def fails(request: Request) -> dict[str, Any]:
        raise ZeroDivisionError("the text of the caller")

    with caplog.at_level(logging.ERROR):
        envelope = fails({}, None)
    assert envelope["statusCode"] == 500
    assert envelope["body"]["msg"] == "Error! Something went wrong on our side; the cause is in our log."
    assert "Traceback" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_a_schedule_and_a_deployment_get_the_handler_ready() -> None:
    calls = []

    @endpoint(warm=lambda: calls.append("warm"))
    def handler(request: Request) -> dict[str, Any]:
        calls.append("answer")
        raise RequestError("Error! Nothing came.")

    envelope = handler({"warm": True}, None)
    assert (envelope["statusCode"], envelope["body"]) == (200, {"warnings": [], "warm": True})
    assert calls == ["warm"]
    assert handler({}, None)["statusCode"] == 400
    assert handler(None, None)["statusCode"] == 400
    assert calls == ["warm", "warm", "answer", "warm"]


@pytest.mark.parametrize(
    "event",
    [
        {"warm": False},
        {"warm": True, "a": 1},
        {"a": 1},
        proxy_event("GET"),
        proxy_event(body='{"warm": true}'),
        proxy_event("GET", queryStringParameters={"warm": "true"}),
    ],
)
def test_no_request_of_a_caller_is_taken_for_one_of_those(event: dict[str, Any]) -> None:
    @endpoint(warm=lambda: pytest.fail("a caller can make this happen"))
    def handler(request: Request) -> dict[str, Any]:
        return {}

    assert handler(event, None)["statusCode"] == 200


@pytest.mark.parametrize("event", [{}, None, {"warm": True}])
def test_a_handler_that_can_not_get_ready_fails_the_deployment(event: object, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ModelError("/secret/path: gone")

    @endpoint(warm=fail)
    def handler(request: Request) -> dict[str, Any]:
        return {}

    with caplog.at_level(logging.ERROR), pytest.raises(ModelError):
        handler(event, None)
    assert "/secret/path: gone" in caplog.text


def test_a_handler_with_nothing_to_get_ready_is_ready() -> None:
    assert echo({"warm": True}, None)["body"] == {"warnings": [], "warm": True}
