"""The Lambda behind the custom resources, against stand-ins of Lambda's Invoke and of CloudFormation.

Invoke is botocore's own client with a Stubber, so that requests and errors have the shapes that AWS's model of the
service gives them; CloudFormation is a local server that keeps what it is sent.
"""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import EndpointConnectionError, ReadTimeoutError
from botocore.response import StreamingBody
from botocore.stub import Stubber

from infrastructure.invoker import index

Object = dict[str, Any]

VERSION = "arn:aws:lambda:eu-central-1:123456789012:function:job:7"
OLD_VERSION = "arn:aws:lambda:eu-central-1:123456789012:function:job:6"
REMEDY = "ShelvingError: the state is dated 2 days ahead of the clock: build it again with the clock set right."


class CloudFormation(ThreadingHTTPServer):
    """Keeps the answers; the first `refusals` of them are refused, each with a status."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.answers: list[Object] = []
        self.content_types: list[str | None] = []
        self.refusals: list[int] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/answers?signature=abc"


class _Answer(BaseHTTPRequestHandler):
    def do_PUT(self) -> None:
        assert isinstance(self.server, CloudFormation)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = self.server.refusals.pop(0) if self.server.refusals else 200
        if status == 200:
            assert len(body) <= 4096
            assert self.path == "/answers?signature=abc"
            self.server.content_types.append(self.headers["Content-Type"])
            self.server.answers.append(json.loads(body))
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def cloudformation() -> Iterator[CloudFormation]:
    with CloudFormation() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Lambda:
    """Lambda's Invoke, with the answers that a test gives it, and a clock that pauses move on."""

    def __init__(self, client: Any, stub: Stubber, monkeypatch: pytest.MonkeyPatch) -> None:
        self.options: list[Any] = []
        self.client = client
        self.stub = stub
        self.now = 1000.0
        monkeypatch.setattr(index, "boto3", SimpleNamespace(client=self._make))
        monkeypatch.setattr(index, "time", SimpleNamespace(monotonic=lambda: self.now, sleep=self._pass))

    def _make(self, service: str, *, config: Any) -> Any:
        assert service == "lambda"
        self.options.append(config)
        return self.client

    def _pass(self, seconds: float) -> None:
        self.now += seconds

    def answers(self, payload: bytes, *, version: str = VERSION, **more: str) -> None:
        answer = {"StatusCode": 200, "Payload": StreamingBody(io.BytesIO(payload), len(payload)), **more}
        self.stub.add_response("invoke", answer, {"FunctionName": version, "Payload": b"{}"})

    def raises(self, message: object) -> None:
        """As a function of Python does, which Lambda answers with status 200."""
        payload = {"errorMessage": message, "errorType": "ShelvingError", "requestId": "1", "stackTrace": ["  File …"]}
        self.answers(json.dumps(payload).encode(), FunctionError="Unhandled")

    def refuses(self, code: str, times: int = 1) -> None:
        for _ in range(times):
            self.stub.add_client_error("invoke", code, "The reason.")


@pytest.fixture(scope="module")
def client() -> Any:
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    return botocore.session.get_session().create_client("lambda", region_name="eu-central-1", **keys)


@pytest.fixture
def lambda_(client: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lambda]:
    with Stubber(client) as stub:
        yield Lambda(client, stub, monkeypatch)
        stub.assert_no_pending_responses()


class Context:
    """Of an invocation that has just started."""

    def __init__(self, remaining_s: float = 900.0) -> None:
        self._remaining_s = remaining_s

    def get_remaining_time_in_millis(self) -> int:
        return int(self._remaining_s * 1000)


IDS = {
    "StackId": "arn:aws:cloudformation:eu-central-1:123456789012:stack/AiidSimilarIncidents/guid",
    "RequestId": "unique id for this request",
    "LogicalResourceId": "PrimingJob4C3BE439",
}


def request(cloudformation: CloudFormation, kind: str = "Create", **more: Any) -> Object:
    """As https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref-requests.html shows them."""
    return {
        "RequestType": kind,
        "ResponseURL": cloudformation.url,
        "ResourceType": "Custom::Invocation",
        "ResourceProperties": {"ServiceToken": "arn:aws:lambda:…:invoker", "Version": VERSION},
        **IDS,
        **more,
    }


def answered(cloudformation: CloudFormation) -> Object:
    (answer,) = cloudformation.answers
    assert {name: answer[name] for name in IDS} == IDS
    return answer


def test_a_version_is_invoked_when_the_resource_is_made(cloudformation: CloudFormation, lambda_: Lambda) -> None:
    lambda_.answers(b'{"shelved": "20261126T070405Z-0123456789abcdef"}')
    index.handler(request(cloudformation), Context())
    assert answered(cloudformation)["Status"] == "SUCCESS"
    # S3 counts the type of content among the things that were signed.
    assert cloudformation.content_types == [""]


def test_boto3_does_not_invoke_again_by_itself(cloudformation: CloudFormation, lambda_: Lambda) -> None:
    """By default it would after a minute without an answer: the job would run several times at once."""
    lambda_.answers(b"{}")
    index.handler(request(cloudformation), Context())
    (options,) = lambda_.options
    assert options.retries == {"total_max_attempts": 1}
    assert options.read_timeout >= 900


@pytest.mark.parametrize(
    ("old", "invoked"), [(OLD_VERSION, True), (VERSION, False)], ids=["another version", "the same version"]
)
def test_an_update_invokes_where_the_version_changed(
    old: str, invoked: bool, cloudformation: CloudFormation, lambda_: Lambda
) -> None:
    if invoked:
        lambda_.answers(b"{}")
    before = {"ServiceToken": "arn:aws:lambda:…:invoker", "Version": old}
    event = request(cloudformation, "Update", PhysicalResourceId="the id", OldResourceProperties=before)
    index.handler(event, Context())
    answer = answered(cloudformation)
    assert (answer["Status"], answer["PhysicalResourceId"]) == ("SUCCESS", "the id")


def test_deleting_invokes_nothing(cloudformation: CloudFormation, lambda_: Lambda) -> None:
    index.handler(request(cloudformation, "Delete", PhysicalResourceId="the id"), Context())
    answer = answered(cloudformation)
    assert (answer["Status"], answer["PhysicalResourceId"]) == ("SUCCESS", "the id")


def test_the_id_of_a_resource_stays_the_same(cloudformation: CloudFormation, lambda_: Lambda) -> None:
    """CloudFormation would take another one for another resource, and delete the first."""
    lambda_.answers(b"{}")
    index.handler(request(cloudformation), Context())
    (made,) = {answer["PhysicalResourceId"] for answer in cloudformation.answers}
    lambda_.answers(b"{}")
    before = {"Version": OLD_VERSION}
    index.handler(request(cloudformation, "Update", PhysicalResourceId=made, OldResourceProperties=before), Context())
    assert {answer["PhysicalResourceId"] for answer in cloudformation.answers} == {made}


def test_what_the_function_raised_is_the_reason_that_the_deployment_shows(
    cloudformation: CloudFormation, lambda_: Lambda
) -> None:
    lambda_.raises(REMEDY)
    index.handler(request(cloudformation), Context())
    answer = answered(cloudformation)
    assert (answer["Status"], answer["Reason"]) == ("FAILED", REMEDY)


@pytest.mark.parametrize("payload", [b"", b"no json", b"[1]", b'{"other": 1}', b"null"])
def test_a_failure_without_a_message_is_shown_as_it_came(
    payload: bytes, cloudformation: CloudFormation, lambda_: Lambda
) -> None:
    lambda_.answers(payload, FunctionError="Unhandled")
    index.handler(request(cloudformation), Context())
    answer = answered(cloudformation)
    assert answer["Status"] == "FAILED"
    assert answer["Reason"]
    assert payload.decode() in answer["Reason"]


@pytest.mark.parametrize("message", ["x" * 9000, "Grüße " * 2000, "😀" * 3000, '"' * 5000])
def test_a_long_reason_is_cut_to_what_cloudformation_takes(
    message: str, cloudformation: CloudFormation, lambda_: Lambda
) -> None:
    lambda_.raises(message)
    index.handler(request(cloudformation), Context())
    answer = answered(cloudformation)
    assert answer["Status"] == "FAILED"
    assert message.startswith(answer["Reason"])
    assert len(json.dumps(answer)) > 4096 - 150


@pytest.mark.parametrize("code", sorted(index.NOT_YET))
def test_a_refusal_that_passes_is_tried_again(code: str, cloudformation: CloudFormation, lambda_: Lambda) -> None:
    lambda_.refuses(code, times=30)
    lambda_.answers(b"{}")
    started = lambda_.now
    index.handler(request(cloudformation), Context())
    assert answered(cloudformation)["Status"] == "SUCCESS"
    # A mount target's name may not resolve for 90 s.
    assert lambda_.now - started >= 90


def test_every_error_that_is_tried_again_is_one_of_lambda_s(lambda_: Lambda) -> None:
    model = lambda_.client.meta.service_model
    known = {shape.name for shape in model.operation_model("Invoke").error_shapes}
    # Every service of AWS may answer this one: it isn't in the models.
    assert index.NOT_YET - known == {"AccessDeniedException"}
    assert {name for name in known if name.startswith("EFS")} <= index.NOT_YET


def test_no_connection_is_tried_again(
    cloudformation: CloudFormation, lambda_: Lambda, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = [EndpointConnectionError(endpoint_url="https://lambda")] * 2
    monkeypatch.setattr(lambda_, "client", _Raising(errors, lambda_.client))
    lambda_.answers(b"{}")
    index.handler(request(cloudformation), Context())
    assert answered(cloudformation)["Status"] == "SUCCESS"
    assert errors == []


class _Raising:
    """A client whose first calls raise."""

    def __init__(self, errors: list[EndpointConnectionError], client: Any) -> None:
        self._errors, self._client = errors, client

    def invoke(self, **arguments: Any) -> Any:
        if self._errors:
            raise self._errors.pop()
        return self._client.invoke(**arguments)


def test_what_runs_on_without_an_answer_is_not_invoked_again(
    cloudformation: CloudFormation, lambda_: Lambda, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[Any] = [ReadTimeoutError(endpoint_url="https://lambda")]
    monkeypatch.setattr(lambda_, "client", _Raising(errors, lambda_.client))
    index.handler(request(cloudformation), Context())
    answer = answered(cloudformation)
    assert answer["Status"] == "FAILED"
    assert "Read timeout" in answer["Reason"]


def test_after_some_minutes_the_refusal_is_the_reason(cloudformation: CloudFormation, lambda_: Lambda) -> None:
    times = index.TRY_FOR_S // index.PAUSE_S + 2
    lambda_.refuses("EFSMountFailureException", times=times)
    started = lambda_.now
    index.handler(request(cloudformation), Context())
    answer = answered(cloudformation)
    assert answer["Status"] == "FAILED"
    assert "EFSMountFailureException" in answer["Reason"]
    # The job's own ten minutes must still fit in, or nearly.
    assert 90 <= lambda_.now - started <= 310


@pytest.mark.parametrize(
    "code", ["ResourceNotFoundException", "InvalidParameterValueException", "KMSDisabledException"]
)
def test_a_refusal_that_stays_is_the_reason_at_once(code: str, cloudformation: CloudFormation, lambda_: Lambda) -> None:
    lambda_.refuses(code)
    started = lambda_.now
    index.handler(request(cloudformation), Context())
    answer = answered(cloudformation)
    assert answer["Status"] == "FAILED"
    assert code in answer["Reason"]
    assert lambda_.now == started


@pytest.mark.parametrize("missing", ["RequestType", "ResourceProperties"])
def test_a_request_that_nobody_expected_is_answered(
    missing: str, cloudformation: CloudFormation, lambda_: Lambda
) -> None:
    event = request(cloudformation)
    del event[missing]
    index.handler(event, Context())
    answer = answered(cloudformation)
    assert answer["Status"] == "FAILED"
    assert missing in answer["Reason"]


def test_the_answer_does_not_wait_for_what_takes_longer_than_the_invoker_may_run(
    cloudformation: CloudFormation, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    monkeypatch.setattr(index, "invoke", lambda version: str(release.wait()))
    try:
        # All the time that is left is kept for the answer.
        index.handler(request(cloudformation), Context(remaining_s=index.ANSWER_S))
    finally:
        release.set()
    answer = answered(cloudformation)
    assert answer["Status"] == "FAILED"
    assert "did not end in time" in answer["Reason"]
    assert VERSION in answer["Reason"]


def test_an_answer_that_gets_lost_is_sent_again(cloudformation: CloudFormation, lambda_: Lambda) -> None:
    cloudformation.refusals = [503, 500]
    lambda_.answers(b"{}")
    index.handler(request(cloudformation), Context())
    assert answered(cloudformation)["Status"] == "SUCCESS"


def test_where_nobody_takes_the_answer_it_gives_up_without_raising(
    cloudformation: CloudFormation, lambda_: Lambda
) -> None:
    """A Lambda that raises is invoked again, and would invoke the job again."""
    cloudformation.refusals = [503] * index.ANSWER_TRIES
    lambda_.answers(b"{}")
    index.handler(request(cloudformation), Context())
    assert cloudformation.answers == []
    assert cloudformation.refusals == []
