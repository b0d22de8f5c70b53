"""Putting files into a model's folder all together or not at all, whenever the process is killed.

New files wait in a hidden folder inside. Renaming that to INSTALLING_DIRNAME is the one step that counts: before it the
folder holds the old model, after it the new one. The files then take their places one by one. Whoever opens the folder
meanwhile is told so (`similarity.encoder.model_folder`), and the next writer finishes what a kill has stopped.
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
    GRAPH_FILENAMES,
    INSTALLING_DIRNAME,
    PROVENANCE_FILENAME,
    TOKENIZER_FILENAME,
)
from similarity.settings import DEFAULT_MODEL_FILENAME

# How files and folders are named that nobody but their writer uses.
STAGING_PREFIX = ".new-"
# Weights first and provenance.json last: in between, the old provenance.json has another hash than the weights. So the
# build of the image, which gets no hidden files, refuses the folder.
_ORDER = (
    DEFAULT_MODEL_FILENAME, *GRAPH_FILENAMES.values(), TOKENIZER_FILENAME, CONFIG_FILENAME, PROVENANCE_FILENAME
)  # fmt: skip


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """For one writer at a time. At the start it ends what a writer before has begun, and removes what it left.

    Raises OSError, also while another process writes to the folder.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the process, however that ends
        except BlockingIOError as error:
            raise OSError(f"another process is writing a model to {folder}; try again when it has ended") from error
        except OSError:  # a network file system that locks no folders
            pass
        _finish(folder)
        _remove_leftovers(folder)
        yield
    finally:
        os.close(descriptor)


def finish_install(folder: Path) -> None:
    """Goes on with an installation that was stopped after it counted, if there is one. Raises OSError."""
    if (folder / INSTALLING_DIRNAME).is_dir():
        with writing_to(folder):
            pass


def install(staging: Path, folder: Path) -> None:
    """Puts all files of the folder `staging`, which lies in `folder`, into `folder`. Raises OSError.

    For use within `writing_to`. With new weights the graphs that were made of the old ones go.
    """
    for path in staging.iterdir():
        # mkstemp and safetensors make files that only their owner can read; in the image another user does.
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
        # As long as new weights wait here, no graph in the folder is a new one.
        for name in GRAPH_FILENAMES.values():
            if not (installing / name).exists():
                (folder / name).unlink(missing_ok=True)
    for name in _ORDER:
        if (installing / name).exists():
            (installing / name).replace(folder / name)
    _sync(folder)
    installing.rmdir()


def _remove_leftovers(folder: Path) -> None:
    """Removes what a writer that was killed has left, as far as it can be removed."""
    for path in folder.glob(f"{STAGING_PREFIX}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


def write_provenance(folder: Path, values: Mapping[str, Any]) -> None:
    """provenance.json, which `similarity.encoder.model_folder` describes. Raises OSError."""
    (folder / PROVENANCE_FILENAME).write_text(json.dumps(dict(values), indent=2) + "\n", encoding="utf-8")


def _sync(path: Path) -> None:
    """On disk before this returns, so that a crash of the machine doesn't turn the order around."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
