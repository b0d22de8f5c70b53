"""What the checks of the account look at: the settings, the handler files, and the stack as it is in AWS."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from deployment.account.asking import Aws
from deployment.given import Given
from infrastructure import DESCRIPTION
from similarity.api.routes import JOBS, HandlerFile, find_handlers


class DeployedStack:
    """The stack as it is in AWS. Every property raises AwsError."""

    def __init__(self, aws: Aws, name: str) -> None:
        self._aws = aws
        self.name = name

    @cached_property
    def found(self) -> dict[str, Any] | None:
        """None if it isn't there."""
        answer = self._aws.ask_if_there("cloudformation:DescribeStacks", StackName=self.name)
        return answer["Stacks"][0] if answer else None

    @property
    def status(self) -> str:
        """ "" if it isn't there."""
        return str(self.found["StackStatus"]) if self.found else ""

    @property
    def has_resources(self) -> bool:
        """Also False for a stack that was never completed: it is only a name."""
        return self.status not in ("", "REVIEW_IN_PROGRESS", "ROLLBACK_COMPLETE")

    @property
    def is_ours(self) -> bool:
        """Whether the stack is this project's, by its description or its outputs.

        After a failed first deployment it has no outputs. An old version may have another description.
        """
        found = self.found or {}
        outputs = [each["OutputKey"] for each in found.get("Outputs", [])]
        return found.get("Description") == DESCRIPTION or "apiUrl" in outputs

    def physical_ids(self, kind: str) -> list[str]:
        """Of the resources of a type, e.g. AWS::Lambda::Function."""
        return [each["PhysicalResourceId"] for each in self._resources if each["ResourceType"] == kind]

    @cached_property
    def _resources(self) -> list[dict[str, Any]]:
        if not self.has_resources:
            return []
        summaries = self._aws.all_of("cloudformation:ListStackResources", "StackResourceSummaries", StackName=self.name)
        return [
            each for each in summaries if each.get("PhysicalResourceId") and each["ResourceStatus"] != "DELETE_COMPLETE"
        ]


class Target:
    """The settings, and the account and the region that they name."""

    def __init__(self, given: Given, aws: Aws) -> None:
        self.given = given
        self.config = given.config
        self.aws = aws
        self.stack = DeployedStack(aws, given.config.stack_name)

    @cached_property
    def identity(self) -> dict[str, str]:
        """Account and Arn of the credentials. Raises AwsError."""
        return dict(self.aws.ask("sts:GetCallerIdentity", region=self.aws.home))

    @property
    def account(self) -> str:
        return self.config.account or self.identity["Account"]

    @cached_property
    def handlers(self) -> list[HandlerFile]:
        """Those that are deployed. Raises HandlerFileError."""
        return [each for each in find_handlers(self._inference) if self.config.deploys(each)]

    @cached_property
    def jobs(self) -> list[HandlerFile]:
        """Raises HandlerFileError."""
        return find_handlers(self._inference, JOBS)

    @property
    def _inference(self) -> Path:
        return self.given.root / "inference"
