"""The project's folder and the settings of a deployment."""

from __future__ import annotations

from shared.command import ROOT

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from infrastructure.config import Config, ConfigError, settings


@dataclass(frozen=True)
class Given:
    """The settings of a deployment.

    environment: the variables of `.env` and of the process, as `app.py` reads them.
    config: has the default of each setting that is missing or wrong; "" for account and region.
    problems: a sentence for each such setting.
    """

    root: Path
    environment: Mapping[str, str | None]
    config: Config
    problems: tuple[str, ...]

    @classmethod
    def read(cls, environment: Mapping[str, str], root: Path = ROOT, stack_name: str | None = None) -> Given:
        """stack_name: wins over STACK_NAME."""
        unreadable: tuple[str, ...] = ()
        try:
            found = settings(environment, root / ".env")
        except ConfigError as error:
            found, unreadable = dict(environment), (str(error),)
        if stack_name:
            found["STACK_NAME"] = stack_name
        config, problems = Config.with_problems(found)
        return cls(root, found, config, unreadable + problems)

    @property
    def model_dir(self) -> Path:
        return self.root / "inference" / "model"
