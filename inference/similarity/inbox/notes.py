"""The notes in the bucket: `served.json` says what the service serves, `hold.json` what was taken back.

The job `shelve_state` writes served.json. `scripts/publish_state.py` writes hold.json.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from similarity.errors import StateError
from similarity.inbox.bucket import HOLD_KEY, SERVED_KEY, Bucket, InboxError
from similarity.incidents.facts import StateFacts
from similarity.incidents.state import TIME_FORMAT

# The `source.kind` of states that are made of AIID's snapshots.
SNAPSHOT_KIND = "aiid-snapshot"


@dataclass(frozen=True)
class Deployed:
    """The deployed model, as states are compared with it. It is a `MadeBy`.

    max_tokens: where the deployed image cuts texts; at most longest_input, which is what the model takes.
    """

    model: str
    fingerprint: str
    dimension: int
    longest_input: int
    max_tokens: int
    text_preparation: str

    def require_usable(self, facts: StateFacts) -> None:
        """Raises StateError if the deployed image can't use a state of these facts."""
        facts.require_made_by(self, self.model)
        facts.require_limit(self.max_tokens, self.longest_input)

    def can_use(self, facts: StateFacts) -> bool:
        try:
            self.require_usable(facts)
        except StateError:
            return False
        return True


@dataclass(frozen=True)
class Served:
    """The content of served.json.

    state: the state that is served. published_at: its time on the shelf, "" if unknown. key, version_id: where the
    bucket has it, "" if it hasn't. deployed: the model of the deployed image. written_at: the time of this note.
    Times are in UTC, ISO 8601 with seconds.
    """

    state: StateFacts
    published_at: str
    key: str
    version_id: str
    deployed: Deployed
    written_at: str

    def write(self, bucket: Bucket) -> None:
        """Raises InboxError."""
        content = {**asdict(self), "state": self.state.to_json()}
        bucket.write_note(SERVED_KEY, content)

    @classmethod
    def read(cls, bucket: Bucket) -> Served | None:
        """None before the first note. Raises InboxError."""
        note = bucket.read_note(SERVED_KEY)
        if note is None:
            return None
        try:
            texts = {name: _text(note[name]) for name in ("published_at", "key", "version_id", "written_at")}
            deployed = Deployed(**note["deployed"])
            for name, value in asdict(deployed).items():
                if type(value) is not (int if name in ("dimension", "longest_input", "max_tokens") else str):
                    raise ValueError(f"{name} has the wrong type")
            return cls(state=StateFacts.from_json(note["state"]), deployed=deployed, **texts)
        except (KeyError, TypeError, ValueError) as error:
            raise InboxError(
                f"s3://{bucket.name}/{SERVED_KEY} isn't a note about the served state: {error}; the next run of the "
                "job shelve_state writes it again"
            ) from error


@dataclass(frozen=True)
class Hold:
    """The content of hold.json.

    source_date: the latest date of a snapshot that was taken back, "" without one. A refresh takes only later ones.
    versions: the versions of the states that were taken back.
    """

    source_date: str = ""
    versions: frozenset[str] = frozenset()

    def with_taken_back(self, facts: StateFacts) -> Hold:
        return Hold(max(self.source_date, snapshot_date_of(facts)), self.versions | {facts.version})

    def write(self, bucket: Bucket) -> None:
        """Raises InboxError."""
        bucket.write_note(HOLD_KEY, {"source_date": self.source_date, "versions": sorted(self.versions)})

    @classmethod
    def read(cls, bucket: Bucket) -> Hold:
        """An empty one if nothing was taken back. Raises InboxError."""
        note = bucket.read_note(HOLD_KEY)
        if note is None:
            return cls()
        try:
            return cls(_text(note["source_date"]), frozenset(map(_text, note["versions"])))
        except (KeyError, TypeError, ValueError) as error:
            raise InboxError(
                f"s3://{bucket.name}/{HOLD_KEY} isn't a note about states taken back: {error}; restore its earlier "
                "version in S3"
            ) from error


def snapshot_date_of(facts: StateFacts) -> str:
    """The date of the snapshot that a state is made of; "" for other sources, whose dates mean something else."""
    return facts.source.get("date", "") if facts.source.get("kind") == SNAPSHOT_KIND else ""


def now() -> str:
    return iso(datetime.now(UTC))


def iso(time: datetime) -> str:
    """UTC, ISO 8601 with seconds."""
    return f"{time.astimezone(UTC):{TIME_FORMAT}}"


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a {type(value).__name__} where a string belongs")
    return value
