"""The repository of container images that bootstrapping made: what lies in it, and deleting from it.

All CDK apps of an account and region push into this repository.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from aws.remedies import explained
from aws.stack import CONFIG
from infrastructure import IMAGE_TAG_PREFIX
from similarity.errors import reason_of

# ECR takes and deletes as many in one request:
# https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_BatchDeleteImage.html
_BATCH = 100
_NOT_FOUND = "ImageNotFound"


class ImagesError(Exception):
    """AWS doesn't tell which images there are, or what uses them. The message is a sentence without its full stop."""


@contextmanager
def errors_of_aws(doing: str) -> Iterator[None]:
    """Raises ImagesError for each of AWS's own, and for an answer of another form than AWS documents."""
    try:
        yield
    except ImagesError:
        raise
    except (ClientError, BotoCoreError) as error:
        raise ImagesError(f"{doing}: {explained(error)}") from error
    except Exception as error:
        raise ImagesError(f"{doing}: AWS's answer has an unforeseen form: {reason_of(error)}") from error


@dataclass(frozen=True)
class Image:
    """An image in the repository. blobs: bytes of its layers and its configuration, by their digests."""

    digest: str
    tags: tuple[str, ...]
    pushed_at: datetime
    blobs: Mapping[str, int]

    @property
    def names(self) -> frozenset[str]:
        return frozenset((self.digest, *self.tags))

    @property
    def is_ours(self) -> bool:
        return any(tag.startswith(IMAGE_TAG_PREFIX) for tag in self.tags)

    @property
    def foreign_tags(self) -> frozenset[str]:
        """Those that somebody else has given it."""
        return frozenset(tag for tag in self.tags if not tag.startswith(IMAGE_TAG_PREFIX))


def stored_bytes(images: Iterable[Image]) -> int:
    """What images take up. The repository keeps a layer once, however many images share it."""
    return sum({digest: size for image in images for digest, size in image.blobs.items()}.values())


class Repository:
    """The repository of images that bootstrapping made."""

    def __init__(self, account: str, region: str) -> None:
        self.name = f"cdk-hnb659fds-container-assets-{account}-{region}"
        self._account = account
        self._client = boto3.client("ecr", region_name=region, config=CONFIG)

    def images(self) -> list[Image]:
        """Empty if there is no repository. Raises ImagesError."""
        with errors_of_aws(f"the images in {self.name} can't be listed"):
            try:
                pages = self._client.get_paginator("describe_images").paginate(repositoryName=self.name)
                details = {each["imageDigest"]: each for page in pages for each in page["imageDetails"]}
            except self._client.exceptions.RepositoryNotFoundException:
                return []
        manifests = self._manifests(details)
        return [
            Image(
                digest,
                tuple(each.get("imageTags", ())),
                each["imagePushedAt"],
                _blobs(manifests.get(digest, "{}")) or {digest: each.get("imageSizeInBytes", 0)},
            )
            for digest, each in details.items()
        ]

    def _manifests(self, digests: Iterable[str]) -> dict[str, str]:
        """By the images' digests. Empty if AWS doesn't tell: then a shared layer counts for each of its images."""
        found: dict[str, str] = {}
        try:
            for batch in _batches(list(digests)):
                answer = self._client.batch_get_image(repositoryName=self.name, imageIds=_ids(batch))
                found |= {each["imageId"]["imageDigest"]: each["imageManifest"] for each in answer["images"]}
        except Exception:
            return {}
        return found

    def guests(self) -> list[str]:
        """Other accounts that may pull from the repository; "everybody" for a policy without names. Raises ImagesError.

        Their Lambdas may run its images, which nobody sees from here:
        https://docs.aws.amazon.com/lambda/latest/dg/images-create.html#images-permissions
        """
        with errors_of_aws(f"the policy of {self.name} can't be looked at"):
            try:
                policy = json.loads(self._client.get_repository_policy(repositoryName=self.name)["policyText"])
            except self._client.exceptions.RepositoryPolicyNotFoundException:
                return []
            statements = policy["Statement"]
            found: set[str] = set()
            for each in statements if isinstance(statements, list) else [statements]:
                if each["Effect"] == "Allow":
                    found |= set(re.findall(r"(?<!\d)\d{12}(?!\d)", json.dumps(each))) - {self._account}
                    if each.get("Principal") in ("*", {"AWS": "*"}, {"AWS": ["*"]}):
                        found.add("everybody")
            return sorted(found)

    def delete(self, images: Iterable[Image]) -> list[str]:
        """Deletes images with all their tags. Returns a sentence for each that couldn't be deleted."""
        problems = []
        for batch in _batches([image.digest for image in images]):
            try:
                answer = self._client.batch_delete_image(repositoryName=self.name, imageIds=_ids(batch))
            except (ClientError, BotoCoreError) as error:
                problems.append(explained(error))
                break
            problems += [
                f"{each['imageId'].get('imageDigest')}: {each['failureReason']} ({each['failureCode']})"
                for each in answer.get("failures", [])
                if each["failureCode"] != _NOT_FOUND
            ]
        return problems

    def named_in(self, text: str) -> set[str]:
        """The tags and digests of this repository's images in a text, in which their addresses stand."""
        found = re.findall(rf"/{re.escape(self.name)}(?::([\w.-]+))?(?:@(sha256:[0-9a-f]{{64}}))?", text)
        return {name for names in found for name in names if name}


def _batches(digests: Sequence[str]) -> Iterator[Sequence[str]]:
    return (digests[start : start + _BATCH] for start in range(0, len(digests), _BATCH))


def _ids(digests: Iterable[str]) -> list[dict[str, str]]:
    return [{"imageDigest": digest} for digest in digests]


def _blobs(manifest: str) -> dict[str, int]:
    """Empty for a list of images, which are images of the repository themselves."""
    content = json.loads(manifest)
    parts = [*(content.get("layers") or []), *filter(None, [content.get("config")])]
    return {part["digest"]: part["size"] for part in parts}
