"""The bucket: its layout, and reading and writing it. Nothing here knows what a state must be like.

    states/incident_cls.pt     the published states: each is a version of this key, and the newest version counts
    deployed/<version>.pt      the states of deployed images; <version> as `state_version` gives it
    vectors/vectors.sqlite     the store of vectors, see `similarity.refresh.vector_store`
    served.json, hold.json     see `similarity.inbox.notes`

The bucket is versioned. A file is written with one PUT, because S3 dates a multipart upload by its start.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.httpsession import URLLib3SSLError

from similarity.errors import one_line, reason_of

STATE_KEY = "states/incident_cls.pt"
DEPLOYED_PREFIX = "deployed/"
STORE_KEY = "vectors/vectors.sqlite"
SERVED_KEY, HOLD_KEY = "served.json", "hold.json"

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/upload-objects.html
MAX_PUT_BYTES = 5 * 1024**3

_PIECE = 1 << 20
_MISSING = ("NoSuchKey", "NoSuchVersion", "404")
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html. A missing object fails If-Match, too.
_CHANGED = ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey")
# A note has a kilobyte.
_MAX_NOTE_BYTES = 1 << 20

# The job `shelve_state` must end in its time even if S3 never answers. A gateway endpoint leads to the region's own
# addresses; boto3 would else use others in us-east-1.
_CONFIG = Config(
    connect_timeout=5,
    read_timeout=20,
    retries={"mode": "standard", "total_max_attempts": 5},
    s3={"us_east_1_regional_endpoint": "regional"},
)


class InboxError(Exception):
    """The bucket can't be read or written, or a note in it is nonsense. The message is one sentence."""


class ChangedError(InboxError):
    """Somebody else has written the object meanwhile."""


@dataclass(frozen=True)
class Stored:
    """A version of an object. written_at: S3's own time, in UTC, with whole seconds. metadata: as it was written.

    etag: tells contents apart; "" if unknown.
    """

    key: str
    version_id: str
    written_at: datetime
    size: int
    metadata: Mapping[str, str] = field(default_factory=dict)
    etag: str = ""


def s3_client(region: str | None = None) -> Any:
    """Credentials come from the environment, and the region too if it isn't given. Raises InboxError."""
    try:
        return boto3.client("s3", region_name=region, config=_CONFIG)
    except BotoCoreError as error:
        raise InboxError(f"S3 can't be used: {one_line(str(error))}") from error


class Bucket:
    """The bucket of a stack. All methods raise InboxError if S3 refuses or can't be reached."""

    def __init__(self, name: str, client: Any = None) -> None:
        self.name = name
        self._client = client or s3_client()

    @contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (ClientError, BotoCoreError) as error:
            raise InboxError(f"s3://{self.name}/{doing}: {one_line(str(error))}") from error
        # boto3 lets some errors of a broken connection through, and an answer may lack what each one of S3 has.
        except (URLLib3SSLError, LookupError, ValueError) as error:
            raise InboxError(f"s3://{self.name}/{doing}: {reason_of(error)}") from error

    def download(self, key: str, path: Path, version_id: str = "") -> Stored | None:
        """Writes an object into the file `path`; None if the bucket hasn't got it. Raises OSError too.

        version_id: "" for the newest version.
        """
        with self._errors(f"{key} can't be read"):
            try:
                answer = self._client.get_object(Bucket=self.name, Key=key, **_version(version_id))
            except ClientError as error:
                if _is_missing(error):
                    return None
                raise
            with path.open("wb") as file:
                # StreamingBody raises if the content is cut off.
                for piece in answer["Body"].iter_chunks(_PIECE):
                    file.write(piece)
            return _stored(key, answer, answer["ContentLength"])

    def look_at(self, key: str, version_id: str = "") -> Stored | None:
        """An object without its content; None if the bucket hasn't got it."""
        with self._errors(f"{key} can't be read"):
            try:
                answer = self._client.head_object(Bucket=self.name, Key=key, **_version(version_id))
            except ClientError as error:
                if _is_missing(error):
                    return None
                raise
            return _stored(key, answer, answer["ContentLength"])

    def upload(
        self, path: Path, key: str, metadata: Mapping[str, str] | None = None, *, instead_of: str | None = None
    ) -> str:
        """Writes the file `path` with one PUT, and returns the id of the new version, "" if the bucket isn't versioned.

        Raises OSError too.

        instead_of: the etag of the object that it may replace, "" for none. Raises ChangedError if another is there.
        """
        size = path.stat().st_size
        if size > MAX_PUT_BYTES:
            raise InboxError(f"{path} has {size:,} bytes; S3 takes at most {MAX_PUT_BYTES:,} with one PUT.")
        with self._errors(f"{key} can't be written"), path.open("rb") as file:
            try:
                answer = self._client.put_object(
                    Bucket=self.name, Key=key, Body=file, Metadata=dict(metadata or {}), **_condition(instead_of)
                )
            except ClientError as error:
                if instead_of is not None and _code(error) in _CHANGED:
                    raise ChangedError(f"s3://{self.name}/{key} has been written meanwhile") from error
                raise
        return str(answer.get("VersionId", ""))

    def copy(self, source: Stored, key: str, metadata: Mapping[str, str] | None = None) -> str:
        """Copies a version within the bucket. Returns the id of the new version of `key`.

        metadata: replaces that of the source.
        """
        with self._errors(f"{key} can't be written"):
            answer = self._client.copy_object(
                Bucket=self.name,
                Key=key,
                CopySource={"Bucket": self.name, "Key": source.key, **_version(source.version_id)},
                Metadata=dict(source.metadata if metadata is None else metadata),
                MetadataDirective="REPLACE",
            )
        return str(answer.get("VersionId", ""))

    def versions(self, prefix: str) -> list[Stored]:
        """All versions of all objects whose keys start with `prefix`, newest first, without metadata."""
        found = []
        with self._errors(f"{prefix} can't be listed"):
            for page in self._client.get_paginator("list_object_versions").paginate(Bucket=self.name, Prefix=prefix):
                found += [
                    Stored(each["Key"], each["VersionId"], each["LastModified"], each["Size"])
                    for each in page.get("Versions", [])
                ]
        return sorted(found, key=lambda each: each.written_at, reverse=True)

    def read_note(self, key: str) -> dict[str, Any] | None:
        """The object in a JSON file; None if the bucket hasn't got the file."""
        with self._errors(f"{key} can't be read"):
            try:
                content = self._client.get_object(Bucket=self.name, Key=key)["Body"].read(_MAX_NOTE_BYTES)
            except ClientError as error:
                if _is_missing(error):
                    return None
                raise
        try:
            note = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise InboxError(f"s3://{self.name}/{key} isn't JSON.") from error
        if not isinstance(note, dict):
            raise InboxError(f"s3://{self.name}/{key} isn't a JSON object.")
        return note

    def write_note(self, key: str, note: Mapping[str, Any]) -> None:
        """Raises InboxError too if `read_note` wouldn't take the note."""
        content = json.dumps(note, indent=2).encode()
        if len(content) > _MAX_NOTE_BYTES:
            raise InboxError(f"s3://{self.name}/{key} would have {len(content):,} bytes; it stays as it is.")
        with self._errors(f"{key} can't be written"):
            self._client.put_object(Bucket=self.name, Key=key, Body=content, ContentType="application/json")


def deployed_key(version: str) -> str:
    return f"{DEPLOYED_PREFIX}{version}.pt"


def _version(version_id: str) -> dict[str, str]:
    return {"VersionId": version_id} if version_id else {}


def _condition(instead_of: str | None) -> dict[str, str]:
    if instead_of is None:
        return {}
    return {"IfMatch": instead_of} if instead_of else {"IfNoneMatch": "*"}


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code"))


def _is_missing(error: ClientError) -> bool:
    return _code(error) in _MISSING


def _stored(key: str, answer: Mapping[str, Any], size: int) -> Stored:
    etag = answer.get("ETag", "")
    return Stored(key, answer.get("VersionId", ""), answer["LastModified"], size, answer["Metadata"], etag)
