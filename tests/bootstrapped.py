"""An account after bootstrapping, in a stand-in for AWS: its repository of images, and what names images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import botocore.client
import pytest
from botocore.exceptions import ClientError
from moto.cloudformation.models import CloudFormationBackend, cloudformation_backends
from moto.cloudformation.responses import CloudFormationResponse
from moto.ecr.models import ecr_backends

from buckets import REGION, stand_in_for_aws
from infrastructure import DESCRIPTION
from protection import delete_stack, update_termination_protection

ACCOUNT = "123456789012"
REPOSITORY = f"cdk-hnb659fds-container-assets-{ACCOUNT}-{REGION}"
ADDRESS = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/{REPOSITORY}"
MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
BASE = ("base", 600_000_000)


@contextmanager
def bootstrapped(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # moto then takes the digest of a Lambda's image from the repository.
    monkeypatch.setenv("MOTO_LAMBDA_STUB_ECR", "false")
    monkeypatch.setattr(
        CloudFormationResponse, "update_termination_protection", update_termination_protection, raising=False
    )
    monkeypatch.setattr(CloudFormationBackend, "delete_stack", delete_stack)
    with stand_in_for_aws(monkeypatch):
        boto3.client("ecr", region_name=REGION).create_repository(
            repositoryName=REPOSITORY, imageTagMutability="IMMUTABLE"
        )
        boto3.client("iam", region_name=REGION).create_role(
            RoleName="of-a-lambda", AssumeRolePolicyDocument=json.dumps({"Statement": []})
        )
        yield


def sha256(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def push(tag: str, *layers: tuple[str, int], days_ago: float = 30, name: str = REPOSITORY) -> str:
    """Pushes an image of these layers (name, bytes). Returns its digest."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {"digest": sha256(f"config of {layers}"), "size": 1000},
        "layers": [{"digest": sha256(layer), "size": size} for layer, size in layers],
    }
    answer = boto3.client("ecr", region_name=REGION).put_image(
        repositoryName=name, imageManifest=json.dumps(manifest), imageTag=tag
    )
    digest = str(answer["image"]["imageId"]["imageDigest"])
    for image in ecr_backends[ACCOUNT][REGION].repositories[name].images:
        if image.get_image_digest() == digest:
            image.image_pushed_at = (datetime.now(UTC) - timedelta(days=days_ago)).timestamp()
    return digest


def tags_left() -> set[str]:
    pages = boto3.client("ecr", region_name=REGION).get_paginator("list_images").paginate(repositoryName=REPOSITORY)
    return {each["imageTag"] for page in pages for each in page["imageIds"]}


def make_lambda(name: str, image: str) -> None:
    """image: tag, or digest, of one in the repository."""
    boto3.client("lambda", region_name=REGION).create_function(
        FunctionName=name,
        Role=f"arn:aws:iam::{ACCOUNT}:role/of-a-lambda",
        PackageType="Image",
        Code={"ImageUri": f"{ADDRESS}{'@' if image.startswith('sha256:') else ':'}{image}"},
    )


def template(*tags: str, description: str = DESCRIPTION, resources: dict[str, Any] | None = None) -> str:
    """Names images as the CDK's templates do."""
    address = ADDRESS.replace("amazonaws.com", "${AWS::URLSuffix}")
    return json.dumps(
        {
            "Description": description,
            "Metadata": {"Images": [{"Fn::Sub": f"{address}:{tag}"} for tag in tags]},
            "Resources": resources or {"Topic": {"Type": "AWS::SNS::Topic"}},
        }
    )


def make_stack(name: str, body: str, **options: Any) -> str:
    """Returns its id."""
    client = boto3.client("cloudformation", region_name=REGION)
    return str(client.create_stack(StackName=name, TemplateBody=body, **options)["StackId"])


def set_status(name: str, status: str) -> None:
    """As CloudFormation's own work would."""
    for stack in cloudformation_backends[ACCOUNT][REGION].stacks.values():
        if stack.name == name:
            stack.status = status


Answer = Callable[[Any], Any]


def answer(monkeypatch: pytest.MonkeyPatch, operation: str, instead: Callable[[Any, Answer], Any]) -> None:
    """instead: gets a request's parameters and moto, and gives the answer."""
    call = botocore.client.BaseClient._make_api_call

    def answered(client: Any, name: str, parameters: Any) -> Any:
        if name != operation:
            return call(client, name, parameters)
        return instead(parameters, lambda changed: call(client, name, changed))

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", answered)


def refuse(monkeypatch: pytest.MonkeyPatch, operation: str) -> None:
    """Makes AWS answer as it does without a permission."""
    message = f"User: arn:aws:iam::{ACCOUNT}:user/u is not authorized to perform: {operation}"
    fail(monkeypatch, operation, "AccessDeniedException", message)


def fail(monkeypatch: pytest.MonkeyPatch, operation: str, code: str, message: str) -> None:
    def refused(parameters: Any, moto: Answer) -> Any:
        raise ClientError({"Error": {"Code": code, "Message": message}}, operation)

    answer(monkeypatch, operation, refused)
