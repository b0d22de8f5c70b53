"""The log of a Lambda, as awslambdaric writes it in JSON: a line a call, all facts, and nothing that a caller chose."""

from __future__ import annotations

import base64
import hashlib
import importlib
import itertools
import json
import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from awslambdaric import bootstrap  # type: ignore[import-untyped]
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import similarity
from lambdas import with_titles
from similarity import answering
from similarity import service as service_module
from similarity.api import events
from similarity.api.events import Request, endpoint
from similarity.encoder import text_encoder
from similarity.encoder.tokens import TextTokenizer
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.errors import ModelError, RequestError, StateError
from similarity.incidents.ranking import Ranking
from similarity.incidents.state import IncidentState
from similarity.service import service
from tiny import Deployed, fitted_state, roberta_tokenizer

# Every line has them; awslambdaric leaves out a field that is None.
ALWAYS = {"timestamp", "level", "message", "logger", "requestId", "route", "cold_start", "version"}
TIMES = {"tokenising_ms", "encoding_ms", "ranking_ms"}


class Log:
    """Takes the place of the file in which awslambdaric puts its lines."""

    def __init__(self) -> None:
        self.text = ""

    def log(self, message: str, frame_type: bytes | None = None) -> None:
        self.text += message

    def lines(self) -> list[dict[str, Any]]:
        """The lines since the last call."""
        lines = [json.loads(line) for line in self.text.splitlines()]
        self.text = ""
        return lines

    def line(self) -> dict[str, Any]:
        [line] = self.lines()
        return line


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    """What goes to the log of a Lambda with the JSON format and the level INFO, in a process that has just started."""
    root, sink = logging.getLogger(), Log()
    before, level = list(root.handlers), root.level
    monkeypatch.setattr(logging.Formatter, "converter", time.gmtime)  # which awslambdaric sets too
    monkeypatch.setattr(bootstrap, "_GLOBAL_AWS_REQUEST_ID", "request-1")
    monkeypatch.setattr(events, "_calls", itertools.count())
    bootstrap._setup_logging(bootstrap.LogFormat.JSON, "INFO", sink)
    yield sink
    root.handlers[:] = before
    root.setLevel(level)


def handler(module: str) -> Any:
    return importlib.import_module(module).handler


def test_an_answer_is_a_line_with_all_facts(log: Log, deployed: Deployed) -> None:
    text = "a robot in a warehouse"
    for cold in (True, False):
        start_s = time.perf_counter()
        handler("similar")({"text": text}, None)
        took_ms = 1000 * (time.perf_counter() - start_s)
        line = log.line()
        assert set(line) == ALWAYS | TIMES | {"status", "tokens", "state"}
        times = [line[name] for name in TIMES]
        assert all(isinstance(each, float) and each >= 0 for each in times)
        assert sum(times) <= took_ms + 0.03  # each is rounded to 0.01
        expected = {
            "level": "INFO",
            "message": "answered",
            "requestId": "request-1",
            "route": "/similar",
            "status": 200,
            "tokens": len(roberta_tokenizer().encode(text).ids),
            "cold_start": cold,
            "state": hashlib.sha256(deployed.state_path.read_bytes()).hexdigest()[:16],
            "version": similarity.__version__,
        }
        assert {name: line[name] for name in expected} == expected
    vector = json.loads(json.dumps(handler("text_to_embed")({"text": text}, None)))["body"]["embedding"]["vector"]
    assert set(log.line()) == ALWAYS | {"status", "tokens", "tokenising_ms", "encoding_ms"}
    handler("embed_to_db_similar")({"embed": vector}, None)
    assert set(log.line()) == ALWAYS | {"status", "ranking_ms", "state"}


@pytest.mark.parametrize(("first", "match"), [(2.0, "likely"), (-1.0, "possible"), (-4.0, "none")])
@pytest.mark.parametrize("num", [0, 3])
def test_whether_anything_matched_is_a_fact(
    num: int, first: float, match: str, log: Log, deployed: Deployed, tiny_state: IncidentState
) -> None:
    fitted_state(tiny_state, first).save(deployed.state_path)
    log.lines()  # bm25s has written one about the word index
    handler("similar")({"text": "a robot in a warehouse", "num": num}, None)
    line = log.line()
    assert line["match"] == match
    assert set(line) == ALWAYS | TIMES | {"status", "tokens", "state", "match"}
    handler("embed_to_db_similar")({"embed": tiny_state.means[0].tolist(), "num": num}, None)
    assert log.line()["match"] == match


def test_each_time_is_that_of_its_own_work(
    log: Log, deployed: Deployed, tiny_encoder: TorchEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock_s = [1000.0]

    def lasting(seconds: float, work: Callable[..., Any]) -> Callable[..., Any]:
        def longer(*arguments: Any, **options: Any) -> Any:
            clock_s[0] += seconds
            return work(*arguments, **options)

        return longer

    for module in (text_encoder, answering):
        monkeypatch.setattr(module, "perf_counter", lambda: clock_s[0])
    monkeypatch.setattr(TextTokenizer, "__call__", lasting(1, TextTokenizer.__call__))
    monkeypatch.setattr(tiny_encoder, "vectors", lasting(20, tiny_encoder.vectors))
    monkeypatch.setattr(Ranking, "most_similar", lasting(300, Ranking.most_similar))
    monkeypatch.setattr(service_module, "load_serving_encoder", lambda *_, **__: tiny_encoder)
    handler("similar")({"text": "robots"}, None)
    line = log.line()
    assert {name: line[name] for name in TIMES} == {
        "tokenising_ms": 1000,
        "encoding_ms": 20_000,
        "ranking_ms": 300_000,
    }


@pytest.mark.parametrize("module", ["similar", "text_to_db_similar", "embed_to_db_similar", "text_to_embed", "health"])
def test_priming_and_warming_are_a_line_each(module: str, log: Log, deployed: Deployed) -> None:
    route = "/" + module.replace("_", "-")
    for event, message, cold in (({}, "primed", True), ({"warm": True}, "warmed", False), (None, "primed", False)):
        handler(module)(event, None)
        line = log.line()
        assert set(line) == ALWAYS
        assert (line["level"], line["message"], line["route"]) == ("INFO", message, route)
        assert line["cold_start"] is cold


def raising(error: Exception) -> Any:
    @endpoint
    def fails(request: Request) -> dict[str, Any]:
        raise error

    return fails


def test_the_callers_error_is_one_line_without_its_sentence(log: Log) -> None:
    raising(RequestError("text_invalid", "Error! Too much of zqxj."))({"text": "zqxj"}, None)
    line = log.line()
    assert set(line) == ALWAYS | {"status", "error"}
    assert (line["level"], line["status"], line["error"]) == ("INFO", 400, "RequestError")


class ReadError(StateError):
    status = 503


@pytest.mark.parametrize("error", [StateError("/mnt/state.pt is cut"), ReadError("/mnt/state.pt is cut")])
def test_the_cause_of_our_error_is_logged_once_with_its_stack_trace(error: StateError, log: Log) -> None:
    raising(error)({"a": 1}, None)
    cause, answer = log.lines()
    assert (cause["level"], cause["requestId"]) == ("ERROR", "request-1")
    assert (cause["errorType"], cause["errorMessage"]) == (type(error).__name__, "/mnt/state.pt is cut")
    assert "raise error" in cause["stackTrace"][-1]
    assert (answer["level"], answer["status"], answer["error"]) == ("INFO", error.status, type(error).__name__)
    assert set(answer) == ALWAYS | {"status", "error"}


def test_an_error_nobody_foresaw_is_logged_without_its_message(log: Log) -> None:
    raising(KeyError("zqxj"))({"text": "zqxj"}, None)
    cause, answer = log.lines()
    assert cause["errorType"] == answer["error"] == "KeyError"
    assert "raise error" in cause["stackTrace"][-1]
    assert "zqxj" not in json.dumps([cause, answer])
    assert answer["status"] == 500


def test_what_keeps_a_handler_from_getting_ready_is_one_line(log: Log) -> None:
    def fail() -> None:
        raise ModelError("/mnt/config.json: gone")

    @endpoint(ready=fail)
    def unready(request: Request) -> dict[str, Any]:
        return {}

    for event in ({}, {"warm": True}):
        with pytest.raises(ModelError):
            unready(event, None)
        line = log.line()
        assert (line["level"], line["message"]) == ("ERROR", "not ready")
        assert line["reason"] == "ModelError: /mnt/config.json: gone"


def test_a_log_that_can_not_be_written_to_does_not_keep_the_answer(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(message: str, frame_type: bytes | None = None) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log, "log", full)
    assert raising(ValueError())({"a": 1}, None)["statusCode"] == 500
    assert raising(RequestError("text_missing", "Error!"))({"a": 1}, None)["statusCode"] == 400


# Stands in everything that a caller chooses below, and in the titles of the state.
MARKER = "zqxj"
NUMBER_MARKER = 739151

marked = st.builds("{}{}{}".format, st.text(max_size=20), st.just(MARKER), st.text(max_size=20))
vectors = st.lists(st.just(float(NUMBER_MARKER)), min_size=32, max_size=32)
values = st.one_of(
    marked,
    st.just(NUMBER_MARKER),
    st.just(NUMBER_MARKER + 0.5),
    st.lists(marked, max_size=3),
    vectors,
    st.dictionaries(marked, marked, max_size=2),
    st.none(),
)
parameters = st.one_of(
    st.fixed_dictionaries({"text": marked}, optional={"num": values, "metric": values}),
    st.fixed_dictionaries({"embed": vectors}, optional={"num": values}),
    st.dictionaries(st.sampled_from(["text", "num", "metric", "embed"]) | marked, values, min_size=1, max_size=6),
)


def direct(given: dict[str, Any], junk: str) -> Any:
    return given


def as_body(given: dict[str, Any], junk: str, *, is_base64: bool = False) -> Any:
    content = json.dumps(given)
    return {
        **around(junk),
        "requestContext": {"http": {"method": "POST", "path": junk}, "routeKey": junk},
        "body": base64.b64encode(content.encode()).decode() if is_base64 else content,
        "isBase64Encoded": is_base64,
    }


def as_query(given: dict[str, Any], junk: str) -> Any:
    query = {name: value if isinstance(value, str) else json.dumps(value) for name, value in given.items()}
    return {**around(junk), "httpMethod": "GET", "queryStringParameters": query}


def as_nonsense(given: dict[str, Any], junk: str) -> Any:
    """A body of a charset and in a JSON that there is not."""
    return {**as_body(given, junk), "body": junk, "headers": {"Content-Type": f"text/plain; charset={MARKER}"}}


def as_no_object(given: dict[str, Any], junk: str) -> Any:
    return [junk, given]


def around(junk: str) -> dict[str, Any]:
    named = dict.fromkeys(("routeKey", "rawPath", "path", "resource", "rawQueryString", "version"), junk)
    return {**named, "headers": {junk: junk, "user-agent": junk}, "cookies": [junk], "stageVariables": {junk: junk}}


KINDS = (direct, as_body, partial(as_body, is_base64=True), as_query, as_nonsense, as_no_object)


def in_working_order(monkeypatch: pytest.MonkeyPatch) -> None:
    pass


def with_errors_that_quote(monkeypatch: pytest.MonkeyPatch) -> None:
    """What answers fails, with all that it was given in the message and in that of the cause."""

    def fails(self: object, *given: object) -> Any:
        try:
            raise UnicodeError(f"{given}")
        except UnicodeError as error:
            raise ValueError(f"{given}") from error

    for name in ("similar_to_text", "similar_to_vector", "embedding"):
        monkeypatch.setattr(service_module.Service, name, fails)


def with_answers_that_are_no_json(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("similar", "embed_to_db_similar"):
        monkeypatch.setattr(importlib.import_module(module).answers, "ranked", lambda matches: {"found": matches})


def without_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> Any:
        raise ModelError("gone")

    monkeypatch.setattr(service_module, "load_serving_encoder", fails)
    service.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize(
    "set_up", [in_working_order, with_errors_that_quote, with_answers_that_are_no_json, without_a_model]
)
def test_no_line_holds_what_a_caller_chose_or_a_title(
    set_up: Callable[[pytest.MonkeyPatch], None],
    log: Log,
    deployed: Deployed,
    tiny_state: IncidentState,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_titles(tiny_state, f"a title with {MARKER}").save(deployed.state_path)
    set_up(monkeypatch)
    statuses = set()

    @settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
    @given(
        module=st.sampled_from(["similar", "text_to_db_similar", "embed_to_db_similar", "text_to_embed"]),
        kind=st.sampled_from(KINDS),
        parameters=parameters,
        junk=marked,
    )
    def holds(module: str, kind: Callable[..., Any], parameters: dict[str, Any], junk: str) -> None:
        event = kind(parameters, junk)
        response = handler(module)(event, None)
        assert MARKER not in log.text
        assert str(NUMBER_MARKER) not in log.text
        *causes, answer = log.lines()
        assert len(causes) == (response["statusCode"] >= 500)
        assert answer["status"] == response["statusCode"]
        statuses.add(response["statusCode"])

    holds()
    our_fault = 503 if set_up is without_a_model else 500
    assert statuses == {200, 400} if set_up is in_working_order else our_fault in statuses
