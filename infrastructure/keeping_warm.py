"""Invoking Lambdas on a schedule, so that one of each is ready. Asked for by KEEP_WARM_MINUTES."""

from __future__ import annotations

from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as events_targets
from aws_cdk import aws_lambda as lambda_
from constructs import Construct


class KeepingWarm(Construct):
    """Invokes each Lambda on a schedule. A rule for each: one rule has five targets at most."""

    def __init__(
        self, scope: Construct, construct_id: str, *, functions: Mapping[str, lambda_.Function], minutes: int
    ) -> None:
        super().__init__(scope, construct_id)
        for name, function in functions.items():
            target = events_targets.LambdaFunction(
                function,
                event=events.RuleTargetInput.from_object({"warm": True}),
                # The next one comes soon enough.
                retry_attempts=0,
            )
            schedule = events.Schedule.rate(cdk.Duration.minutes(minutes))
            events.Rule(self, name, description="Keeps the Lambda warm", schedule=schedule, targets=[target])
