"""Puts states on the shelf, where all Lambdas find them: the image's and the bucket's newest one.

Each deployment calls this first, with the event {}. A new state in the bucket and a daily schedule call it too. It does
the same each time, so a later call makes up for one that was lost or killed.

Only this Lambda may write to the shelf. It makes the folders of the file system and removes old versions. It raises an
error if the deployment must not go on, or if Lambda should call it again.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from jobs.inbox_steps import InboxSteps
from similarity.errors import SimilarityError
from similarity.inbox.notes import snapshot_date_of
from similarity.incidents.facts import StateFacts
from similarity.metrics import Metric, write_metrics
from similarity.settings import Settings
from similarity.shelf.usable import FolderModel
from similarity.shelf.versions import digest_in
from similarity.shelf.writer import prepare, put_models_aside, shelve_model, shelve_own, tidy

# A state has a few MB. States are read one after the other.
MEMORY_MIB = 1024
# With MODEL_ON_EFS, 510 MB are written. A deployment waits for 14.5 minutes at most.
TIMEOUT_S = 600

log = logging.getLogger(__name__)


class ShelvingError(Exception):
    """A state can't be put on the shelf. A deployment shows the message, which names the cause and the remedy."""


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Answers with names of states on the shelf, and with the version of the model there.

    `shelved` is the image's state, `published` the newest usable one of the bucket, `serves` the one that is served;
    `removed` are old ones. `published` is null without one, `model` without MODEL_ON_EFS. `note` has a sentence for
    each thing that a reader should know, and is empty otherwise.

    Raises ShelvingError or OSError. Trouble with the bucket never fails a deployment.
    """
    del context
    is_deployment = not event
    try:
        settings = Settings.from_environment()
        if settings.shelf is None:
            raise ShelvingError("SHELF_DIR isn't set, so there is no shelf to write to")
        model = FolderModel(settings)
        prepare(settings.shelf)
        own = shelve_own(settings.shelf, settings.state_path, model.require_usable)
        inbox = InboxSteps(settings, settings.shelf, model)
        published = inbox.shelve_newest()
        removed = tidy(settings.shelf, own.name, published, model.require_usable)
        inbox.keep_deployed(own)
        served = inbox.write_served()
        _measure_age(served.facts)
        if settings.model_on_shelf:
            version = shelve_model(settings.shelf, model.files)
        else:
            version = None
            put_models_aside(settings.shelf)
    except SimilarityError as error:
        raise ShelvingError(error.detail) from error
    answer = {
        "shelved": own.name,
        "published": published,
        "serves": served.name,
        "removed": removed,
        "model": version,
        "note": " ".join([*inbox.notes, *inbox.troubles]),
    }
    if is_deployment and served.name != own.name:
        answer["note"] = f"{_newer_state_note(own.name, served.name, settings)} {answer['note']}".rstrip()
        log.warning("older state deployed", extra=answer)
    else:
        log.info("state shelved", extra=answer)
    if inbox.troubles and not is_deployment:
        raise ShelvingError(" ".join(inbox.troubles))
    return answer


def _measure_age(facts: StateFacts) -> None:
    """For the alarm about an old state. Only AIID's snapshots come every week."""
    with suppress(ValueError):  # of "", or of a date that isn't one
        date = datetime.fromisoformat(snapshot_date_of(facts)).replace(tzinfo=UTC)
        write_metrics({Metric.STATE_AGE_DAYS: (datetime.now(UTC) - date) / timedelta(days=1)})


def _newer_state_note(own: str, served: str, settings: Settings) -> str:
    note = f"The shelf has a newer state of the same model than the deployed one. {served} is still served."
    if settings.bucket:
        remedy = f"python scripts/publish_state.py --rollback {digest_in(own)}"
        return f"{note} To serve the deployed one: {remedy}"
    return note
