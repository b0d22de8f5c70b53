"""Writes to the shelf: prepares it, adds the image's state and published ones, and removes old versions.

Only the job `jobs/shelve_state.py` uses this. Two runs at the same time do no harm, see `similarity.shelf.versions`.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from similarity.encoder.model_folder import ModelFiles
from similarity.errors import SimilarityError, StateError, reason_of
from similarity.incidents.facts import StateFacts
from similarity.incidents.state import TIME_FORMAT, IncidentState, state_version
from similarity.shelf.models import model_files, model_version
from similarity.shelf.usable import tried
from similarity.shelf.versions import (
    FOLDER_MODE,
    MODELS,
    STATE_FILENAME,
    STATES,
    UNDATED,
    digest_in,
    put,
    put_aside,
    remove,
    remove_leftovers,
    state_name,
    state_names,
    time_in,
)

log = logging.getLogger(__name__)

# So many of the states that the deployed image can use are kept.
KEPT_STATES = 3
KEPT_S = 24 * 3600.0
# Clocks differ a little. A state dated further ahead would be served instead of newer ones until that time.
MAX_AHEAD_S = 300.0

HUGGINGFACE_DIRNAME = "huggingface"
# The set-group-ID bit gives new files inside to the group.
_HUGGINGFACE_MODE = 0o2770
# Earlier versions of this project kept copies of model and state in this folder beside the shelf.
_FORMER_CACHE = "incidents"


@dataclass(frozen=True)
class OnShelf:
    """A state on the shelf."""

    name: str
    facts: StateFacts

    @property
    def time(self) -> str:
        """UTC, ISO 8601, "" if unknown: when it was published or, for the state of an image, when it was built."""
        return time_in(self.name)


def prepare(shelf: Path) -> None:
    """Makes the shelf, and beside it the folder for models that handlers download, and sets their modes.

    The parent folder is the mount and must exist. Puts the former cache aside. Raises OSError.
    """
    for folder in (shelf, shelf / STATES, shelf / MODELS):
        folder.mkdir(exist_ok=True)
        folder.chmod(FOLDER_MODE)
    huggingface = shelf.parent / HUGGINGFACE_DIRNAME
    huggingface.mkdir(exist_ok=True)
    if huggingface.stat().st_mode & 0o7777 != _HUGGINGFACE_MODE:  # the mark that the files in it need no change
        _open_to_group(huggingface)
        huggingface.chmod(_HUGGINGFACE_MODE)
    former = shelf.parent / _FORMER_CACHE
    with suppress(FileNotFoundError):
        put_aside(former)
    for parent in (shelf.parent, shelf / STATES, shelf / MODELS):
        remove_leftovers(parent)


def shelve_own(shelf: Path, path: Path, check: Callable[[IncidentState], None]) -> OnShelf:
    """Puts the image's state, which is in the file `path`, on the shelf under its build time.

    check: raises SimilarityError for a state that the image can't use. Raises StateError if the state is unusable or is
    dated ahead, OSError if it can't be written.
    """
    state = IncidentState.load(path)
    check(state)
    tried(state)
    if state.built_at:
        ahead_s = datetime.fromisoformat(state.built_at).timestamp() - time.time()
        if ahead_s > MAX_AHEAD_S:
            raise StateError(
                f"the state says it was built at {state.built_at}, {ahead_s / 60:.0f} minutes from now "
                f"({datetime.now(UTC):{TIME_FORMAT}}): set the clock of the machine that built it, and build it again"
            )
    return shelve(shelf, path, state, state.built_at)


def shelve(shelf: Path, path: Path, state: IncidentState, at: str) -> OnShelf:
    """Puts a state on the shelf. path: its file. at: its time, UTC, ISO 8601. Raises StateError or OSError."""
    version = state_version(path)
    name = state_name(at, version)
    put(shelf / STATES / name, {STATE_FILENAME: path})
    return OnShelf(name, state.facts(version))


def newest_usable(shelf: Path, check: Callable[[IncidentState], None]) -> OnShelf:
    """The newest state on the shelf that `check` accepts. Raises StateError without one, or OSError."""
    for name in state_names(shelf):
        path = shelf / STATES / name / STATE_FILENAME
        with suppress(SimilarityError):  # another run may have removed it
            version = state_version(path)
            if version == digest_in(name):
                state = IncidentState.load(path)
                check(state)
                return OnShelf(name, state.facts(version))
    raise StateError(f"no state in {shelf} can be read: call the job again")


def tidy(shelf: Path, own: str, published: str | None, check: Callable[[IncidentState], None]) -> list[str]:
    """Removes old states and returns their names.

    It keeps the newest states that the image can use, the newest that another image can use, and all young ones.

    own, published: the names of the image's state and of the newest published one; both stay. Raises StateError if one
    of them can't be read back from the shelf, or OSError.
    """
    required = {own, published} if published else {own}
    usable: list[str] = []
    others: list[str] = []
    damaged: list[str] = []
    for each in state_names(shelf):
        path = shelf / STATES / each / STATE_FILENAME
        try:
            is_damaged = state_version(path) != digest_in(each)
        except StateError as error:
            is_damaged = isinstance(error.__cause__, FileNotFoundError | IsADirectoryError | NotADirectoryError)
            if not is_damaged:  # the file system may work again at the next deployment
                log.warning("state left alone", extra={"state": each, "reason": reason_of(error)})
                continue
        if is_damaged:
            damaged.append(each)
            continue
        try:
            check(IncidentState.load(path))
        except SimilarityError:  # a state of another model, or of another version's format
            others.append(each)
        else:
            usable.append(each)
    for name in required.difference(usable):
        raise StateError(f"the state {name} was put on the shelf, but can't be read back: deploy again")
    # If a deployment is taken back, the earlier image needs the newest of the others again.
    kept = {*usable[:KEPT_STATES], *others[:1], *required}
    removed = []
    for each in (*usable, *others, *damaged):
        folder = shelf / STATES / each
        is_old = each not in kept and _age_s(folder) > KEPT_S
        if each not in required and (is_old or _is_replaced(each, own, published)):
            remove(folder)
            removed.append(each)
    return removed


def _is_replaced(name: str, own: str, published: str | None) -> bool:
    """Whether a state has no time, as the image's, or has the time of the newest published one but is served first."""
    if name.startswith(UNDATED):
        return own.startswith(UNDATED)
    return published is not None and time_in(name) == time_in(published) and name > published


def shelve_model(shelf: Path, files: ModelFiles) -> str:
    """Puts the image's model on the shelf, other models aside. Returns its version. Raises ModelError or OSError."""
    version = model_version(files)
    put(shelf / MODELS / version, model_files(files.folder))
    put_models_aside(shelf, but=version)
    return version


def put_models_aside(shelf: Path, *, but: str = "") -> None:
    """Puts all models except `but` aside. Lambdas that have mapped one can go on. Raises OSError."""
    for folder in (shelf / MODELS).iterdir():
        if folder.name != but and not folder.name.startswith("."):
            with suppress(FileNotFoundError):  # another run has put it aside
                put_aside(folder)


def _age_s(folder: Path) -> float:
    """Seconds since the folder was written; 0 if another run has removed it."""
    try:
        return time.time() - folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _open_to_group(folder: Path) -> None:
    """Lets the group write our files in `folder`. Earlier versions of this project had one user for all Lambdas."""
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            with suppress(FileNotFoundError):  # a handler that downloads renames and removes files meanwhile
                _open_one_to_group(Path(parent, name))


def _open_one_to_group(path: Path) -> None:
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode) or found.st_uid != os.geteuid():
        return
    wanted = found.st_mode | (0o2070 if stat.S_ISDIR(found.st_mode) else 0o060)
    if wanted != found.st_mode:
        path.chmod(wanted & 0o7777)
