"""The folder that the image is built from: jobs, links, and the files of the model. Importing this starts no Node.

`similarity.api.routes` finds the handlers.
"""

from __future__ import annotations

import os
from pathlib import Path

from infrastructure.config import Config, ConfigError
from similarity.api.routes import JOBS, HandlerFile, HandlerFileError, find_handlers
from similarity.encoder.model_folder import EXPORTED_FILENAMES, exported_filenames
from similarity.settings import DEFAULT_MODEL_DIR, DEFAULT_PRECISION, PRECISIONS

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


def exported_files(config: Config) -> list[str]:
    """Names of the exported files that the image gets if they are there: those of each precision that may serve."""
    allowed = PRECISIONS[config.encoder_engine]
    # float32 also serves where another precision can't.
    serving = [each for each in allowed if config.encoder_precision in ("auto", each) or each == DEFAULT_PRECISION]
    return [name for name in EXPORTED_FILENAMES if any(name in exported_filenames(each) for each in serving)]


def left_out(config: Config) -> list[str]:
    """Patterns, as in .dockerignore, of the other exported files, which would make the image larger."""
    kept = exported_files(config)
    return [f"{DEFAULT_MODEL_DIR}/{name}" for name in EXPORTED_FILENAMES if name not in kept]
