"""What a deployed stack holds, as far as a user must know before it is removed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from aws.remedies import explained
from aws.stack import CONFIG, StackError, described
from infrastructure import DESCRIPTION
from similarity.inbox.bucket import DEPLOYED_PREFIX, STATE_KEY, STORE_KEY, Bucket, InboxError, s3_client

# CloudFormation's types, and what this module calls the resource of the type. A stack has at most one of each.
_KINDS = {
    "AWS::S3::Bucket": "bucket",
    "AWS::EFS::FileSystem": "file system",
    "AWS::ApiGatewayV2::DomainName": "domain",
}


@dataclass(frozen=True)
class Contents:
    """A stack, and names of what is in it; "" for a part that it hasn't got.

    id: its ARN, by which a removed stack is found too. lambdas: their names.
    """

    name: str
    region: str
    id: str
    status: str
    is_protected: bool
    is_ours: bool
    api_url: str
    domain: str
    file_system: str
    bucket: str
    lambdas: frozenset[str]

    @classmethod
    def read(cls, name: str, region: str) -> Contents:
        """Raises NoStackError or StackError."""
        found = described(name, region)
        resources = list(_resources(name, region))
        ids = {_KINDS[kind]: id_ for kind, id_ in resources if kind in _KINDS}
        outputs = {each["OutputKey"]: each["OutputValue"] for each in found.get("Outputs", [])}
        return cls(
            name,
            region,
            found["StackId"],
            found["StackStatus"],
            found.get("EnableTerminationProtection", False),
            found.get("Description") == DESCRIPTION,
            outputs.get("apiUrl", ""),
            ids.get("domain", ""),
            ids.get("file system", ""),
            ids.get("bucket", ""),
            frozenset(id_ for kind, id_ in resources if kind == "AWS::Lambda::Function"),
        )

    def table(self) -> str:
        """A line for each part, and how to keep the published states. A size that can't be had is left out."""
        rows = [("API", self.api_url), ("domain", self.domain)]
        if self.file_system:
            rows.append(("file system", f"{self.file_system}{_size_of_file_system(self.file_system, self.region)}"))
        if self.bucket:
            rows += _rows_of_bucket(self.bucket, self.region)
        rows.append(("and", "its network, Lambdas, logs, queues, alarms and roles"))
        return "\n".join(f"  {name:<13}{value}" for name, value in rows if value)


def stacks_of_project(region: str) -> list[str]:
    """Their names; none if AWS doesn't tell."""
    try:
        client = boto3.client("cloudformation", region_name=region, config=CONFIG)
        pages = client.get_paginator("describe_stacks").paginate()
        return sorted(
            each["StackName"] for page in pages for each in page["Stacks"] if each.get("Description") == DESCRIPTION
        )
    except Exception:
        return []


def _resources(name: str, region: str) -> list[tuple[str, str]]:
    """Type and physical id of each resource that was made and isn't removed. Raises StackError."""
    try:
        client = boto3.client("cloudformation", region_name=region, config=CONFIG)
        pages = client.get_paginator("list_stack_resources").paginate(StackName=name)
        found: list[Mapping[str, Any]] = [each for page in pages for each in page["StackResourceSummaries"]]
    except (ClientError, BotoCoreError) as error:
        raise StackError(
            f"the resources of the stack {name} in {region} can't be looked at: {explained(error)}"
        ) from error
    return [
        (each["ResourceType"], each["PhysicalResourceId"])
        for each in found
        if each.get("PhysicalResourceId") and each["ResourceStatus"] != "DELETE_COMPLETE"
    ]


def _size_of_file_system(id_: str, region: str) -> str:
    try:
        client = boto3.client("efs", region_name=region, config=CONFIG)
        [found] = client.describe_file_systems(FileSystemId=id_)["FileSystems"]
    except Exception:
        return ""
    return f", {megabytes(found['SizeInBytes']['Value'])}"


def _rows_of_bucket(name: str, region: str) -> list[tuple[str, str]]:
    try:
        files = Bucket(name, s3_client(region)).versions("")
    except InboxError as error:
        return [("bucket", f"{name}, which can't be looked at: {error.__cause__ and explained(error.__cause__)}")]
    published = [each for each in files if each.key == STATE_KEY]
    rows = [
        ("bucket", f"{name}, {megabytes(sum(each.size for each in files))}:"),
        (
            "",
            f"{plural(len(published), 'published state')}, {megabytes(sum(each.size for each in published))}; "
            f"{plural(sum(each.key.startswith(DEPLOYED_PREFIX) for each in files), 'state')} of deployed images",
        ),
    ]
    if published:
        rows.append(("", f"to keep the newest one: aws s3 cp s3://{name}/{STATE_KEY} ."))
    if any(each.key == STORE_KEY for each in files):
        rows.append(("", "to keep the vectors of its texts: python scripts/publish_state.py --fetch-vectors"))
    return rows


def megabytes(size: int) -> str:
    """Of bytes, with a digit after the point below 10 MB."""
    number = size / 1e6
    return f"{number:.1f} MB" if number < 10 else f"{number:,.0f} MB"


def plural(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"
