"""The metrics that Lambdas write: the right numbers, for each answer and each refused state, and no text."""

from __future__ import annotations

import importlib
import io
import itertools
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from lambdas import with_titles
from metric_lines import NAMESPACE, Printed, parsed
from similarity.answer import Answer, Facts
from similarity.api import events
from similarity.api.events import Request, endpoint
from similarity.errors import RequestError, StateError
from similarity.incidents.state import IncidentState
from similarity.metrics import NAMESPACE_VARIABLE, Metric, write_metrics
from similarity.shelf import served
from tiny import ROOT, Deployed

Lines = Callable[[], list[dict[str, Any]]]


def invoke(module: str, event: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = importlib.import_module(module).handler(event, None)
    return answer


@pytest.fixture
def written(printed_metrics: Printed, monkeypatch: pytest.MonkeyPatch) -> Lines:
    """As of a process that has just started."""
    monkeypatch.setattr(events, "_calls", itertools.count())
    return printed_metrics.lines


def requests(route: str, status: int) -> dict[str, Any]:
    return {"Requests": 1, "Route": route, "Status": str(status)}


@endpoint
def fails(request: Request) -> dict[str, Any]:
    raise {"ours": KeyError("x"), "state": StateError("gone"), "theirs": RequestError("text_missing", "Error!")}[
        request.parameters["text"]
    ]


def test_an_answer_counts_by_route_and_status_and_tells_what_took_how_long(
    deployed: Deployed, written: Lines, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    answer = invoke("similar", {"text": "a car hit a robot", "num": 1})
    assert answer["statusCode"] == 200
    by_route, rest = written()
    assert by_route == requests("/similar", 200)
    (line,) = (record for record in caplog.records if record.getMessage() == "answered")
    assert rest == {
        "Tokens": vars(line)["tokens"],
        "TokenisingTime": vars(line)["tokenising_ms"],
        "EncodingTime": vars(line)["encoding_ms"],
        "RankingTime": vars(line)["ranking_ms"],
        "ColdStarts": 1,
    }
    assert rest["Tokens"] > 2
    assert rest["EncodingTime"] > 0


@pytest.mark.parametrize(
    ("text", "status", "more"),
    [("ours", 500, {"FailedAnswers": 1}), ("state", 503, {"FailedAnswers": 1}), ("theirs", 400, {})],
)
def test_a_fault_of_ours_counts_as_failed_and_one_of_the_caller_does_not(
    text: str, status: int, more: dict[str, int], written: Lines
) -> None:
    fails({"text": text}, None)
    written()
    assert fails({"text": text}, None)["statusCode"] == status
    # Without another number there is no second line.
    assert written() == [requests(fails.route, status), *([more] if more else [])]


def test_a_text_without_a_match_is_counted(written: Lines) -> None:
    @endpoint
    def finds_nothing(request: Request) -> dict[str, Any]:
        return {"msg": request.take(Answer("[]", facts=Facts(match="none")))}

    finds_nothing({"text": "a"}, None)
    assert written()[1] == {"NoMatch": 1, "ColdStarts": 1}
    finds_nothing({"text": "a"}, None)
    assert written()[1] == {"NoMatch": 1}


@pytest.mark.parametrize("event", [{}, {"warm": True}])
def test_priming_and_warming_are_no_requests_but_may_be_cold_starts(event: dict[str, Any], written: Lines) -> None:
    @endpoint
    def answers(request: Request) -> dict[str, Any]:
        del request
        return {}

    answers(event, None)
    assert written() == [{"ColdStarts": 1}]
    answers(event, None)
    assert written() == []


@pytest.mark.parametrize("event", [{}, {"warm": True}])
@pytest.mark.parametrize("error", [StateError("gone"), KeyError("x")])
def test_a_handler_that_is_not_ready_counts_as_failed_since_nobody_may_call_it(
    event: dict[str, Any], error: Exception, written: Lines
) -> None:
    def broken() -> None:
        raise error

    @endpoint(ready=broken)
    def answers(request: Request) -> dict[str, Any]:
        del request
        return {}

    for expected in ([{"ColdStarts": 1}, {"FailedAnswers": 1}], [{"FailedAnswers": 1}]):
        with pytest.raises(type(error)):
            answers(event, None)
        assert written() == expected


def test_a_line_never_has_what_a_caller_chose(deployed: Deployed, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(NAMESPACE_VARIABLE, NAMESPACE)
        event = {
            "version": "2.0",
            "rawPath": "/sEcReT",
            "requestContext": {"http": {"method": "GET", "path": "/sEcReT"}},
            "queryStringParameters": {"text": "sEcReT", "metric": "sEcReT"},
        }
        assert invoke("similar", event)["statusCode"] == 400
    printed = capsys.readouterr().out
    assert '"Route":"/similar"' in printed
    assert "sEcReT" not in printed


def test_nothing_is_written_on_a_laptop(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(NAMESPACE_VARIABLE, raising=False)
    invoke("similar", {"text": "a car hit a robot"})
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_what_serves_on_a_laptop_does_not_import_the_library() -> None:
    program = "import sys, similar; print('aws_lambda_powertools' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT / "inference", capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def test_a_metric_that_can_not_be_written_is_no_reason_to_withhold_an_answer(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setenv(NAMESPACE_VARIABLE, NAMESPACE)
    monkeypatch.setattr(sys, "stdout", Full())
    assert invoke("similar", {"text": "a car hit a robot"})["statusCode"] == 200
    assert "metrics not written" in [record.getMessage() for record in caplog.records]


def test_a_line_is_written_in_one_piece_because_threads_write_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pieces(io.StringIO):
        def __init__(self) -> None:
            super().__init__()
            self.written: list[str] = []

        def write(self, text: str) -> int:
            self.written.append(text)
            return len(text)

    pieces = Pieces()
    monkeypatch.setenv(NAMESPACE_VARIABLE, NAMESPACE)
    monkeypatch.setattr(sys, "stdout", pieces)
    write_metrics({Metric.STATES_REFUSED: 1})
    (piece,) = pieces.written
    assert parsed(piece) == {"StatesRefused": 1}
    assert piece.endswith("}\n")


def test_no_library_adds_dimensions_or_lines(
    monkeypatch: pytest.MonkeyPatch, written: Lines, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "function")
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "service")
    write_metrics({Metric.STATE_AGE_DAYS: 3.5})
    write_metrics({})
    assert written() == [{"StateAgeDays": 3.5}]
    assert [str(warning.message) for warning in recwarn] == []


def test_a_refused_state_is_counted_once(
    tiny_state: IncidentState, tmp_path: Any, written: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "20261126T070405Z-0123456789abcdef"
    folder = tmp_path / "states" / name
    folder.mkdir(parents=True)
    with_titles(tiny_state, "a", "2026-11-26T07:04:05Z").save(folder / "incident_cls.pt")
    monkeypatch.setattr(served, "LOOK_S", 0.0)
    states = served.ServedState(tmp_path, lambda state: None)
    for _ in range(2):
        # Its hash isn't the one in its name.
        assert states.look().newest() is None
    assert written() == [{"StatesRefused": 1}]
