"""Why CloudFormation failed to make, change or remove a stack, from the stack's events, and the remedies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from aws.stack import CONFIG, is_missing
from similarity.errors import one_line

# CloudFormation's reason for a resource that it has stopped because another one failed.
_STOPPED = re.compile(r"Resource \w+ cancelled")
_MOST = 3

_REMEDIES = {
    r"'[Mm]emorySize' value failed to satisfy constraint": "set LAMBDA_MEMORY_MIB=3008, or ask AWS for more "
    "(docs/deploying.md#quotas-of-new-accounts)",
    r"below its minimum value": "set a smaller MAX_CONCURRENCY, or 0 (docs/security.md#limits)",
    r"maximum number of VPCs": "remove a VPC that you don't need, or ask Service Quotas for more",
    r"maximum number of addresses": "release an Elastic IP that you don't need, or ask Service Quotas for more",
}


def newest_event(stack: str, region: str) -> str | None:
    """The id of the stack's newest event; "" if there is no such stack, None if AWS doesn't tell."""
    try:
        return next((str(event["EventId"]) for event in _events(stack, region)), "")
    except (ClientError, BotoCoreError) as error:
        return "" if is_missing(error) else None


def failures(stack: str, region: str, after: str | None) -> list[str]:
    """The first causes for which an operation on a stack failed, each with its remedy if one is known.

    Empty if nothing failed, or if AWS doesn't tell. stack: name, or the ARN, by which a removed one is found too.
    after: the stack's newest event before the operation, by `newest_event`. If it is None, the events of the operation
    aren't known.
    """
    found: list[str] = []
    if after is None:
        return found
    # If AWS doesn't tell more, the causes found so far are returned. The CDK has printed an error too.
    with suppress(BotoCoreError, ClientError):
        for event in _events(stack, region):
            if event["EventId"] == after:
                break
            if (cause := _cause(event)) and cause not in found:
                found.append(cause)
    return found[::-1][:_MOST]


def _events(stack: str, region: str) -> Iterator[dict[str, Any]]:
    """Newest first. Raises BotoCoreError or ClientError."""
    client = boto3.client("cloudformation", region_name=region, config=CONFIG)
    for page in client.get_paginator("describe_stack_events").paginate(StackName=stack):
        yield from page["StackEvents"]


def _cause(event: dict[str, Any]) -> str:
    """ "" for an event that isn't a cause."""
    reason = one_line(event.get("ResourceStatusReason", ""))
    is_stack = event.get("PhysicalResourceId") == event.get("StackId")
    if is_stack or not event["ResourceStatus"].endswith("_FAILED") or not reason or _STOPPED.search(reason):
        return ""
    remedy = next((words for pattern, words in _REMEDIES.items() if re.search(pattern, reason)), "")
    return f"{event['LogicalResourceId']}: {reason}{f' -> {remedy}' if remedy else ''}"
