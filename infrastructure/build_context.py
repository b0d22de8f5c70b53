"""The folder that the image is built from: the jobs in it, and its links. Importing this starts no Node.

`similarity.api.routes` finds the handlers.
"""

from __future__ import annotations

import os
from pathlib import Path

from infrastructure.config import ConfigError
from similarity.api.routes import JOBS, HandlerFile, HandlerFileError, find_handlers
from similarity.settings import DEFAULT_MODEL_DIR

SHELVING_JOB, REFRESH_JOB = "shelve_state", "refresh"


def find_jobs(handlers_dir: Path) -> list[HandlerFile]:
    """Raises HandlerFileError, also if the job that each deployment calls isn't there."""
    jobs = find_handlers(handlers_dir, JOBS)
    if SHELVING_JOB not in [job.module for job in jobs]:
        raise HandlerFileError(
            f"{JOBS}/{SHELVING_JOB}.py with a `handler` isn't there, but each deployment calls it first."
        )
    return jobs


def require_no_link_around(handlers_dir: Path) -> None:
    """Raises ConfigError for a link in the model's folder to a folder around it: a copy would have no end."""
    model_dir = handlers_dir / DEFAULT_MODEL_DIR
    for path in (model_dir, *(Path(parent, name) for parent, names, _ in os.walk(model_dir) for name in names)):
        if path.is_symlink() and path.is_dir() and handlers_dir.resolve().is_relative_to(path.resolve()):
            raise ConfigError(
                f"inference/{path.relative_to(handlers_dir)} is a symbolic link to {path.resolve()}, which holds "
                "inference/ itself: let it lead to the model's folder."
            )
