"""The parts of a deployment that AWS bills, by its settings: Lambdas, alarms, gateways, the sizes of files.

A test compares this with the stack's template. Reading it needs neither the CDK nor the network.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from costing import usage
from infrastructure.build_context import REFRESH_JOB, SHELVING_JOB, left_out
from infrastructure.config import Config
from similarity.api.routes import JOBS, find_handlers
from similarity.encoder.loading import choose
from similarity.encoder.model_folder import ModelFiles
from similarity.settings import (
    DEFAULT_INCIDENTS_FILENAME,
    DEFAULT_MODEL_DIR,
    DEFAULT_MODEL_FILENAME,
    DEFAULT_PRECISION,
    Precision,
)

MB = 1_000_000
# Of Longformer-base, whose seconds were measured.
_LAYERS, _HIDDEN = 12, 768


@dataclass(frozen=True)
class Parts:
    """encoding: the memory in MiB of each handler that runs the model: one whose file states no MEMORY_MIB.

    light: that of the other handlers. pages: that of handlers that answer with a page; they are counted above, too.
    jobs: by name. shape: layers and width of the model in the folder, if they aren't those of Longformer-base. Sizes
    are those of the files in the folder, else those of Longformer-base. precision: the one that serves on a CPU that
    multiplies it natively. why_not: why ENCODER_PRECISION=auto means float32.
    """

    config: Config
    encoding: tuple[int, ...]
    light: tuple[int, ...]
    pages: tuple[int, ...]
    jobs: dict[str, int]
    image_gb: float
    model_gb: float
    state_gb: float
    shape: tuple[int, int] | None = None
    precision: Precision = DEFAULT_PRECISION
    why_not: str | None = None

    @classmethod
    def of(cls, config: Config, inference_dir: Path) -> Parts:
        """Raises HandlerFileError for a broken handler file, OSError for a model's folder that can't be read."""
        handlers = [each for each in find_handlers(inference_dir) if config.deploys(each)]
        jobs = find_handlers(inference_dir, JOBS)
        model = inference_dir / DEFAULT_MODEL_DIR
        weights, state = model / DEFAULT_MODEL_FILENAME, model / DEFAULT_INCIDENTS_FILENAME
        others = {state, *(inference_dir / name for name in left_out(config))}
        model_mb = usage.MODEL_MB + (usage.INT8_MB if config.encoder_precision == "int8" else 0)
        if weights.is_file():
            model_mb = _mb(path for path in model.rglob("*") if path not in others)
        precision, why_not = _precision(config, model)
        state_mb = _mb([state]) if state.is_file() else usage.STATE_MB
        other_mb = usage.BASE_MB + usage.PACKAGES_MB + (usage.TORCH_MB if config.encoder_engine == "torch" else 0)
        return cls(
            config,
            encoding=tuple(config.memory_of(each) for each in handlers if each.memory_mib is None),
            light=tuple(config.memory_of(each) for each in handlers if each.memory_mib is not None),
            pages=tuple(config.memory_of(each) for each in handlers if each.page),
            jobs={each.module: config.memory_of(each) for each in jobs},
            image_gb=(other_mb + usage.COMPRESSED_MODEL * model_mb + state_mb) / 1000,
            model_gb=model_mb / 1000,
            state_gb=state_mb / 1000,
            shape=_other_shape(model) if weights.is_file() else None,
            precision=precision,
            why_not=why_not,
        )

    @property
    def handlers(self) -> int:
        return len(self.encoding) + len(self.light)

    @property
    def refreshes(self) -> bool:
        return bool(self.config.refresh_hours) and REFRESH_JOB in self.jobs

    @property
    def alarm_metrics(self) -> int:
        """The metrics that the alarms read."""
        if not self.config.alarms:
            return 0
        # Errors, failed answers, refused calls, slow answers. A metric of each handler, and of each Lambda.
        metrics = 4 + self.handlers + self.handlers + len(self.jobs)
        metrics += SHELVING_JOB in self.jobs
        # Its dead letters, its failures, and the age of the state.
        metrics += (2 + bool(self.config.refresh_hours)) if REFRESH_JOB in self.jobs else 0
        return metrics

    @property
    def own_metrics(self) -> int:
        """About as many get numbers in an hour with requests: two statuses a route, and those of docs/operations.md."""
        return 2 * self.handlers + 7 + self.config.alarms


def _precision(config: Config, model: Path) -> tuple[Precision, str | None]:
    if config.encoder_precision != "auto":
        return config.encoder_precision, None
    choice = choose(ModelFiles(model), config.encoder_engine, "auto", any_cpu=True)
    return choice.precision, choice.reason


def _mb(paths: Iterable[Path]) -> float:
    return sum(path.stat().st_size for path in paths if path.is_file()) / MB


def _other_shape(model: Path) -> tuple[int, int] | None:
    with suppress(OSError, ValueError, TypeError, KeyError):
        found = json.loads((model / "config.json").read_text(encoding="utf-8"))
        shape = int(found["num_hidden_layers"]), int(found["hidden_size"])
        return None if shape == (_LAYERS, _HIDDEN) else shape
    return None
