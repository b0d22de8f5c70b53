"""How every Lambda of the stack logs."""

from __future__ import annotations

from typing import TypedDict

import aws_cdk as cdk
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct


class LogSettings(TypedDict):
    """Arguments of a Lambda's construct."""

    log_group: logs.LogGroup
    logging_format: lambda_.LoggingFormat
    application_log_level_v2: lambda_.ApplicationLogLevel


def json_logs(scope: Construct) -> LogSettings:
    """Lines of JSON in a group of the scope's own. It goes with the stack; one that Lambda makes stays for ever."""
    return {
        "log_group": logs.LogGroup(
            scope, "Log", retention=logs.RetentionDays.ONE_MONTH, removal_policy=cdk.RemovalPolicy.DESTROY
        ),
        "logging_format": lambda_.LoggingFormat.JSON,
        "application_log_level_v2": lambda_.ApplicationLogLevel.INFO,
    }
