"""Puts files into a model's folder, all of them or none, even if the process is killed.

New files wait in a hidden folder inside. Renaming it to INSTALLING_DIRNAME is the decisive step: before it, the folder
holds the old model; after it, the new one. Then the files take their places one by one. Meanwhile opening the folder is
an error that says so (`similarity.encoder.model_folder`). If a kill stops this, the next writer finishes it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from similarity.encoder.model_folder import (
    CONFIG_FILENAME,
    EXPORTED_FILENAMES,
    INSTALLING_DIRNAME,
    PROVENANCE_FILENAME,
    TOKENIZER_FILENAME,
)
from similarity.settings import DEFAULT_MODEL_FILENAME

# The prefix of files and folders that only their writer uses.
STAGING_PREFIX = ".new-"
# Weights come first and provenance.json last. In between, the hash in provenance.json isn't that of the weights. So the
# build of the image, which doesn't see hidden files, refuses the folder.
_ORDER = (
    DEFAULT_MODEL_FILENAME, *EXPORTED_FILENAMES, TOKENIZER_FILENAME, CONFIG_FILENAME, PROVENANCE_FILENAME
)  # fmt: skip


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Locks the folder for one writer. First finishes the installation of a killed writer and removes its leftovers.

    Raises OSError, also if another process is writing to the folder.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released when the process ends, also by a kill
        except BlockingIOError as error:
            raise OSError(f"another process is writing a model to {folder}; try again when it has ended") from error
        except OSError:  # some network file systems can't lock folders
            pass
        _finish(folder)
        _remove_leftovers(folder)
        yield
    finally:
        os.close(descriptor)


def finish_install(folder: Path) -> None:
    """Finishes an installation that was stopped after its decisive step, if there is one. Raises OSError."""
    if (folder / INSTALLING_DIRNAME).is_dir():
        with writing_to(folder):
            pass


def install(staging: Path, folder: Path) -> None:
    """Moves all files of `staging`, a folder inside `folder`, into `folder`. Raises OSError.

    Use it inside `writing_to`. New weights remove the graphs of the old weights.
    """
    for path in staging.iterdir():
        # mkstemp and safetensors make files that only their owner can read. In the image another user reads them.
        path.chmod(0o644)
        _sync(path)
    _sync(staging)
    staging.rename(folder / INSTALLING_DIRNAME)
    _sync(folder)
    _finish(folder)


def _finish(folder: Path) -> None:
    installing = folder / INSTALLING_DIRNAME
    if not installing.is_dir():
        return
    if (installing / DEFAULT_MODEL_FILENAME).exists():
        # The weights move first, so while they wait here, every exported file in the folder is an old one.
        for name in EXPORTED_FILENAMES:
            if not (installing / name).exists():
                (folder / name).unlink(missing_ok=True)
    for name in _ORDER:
        if (installing / name).exists():
            (installing / name).replace(folder / name)
    _sync(folder)
    installing.rmdir()


def _remove_leftovers(folder: Path) -> None:
    """Removes the leftovers of killed writers, as far as possible."""
    for path in folder.glob(f"{STAGING_PREFIX}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


def write_provenance(folder: Path, values: Mapping[str, Any]) -> None:
    """Writes provenance.json, as `similarity.encoder.model_folder` describes it. Raises OSError."""
    (folder / PROVENANCE_FILENAME).write_text(json.dumps(dict(values), indent=2) + "\n", encoding="utf-8")


def _sync(path: Path) -> None:
    """Waits until `path` is on disk, so that a crash of the machine can't change the order of writes."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
