"""Finds the bucket and the API of a deployed stack by its outputs, and says what to do about errors of AWS."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 (botocore's: no connection to AWS)
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)
from dotenv import dotenv_values

from similarity.errors import one_line

_BUCKET, _API = "stateBucketName", "apiUrl"
_CONFIG = Config(connect_timeout=5, read_timeout=60, retries={"mode": "standard", "total_max_attempts": 5})

_LOG_IN = "log in to AWS again, e.g. with `aws sso login`"
_REMEDIES = {
    ("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"): _LOG_IN,
    (
        *("InvalidClientTokenId", "InvalidAccessKeyId", "UnrecognizedClientException", "SignatureDoesNotMatch"),
        *("InvalidSignatureException", "AuthFailure", "InvalidToken"),
    ): "check the AWS credentials in the environment or in ~/.aws",
    (
        *("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403"),
    ): "docs/publishing.md#permissions lists the permissions that you need",
    ("NoSuchBucket",): "deploy the stack again",
    ("RequestTimeTooSkewed",): "set this machine's clock",
}


class StackError(Exception):
    """The stack can't be found. The message is one sentence."""


@dataclass(frozen=True)
class Stack:
    """What the outputs of a deployed stack say."""

    bucket: str
    api_url: str


def region_of(environment: Mapping[str, str], env_file: Path) -> str:
    """The region of the environment, else that of the file `.env`. Raises StackError."""
    given = (environment.get("AWS_REGION") or "").strip() or (environment.get("AWS_DEFAULT_REGION") or "").strip()
    if not given:
        try:
            given = (dotenv_values(env_file, encoding="utf-8-sig").get("AWS_REGION") or "").strip()
        except (OSError, ValueError) as error:
            raise StackError(f"{env_file} can't be read: {one_line(str(error))}") from error
    if not given:
        raise StackError(
            "AWS_REGION isn't set: give the region of the stack, such as us-east-1, in the environment or in .env"
        )
    if not re.fullmatch(r"[a-z]{2}(-[a-z]+)+-[0-9]", given, re.ASCII):
        raise StackError(f"AWS_REGION must be an AWS region such as us-east-1, not {given!r}")
    return given


def find_stack(name: str, region: str) -> Stack:
    """Raises StackError."""
    try:
        client = boto3.client("cloudformation", region_name=region, config=_CONFIG)
        [found] = client.describe_stacks(StackName=name)["Stacks"]
    except (ClientError, BotoCoreError) as error:
        if isinstance(error, ClientError) and "does not exist" in str(error):
            raise StackError(
                f"there is no stack {name} in {region}: name another with --stack or AWS_REGION, or deploy it"
            ) from error
        raise StackError(f"the stack {name} in {region} can't be looked at: {explained(error)}") from error
    outputs = {each["OutputKey"]: each["OutputValue"] for each in found.get("Outputs", [])}
    for output in (_BUCKET, _API):
        if not outputs.get(output):
            raise StackError(
                f"the stack {name} in {region} is {found['StackStatus']} and has no output {output}: deploy this "
                "version of it (npx aws-cdk@2 deploy)"
            )
    return Stack(outputs[_BUCKET], outputs[_API])


def explained(error: BaseException) -> str:
    """An error of AWS, and the remedy if there is one."""
    remedy = remedy_of(error)
    return f"{one_line(str(error))}{f'; {remedy}' if remedy else ''}"


def remedy_of(error: BaseException | None) -> str:
    """ "" without one."""
    if isinstance(error, NoCredentialsError | PartialCredentialsError | CredentialRetrievalError | ProfileNotFound):
        return "log in to AWS, or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if isinstance(error, SSOError | TokenRetrievalError):
        return _LOG_IN
    if isinstance(error, ConnectionError | HTTPClientError):
        return "check the network and AWS_REGION"
    if isinstance(error, ClientError):
        code = error.response.get("Error", {}).get("Code")
        return next((remedy for codes, remedy in _REMEDIES.items() if code in codes), "")
    return ""
