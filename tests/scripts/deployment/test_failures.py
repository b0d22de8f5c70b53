"""Why an operation of CloudFormation failed, from events as CloudFormation writes them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from aws.stack import CONFIG
from deployment.failures import failures, newest_event

ARN = "arn:aws:cloudformation:eu-west-1:123456789012:stack/Ours/0123"
MEMORY = (
    "Resource handler returned message: \"'MemorySize' value failed to satisfy constraint: Member must have value less "
    'than or equal to 3008 (Service: Lambda, Status Code: 400, Request ID: 0123)" (RequestToken: 4567, '
    "HandlerErrorCode: InvalidRequest)"
)
OLD_FAILURE = ("1", "Old", "CREATE_FAILED", "An older failure")
# Newest first, as CloudFormation lists them.
EVENTS = [
    ("7", "Ours", "ROLLBACK_COMPLETE", ""),
    ("6", "Ours", "ROLLBACK_IN_PROGRESS", "The following resource(s) failed to create: [Functionssimilar]."),
    ("5", "Api", "CREATE_FAILED", "Resource creation cancelled"),
    ("4", "Functionssimilar", "CREATE_FAILED", MEMORY),
    ("3", "Bucket", "CREATE_FAILED", "similar already exists"),
    ("2", "Ours", "CREATE_IN_PROGRESS", "User Initiated"),
    OLD_FAILURE,
]


def event(id_: str, name: str, status: str, reason: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "StackId": ARN,
        "EventId": id_,
        "StackName": "Ours",
        "Timestamp": datetime(2026, 11, 26, tzinfo=UTC),
        "LogicalResourceId": name,
        "PhysicalResourceId": ARN if name == "Ours" else f"Ours-{name}-0123",
        "ResourceStatus": status,
    }
    return {**found, "ResourceStatusReason": reason} if reason else found


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stubber]:
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    client = boto3.client("cloudformation", region_name="eu-west-1", config=CONFIG, **keys)
    monkeypatch.setattr(boto3, "client", lambda *args, **kw: client)
    with Stubber(client) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


def test_the_first_causes_come_first_and_what_was_only_stopped_is_left_out(stub: Stubber) -> None:
    pages = [{"StackEvents": [event(*each) for each in EVENTS[:4]], "NextToken": "more"}]
    pages.append({"StackEvents": [event(*each) for each in EVENTS[4:]]})
    stub.add_response("describe_stack_events", pages[0], {"StackName": "Ours"})
    stub.add_response("describe_stack_events", pages[1], {"StackName": "Ours", "NextToken": "more"})
    bucket, memory = failures("Ours", "eu-west-1", after="1")
    assert bucket == "Bucket: similar already exists"
    assert memory.startswith("Functionssimilar: Resource handler returned message")
    assert memory.endswith(
        "-> set LAMBDA_MEMORY_MIB=3008, or ask AWS for more (docs/deploying.md#quotas-of-new-accounts)"
    )


def test_that_the_stack_itself_has_failed_is_no_cause(stub: Stubber) -> None:
    whole = event("8", "Ours", "UPDATE_ROLLBACK_FAILED", "The following resource(s) failed to update: [Bucket].")
    stub.add_response("describe_stack_events", {"StackEvents": [whole, event(*EVENTS[4])]})
    assert failures("Ours", "eu-west-1", after="") == ["Bucket: similar already exists"]


def test_an_earlier_operation_does_not_count(stub: Stubber) -> None:
    stub.add_response("describe_stack_events", {"StackEvents": [event(*OLD_FAILURE)]})
    assert failures("Ours", "eu-west-1", after="1") == []


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        (
            "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution "
            "below its minimum value of [100].",
            "MAX_CONCURRENCY",
        ),
        ("The maximum number of VPCs has been reached. (Service: Ec2, Status Code: 400)", "VPC"),
        ("The maximum number of addresses has been reached. (Service: Ec2, Status Code: 400)", "Elastic IP"),
    ],
)
def test_known_causes_have_a_remedy(reason: str, remedy: str, stub: Stubber) -> None:
    stub.add_response("describe_stack_events", {"StackEvents": [event("2", "A", "CREATE_FAILED", reason)]})
    [cause] = failures("Ours", "eu-west-1", after="")
    assert remedy in cause.partition(" -> ")[2]


def test_the_newest_event(stub: Stubber) -> None:
    stub.add_response("describe_stack_events", {"StackEvents": [event(*each) for each in EVENTS]})
    assert newest_event("Ours", "eu-west-1") == "7"


def test_without_a_stack_there_is_nothing(stub: Stubber) -> None:
    for _ in range(2):
        stub.add_client_error("describe_stack_events", "ValidationError", "Stack [Ours] does not exist")
    assert newest_event("Ours", "eu-west-1") == ""
    assert failures("Ours", "eu-west-1", after="") == []


def test_events_that_aws_does_not_tell_are_not_known(stub: Stubber) -> None:
    stub.add_client_error("describe_stack_events", "AccessDenied", "User is not authorized", http_status_code=403)
    assert newest_event("Ours", "eu-west-1") is None
    assert failures("Ours", "eu-west-1", after=None) == []
    stub.add_response("describe_stack_events", {"StackEvents": [event(*EVENTS[4])], "NextToken": "more"})
    stub.add_client_error("describe_stack_events", "Throttling", "Rate exceeded")
    assert failures("Ours", "eu-west-1", after="") == ["Bucket: similar already exists"]
