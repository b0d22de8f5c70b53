"""Priming: what a deployment invokes once. First the job that shelves the state, then each handler.

A Lambda that raises fails the deployment and takes it back; the error that it raised is the reason shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_lambda as lambda_
from constructs import Construct, IDependable

from infrastructure.logs import json_logs
from infrastructure.roles import allow_only_its_own_log

INVOKER_DIR = Path(__file__).resolve().parent / "invoker"
# Lambda's longest. The job takes ten minutes at most, after some minutes in which the file system isn't found.
INVOKER_TIMEOUT = cdk.Duration.minutes(15)


class Priming(Construct):
    """Invokes the version of each Lambda that a deployment made or changed.

    Not `aws_cdk.triggers`: those try again where a permission is missing only, while a file system whose name doesn't
    resolve yet makes Lambda refuse for minutes, in each zone by itself.

    job: invoked once the network and the file system are there (`after`), and before the handlers.
    handlers: by name. They are invoked when the API is there too, so that no caller waits for the first start.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        job: lambda_.Function,
        handlers: Mapping[str, lambda_.Function],
        after: Sequence[IDependable],
        api: IDependable,
    ) -> None:
        super().__init__(scope, construct_id)
        self._invoker = lambda_.Function(
            self,
            "Invoker",
            description="Invokes Lambdas for CloudFormation",
            code=lambda_.Code.from_asset(str(INVOKER_DIR), exclude=["*", "!index.py"]),
            runtime=lambda_.Runtime.PYTHON_3_14,
            handler="index.handler",
            memory_size=256,
            timeout=INVOKER_TIMEOUT,
            **json_logs(self),
        )
        allow_only_its_own_log(self._invoker)
        first = self._invoke(job, "Job", after=after)
        invoked = Construct(self, "Handlers")
        for name, function in handlers.items():
            self._invoke(function, name, scope=invoked, after=[first, *after, api])

    def _invoke(
        self,
        function: lambda_.Function,
        construct_id: str,
        *,
        after: Sequence[IDependable],
        scope: Construct | None = None,
    ) -> cdk.CustomResource:
        # The API calls the function itself; its permissions are for that.
        cdk.Annotations.of(function).acknowledge_warning(
            "@aws-cdk/aws-lambda:addPermissionsToVersionOrAlias", "no caller but the invoker names a version"
        )
        # Of all versions, so that an update, or taking one back, changes no permission that it needs at once.
        function.grant_invoke(self._invoker)
        invocation = cdk.CustomResource(
            scope or self,
            construct_id,
            service_token=self._invoker.function_arn,
            # Without an answer of the invoker the deployment ends after this time instead of an hour.
            service_timeout=INVOKER_TIMEOUT.plus(cdk.Duration.minutes(1)),
            resource_type="Custom::Invocation",
            # A version's id is made of what the function is: another image or setting is another version.
            properties={"Version": function.current_version.function_arn},
        )
        invocation.node.add_dependency(self._invoker, *after)
        return invocation
