"""A stack in AWS: its status, and its bucket, API and other outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from aws.remedies import explained

_BUCKET, _API, _AUTH = "stateBucketName", "apiUrl", "apiAuth"
# The first deployment failed, or has only been prepared. The next deployment replaces such a stack.
_NEVER_MADE = ("REVIEW_IN_PROGRESS", "ROLLBACK_COMPLETE")
CONFIG = Config(connect_timeout=5, read_timeout=60, retries={"mode": "standard", "total_max_attempts": 5})


class StackError(Exception):
    """The stack can't be found. The message is one sentence."""


class NoStackError(StackError):
    """There is no such stack, or its first deployment failed."""


@dataclass(frozen=True)
class Stack:
    """The outputs of a deployed stack.

    takes_signed_only: whether its API refuses unsigned requests. page_url: "" without a page. dashboard_url: ""
    without alarms. domain_target: the name to which the record of the API's own domain must lead; "" without a domain.
    """

    bucket: str
    api_url: str
    takes_signed_only: bool
    page_url: str = ""
    dashboard_url: str = ""
    domain_target: str = ""


def is_missing(error: BaseException) -> bool:
    """Whether CloudFormation says that a stack or a change set doesn't exist. It has no code of its own for that."""
    return isinstance(error, ClientError) and "does not exist" in str(error)


def described(name: str, region: str) -> dict[str, Any]:
    """CloudFormation's description of a stack. Raises NoStackError or StackError."""
    try:
        client = boto3.client("cloudformation", region_name=region, config=CONFIG)
        [found] = client.describe_stacks(StackName=name)["Stacks"]
    except (ClientError, BotoCoreError) as error:
        if is_missing(error):
            raise NoStackError(
                f"there is no stack {name} in {region}: name another with --stack, STACK_NAME or AWS_REGION, or "
                "deploy it"
            ) from error
        raise StackError(f"the stack {name} in {region} can't be looked at: {explained(error)}") from error
    return dict(found)


def status_of(name: str, region: str) -> str:
    """A stack's status, e.g. CREATE_COMPLETE; "" if there is no such stack. Raises StackError."""
    try:
        return str(described(name, region)["StackStatus"])
    except NoStackError:
        return ""


def find_stack(name: str, region: str) -> Stack:
    """Raises NoStackError or StackError."""
    found = described(name, region)
    outputs = {each["OutputKey"]: each["OutputValue"] for each in found.get("Outputs", [])}
    for output in (_BUCKET, _API):
        if not outputs.get(output):
            kind = NoStackError if found["StackStatus"] in _NEVER_MADE else StackError
            raise kind(
                f"the stack {name} in {region} is {found['StackStatus']} and has no output {output}: deploy this "
                "version of it (scripts/deploy)"
            )
    # Older stacks have no such output, and take any request.
    return Stack(
        outputs[_BUCKET],
        outputs[_API],
        outputs.get(_AUTH) == "iam",
        outputs.get("pageUrl", ""),
        outputs.get("dashboardUrl", ""),
        outputs.get("domainTarget", ""),
    )
