"""Fetches the state that a stack serves, so that a deployment from another machine keeps it.

A stack without a usable state raises another error than a failure: only then may a new state be built instead.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from similarity.errors import StateError
from similarity.inbox.bucket import SERVED_KEY, Bucket, InboxError
from similarity.inbox.notes import Served
from similarity.incidents.facts import StateFacts
from similarity.incidents.state import IncidentState, state_version
from similarity.settings import Settings
from similarity.shelf.usable import FolderModel, tried


class NothingToFetchError(Exception):
    """Nothing is served yet, or the model here can't use what is served. The message is one sentence."""


def fetch_served(bucket: Bucket, path: Path, model_uri: str) -> StateFacts:
    """Writes the served state to the file `path`, whole or not at all.

    If a model is in the same folder, it must be able to use the state. model_uri: the model's name if its folder
    doesn't say it. Raises NothingToFetchError, ModelError, InboxError or OSError.
    """
    served = Served.read(bucket)
    if served is None:
        raise NothingToFetchError(f"nothing is served yet: s3://{bucket.name} has no {SERVED_KEY}")
    version = served.state.version
    model = FolderModel(Settings.from_environment({"MODEL_DIR": str(path.parent.resolve()), "HF_MODEL_URI": model_uri}))
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        if not served.key or bucket.download(served.key, temporary, served.version_id) is None:
            raise InboxError(
                f"s3://{bucket.name} hasn't got {version}, which is served; the next run of the job shelve_state, at "
                "the latest in a day, puts it there"
            )
        where = f"s3://{bucket.name}/{served.key}"
        if state_version(temporary) != version:
            raise InboxError(f"{where} isn't {version}, as {SERVED_KEY} says; the next run of the job writes it again")
        try:
            state = IncidentState.load(temporary)
            tried(state)
        except StateError as error:
            raise InboxError(f"{where} can't be used: {error.detail.replace(name, 'it')}") from error
        if model.is_there():
            try:
                model.require_made(state)
            except StateError as error:
                raise NothingToFetchError(
                    f"the model in {path.parent} can't use {version}, which is served: {error.detail}"
                ) from error
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
    return state.facts(version)
