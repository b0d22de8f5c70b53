"""Publishing a state, and the history of what was published.

All published states are versions of one key. A state's facts are in the metadata of its object.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from similarity.errors import StateError
from similarity.inbox.bucket import DEPLOYED_PREFIX, STATE_KEY, Bucket, Stored, deployed_key
from similarity.inbox.notes import iso
from similarity.incidents.facts import StateFacts
from similarity.incidents.state import IncidentState, state_version

_FACTS = "facts"
_VERSION = re.compile(r"[0-9a-f]{16}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
# S3 takes 2 KB of metadata, names and values: https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html
_MOST_METADATA = 2000
# 30,000 incidents of 768 numbers. The job that shelves a state has the memory and the disk for it.
LARGEST_STATE_BYTES = 100_000_000
# Requests at a time. S3 takes 50 ms for each, and lists no metadata.
_THREADS = 10


@dataclass(frozen=True)
class Publication:
    """A state in the bucket.

    stored: where it is. facts: None if it isn't a usable state. time: its time on the shelf, UTC, ISO 8601: when it was
    published or, for the state of a deployed image, when it was built; "" if that is unknown.
    """

    stored: Stored
    facts: StateFacts | None
    time: str

    @property
    def is_deployed(self) -> bool:
        return self.stored.key.startswith(DEPLOYED_PREFIX)


def require_size(size: int) -> None:
    """Raises StateError if a state's file has more bytes than the job that shelves it takes."""
    if size > LARGEST_STATE_BYTES:
        raise StateError(f"it has {size:,} bytes, but a published state may have at most {LARGEST_STATE_BYTES:,}")


def publish(bucket: Bucket, path: Path, *, instead_of: str | None = None) -> str:
    """Publishes the state in the file `path`. Returns its version. Raises StateError, InboxError or OSError.

    instead_of: as for `Bucket.upload`.
    """
    facts = IncidentState.load(path).facts(state_version(path))
    bucket.upload(path, STATE_KEY, metadata_of(facts), instead_of=instead_of)
    return facts.version


def publish_again(bucket: Bucket, publication: Publication) -> None:
    """Makes an earlier state the newest one. Raises InboxError, and StateError if it isn't usable."""
    if publication.facts is None:
        raise StateError("it isn't a state that can be used")
    bucket.copy(publication.stored, STATE_KEY, metadata_of(publication.facts))


def keep_deployed(bucket: Bucket, path: Path, facts: StateFacts) -> None:
    """Copies the state of the deployed image to the bucket, unless it is there. Raises InboxError or OSError."""
    key = deployed_key(facts.version)
    if bucket.look_at(key) is None:
        bucket.upload(path, key, metadata_of(facts))


def publications(bucket: Bucket) -> list[Publication]:
    """All states in the bucket, newest on the shelf first. Raises InboxError or OSError.

    The order is that of the shelf. A deployed state is older than a published one of the same second.
    """
    published = [each for each in bucket.versions(STATE_KEY) if each.key == STATE_KEY]
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(partial(_publication, bucket), [*published, *bucket.versions(DEPLOYED_PREFIX)])
        return sorted(filter(None, found), key=lambda each: (each.time, not each.is_deployed), reverse=True)


def _publication(bucket: Bucket, listed: Stored) -> Publication | None:
    """None if the version was deleted after it was listed."""
    stored = bucket.look_at(listed.key, listed.version_id)
    if stored is None:
        return None
    publication = Publication(stored, facts_of(bucket, stored), iso(stored.written_at))
    if not publication.is_deployed:
        return publication
    return replace(publication, time=publication.facts.built_at if publication.facts else "")


def facts_of(bucket: Bucket, stored: Stored) -> StateFacts | None:
    """The facts of a state in the bucket; None if it isn't a usable state. Raises InboxError or OSError.

    A state that was put there by other means has no metadata, or other ones, so it is read.
    """
    try:
        if stored.key == STATE_KEY:
            require_size(stored.size)
        facts = StateFacts.from_json(json.loads(stored.metadata[_FACTS]))
        if _is_credible(facts):
            return facts
    except StateError:
        return None
    except (KeyError, ValueError, RecursionError):
        pass
    try:
        return read_facts(bucket, stored)
    except StateError:
        return None


def read_facts(bucket: Bucket, stored: Stored) -> StateFacts:
    """The facts that the state itself gives. Raises StateError if it can't be used; InboxError or OSError."""
    require_size(stored.size)
    with tempfile.TemporaryDirectory(prefix="state-") as folder:
        path = Path(folder, "state.pt")
        if bucket.download(stored.key, path, stored.version_id) is None:
            raise StateError(f"{stored.key} isn't in the bucket any more")
        return IncidentState.load(path).facts(state_version(path))


def _is_credible(facts: StateFacts) -> bool:
    """Whether version and times have their form. They order the history, and are printed."""
    times = (facts.built_at, facts.source.get("date", ""))
    return bool(_VERSION.fullmatch(facts.version)) and all(not each or _TIME.fullmatch(each) for each in times)


def metadata_of(facts: StateFacts) -> Mapping[str, str]:
    """Empty if S3 wouldn't take it. Then `facts_of` reads the state."""
    content = json.dumps(facts.to_json())
    return {_FACTS: content} if len(content) <= _MOST_METADATA else {}
