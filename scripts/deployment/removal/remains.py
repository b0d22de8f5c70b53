"""What is left in an account when a stack is removed, as far as AWS tells."""

from __future__ import annotations

from collections.abc import Sequence

import boto3

from aws.stack import CONFIG, status_of
from costing import prices
from deployment.removal.contents import megabytes, plural
from deployment.removal.repository import Image, ImagesError, Repository, stored_bytes
from infrastructure.config import Config

TOOLKIT = "CDKToolkit"
GITHUB = "token.actions.githubusercontent.com"
# More would be a long list of roles that aren't this project's.
_MOST_ROLES = 5
_MOST_FILES = 10_000


def remaining(config: Config) -> str:
    """A line for each thing that is there; "" if there is nothing.

    The stack is gone, and this is for information. So what AWS doesn't tell in a known form is left out.
    """
    rows = [*_images(config), *_files(config), *_toolkit(config), *_domain(config), *_roles(config)]
    return "\n".join(f"  {name:<13}{value}" for name, value in rows)


def _images(config: Config) -> list[tuple[str, str]]:
    repository = Repository(config.account, config.region)
    try:
        images = repository.images()
    except ImagesError:
        return []
    if not images:
        return []
    ours = sum(image.is_ours for image in images)
    return [
        ("images", f"{described(images)} in {repository.name}"),
        ("", f"{ours:,} of this project, {len(images) - ours:,} of other CDK apps or of earlier versions"),
        ("", "to delete all images and files that no CDK app uses: npx aws-cdk@2 gc --unstable=gc"),
    ]


def described(images: Sequence[Image]) -> str:
    """Their number, size and price."""
    size = stored_bytes(images)
    return f"{plural(len(images), 'image')}, {megabytes(size)}, ${size / 1e9 * prices.ECR_STORAGE.usd:.2f} a month,"


def _files(config: Config) -> list[tuple[str, str]]:
    bucket = f"cdk-hnb659fds-assets-{config.account}-{config.region}"
    try:
        client = boto3.client("s3", region_name=config.region, config=CONFIG)
        pages = client.get_paginator("list_objects_v2").paginate(
            Bucket=bucket, PaginationConfig={"MaxItems": _MOST_FILES}
        )
        sizes = [each["Size"] for page in pages for each in page.get("Contents", [])]
    except Exception:
        return []
    count = f"{'at least ' if len(sizes) == _MOST_FILES else ''}{plural(len(sizes), 'file')}"
    return [("files", f"{count} of CDK apps, {megabytes(sum(sizes))}, in {bucket}")] if sizes else []


def _toolkit(config: Config) -> list[tuple[str, str]]:
    try:
        if not status_of(TOOLKIT, config.region):
            return []
    except Exception:
        return []
    return [
        (
            "stack",
            f"{TOOLKIT}, which bootstrapping made for all CDK apps. If there are none, delete what images are left,",
        ),
        ("", f"then: aws cloudformation delete-stack --region {config.region} --stack-name {TOOLKIT}"),
        ("", "The bucket of files stays then; empty and delete it in the console."),
    ]


def _domain(config: Config) -> list[tuple[str, str]]:
    if not config.domain_name:
        return []
    rows = [("CNAME record", f"of {config.domain_name}, where you made it; delete it there, because it leads nowhere")]
    try:
        client = boto3.client("acm", region_name=config.region, config=CONFIG)
        found = client.describe_certificate(CertificateArn=config.certificate_arn)["Certificate"]
    except Exception:
        return rows
    used = found.get("InUseBy", [])
    use = f"in use by {plural(len(used), 'other resource')}" if used else "free of charge, and ready for another stack"
    return [*rows, ("certificate", f"{config.certificate_arn}, {use}")]


def _roles(config: Config) -> list[tuple[str, str]]:
    """The roles that GitHub may take on. Which repository they are for isn't known here."""
    try:
        client = boto3.client("iam", region_name=config.region, config=CONFIG)
        pages = client.get_paginator("list_roles").paginate()
        roles = [
            each["RoleName"]
            for page in pages
            for each in page["Roles"]
            if GITHUB in str(each.get("AssumeRolePolicyDocument"))
        ]
    except Exception:
        return []
    if not roles:
        return []
    names = ", ".join(roles[:_MOST_ROLES]) + (", ..." if len(roles) > _MOST_ROLES else "")
    return [("roles", f"for GitHub: {names}; docs/pipelines.md says which a pipeline needs")]
