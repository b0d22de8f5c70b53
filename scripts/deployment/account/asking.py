"""Asks AWS for the checks, with short timeouts. Names the permissions, and turns errors into sentences."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    ClientError,
    ConnectionError,  # noqa: A004 (botocore's: no connection to AWS)
    HTTPClientError,
    UnknownRegionError,
)

from aws.remedies import explained
from aws.stack import is_missing
from deployment.findings import Finding

# All that the checks do, by IAM's names, each with its client and method of boto3. They only read.
ACTIONS = {
    "acm:DescribeCertificate": ("acm", "describe_certificate"),
    # API Gateway's actions are HTTP methods: https://docs.aws.amazon.com/apigateway/latest/developerguide/security-iam.html
    "apigateway:GET": ("apigatewayv2", "get_domain_name"),
    "cloudformation:DescribeStacks": ("cloudformation", "describe_stacks"),
    "cloudformation:ListStackResources": ("cloudformation", "list_stack_resources"),
    "ec2:DescribeAddresses": ("ec2", "describe_addresses"),
    "ec2:DescribeRegions": ("ec2", "describe_regions"),
    "ec2:DescribeVpcs": ("ec2", "describe_vpcs"),
    "lambda:GetAccountSettings": ("lambda", "get_account_settings"),
    "lambda:GetFunctionConcurrency": ("lambda", "get_function_concurrency"),
    "lambda:ListFunctions": ("lambda", "list_functions"),
    "servicequotas:GetServiceQuota": ("service-quotas", "get_service_quota"),
    "servicequotas:ListServiceQuotas": ("service-quotas", "list_service_quotas"),
    "ssm:GetParameter": ("ssm", "get_parameter"),
    # AWS lets everybody do this.
    "sts:GetCallerIdentity": ("sts", "get_caller_identity"),
}

_CONFIG = Config(connect_timeout=3, read_timeout=8, retries={"mode": "standard", "total_max_attempts": 2})
DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation")
# A region of each partition that is on in every account.
_HOMES = {
    "aws": "us-east-1",
    "aws-cn": "cn-north-1",
    "aws-us-gov": "us-gov-west-1",
    "aws-eusc": "eusc-de-east-1",
}


class AwsError(Exception):
    """AWS gave no answer. The message is one sentence. code: AWS's own name for the error, "" without one."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class UnreachableError(AwsError):
    """AWS can't be reached."""


class BlockedError(Exception):
    """A finding after which the remaining checks can't be made. why: the reason that they give."""

    def __init__(self, finding: Finding, why: str) -> None:
        super().__init__(why)
        self.finding = finding
        self.why = why


class Aws:
    """Asks AWS in one region, with the credentials that boto3 finds. Every method raises AwsError.

    home: a region that can be asked although `region` is "", wrong or switched off.
    """

    def __init__(self, region: str) -> None:
        self.region = region
        self._clients: dict[tuple[str, str], Any] = {}

    def ask(self, action: str, *, region: str = "", **parameters: Any) -> Any:
        """An answer. action: one of ACTIONS. region: another than that of the deployment."""
        service, method = ACTIONS[action]
        with _translated(action):
            return getattr(self.client(service, region or self.region), method)(**parameters)

    def ask_if_there(self, action: str, *codes: str, **parameters: Any) -> Any:
        """An answer. None if the error is one of `codes`, or says that a stack doesn't exist."""
        try:
            return self.ask(action, **parameters)
        except AwsError as error:
            if error.code in codes or (error.__cause__ and is_missing(error.__cause__)):
                return None
            raise

    def all_of(self, action: str, key: str, **parameters: Any) -> Iterator[Any]:
        """The items of all pages."""
        service, method = ACTIONS[action]
        with _translated(action):
            for page in self.client(service, self.region).get_paginator(method).paginate(**parameters):
                yield from page.get(key, [])

    def client(self, service: str, region: str) -> Any:
        """Made once."""
        if (service, region) not in self._clients:
            self._clients[service, region] = self._session.client(service, region_name=region)
        return self._clients[service, region]

    @property
    def home(self) -> str:
        with _translated("sts:GetCallerIdentity"):
            return _home_of(self.region)

    @cached_property
    def _session(self) -> boto3.Session:
        # The timeouts also count for what botocore itself asks for credentials, such as those of a role.
        core = botocore.session.get_session()
        core.set_default_client_config(_CONFIG)
        return boto3.Session(botocore_session=core)


@cache
def _home_of(region: str) -> str:
    try:
        partition = botocore.session.get_session().get_partition_for_region(region)
    except UnknownRegionError:
        partition = "aws"
    return _HOMES.get(partition, region)


@contextmanager
def _translated(action: str) -> Iterator[None]:
    try:
        yield
    except (ConnectionError, HTTPClientError) as error:
        raise UnreachableError(explained(error)) from error
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in DENIED:
            raise AwsError(f"these credentials lack the permission {action}", code) from error
        raise AwsError(explained(error), code) from error
    # Credentials that can't be read or renewed raise many kinds of errors, RuntimeError among them.
    except Exception as error:
        raise AwsError(explained(error) or type(error).__name__) from error
