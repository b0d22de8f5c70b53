"""Publishes a state of AIID's newest snapshot, if the service serves an older one. A schedule calls this.

It never replaces a state that isn't made of AIID's snapshots. docs/refresh.md explains its lines in the log.

Trouble that may pass raises an error: page, archive, network, S3, disk, time limit. Lambda then calls again, and puts
the event into the dead-letter queue in the end. If a person must act, another call would do the same work for nothing.
Then the log has an error with a remedy, and the call ends as usual.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from similarity.errors import ModelError
from similarity.inbox.bucket import Bucket
from similarity.metrics import Metric, write_metrics
from similarity.refresh.refresher import NotPublishedError, OutOfTimeError, Refresher, RefreshError, Result
from similarity.settings import Settings
from similarity.shelf.usable import FolderModel

# Lambda's maximum.
TIMEOUT_S = 900

log = logging.getLogger(__name__)


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Answers with the version of the `published` state, or with null and the `reason`.

    `snapshot` is the newest one, null if nobody looked. `vectors` counts reports by the origin of their vectors. Raises
    RefreshError, which is in the log too.
    """
    del event
    try:
        with _temporary_folder() as folder:
            result = _refresh(folder, context)
        if result.published:
            log.info("state published", extra=asdict(result))
        else:
            log.info("nothing to refresh", extra=asdict(result))
    except NotPublishedError as error:
        log.error("state not published", extra={**_fields(error), "snapshot": error.snapshot})
        write_metrics({Metric.REFRESH_FAILURES: 1})
        result = Result(reason=str(error), snapshot=error.snapshot)
    except OutOfTimeError as error:
        log.warning("refresh out of time", extra=_fields(error))
        raise
    except RefreshError as error:
        log.error("refresh failed", extra=_fields(error))
        write_metrics({Metric.REFRESH_FAILURES: 1})
        raise
    return asdict(result)


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """An empty folder, in which all temporary files are made meanwhile. It is removed in the end."""
    before, folder = tempfile.tempdir, Path(tempfile.gettempdir(), "refresh")
    shutil.rmtree(folder, ignore_errors=True)  # A call that was killed may have left it.
    folder.mkdir()
    tempfile.tempdir = str(folder)
    try:
        yield folder
    finally:
        tempfile.tempdir = before
        shutil.rmtree(folder, ignore_errors=True)


def _fields(error: RefreshError) -> dict[str, str]:
    return {"reason": str(error), "remedy": error.remedy}


def _refresh(folder: Path, context: Any) -> Result:
    try:
        settings = Settings.from_environment()
    except ModelError as error:
        raise NotPublishedError(error.detail, "Deploy again.") from error
    if settings.bucket is None:
        raise NotPublishedError("STATE_BUCKET isn't set, so there is no bucket.", "Deploy again.")
    return Refresher(
        Bucket(settings.bucket),
        settings,
        folder,
        require_usable=FolderModel(settings).require_usable,
        remaining_s=lambda: context.get_remaining_time_in_millis() / 1000,
    ).run()
