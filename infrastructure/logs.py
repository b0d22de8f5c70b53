"""How every Lambda of the stack logs, and how long logs are kept."""

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
        "log_group": log_group(scope, "Log"),
        "logging_format": lambda_.LoggingFormat.JSON,
        "application_log_level_v2": lambda_.ApplicationLogLevel.INFO,
    }


def json_logs_of_resource(scope: Construct, function: IConstruct) -> logs.LogGroup:
    """The same for a Lambda that the CDK adds as a bare resource. Returns the group."""
    assert isinstance(function, cdk.CfnResource)
    group = log_group(scope, "Log")
    # A reference. CloudFormation removes the group after the Lambda.
    settings = {"LogGroup": group.log_group_name, "LogFormat": "JSON", "ApplicationLogLevel": "INFO"}
    function.add_property_override("LoggingConfig", settings)
    return group


def log_group(scope: Construct, construct_id: str) -> logs.LogGroup:
    """Keeps lines for a month, and goes with the stack."""
    return logs.LogGroup(
        scope, construct_id, retention=logs.RetentionDays.ONE_MONTH, removal_policy=cdk.RemovalPolicy.DESTROY
    )
