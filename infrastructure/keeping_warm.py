"""Invoking Lambdas on a schedule: once a day, or as often as KEEP_WARM_MINUTES says.

Lambda makes a function in a VPC inactive if nobody has called it for some weeks. The next call then fails:
https://docs.aws.amazon.com/lambda/latest/dg/functions-states.html
"""

from __future__ import annotations

from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as events_targets
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

ONE_DAY = 24 * 60


class KeepingWarm(Construct):
    """Invokes each Lambda on a schedule. A rule for each: one rule has five targets at most.

    minutes: the pause that keeps one of each ready; 0 for a call a day, which keeps it active.
    """

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
            schedule = events.Schedule.rate(cdk.Duration.minutes(minutes or ONE_DAY))
            description = "Keeps the Lambda warm" if minutes else "Keeps the Lambda active"
            events.Rule(self, name, description=description, schedule=schedule, targets=[target])
