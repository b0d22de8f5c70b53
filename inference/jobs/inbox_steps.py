"""The steps of the job `shelve_state` that use the bucket.

Trouble with the bucket stops none of them. It is logged and collected, and the job decides at its end. So the other
steps are done whatever is in the bucket, and even if S3 can't be reached.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from similarity.errors import StateError, one_line
from similarity.inbox.bucket import STATE_KEY, Bucket, InboxError, Stored, deployed_key
from similarity.inbox.notes import Deployed, Served, iso, now
from similarity.inbox.publications import facts_of, keep_deployed
from similarity.incidents.state import IncidentState
from similarity.settings import Settings
from similarity.shelf.usable import FolderModel, tried
from similarity.shelf.versions import STATE_FILENAME
from similarity.shelf.writer import OnShelf, newest_usable, shelve

log = logging.getLogger(__name__)

# So many versions are tried if the newest ones can't be used.
TRIED_VERSIONS = 5
# 30,000 incidents of 768 numbers. The job has the memory and the disk for it.
LARGEST_STATE_BYTES = 100_000_000

_REMEDY = (
    "Publish a good state (python scripts/publish_state.py FILE), or an earlier one again "
    "(python scripts/publish_state.py --rollback VERSION; --list shows the versions)."
)
_RETRY = "The next call of the job tries again, at the latest in a day."


class InboxSteps:
    """Without a bucket in the settings, no step uses S3.

    shelf: the folder. model: the image's. notes: sentences about good states in the bucket that the image can't use.
    troubles: sentences about nonsense in the bucket, and about S3.
    """

    def __init__(self, settings: Settings, shelf: Path, model: FolderModel) -> None:
        self._own_path = settings.state_path
        self._shelf = shelf
        self._model = model
        self._bucket: Bucket | None = None
        self.notes: list[str] = []
        self.troubles: list[str] = []
        if settings.bucket:
            with self._collecting():
                self._bucket = Bucket(settings.bucket)

    def shelve_newest(self) -> str | None:
        """Puts the newest published state that the image can use on the shelf, under the time that S3 gave it.

        Returns its name there; None without one. Raises OSError if the shelf can't be written.
        """
        bucket = self._bucket
        if bucket is None:
            return None
        versions: list[Stored] = []
        with self._collecting():
            # Deleting the object without naming a version doesn't remove any of them.
            versions = [each for each in bucket.versions(STATE_KEY) if each.key == STATE_KEY]
        for number, stored in enumerate(versions[:TRIED_VERSIONS]):
            where = f"The version {stored.version_id} of s3://{bucket.name}/{STATE_KEY}"
            with tempfile.TemporaryDirectory(prefix="published-") as folder:
                path = Path(folder, STATE_FILENAME)
                try:
                    state = self._read(bucket, stored, path, where, is_newest=number == 0)
                except (InboxError, OSError) as error:
                    # The next try may heal this. Until then, a state that was taken back must not come back.
                    self._add_trouble(f"{where} can't be downloaded: {_sentence(error)} {_RETRY}")
                    return None
                if state is not None:
                    return shelve(self._shelf, path, state, iso(stored.written_at)).name
        return None

    def _read(self, bucket: Bucket, stored: Stored, path: Path, where: str, *, is_newest: bool) -> IncidentState | None:
        """Downloads a published state to `path`; None if the image can't use it. Raises InboxError or OSError."""
        state = None
        try:
            state = _load(bucket, stored, path)
            if state is not None:
                self._model.require_usable(state)
        except StateError as error:
            reason = f"{where} isn't served: {error.detail.replace(str(path), 'it')}."
            if is_newest and state is None:
                self._add_trouble(f"{reason} {_REMEDY}")
            else:
                # A newer version has replaced this one, or another image has.
                log.warning("published state not used", extra={"reason": reason})
                self.notes += [reason] if is_newest else []
        else:
            return state
        return None

    def keep_deployed(self, own: OnShelf) -> None:
        """Copies the image's state to the bucket, unless it is there."""
        with self._collecting():
            if self._bucket:
                keep_deployed(self._bucket, self._own_path, own.facts)

    def write_served(self) -> OnShelf:
        """Writes served.json. Returns the state that it names: the newest that the image can use.

        Raises StateError or OSError if the shelf can't be read.
        """
        while True:
            served = newest_usable(self._shelf, self._model.require_usable)
            if self._bucket:
                self._write(self._bucket, served)
            # Another run may have put a newer state there, and written its note before this one.
            if newest_usable(self._shelf, self._model.require_usable) == served:
                return served

    def _write(self, bucket: Bucket, served: OnShelf) -> None:
        stored = None
        with self._collecting():
            stored = _find(bucket, served)
        model = self._model
        with self._collecting():
            Served(
                state=served.facts,
                published_at=served.time,
                key=stored.key if stored else "",
                version_id=stored.version_id if stored else "",
                deployed=Deployed(
                    model=model.name,
                    fingerprint=model.fingerprint,
                    dimension=model.dimension,
                    longest_input=model.longest_input,
                    max_tokens=model.max_tokens(),
                    text_preparation=model.text_preparation,
                ),
                written_at=now(),
            ).write(bucket)

    @contextmanager
    def _collecting(self) -> Iterator[None]:
        try:
            yield
        except (InboxError, OSError) as error:
            self._add_trouble(f"{_sentence(error)} {_RETRY}")

    def _add_trouble(self, reason: str) -> None:
        log.error("trouble with the bucket", extra={"reason": reason})
        self.troubles.append(reason)


def _load(bucket: Bucket, stored: Stored, path: Path) -> IncidentState | None:
    """Reads and tries a published state; None if it was deleted meanwhile. Raises StateError, InboxError or OSError."""
    if stored.size > LARGEST_STATE_BYTES:
        raise StateError(f"it has {stored.size:,} bytes, but a state may have at most {LARGEST_STATE_BYTES:,}")
    if bucket.download(stored.key, path, stored.version_id) is None:
        return None
    state = IncidentState.load(path)
    tried(state)
    return state


def _find(bucket: Bucket, served: OnShelf) -> Stored | None:
    """Where the bucket has a state of the shelf; None if it hasn't. Raises InboxError or OSError."""
    for each in bucket.versions(STATE_KEY):
        if each.key == STATE_KEY and iso(each.written_at) == served.time:
            stored = bucket.look_at(each.key, each.version_id)
            facts = facts_of(bucket, stored) if stored else None
            if facts and facts.version == served.facts.version:
                return stored
    return bucket.look_at(deployed_key(served.facts.version))


def _sentence(error: Exception) -> str:
    return f"{one_line(str(error)).removesuffix('.')}."
