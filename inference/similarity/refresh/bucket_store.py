"""The store of vectors in the bucket: takes its vectors into a store of this machine, and gives it new ones."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from similarity.errors import one_line
from similarity.inbox.bucket import STORE_KEY, Bucket, ChangedError
from similarity.refresh.vector_store import DamagedStoreError, VectorStore

# Others may write the store meanwhile. Each does so once a day at most.
_TRIES = 3


@dataclass(frozen=True)
class Exchange:
    """is_there: whether the bucket had a store. vectors: how many were new to the side that got them, or used later
    than that side knew. damage: why the bucket's store couldn't be read; "" if it could.
    """

    is_there: bool
    vectors: int
    damage: str = ""


def fetch_vectors(bucket: Bucket, path: Path) -> Exchange:
    """Adds the bucket's vectors to the store in the file `path`, all or none.

    A damaged store in the bucket has no effect. Raises StoreError, InboxError or OSError.
    """
    with tempfile.TemporaryDirectory(prefix="vectors-") as folder, VectorStore(path) as store:
        theirs = Path(folder, "theirs.sqlite")
        if bucket.download(STORE_KEY, theirs) is None:
            return Exchange(False, 0)
        try:
            return Exchange(True, store.merge(theirs))
        except DamagedStoreError as error:
            return Exchange(True, 0, one_line(str(error.__cause__)))


def share_vectors(bucket: Bucket, path: Path) -> Exchange:
    """Adds the vectors in the file `path` to the bucket's store. Nothing is uploaded if the bucket has them all.

    No vector in the bucket is lost, also if somebody else writes the store meanwhile. A damaged store in the bucket is
    replaced; S3 keeps it as an earlier version. One of a later version of this project isn't: StoreError. Raises
    InboxError or OSError too.
    """
    with tempfile.TemporaryDirectory(prefix="vectors-") as name:
        folder = Path(name)
        for tries_left in reversed(range(_TRIES)):
            theirs, both = folder / "theirs.sqlite", folder / f"both-{tries_left}.sqlite"
            stored = bucket.download(STORE_KEY, theirs)
            with VectorStore(both) as store:
                damage = ""
                if stored:
                    try:
                        store.merge(theirs)
                    except DamagedStoreError as error:
                        damage = one_line(str(error.__cause__))
                added = store.merge(path)
            if added:
                try:
                    bucket.upload(both, STORE_KEY, instead_of=stored.etag if stored else "")
                except ChangedError:
                    if not tries_left:
                        raise
                    continue
            break
        return Exchange(stored is not None, added, damage)
