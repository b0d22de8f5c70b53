"""S3 and its neighbours, by moto's server in this process: the bucket of a stack, its outputs, and its events.

EventBridge's rule sends the events to a queue of SQS, from which a test hands them to the job: moto doesn't invoke
Lambdas. Here S3's clock moves on by a second with each object, so that no two of them have the same time.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
import requests
from moto.moto_server.werkzeug_app import DomainDispatcherApplication
from moto.server import ThreadedMotoServer

from chain.permissions import Call, call_of
from similarity.inbox.bucket import STATE_KEY, Bucket
from similarity.settings import DEFAULT_STACK_NAME

BUCKET, REGION = "a-bucket-of-states", "us-east-1"

# https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-rule-schedule.html
DAILY = {
    "version": "0",
    "id": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa",
    "detail-type": "Scheduled Event",
    "source": "aws.events",
    "account": "123456789012",
    "time": "2026-11-26T07:00:00Z",
    "region": REGION,
    "resources": [f"arn:aws:events:{REGION}:123456789012:rule/daily"],
    "detail": {},
}
_PATTERN = {
    "source": ["aws.s3"],
    "detail-type": ["Object Created"],
    "detail": {"bucket": {"name": [BUCKET]}, "object": {"key": [STATE_KEY]}},
}


@dataclass
class Cloud:
    """variables: lead AWS's clients to this machine. calls: those of S3, in order."""

    url: str
    variables: dict[str, str]
    calls: list[Call]
    queue_url: str = ""

    def variables_of(self, caller: str) -> dict[str, str]:
        """With these, `calls` tell a caller from others."""
        return {**self.variables, "AWS_ACCESS_KEY_ID": caller}

    def calls_of(self, caller: str) -> list[Call]:
        return [call for call in self.calls if call.by == caller]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def bucket(self) -> Bucket:
        return Bucket(BUCKET, self.client("s3"))

    def client(self, service: str) -> Any:
        return boto3.client(service, region_name=REGION, endpoint_url=self.url)

    def deploy(self, api_url: str, pattern: dict[str, Any] | None = None) -> None:
        """Makes the part of the stack that is outside the Lambdas, or gives the one that is there another API.

        pattern: of the rule that invokes the job.
        """
        template = {
            "Resources": {"Bucket": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": BUCKET}}},
            "Outputs": {"stateBucketName": {"Value": {"Ref": "Bucket"}}, "apiUrl": {"Value": api_url}},
        }
        given = {"StackName": DEFAULT_STACK_NAME, "TemplateBody": json.dumps(template)}
        cloudformation = self.client("cloudformation")
        if self.queue_url:
            cloudformation.update_stack(**given)
            return
        cloudformation.create_stack(**given)
        s3 = self.client("s3")
        # moto's CloudFormation leaves both out.
        s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        s3.put_bucket_notification_configuration(
            Bucket=BUCKET, NotificationConfiguration={"EventBridgeConfiguration": {}}
        )
        self.queue_url = self.client("sqs").create_queue(QueueName="events")["QueueUrl"]
        events = self.client("events")
        events.put_rule(Name="created", EventPattern=json.dumps(pattern or _PATTERN))
        target = {"Id": "queue", "Arn": f"arn:aws:sqs:{REGION}:123456789012:events"}
        events.put_targets(Rule="created", Targets=[target])

    def forget(self, key: str) -> None:
        """Removes all versions of an object."""
        s3 = self.client("s3")
        for each in self.bucket.versions(key):
            s3.delete_object(Bucket=BUCKET, Key=each.key, VersionId=each.version_id)

    def events(self) -> list[dict[str, Any]]:
        """What EventBridge has sent since the last call, in its form."""
        sqs, found = self.client("sqs"), []
        while messages := sqs.receive_message(QueueUrl=self.queue_url, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                found.append(json.loads(message["Body"]))
                sqs.delete_message(QueueUrl=self.queue_url, ReceiptHandle=message["ReceiptHandle"])
        return found


class _Clock:
    """An hour ago, and a second later with each call."""

    def __init__(self) -> None:
        self._now = datetime.now(UTC).replace(tzinfo=None, microsecond=0) - timedelta(hours=1)

    def __call__(self) -> datetime:
        self._now += timedelta(seconds=1)
        return self._now


def _noting(calls: list[Call]) -> Callable[..., Any]:
    answer = DomainDispatcherApplication.__call__

    def noting(self: DomainDispatcherApplication, environ: dict[str, Any], start_response: Any) -> Any:
        if call := call_of(environ):
            calls.append(call)
        return answer(self, environ, start_response)

    return noting


@contextmanager
def running_cloud() -> Iterator[Cloud]:
    """An empty cloud, to which the variables of this process lead too."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    variables = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        # Nothing of this machine's own account.
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    calls: list[Call] = []
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("AWS_")]:
                patch.delenv(name)
            for name, value in variables.items():
                patch.setenv(name, value)
            patch.setattr("moto.s3.models.utcnow", _Clock())
            patch.setattr(DomainDispatcherApplication, "__call__", _noting(calls))
            requests.post(f"http://{host}:{port}/moto-api/reset", timeout=60).raise_for_status()
            yield Cloud(f"http://{host}:{port}", variables, calls)
    finally:
        server.stop()
