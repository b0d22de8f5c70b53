"""Publishes a state of AIID's newest snapshot, if the service serves an older one. A schedule calls this.

It never replaces a state that isn't made of AIID's snapshots. docs/refresh.md tells its lines in the log.

Trouble that may pass raises an error: page, archive, network, S3, disk, time limit. Lambda then calls again, and puts
the event into the dead-letter queue in the end. If a person must act, another call would do the same work for nothing.
Then the log has an error with a remedy, and the call ends as usual.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from similarity.errors import ModelError, reason_of
from similarity.inbox.bucket import Bucket, InboxError
from similarity.refresh.refresher import NotPublishedError, OutOfTimeError, Refresher, Result
from similarity.refresh.vector_store import StoreError
from similarity.settings import Settings
from similarity.shelf.usable import FolderModel
from similarity.sources.page import snapshots_url
from similarity.sources.problems import SourceError

# Lambda's maximum.
TIMEOUT_S = 900

log = logging.getLogger(__name__)

_REMEDIES: dict[type[Exception], str] = {
    SourceError: (
        "Lambda tries again. If that doesn't help, look at the page; the deployment option SNAPSHOTS_URL names another "
        "one. With a snapshot FILE on a laptop: python scripts/build_state.py FILE; python scripts/publish_state.py "
        "inference/model/incident_cls.pt"
    ),
    InboxError: "Lambda tries again. If that doesn't help, look at the bucket and at the job's permissions for it",
    StoreError: "Lambda tries again. If the disk is full, give the function more ephemeral storage",
    OSError: "Lambda tries again. If the disk is full, give the function more ephemeral storage",
}


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Answers with the version of the `published` state, or with null and the `reason`.

    `snapshot` is the newest one, null if nobody looked. `vectors` counts reports by the origin of their vectors. Raises
    SourceError, InboxError, StoreError, OSError and OutOfTimeError, which are in the log too.
    """
    del event
    folder = Path(tempfile.gettempdir(), "refresh")
    shutil.rmtree(folder, ignore_errors=True)  # A call that was killed may have left it.
    try:
        folder.mkdir()
        result = _refresh(folder, context)
    except NotPublishedError as error:
        log.error("state not published", extra={"reason": str(error), "remedy": error.remedy})
        result = Result(reason=str(error))
    except OutOfTimeError as error:
        log.warning("refresh out of time", extra={"reason": str(error), "remedy": "none: the next run goes on"})
        raise
    except tuple(_REMEDIES) as error:
        remedy = next(remedy for kind, remedy in _REMEDIES.items() if isinstance(error, kind))
        log.error("refresh failed", extra={"reason": reason_of(error), "remedy": remedy})
        raise
    else:
        log.info("state published" if result.published else "nothing to refresh", extra=asdict(result))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {**asdict(result), "vectors": dict(result.vectors)}


def _refresh(folder: Path, context: Any) -> Result:
    try:
        settings = Settings.from_environment()
    except ModelError as error:
        raise NotPublishedError(error.detail, "Deploy again") from error
    if settings.bucket is None:
        raise NotPublishedError("STATE_BUCKET isn't set, so there is no bucket.", "Deploy again")
    return Refresher(
        Bucket(settings.bucket),
        settings,
        folder,
        url=snapshots_url(),
        require_usable=FolderModel(settings).require_usable,
        remaining_s=lambda: context.get_remaining_time_in_millis() / 1000,
    ).run()
