"""Events of every kind become requests; answers and errors become envelopes and responses."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from similarity.api.events import Request, endpoint
from similarity.errors import ModelError, RequestError


@endpoint
def echo(request: Request) -> dict[str, Any]:
    request.warnings.append("a warning")
    return {"got": dict(request.parameters), "from_query": sorted(request.from_query)}


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
    assert answer_to(event) == (200, {"warnings": ["a warning"], "got": {"a": "1"}, "from_query": ["a"]})


def test_a_get_without_query_string_has_no_parameters() -> None:
    assert answer_to(proxy_event("GET"))[1]["got"] == {}
    assert answer_to({"httpMethod": "GET", "queryStringParameters": None, "body": None})[1]["got"] == {}


@pytest.mark.parametrize(
    "body",
    ['{"a": [1, 2.5, "é"]}', '\n{"a": [1, 2.5, "\\u00e9"]} ', {"a": [1, 2.5, "é"]}],
    ids=["text", "escaped", "an object already"],
)
def test_a_post_takes_the_body(body: object) -> None:
    event = proxy_event(queryStringParameters={"a": "1"}, body=body)
    assert answer_to(event) == (200, {"warnings": ["a warning"], "got": {"a": [1, 2.5, "é"]}, "from_query": []})


def test_what_the_body_of_a_post_lacks_comes_from_the_query_string() -> None:
    event = proxy_event(queryStringParameters={"a": "1", "b": "2"}, body='{"a": null, "c": 3}')
    assert answer_to(event)[1] == {
        "warnings": ["a warning"],
        "got": {"a": None, "b": "2", "c": 3},
        "from_query": ["b"],
    }


def test_a_query_string_that_is_no_object_is_refused_beside_a_body_too() -> None:
    assert answer_to(proxy_event(queryStringParameters=["a"], body="{}"))[0] == 400


def test_a_base64_body_is_decoded() -> None:
    body = base64.b64encode('{"a": "é"}'.encode()).decode()
    assert answer_to(proxy_event(body=body, isBase64Encoded=True))[1]["got"] == {"a": "é"}


def test_format_1_0_is_understood() -> None:
    event: dict[str, Any] = {"version": "1.0", "httpMethod": "POST", "requestContext": {}, "body": '{"a": 1}'}
    assert answer_to(event)[1]["got"] == {"a": 1}
    event = {"httpMethod": "GET", "requestContext": {}, "queryStringParameters": {"a": "1"}, "body": None}
    assert answer_to(event)[1]["got"] == {"a": "1"}


def test_a_post_without_a_body_may_use_the_query_string() -> None:
    assert answer_to(proxy_event(queryStringParameters={"a": "1"}))[1] == {
        "warnings": ["a warning"],
        "got": {"a": "1"},
        "from_query": ["a"],
    }


def test_a_direct_invoke_gets_the_envelope_itself() -> None:
    assert echo({"a": 1}, None) == {
        "isBase64Encoded": False,
        "statusCode": 200,
        "headers": {"Content-Type": "application/json"},
        "multiValueHeaders": {},
        "body": {"warnings": ["a warning"], "got": {"a": 1}, "from_query": []},
    }


NOT_JSON = "The body must be a JSON object; the {} received are not valid JSON: {}."
BAD_BODIES = {
    "no JSON": ("text=a", NOT_JSON.format("6 characters", "Expecting value (line 1, column 1)")),
    "one character": (
        "%",
        "The body must be a JSON object; the 1 character received is not valid JSON: Expecting value "
        "(line 1, column 1).",
    ),
    "cut off": (
        '{"text": "fo',
        NOT_JSON.format("12 characters", "Unterminated string starting at (line 1, column 10)"),
    ),
    "a comma too many": (
        '{"a": 1,\n b}',
        NOT_JSON.format("12 characters", "Expecting property name enclosed in double quotes (line 2, column 2)"),
    ),
    "a bad escape": ('{"a": "\\x"}', NOT_JSON.format("11 characters", "Invalid \\escape (line 1, column 8)")),
    "a control character": (
        '{"a": "\n"}',
        NOT_JSON.format("10 characters", "Invalid control character at (line 1, column 8)"),
    ),
    "more behind it": ('{"a": 1} x', NOT_JSON.format("10 characters", "Extra data (line 1, column 10)")),
    "an array": ("[1, 2]", "The body must be a JSON object, not an array of 2."),
    "a string": ('"foo"', "The body must be a JSON object, not a string of 3 characters."),
    "a number": ("7", "The body must be a JSON object, not a number."),
    "null": ("null", "The body must be a JSON object, not null."),
    "true": ("true", "The body must be a JSON object, not a boolean."),
    "too deep": ("[" * 200_000, NOT_JSON.format("200000 characters", "it is nested too deeply")),
    "too deep in an object": ('{"a":' * 200_000, NOT_JSON.format("1000000 characters", "it is nested too deeply")),
    "too many digits": ("9" * 5000, NOT_JSON.format("5000 characters", "a number has more than 4300 digits")),
    "only a byte order mark": ("\ufeff", NOT_JSON.format("0 characters", "Expecting value (line 1, column 1)")),
    "an array, parsed already": ([1], "The body must be a JSON object, not an array of 1."),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_bad_body_is_the_callers_error(name: str) -> None:
    body, message = BAD_BODIES[name]
    assert answer_to(proxy_event(body=body)) == (
        400,
        {"warnings": [], "msg": f"Error! {message}", "code": "request_invalid"},
    )


@pytest.mark.parametrize("body", ["%%%", "YWJ", "é", base64.b64encode(b"\xff\xfe\xfa").decode()])
def test_bad_base64_is_the_callers_error(body: str) -> None:
    status, answer = answer_to(proxy_event(body=body, isBase64Encoded=True))
    assert status == 400
    assert answer["msg"].startswith("Error! The body must be ")


def test_what_came_is_counted_as_the_caller_sent_it() -> None:
    # curl -d text=a says that it is a form, which API Gateway hands on as base64.
    event = proxy_event(body=base64.b64encode(b"text=a").decode(), isBase64Encoded=True)
    assert answer_to(event) == answer_to(proxy_event(body="text=a"))


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
    assert envelope["statusCode"] == 503
    assert envelope["body"] == {
        "warnings": [],
        "msg": "Error! The model could not be loaded on our side; the cause is in our log.",
        "code": "model_unavailable",
    }
    assert "/secret/path: gone" in caplog.text


def test_warnings_survive_an_error() -> None:
    @endpoint
    def warns_then_fails(request: Request) -> dict[str, Any]:
        request.warnings.append("first")
        raise RequestError("text_missing", "Error! Then this.")

    assert warns_then_fails({}, None)["body"] == {
        "warnings": ["first"],
        "msg": "Error! Then this.",
        "code": "text_missing",
    }


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


class Unprintable:
    def __str__(self) -> str:
        raise ValueError("no string")

    __repr__ = __str__


def in_itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def nested() -> list[Any]:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    return value


NOT_FOR_JSON: dict[str, Callable[[], Any]] = {
    "float32": lambda: np.float32(0.5),
    "int64": lambda: np.int64(1),
    "bool of numpy": lambda: np.True_,
    "an array": lambda: np.ones(2),
    "a tensor": lambda: torch.ones(2),
    "NaN": lambda: float("nan"),
    "infinite": lambda: [-float("inf")],
    "NaN of numpy": lambda: np.float64("nan"),
    "bytes": lambda: b"bytes",
    "a set": lambda: {1, 2},
    "an object": object,
    "an object that can't be printed": Unprintable,
    "in itself": in_itself,
    "nested": nested,
    "too many digits": lambda: 10**5000,
    "a key": lambda: {(1, 2): 3},
    "a key that is NaN": lambda: {float("nan"): 3},
}
OUR_FAULT = {
    "msg": "Error! Something went wrong on our side; the cause is in our log.",
    "code": "internal_error",
}


def answers_of(handler: Any) -> list[dict[str, Any]]:
    """What each kind of caller gets, as JSON: the envelope, after checking that it is all that it should be."""
    envelopes = []
    for event in (proxy_event("GET"), proxy_event(body="{}"), {"httpMethod": "GET"}, {"a": 1}):
        answer = json.loads(json.dumps(handler(event, None), allow_nan=False))
        assert set(answer) >= {"isBase64Encoded", "statusCode", "headers", "body"}
        envelope = json.loads(answer["body"]) if isinstance(answer["body"], str) else answer
        assert envelope["statusCode"] == answer["statusCode"]
        envelopes.append(envelope)
    return envelopes


@pytest.mark.slow
@pytest.mark.parametrize("name", NOT_FOR_JSON)
def test_an_answer_that_json_can_not_hold_is_our_error(name: str, caplog: pytest.LogCaptureFixture) -> None:
    @endpoint
    def handler(request: Request) -> dict[str, Any]:
        request.warnings.append("a warning")
        return {"found": NOT_FOR_JSON[name]()}

    for envelope in answers_of(handler):
        assert (envelope["statusCode"], envelope["body"]) == (500, {"warnings": ["a warning"], **OUR_FAULT})
    assert "unexpected error" in caplog.text
    assert "Traceback" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("name", NOT_FOR_JSON)
def test_a_warning_that_json_can_not_hold_is_our_error(name: str) -> None:
    @endpoint
    def handler(request: Request) -> dict[str, Any]:
        request.warnings.append(NOT_FOR_JSON[name]())
        return {}

    for envelope in answers_of(handler):
        assert (envelope["statusCode"], envelope["body"]) == (500, {"warnings": [], **OUR_FAULT})


@pytest.mark.parametrize("answer", [None, 3, "text", [1], [("a", 1)], object()])
def test_an_answer_without_fields_is_our_error(answer: Any) -> None:
    @endpoint
    def handler(request: Request) -> Any:
        return answer

    for envelope in answers_of(handler):
        assert envelope["statusCode"] == 500


class UnprintableError(RequestError):
    def __str__(self) -> str:
        raise ValueError("no string")


class WithoutDetailError(RequestError):
    def __init__(self) -> None:
        Exception.__init__(self, "Error! Nothing else.")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("\ud800"),
        UnprintableError("text_missing", "Error!"),
        WithoutDetailError(),
        MemoryError(),
        RecursionError(),
        ExceptionGroup("several", [ValueError()]),
        type("UnreadableError", (Exception,), {"__str__": lambda self: 1 / 0})(),
        StopIteration(),
        type("OddError", (RequestError,), {"status": np.int64(400)})("text_missing", "Error!"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_error_of_a_handler_escapes(error: Exception) -> None:
    @endpoint
    def handler(request: Request) -> dict[str, Any]:
        raise error

    for envelope in answers_of(handler):
        assert (envelope["statusCode"], envelope["body"]) == (500, {"warnings": [], **OUR_FAULT})


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_process_ends_it(error: type[BaseException]) -> None:
    @endpoint
    def handler(request: Request) -> dict[str, Any]:
        raise error

    with pytest.raises(error):
        handler({"a": 1}, None)


def test_a_direct_invoke_gets_what_json_makes_of_the_answer() -> None:
    class Text(str):
        __slots__ = ()

    @endpoint
    def handler(request: Request) -> dict[str, Any]:
        return {"pairs": [(1, 2.5)], "text": Text("a\ud800é"), "names": {1: None}, "number": np.float64(0.5)}

    body = handler({"a": 1}, None)["body"]
    assert body == {"warnings": [], "pairs": [[1, 2.5]], "text": "a\ud800é", "names": {"1": None}, "number": 0.5}
    assert {type(body["text"]), type(body["number"])} == {str, float}
    assert body == json.loads(handler(proxy_event("GET"), None)["body"])["body"]


@endpoint(parameters=("text", "num"))
def knows_two(request: Request) -> dict[str, Any]:
    return {"got": dict(request.parameters)}


def unknown(*names: str) -> list[str]:
    return [f'Unknown parameter "{name}" ignored.' for name in names]


@pytest.mark.parametrize(
    "event",
    [
        {"text": "a", "Num": 1, "nums": 5, "threshold": 0.9},
        proxy_event(body='{"text": "a", "Num": 1, "nums": 5, "threshold": 0.9}'),
        proxy_event("GET", queryStringParameters={"text": "a", "Num": "1", "nums": "5", "threshold": ".9"}),
        proxy_event(queryStringParameters={"Num": "1", "nums": "5"}, body='{"text": "a", "threshold": 0.9}'),
    ],
    ids=["direct", "body", "query", "both"],
)
def test_parameters_that_the_route_does_not_know_are_named(event: dict[str, Any]) -> None:
    [envelope] = [
        answer if isinstance(answer["body"], dict) else json.loads(answer["body"])
        for answer in [knows_two(event, None)]
    ]
    assert envelope["statusCode"] == 200
    assert envelope["body"]["warnings"] == unknown("Num", "nums", "threshold")


def test_unknown_parameters_are_named_beside_an_error() -> None:
    @endpoint(parameters=("text",))
    def fails(request: Request) -> dict[str, Any]:
        raise RequestError("text_missing", "Error! No text.")

    assert fails({"Text": "a"}, None)["body"] == {
        "warnings": unknown("Text"),
        "msg": "Error! No text.",
        "code": "text_missing",
    }


def test_a_name_is_known_letter_by_letter() -> None:
    names = ["text ", " text", "TEXT", "te\u200bxt", "text[]", ""]
    assert knows_two(dict.fromkeys(names, "x"), None)["body"]["warnings"] == unknown(
        "text ", " text", "TEXT", "te\\u200bxt", "text[]", ""
    )


def test_a_route_that_does_not_name_its_parameters_warns_of_none() -> None:
    assert echo({"foo": 1}, None)["body"]["warnings"] == ["a warning"]


def test_a_route_says_which_parameters_it_knows() -> None:
    assert knows_two.parameters == ("text", "num")
    assert echo.parameters is None


def test_names_are_cut_and_have_no_lines_of_their_own() -> None:
    names = ["x" * 1_000_000, "a\nERROR b\r\x1b[31m\u202e\x00\u2028", "\ud800", "é" * 40, '"']
    warnings = knows_two(dict.fromkeys(names, "secret"), None)["body"]["warnings"]
    assert warnings == unknown("x" * 40 + "…", "a\\nERROR b\\r\\x1b[31m\\u202e\\x00\\u2028", "\\ud800", "é" * 40, '"')
    assert all(warning.isprintable() for warning in warnings)


@pytest.mark.slow
def test_ten_names_are_enough() -> None:
    warnings = knows_two({f"p{number}": "secret" for number in range(100_000)}, None)["body"]["warnings"]
    assert warnings == [*unknown(*(f"p{number}" for number in range(10))), "99990 more unknown parameters ignored."]


def test_a_schedule_and_a_deployment_get_the_handler_ready() -> None:
    calls = []

    @endpoint(ready=lambda: calls.append("ready"))
    def handler(request: Request) -> dict[str, Any]:
        calls.append("answer")
        raise RequestError("text_missing", "Error! Nothing came.")

    envelope = handler({"warm": True}, None)
    assert (envelope["statusCode"], envelope["body"]) == (200, {"warnings": [], "warm": True})
    assert calls == ["ready"]
    assert handler({}, None)["statusCode"] == 400
    assert handler(None, None)["statusCode"] == 400
    assert calls == ["ready", "ready", "answer", "ready"]


@pytest.mark.parametrize(
    "event",
    [
        {"warm": False},
        {"warm": 1},
        {"warm": 1.0},
        {"warm": "true"},
        {"warm": [True]},
        {"warm": None},
        {"warm": np.True_},
        {"Warm": True},
        {"warm": True, "a": 1},
        {"a": 1},
        proxy_event("GET"),
        proxy_event(body='{"warm": true}'),
        proxy_event("GET", queryStringParameters={"warm": "true"}),
    ],
)
def test_no_request_of_a_caller_is_taken_for_one_of_those(event: dict[str, Any]) -> None:
    @endpoint(ready=lambda: pytest.fail("a caller can make this happen"))
    def handler(request: Request) -> dict[str, Any]:
        return {}

    assert handler(event, None)["statusCode"] == 200


@pytest.mark.parametrize("event", [{}, None, {"warm": True}])
def test_a_handler_that_can_not_get_ready_fails_the_deployment(event: object, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ModelError("/secret/path: gone")

    @endpoint(ready=fail)
    def handler(request: Request) -> dict[str, Any]:
        return {}

    with caplog.at_level(logging.ERROR), pytest.raises(ModelError):
        handler(event, None)
    assert [vars(record)["reason"] for record in caplog.records] == ["ModelError: /secret/path: gone"]


def test_a_handler_with_nothing_to_get_ready_is_ready() -> None:
    assert echo({"warm": True}, None)["body"] == {"warnings": [], "warm": True}
