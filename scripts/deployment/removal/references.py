"""What names images in an account and region: Lambdas and CloudFormation's stacks."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.exceptions import ClientError

from aws.stack import CONFIG
from deployment.removal.repository import Image, ImagesError, errors_of_aws
from infrastructure import DESCRIPTION


@dataclass(frozen=True)
class Reference:
    """Something that names images: a version of a Lambda by their addresses, or a stack by its template.

    lambda_name: "" for a stack. stack_name: "" for a Lambda.
    """

    text: str
    lambda_name: str = ""
    stack_name: str = ""

    def is_of(self, stack_name: str, lambdas: Collection[str]) -> bool:
        """Whether this is that stack's template, or one of those Lambdas."""
        return self.stack_name == stack_name if self.stack_name else self.lambda_name in lambdas

    def names(self, image: Image) -> bool:
        """Whether it names one of the image's tags, or its digest. It may be wrong if the answer is yes."""
        return any(name in self.text for name in image.names)


def references(region: str) -> list[Reference]:
    """All that names images in an account and region. Raises ImagesError if any of it can't be looked at."""
    with errors_of_aws("the Lambdas can't be looked at"):
        lambdas = list(_of_lambdas(region))
    with errors_of_aws("the stacks can't be looked at"):
        return [*lambdas, *_of_stacks(region)]


def _of_lambdas(region: str) -> Iterator[Reference]:
    """Those of all versions: an alias, or a caller, may use an old one."""
    client = boto3.client("lambda", region_name=region, config=CONFIG)
    for page in client.get_paginator("list_functions").paginate(FunctionVersion="ALL"):
        for each in page["Functions"]:
            if each.get("PackageType") != "Image":
                continue
            name = each["FunctionName"]
            try:
                code = client.get_function(FunctionName=name, Qualifier=each["Version"])["Code"]
            except client.exceptions.ResourceNotFoundException:  # removed since it was listed
                continue
            if not code.get("ImageUri"):
                raise ImagesError(f"AWS doesn't tell which image the Lambda {name} runs")
            yield Reference(f"{code['ImageUri']} {code.get('ResolvedImageUri', '')}", lambda_name=name)


def _of_stacks(region: str) -> Iterator[Reference]:
    client = boto3.client("cloudformation", region_name=region, config=CONFIG)
    for page in client.get_paginator("describe_stacks").paginate():
        for each in page["Stacks"]:
            texts = [json.dumps(each.get("Parameters", [])), *_texts(client, each)]
            yield Reference("\n".join(texts), stack_name=each["StackName"])


def _texts(client: Any, stack: Mapping[str, Any]) -> Iterator[str]:
    """The templates of a stack and of its change sets, which a deployment may be about to carry out.

    The change sets first: one that is carried out meanwhile becomes the stack's template. A stack that has only been
    prepared has no template yet.
    """
    id_, status = stack["StackId"], stack["StackStatus"]
    with _if_there():
        for page in client.get_paginator("list_change_sets").paginate(StackName=id_):
            for each in page["Summaries"]:
                with _if_there():
                    yield _template(client, StackName=id_, ChangeSetName=each["ChangeSetId"])
    with _if_there():
        if status == "REVIEW_IN_PROGRESS":
            [found] = client.describe_stacks(StackName=id_)["Stacks"]
            status = found["StackStatus"]
        if status != "REVIEW_IN_PROGRESS":
            yield _template(client, StackName=id_)


@contextmanager
def _if_there() -> Iterator[None]:
    """Ends where a stack or a change set was removed after it was listed."""
    try:
        yield
    except ClientError as error:
        if "does not exist" not in str(error):
            raise


def _template(client: Any, **which: str) -> str:
    """boto3 has parsed a template that is JSON."""
    body = client.get_template(**which, TemplateStage="Original")["TemplateBody"]
    return body if isinstance(body, str) else json.dumps(body)


def templates_of_removed(name: str, region: str) -> list[str]:
    """The templates of this project's removed stacks of a name. CloudFormation keeps them for 90 days.

    Raises ImagesError.
    """
    found = []
    with errors_of_aws("the removed stacks can't be looked at"):
        client = boto3.client("cloudformation", region_name=region, config=CONFIG)
        for page in client.get_paginator("list_stacks").paginate(StackStatusFilter=["DELETE_COMPLETE"]):
            for each in page["StackSummaries"]:
                if each["StackName"] != name or each.get("TemplateDescription") != DESCRIPTION:
                    continue
                with _if_there():
                    found.append(_template(client, StackName=each["StackId"]))
    return found
