"""Puts the image's state on the shelf, where all Lambdas find it. Each deployment calls this first.

It is the only Lambda that may write there. It makes the folders of the file system, and removes what nobody needs any
more. It raises where the deployment must not go on.
"""

from __future__ import annotations

import logging
from typing import Any

from similarity.errors import SimilarityError
from similarity.settings import Settings
from similarity.shelf.usable import FolderModel
from similarity.shelf.writer import prepare, put_models_aside, shelve_model, shelve_state

# States have a few MB, and are read one after the other.
MEMORY_MIB = 1024
# With MODEL_ON_EFS, 600 MB are written. A deployment waits for 14.5 minutes at most.
TIMEOUT_S = 600

log = logging.getLogger(__name__)


class ShelvingError(Exception):
    """The state can't be put on the shelf. The message says why and names the remedy: the deployment shows it."""


def handler(event: Any, context: Any) -> dict[str, Any]:
    """The state's name on the shelf (`shelved`), the one that is served now (`serves`), and those that were removed.

    `note` says so where the deployed state isn't the one that is served. `model` is the version of the model on the
    shelf, null where MODEL_ON_EFS isn't set. Raises ShelvingError or OSError.
    """
    del event, context
    try:
        settings = Settings.from_environment()
        if settings.shelf is None:
            raise ShelvingError("SHELF_DIR isn't set, so there is no shelf to write to")
        model = FolderModel(settings)
        prepare(settings.shelf)
        shelved = shelve_state(settings.shelf, settings.state_path, model.require_usable)
        if settings.model_on_shelf:
            version = shelve_model(settings.shelf, model.files)
        else:
            version = None
            put_models_aside(settings.shelf)
    except SimilarityError as error:
        raise ShelvingError(error.detail) from error
    answer = {
        "shelved": shelved.name,
        "serves": shelved.serves,
        "removed": list(shelved.removed),
        "model": version,
        "note": "",
    }
    if shelved.serves == shelved.name:
        log.info("state shelved", extra=answer)
    else:
        answer["note"] = (
            f"The shelf has a newer state of the same model than the deployed one. {shelved.serves} is still served."
        )
        log.warning("older state deployed", extra=answer)
    return answer
