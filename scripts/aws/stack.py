"""Finds the bucket and the API of a deployed stack by its outputs."""

from __future__ import annotations

from dataclasses import dataclass

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from aws.remedies import explained

_BUCKET, _API, _AUTH = "stateBucketName", "apiUrl", "apiAuth"
_CONFIG = Config(connect_timeout=5, read_timeout=60, retries={"mode": "standard", "total_max_attempts": 5})


class StackError(Exception):
    """The stack can't be found. The message is one sentence."""


@dataclass(frozen=True)
class Stack:
    """What the outputs of a deployed stack say. takes_signed_only: whether its API refuses unsigned requests."""

    bucket: str
    api_url: str
    takes_signed_only: bool


def find_stack(name: str, region: str) -> Stack:
    """Raises StackError."""
    try:
        client = boto3.client("cloudformation", region_name=region, config=_CONFIG)
        [found] = client.describe_stacks(StackName=name)["Stacks"]
    except (ClientError, BotoCoreError) as error:
        if isinstance(error, ClientError) and "does not exist" in str(error):
            raise StackError(
                f"there is no stack {name} in {region}: name another with --stack, STACK_NAME or AWS_REGION, or "
                "deploy it"
            ) from error
        raise StackError(f"the stack {name} in {region} can't be looked at: {explained(error)}") from error
    outputs = {each["OutputKey"]: each["OutputValue"] for each in found.get("Outputs", [])}
    for output in (_BUCKET, _API):
        if not outputs.get(output):
            raise StackError(
                f"the stack {name} in {region} is {found['StackStatus']} and has no output {output}: deploy this "
                "version of it (npx aws-cdk@2 deploy)"
            )
    # Older stacks have no such output, and take any request.
    return Stack(outputs[_BUCKET], outputs[_API], outputs.get(_AUTH) == "iam")
