"""The stand-in for Lambda's Runtime API, by hand and with Lambda's own client for Python. Needs no Docker."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from container.runtime_api import MAX_ANSWER_BYTES, RuntimeApi, RuntimeApiError

NEXT = "/2018-06-01/runtime/invocation/next"
INIT_ERROR = "/2018-06-01/runtime/init/error"


def request(
    api: RuntimeApi, method: str, path: str, body: bytes | None = None
) -> tuple[int, http.client.HTTPMessage, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=10)
    connection.request(method, path, body, {"Lambda-Runtime-Function-Error-Type": "Test.Error"})
    response = connection.getresponse()
    content = json.loads(response.read())
    connection.close()
    return response.status, response.headers, content


@pytest.fixture
def api() -> Iterator[RuntimeApi]:
    with RuntimeApi(("127.0.0.1", 0)) as running:
        yield running


@pytest.fixture
def caller() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def test_an_event_goes_out_with_lambdas_headers_and_its_response_comes_back(
    api: RuntimeApi, caller: ThreadPoolExecutor
) -> None:
    pending = caller.submit(api.invoke, {"text": "ü"}, 30)
    status, headers, event = request(api, "GET", NEXT)
    assert (status, event) == (200, {"text": "ü"})
    assert 0 < int(headers["Lambda-Runtime-Deadline-Ms"]) / 1000 - time.time() <= 30
    assert headers["Lambda-Runtime-Invoked-Function-Arn"].startswith("arn:aws:lambda:")
    assert headers["Lambda-Runtime-Trace-Id"].startswith("Root=1-")
    request_id = headers["Lambda-Runtime-Aws-Request-Id"]
    time.sleep(0.05)
    status, _, content = request(api, "POST", f"/2018-06-01/runtime/invocation/{request_id}/response", b'{"a": 1}')
    assert (status, content) == (202, {"status": "OK"})
    invoked = pending.result(5)
    assert (invoked.json(), invoked.answer.is_error) == ({"a": 1}, False)
    assert 0.05 <= invoked.seconds < 5
    assert not api.refused


def test_an_error_comes_back_as_one_with_its_type(api: RuntimeApi, caller: ThreadPoolExecutor) -> None:
    pending = caller.submit(api.invoke, {})
    _, headers, _ = request(api, "GET", NEXT)
    path = f"/2018-06-01/runtime/invocation/{headers['Lambda-Runtime-Aws-Request-Id']}/error"
    assert request(api, "POST", path, b'{"errorMessage": "no"}')[0] == 202
    answer = pending.result(5).answer
    assert (answer.is_error, answer.error_type, answer.json()) == (True, "Test.Error", {"errorMessage": "no"})


def test_one_event_is_out_at_a_time(api: RuntimeApi, caller: ThreadPoolExecutor) -> None:
    pending = [caller.submit(api.invoke, {"number": number}) for number in range(2)]
    _, headers, first = request(api, "GET", NEXT)
    second = caller.submit(request, api, "GET", NEXT)
    time.sleep(0.2)
    assert not second.done()
    request(api, "POST", f"/2018-06-01/runtime/invocation/{headers['Lambda-Runtime-Aws-Request-Id']}/response", b"1")
    _, headers, event = second.result(5)
    request(api, "POST", f"/2018-06-01/runtime/invocation/{headers['Lambda-Runtime-Aws-Request-Id']}/response", b"2")
    assert [pending[event["number"]].result(5).json() for event in (first, event)] == [1, 2]


def test_an_answer_to_no_invocation_is_refused(api: RuntimeApi, caller: ThreadPoolExecutor) -> None:
    status, _, content = request(api, "POST", "/2018-06-01/runtime/invocation/unknown/response", b"1")
    assert (status, content["errorType"]) == (400, "InvalidRequestID")
    pending = caller.submit(api.invoke, {})
    _, headers, _ = request(api, "GET", NEXT)
    path = f"/2018-06-01/runtime/invocation/{headers['Lambda-Runtime-Aws-Request-Id']}/response"
    assert [request(api, "POST", path, b"1")[0] for _ in range(2)] == [202, 400]
    assert pending.result(5).json() == 1
    assert len(api.refused) == 2


def test_an_answer_of_more_than_6_mb_is_refused_and_the_caller_told(
    api: RuntimeApi, caller: ThreadPoolExecutor
) -> None:
    pending = caller.submit(api.invoke, {})
    _, headers, _ = request(api, "GET", NEXT)
    path = f"/2018-06-01/runtime/invocation/{headers['Lambda-Runtime-Aws-Request-Id']}/response"
    status, _, content = request(api, "POST", path, b"1" * (MAX_ANSWER_BYTES + 1))
    assert (status, content["errorType"]) == (413, "RequestEntityTooLarge")
    answer = pending.result(5).answer
    assert (answer.is_error, answer.json()["errorType"]) == (True, "Function.ResponseSizeTooLarge")


def test_an_init_error_counts_until_the_first_next(api: RuntimeApi, caller: ThreadPoolExecutor) -> None:
    assert request(api, "POST", INIT_ERROR, b'{"errorType": "E"}')[0] == 202
    assert api.wait_for_init_error(1).json() == {"errorType": "E"}
    for wait in (api.wait_until_ready, lambda timeout_s: api.invoke({}, timeout_s)):
        with pytest.raises(RuntimeApiError, match="init error"):
            wait(1)


def test_an_init_error_after_the_first_next_is_refused(api: RuntimeApi, caller: ThreadPoolExecutor) -> None:
    pending = caller.submit(api.invoke, {})
    _, headers, _ = request(api, "GET", NEXT)
    assert request(api, "POST", INIT_ERROR, b"{}")[0] == 403
    with pytest.raises(RuntimeApiError, match="but a request for an event"):
        api.wait_for_init_error(1)
    request(api, "POST", f"/2018-06-01/runtime/invocation/{headers['Lambda-Runtime-Aws-Request-Id']}/response", b"1")
    assert pending.result(5).json() == 1


@pytest.mark.slow
def test_an_event_that_nobody_answers_runs_out_of_time(api: RuntimeApi, caller: ThreadPoolExecutor) -> None:
    with pytest.raises(RuntimeApiError, match="was not taken"):
        api.invoke({}, 0.1)
    pending = caller.submit(api.invoke, {}, 0.5)
    request(api, "GET", NEXT)
    with pytest.raises(RuntimeApiError, match="was taken"):
        pending.result(5)
    with pytest.raises(RuntimeApiError, match=r"within 0\.1 s"), RuntimeApi(("127.0.0.1", 0)) as untouched:
        untouched.wait_until_ready(0.1)


def test_nobody_waits_for_an_instance_that_has_ended(api: RuntimeApi, caller: ThreadPoolExecutor) -> None:
    pending = caller.submit(api.invoke, {})
    request(api, "GET", NEXT)
    api.give_up()
    with pytest.raises(RuntimeApiError, match="before the instance ended to an event that was taken"):
        pending.result(5)


def test_an_instance_that_has_gone_is_handed_no_event(api: RuntimeApi, caller: ThreadPoolExecutor) -> None:
    gone = http.client.HTTPConnection("127.0.0.1", api.port)
    gone.request("GET", NEXT)
    api.wait_until_ready(5)
    gone.close()
    pending = caller.submit(api.invoke, {"a": 1})
    _, headers, event = request(api, "GET", NEXT)
    assert event == {"a": 1}
    request(api, "POST", f"/2018-06-01/runtime/invocation/{headers['Lambda-Runtime-Aws-Request-Id']}/response", b"1")
    assert pending.result(5).json() == 1


@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("GET", INIT_ERROR), ("POST", NEXT), ("POST", "/a/b")])
def test_other_paths_are_not_there(method: str, path: str, api: RuntimeApi) -> None:
    assert request(api, method, path, b"")[0] == 404


def test_it_listens_on_a_unix_socket_as_well(tmp_path: Path, caller: ThreadPoolExecutor) -> None:
    with RuntimeApi(tmp_path / "api.sock") as api:
        pending = caller.submit(api.invoke, {"a": 1})
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "api.sock"))
            client.sendall(f"GET {NEXT} HTTP/1.1\r\nHost: api\r\n\r\n".encode())
            reply = client.recv(4096).decode()
            while not reply.endswith("}"):
                reply += client.recv(4096).decode()
            assert reply.startswith("HTTP/1.1 200")
            request_id = reply.split("Lambda-Runtime-Aws-Request-Id: ")[1].split("\r\n")[0]
            path = f"/2018-06-01/runtime/invocation/{request_id}/response"
            client.sendall(f"POST {path} HTTP/1.1\r\nHost: api\r\nContent-Length: 1\r\n\r\n1".encode())
            assert client.recv(4096).startswith(b"HTTP/1.1 202")
        assert pending.result(5).json() == 1
        assert api.connections == 1


@contextmanager
def runtime(api: RuntimeApi, folder: Path, handler: str) -> Iterator[subprocess.Popen[bytes]]:
    """Lambda's runtime interface client, as the image starts it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "awslambdaric", handler],
        cwd=folder,
        env={**os.environ, "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{api.port}", "LAMBDA_TASK_ROOT": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


needs_client = pytest.mark.skipif(sys.platform != "linux", reason="awslambdaric has builds for Linux only")


@needs_client
def test_lambdas_own_client_answers_through_it(api: RuntimeApi, tmp_path: Path) -> None:
    (tmp_path / "doubles.py").write_text(
        "import os\n"
        "def handler(event, context):\n"
        "    assert context.get_remaining_time_in_millis() > 0\n"
        "    return {'twice': 2 * event['number'], 'id': context.aws_request_id, 'pid': os.getpid()}\n"
    )
    with runtime(api, tmp_path, "doubles.handler") as process:
        answers = [api.invoke({"number": number}).json() for number in (1, 2)]
        assert [answer["twice"] for answer in answers] == [2, 4]
        assert {answer["pid"] for answer in answers} == {process.pid}
        assert len({answer["id"] for answer in answers}) == 2
        failed = api.invoke({}).answer
        assert (failed.is_error, failed.json()["errorType"]) == (True, "KeyError")
        assert api.invoke({"number": 3}).json()["twice"] == 6
    assert not api.refused


@needs_client
def test_lambdas_own_client_reports_a_handler_that_can_not_be_imported(api: RuntimeApi, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import no_such_module\n")
    with runtime(api, tmp_path, "broken.handler") as process:
        answer = api.wait_for_init_error()
        assert (answer.error_type, answer.json()["errorType"]) == ("Runtime.ImportModuleError",) * 2
        assert process.wait(10) == 1
