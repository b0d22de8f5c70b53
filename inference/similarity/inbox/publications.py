"""Publishing a state, and the history of what was published.

All published states are versions of one key. A state's facts are in the metadata of its object.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from similarity.errors import StateError
from similarity.inbox.bucket import DEPLOYED_PREFIX, STATE_KEY, Bucket, Stored, deployed_key
from similarity.inbox.notes import iso
from similarity.incidents.facts import StateFacts
from similarity.incidents.state import IncidentState, state_version

_FACTS = "facts"
# S3 takes 2 KB of metadata: https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html
_LONGEST_NAME = 100


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


def publish(bucket: Bucket, path: Path) -> str:
    """Publishes the state in the file `path`. Returns its version. Raises StateError, InboxError or OSError."""
    facts = IncidentState.load(path).facts(state_version(path))
    bucket.upload(path, STATE_KEY, metadata_of(facts))
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
    found = []
    for prefix in (STATE_KEY, DEPLOYED_PREFIX):
        for each in bucket.versions(prefix):
            stored = bucket.look_at(each.key, each.version_id)
            if stored is None or (prefix == STATE_KEY and stored.key != STATE_KEY):  # it was deleted meanwhile
                continue
            facts = facts_of(bucket, stored)
            deployed = prefix == DEPLOYED_PREFIX
            time = (facts.built_at if facts else "") if deployed else iso(stored.written_at)
            found.append(Publication(stored, facts, time))
    return sorted(found, key=lambda each: (each.time, not each.is_deployed), reverse=True)


def facts_of(bucket: Bucket, stored: Stored) -> StateFacts | None:
    """The facts of a state in the bucket; None if it isn't a usable state. Raises InboxError or OSError.

    A state that was put there by other means has no metadata, so it is read.
    """
    try:
        return StateFacts.from_json(json.loads(stored.metadata[_FACTS]))
    except (KeyError, ValueError):
        pass
    with tempfile.TemporaryDirectory(prefix="state-") as folder:
        path = Path(folder, "state.pt")
        if bucket.download(stored.key, path, stored.version_id) is None:
            return None
        try:
            return IncidentState.load(path).facts(state_version(path))
        except StateError:
            return None


def metadata_of(facts: StateFacts) -> Mapping[str, str]:
    source = {name: value[:_LONGEST_NAME] for name, value in facts.source.items()}
    return {_FACTS: json.dumps(replace(facts, source=source, model=facts.model[:_LONGEST_NAME]).to_json())}
