"""What a deployment does to the shelf: prepares it, puts the image's state there, and removes what nobody needs.

For the one job that may write there, `jobs/shelve_state.py`. Runs that meet do no harm, see
`similarity.shelf.versions`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from similarity.encoder.model_folder import ModelFiles
from similarity.errors import SimilarityError, StateError
from similarity.incidents.state import TIME_FORMAT, IncidentState, state_version
from similarity.shelf.models import model_files, model_version
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
)

# States that the deployed image can use.
KEPT_STATES = 3
KEPT_S = 24 * 3600.0
# Clocks differ; a state that is dated further ahead would be served in place of newer ones until its time has come.
MAX_AHEAD_S = 300.0

HUGGINGFACE_DIRNAME = "huggingface"
# The set-group-ID bit gives what is made inside to the group.
_HUGGINGFACE_MODE = 0o2770
# Earlier versions kept copies of model and state in this folder beside the shelf.
_FORMER_CACHE = "incidents"


@dataclass(frozen=True)
class Shelved:
    """The state's name on the shelf, that of the newest state which the image can use, and those that were removed."""

    name: str
    serves: str
    removed: tuple[str, ...]


def prepare(shelf: Path) -> None:
    """Makes the shelf and the folder beside it for models that handlers download, with their modes.

    The folder around both is the mount, and must be there. Puts the former cache aside. Raises OSError.
    """
    for folder in (shelf, shelf / STATES, shelf / MODELS):
        folder.mkdir(exist_ok=True)
        folder.chmod(FOLDER_MODE)
    huggingface = shelf.parent / HUGGINGFACE_DIRNAME
    huggingface.mkdir(exist_ok=True)
    huggingface.chmod(_HUGGINGFACE_MODE)
    _open_to_group(huggingface)
    former = shelf.parent / _FORMER_CACHE
    if former.exists():
        put_aside(former)
    for parent in (shelf.parent, shelf / STATES, shelf / MODELS):
        remove_leftovers(parent)


def shelve_state(shelf: Path, path: Path, check: Callable[[IncidentState], None]) -> Shelved:
    """Puts the state in the file `path` on the shelf, under the time at which it was built.

    check: raises SimilarityError for a state that the image can't use. Raises StateError for a file that isn't a usable
    state or is dated ahead, OSError where it can't be written.
    """
    state = IncidentState.load(path)
    check(state)
    if state.built_at:
        ahead_s = datetime.fromisoformat(state.built_at).timestamp() - time.time()
        if ahead_s > MAX_AHEAD_S:
            raise StateError(
                f"the state says it was built at {state.built_at}, {ahead_s / 60:.0f} minutes from now "
                f"({datetime.now(UTC):{TIME_FORMAT}}): set the clock of the machine that built it, and build it again"
            )
    name = state_name(state.built_at, state_version(path))
    put(shelf / STATES / name, {STATE_FILENAME: path})
    return _tidy(shelf, name, check)


def _tidy(shelf: Path, name: str, check: Callable[[IncidentState], None]) -> Shelved:
    """Keeps the newest states that the image can use, the newest that another can, and all that are young."""
    usable: list[str] = []
    others: list[str] = []
    damaged: list[str] = []
    for each in state_names(shelf):
        path = shelf / STATES / each / STATE_FILENAME
        try:
            if state_version(path) != digest_in(each):
                raise StateError(f"{path} is damaged")
            state = IncidentState.load(path)
        except SimilarityError:
            damaged.append(each)
            continue
        try:
            check(state)
        except SimilarityError:
            others.append(each)
        else:
            usable.append(each)
    # A deployment that is taken back would serve the newest of the others again.
    kept = {*usable[:KEPT_STATES], *others[:1], name}
    removed = []
    for each in (*usable, *others, *damaged):
        folder = shelf / STATES / each
        undated_others = each != name and each.startswith(UNDATED) and name.startswith(UNDATED)
        if undated_others or (each not in kept and _age_s(folder) > KEPT_S):
            remove(folder)
            removed.append(each)
    serves = next(each for each in usable if each not in removed)
    return Shelved(name, serves, tuple(removed))


def shelve_model(shelf: Path, files: ModelFiles) -> str:
    """Puts the image's model on the shelf and others aside; gives its version. Raises ModelError or OSError."""
    version = model_version(files)
    put(shelf / MODELS / version, model_files(files.folder))
    put_models_aside(shelf, but=version)
    return version


def put_models_aside(shelf: Path, *, but: str = "") -> None:
    """Lambdas that have mapped one into memory can go on. Raises OSError."""
    for folder in (shelf / MODELS).iterdir():
        if folder.name != but and not folder.name.startswith("."):
            put_aside(folder)


def _age_s(folder: Path) -> float:
    """0 where it is gone: another run has removed it."""
    try:
        return time.time() - folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _open_to_group(folder: Path) -> None:
    """Lets the group write what is in `folder`, where it is ours: earlier versions had one user for all Lambdas."""
    for path in folder.rglob("*"):
        stat = path.lstat()
        if path.is_symlink() or stat.st_uid != os.geteuid():
            continue
        wanted = stat.st_mode | (0o2070 if path.is_dir() else 0o060)
        if wanted != stat.st_mode:
            path.chmod(wanted & 0o7777)
