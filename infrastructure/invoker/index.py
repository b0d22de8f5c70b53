"""A custom resource of CloudFormation that invokes a version of a Lambda. A failed invocation fails the deployment.

It runs in a Lambda of its own, with AWS's Python and boto3; nothing of the project is there. Its property is `Version`,
the ARN to invoke. It is invoked with `{}` when the resource is made or the version changes, and again while Lambda
refuses for a reason that passes. Deleting the resource does nothing.

What CloudFormation sends and wants back:
https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref.html
"""

from __future__ import annotations

import json
import logging
import threading
import time
import urllib.request
from http.client import HTTPException
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, ConnectTimeoutError, EndpointConnectionError

# A new mount target's name may not resolve for 90 s, and took 5 minutes in some reports:
# https://docs.aws.amazon.com/efs/latest/ug/mounting-fs-mount-cmd-dns-name.html
TRY_FOR_S = 5 * 60
PAUSE_S = 5
# Of its own time, what is kept for the answer: that is sent several times if need be.
ANSWER_S = 30
ANSWER_TRIES = 3
# https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref-responses.html
MOST_BYTES = 4096

# Errors of Lambda's Invoke that say "not yet", not "no":
# https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
NOT_YET = {
    # the file system's name is not known everywhere, or the role's permissions are not
    "EFSMountConnectivityException",
    "EFSMountFailureException",
    "EFSMountTimeoutException",
    "EFSIOException",
    "AccessDeniedException",
    # the function is being made, or waits for its place in the network
    "ResourceConflictException",
    "ResourceNotReadyException",
    "CodeArtifactUserPendingException",
    "ENINotReadyException",
    "EC2ThrottledException",
    # Lambda is busy
    "TooManyRequestsException",
    "ServiceException",
}

log = logging.getLogger()


class InvocationError(Exception):
    """The invoked Lambda raised, or ended without an answer."""


def handler(event: dict[str, Any], context: Any) -> None:
    """Does what CloudFormation asks for and tells it how that went, in time and whatever happens."""
    # The work has a thread of its own, so that the answer waits for nothing.
    reasons: list[str] = []
    work = threading.Thread(target=_work, args=(event, reasons), daemon=True)
    work.start()
    work.join(context.get_remaining_time_in_millis() / 1000 - ANSWER_S)
    if work.is_alive():
        reasons = [f"{_version(event)} did not end in time."]
    _answer(event, reasons[0] if reasons else None)


def _work(event: dict[str, Any], reasons: list[str]) -> None:
    """Adds the reason where it fails."""
    try:
        before = event.get("OldResourceProperties", {}).get("Version")
        if event["RequestType"] != "Delete" and _version(event) != before:
            log.info("%s answered: %s", _version(event), invoke(_version(event)))
    except Exception as error:
        log.exception("failed")
        reasons.append(str(error) or type(error).__name__)


def _version(event: dict[str, Any]) -> str:
    return str(event["ResourceProperties"]["Version"])


def invoke(version: str) -> str:
    """The answer of a Lambda's version, as JSON. Raises InvocationError, or ClientError where Lambda refuses."""
    # One attempt: boto3 would else invoke again what hasn't answered within a minute.
    once = Config(retries={"total_max_attempts": 1}, read_timeout=900, tcp_keepalive=True)
    client = boto3.client("lambda", config=once)
    give_up_at = time.monotonic() + TRY_FOR_S
    while True:
        try:
            answer = client.invoke(FunctionName=version, Payload=b"{}")
            break
        except (ClientError, EndpointConnectionError, ConnectTimeoutError, ConnectionClosedError) as error:
            refused = isinstance(error, ClientError) and error.response["Error"]["Code"] not in NOT_YET
            if refused or time.monotonic() > give_up_at:
                raise
            log.info("not yet: %s", error)
        time.sleep(PAUSE_S)
    payload = answer["Payload"].read().decode()
    if "FunctionError" in answer:
        raise InvocationError(_message(payload))
    return str(payload)


def _message(payload: str) -> str:
    """What a Lambda raised: https://docs.aws.amazon.com/lambda/latest/dg/python-exceptions.html"""
    log.error("the Lambda raised: %s", payload)
    try:
        return str(json.loads(payload)["errorMessage"])
    except (ValueError, KeyError, TypeError):
        return payload


def _answer(event: dict[str, Any], reason: str | None) -> None:
    """Tells CloudFormation. Without an answer it would wait for the resource's whole time."""
    answer = {
        "Status": "SUCCESS" if reason is None else "FAILED",
        "Reason": reason or "",
        # Always the same: CloudFormation removes the resource of an id that it no longer hears of.
        "PhysicalResourceId": event.get("PhysicalResourceId") or event["LogicalResourceId"],
        **{name: event[name] for name in ("StackId", "RequestId", "LogicalResourceId")},
    }
    log.info("%s %s", answer["Status"], answer["Reason"])
    while len(body := json.dumps(answer).encode()) > MOST_BYTES and answer["Reason"]:
        answer["Reason"] = answer["Reason"][:-10]
    # The address, which is CloudFormation's own, is signed for a request without a type of content.
    request = urllib.request.Request(event["ResponseURL"], body, headers={"Content-Type": ""}, method="PUT")  # noqa: S310
    for attempt in range(1, ANSWER_TRIES + 1):
        try:
            urllib.request.urlopen(request, timeout=ANSWER_S / (2 * ANSWER_TRIES)).close()  # noqa: S310
            return
        except (OSError, HTTPException):
            log.exception("attempt %s to answer failed", attempt)
            time.sleep(1)
