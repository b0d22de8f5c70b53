"""Putting files into a model's folder all together or not at all, whenever the process is killed.

New files wait in a hidden folder inside. Renaming that to INSTALLING_DIRNAME is the one step that counts: before it the
folder holds the old model, after it the new one. The files then take their places one by one. Whoever opens the folder
meanwhile is told so (`similarity.model_files`), and the next writer finishes what a kill has stopped.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import _inference  # noqa: F401  (makes `similarity` importable)
from similarity.model_files import GRAPH_FILENAMES, INSTALLING_DIRNAME, PROVENANCE_FILENAME
from similarity.settings import DEFAULT_MODEL_FILENAME

# How files and folders are named that nobody but their writer uses.
STAGING_PREFIX = ".new-"


def install(staging: Path, folder: Path) -> None:
    """Puts all files of the folder `staging`, which lies in `folder`, into `folder`. Raises OSError.

    With new weights the graphs that were made of the old ones go.
    """
    for path in staging.iterdir():
        # mkstemp and safetensors make files that only their owner can read; in the image another user does.
        path.chmod(0o644)
        _sync(path)
    _sync(staging)
    finish_install(folder)
    staging.rename(folder / INSTALLING_DIRNAME)
    _sync(folder)
    finish_install(folder)


def finish_install(folder: Path) -> None:
    """Goes on with an installation that was stopped after it counted, if there is one. Raises OSError."""
    installing = folder / INSTALLING_DIRNAME
    if not installing.is_dir():
        return
    weights = installing / DEFAULT_MODEL_FILENAME
    if weights.exists():
        for name in GRAPH_FILENAMES.values():
            (folder / name).unlink(missing_ok=True)
        # First of all: as long as they wait here, no graph in the folder is a new one.
        weights.replace(folder / weights.name)
    for path in sorted(installing.iterdir()):
        path.replace(folder / path.name)
    _sync(folder)
    installing.rmdir()


def remove_leftovers(folder: Path) -> None:
    """Removes what a writer that was killed has left, as far as it can be removed."""
    for path in folder.glob(f"{STAGING_PREFIX}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


def write_provenance(folder: Path, values: Mapping[str, Any]) -> None:
    """provenance.json, which `similarity.model_files` describes. Raises OSError."""
    (folder / PROVENANCE_FILENAME).write_text(json.dumps(dict(values), indent=2) + "\n", encoding="utf-8")


def _sync(path: Path) -> None:
    """On disk before this returns, so that a crash of the machine doesn't turn the order around."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
