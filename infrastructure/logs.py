"""How every Lambda of the stack logs."""

from __future__ import annotations

from typing import TypedDict

import aws_cdk as cdk
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct, IConstruct


class LogSettings(TypedDict):
    """Arguments of a Lambda's construct."""

    log_group: logs.LogGroup
    logging_format: lambda_.LoggingFormat
    application_log_level_v2: lambda_.ApplicationLogLevel


def json_logs(scope: Construct) -> LogSettings:
    """Lines of JSON in a group of the scope's own. It goes with the stack; one that Lambda makes stays for ever."""
    return {
        "log_group": _group(scope),
        "logging_format": lambda_.LoggingFormat.JSON,
        "application_log_level_v2": lambda_.ApplicationLogLevel.INFO,
    }


def json_logs_of_resource(scope: Construct, function: IConstruct) -> None:
    """The same for a Lambda that the CDK adds as a bare resource."""
    assert isinstance(function, cdk.CfnResource)
    # A reference. CloudFormation removes the group after the Lambda.
    group = _group(scope).log_group_name
    settings = {"LogGroup": group, "LogFormat": "JSON", "ApplicationLogLevel": "INFO"}
    function.add_property_override("LoggingConfig", settings)


def _group(scope: Construct) -> logs.LogGroup:
    return logs.LogGroup(scope, "Log", retention=logs.RetentionDays.ONE_MONTH, removal_policy=cdk.RemovalPolicy.DESTROY)
