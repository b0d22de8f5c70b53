"""The incident state, `incident_cls.pt`: the mean CLS vector of all reports of every incident.

Two forms can be read, without torch (`similarity.incidents.pt_file`) or with `torch.load(..., weights_only=True)`:

1. This project's own form, a dict:
       format            "incident-state"
       version           1
       incident_ids      int64 (incidents,), 1 or more, in ascending order, unique; at least one
       report_counts     int64 (incidents,), number of vectors in each mean, at least 1
       means             float32 (incidents, hidden), finite, from -MAX_SIZE to MAX_SIZE
       titles            list of str, one per incident, "" if unknown
       model             str, e.g. "allenai/longformer-base-4096", "" if unknown
       model_fingerprint str, `TextEncoder.fingerprint` of the model that made the state, "" if unknown
       precision         str, precision in which the vectors were computed, e.g. "float32"
       built_at          str, time of the build: UTC, ISO 8601 with seconds, e.g. "2026-11-26T07:04:05Z"; "" if
                         unknown, missing in states of earlier versions
2. The original's form, a list: entry i is a tensor (reports, hidden) for incident i + 1, or None without reports.

`similarity.incidents.ranking` compares vectors. `scripts/build_state.py` makes them.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from similarity.errors import StateError
from similarity.incidents.pt_file import read_pt
from similarity.vectors import Vector

FORMAT, VERSION = "incident-state", 1
# The format of built_at, for strftime.
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"

_REMEDY = "build the state again with this model (scripts/build_state.py)"

# An encoder ends with layer normalisation, so a number of a vector is at most sqrt(hidden) times a weight. Real numbers
# stay below 20. A larger one comes from a damaged file, and would dominate every comparison.
MAX_SIZE = 1e6


class MadeBy(Protocol):
    """The properties of an encoder that a state is compared with."""

    @property
    def dimension(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...


@dataclass(frozen=True, eq=False)
class IncidentState:
    """The mean vectors of all incidents. The module's docstring gives the shapes and meanings."""

    incident_ids: NDArray[np.int64]
    report_counts: NDArray[np.int64]
    means: Vector
    titles: Sequence[str]
    model: str = ""
    model_fingerprint: str = ""
    precision: str = "float32"
    built_at: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError if the parts don't fit together, or can't be ranked."""
        if not all(isinstance(each, np.ndarray) for each in (self.incident_ids, self.report_counts, self.means)):
            raise ValueError("incident_ids, report_counts and means must be tensors")
        incidents = self.incident_ids.shape[0] if self.incident_ids.ndim == 1 else -1
        if self.incident_ids.dtype != np.int64 or self.report_counts.dtype != np.int64:
            raise ValueError("incident_ids and report_counts must be int64")
        if self.means.dtype != np.float32 or self.means.ndim != 2 or self.means.shape[1] == 0:
            raise ValueError("means must be float32 of shape (incidents, hidden)")
        if not isinstance(self.titles, list | tuple):
            raise ValueError(f"titles must be a list, not a {type(self.titles).__name__}")
        if not incidents == self.means.shape[0] == len(self.titles) or self.report_counts.shape != (incidents,):
            raise ValueError("incident_ids, report_counts, means and titles must have the same length")
        if not incidents:
            raise ValueError("the state has no incidents")
        self._require_strings()
        if not (self.incident_ids > 0).all() or not (np.diff(self.incident_ids) > 0).all():
            raise ValueError("incident_ids must be 1 or more, in ascending order and unique")
        if not (self.report_counts > 0).all():
            raise ValueError("report_counts must be at least 1")
        self._require_usable_means()

    def _require_strings(self) -> None:
        names = (self.model, self.model_fingerprint, self.precision, self.built_at)
        if not all(isinstance(s, str) for s in (*self.titles, *names)):
            raise ValueError("titles, model, model_fingerprint, precision and built_at must be strings")
        if self.built_at and not _is_time(self.built_at):
            raise ValueError('built_at must be a time in UTC such as "2026-11-26T07:04:05Z", or empty')

    def _require_usable_means(self) -> None:
        largest = np.maximum(self.means.max(axis=1), -self.means.min(axis=1))  # (incidents, hidden) -> (incidents,)
        unusable = np.flatnonzero(~(largest <= MAX_SIZE))  # NaN is unusable too
        if len(unusable):
            row = unusable[0]
            raise ValueError(
                f"the mean of incident {self.incident_ids[row]} has a number that is NaN, infinite or above "
                f"{MAX_SIZE:,.0f}; so have {len(unusable)} of {len(largest)} means. Build the state again"
            )

    def __len__(self) -> int:
        return len(self.means)

    @property
    def dimension(self) -> int:
        return int(self.means.shape[1])

    def require_made_by(self, encoder: MadeBy, name: str) -> None:
        """Raises StateError if another model than `encoder` made this state. name: the encoder's name."""
        if self.dimension != encoder.dimension:
            raise StateError(
                f"the state has {self.dimension} dimensions, but the model has {encoder.dimension}; {_REMEDY}"
            )
        if self.model_fingerprint:
            if self.model_fingerprint != encoder.fingerprint:
                raise StateError(
                    f"the state was made with another model ({self.model or 'unnamed'}) than {name}; {_REMEDY}"
                )
        elif self.model and self.model != name:
            raise StateError(f"the state was made with the model {self.model}, but {name} is loaded; {_REMEDY}")

    def save(self, path: str | Path) -> None:
        """Writes the file with torch, whole or not at all. If it raises OSError, the old file stays."""
        import torch

        path = Path(path)
        content = {
            "format": FORMAT,
            "version": VERSION,
            "incident_ids": torch.from_numpy(self.incident_ids),
            "report_counts": torch.from_numpy(self.report_counts),
            "means": torch.from_numpy(self.means),
            "titles": list(self.titles),
            "model": self.model,
            "model_fingerprint": self.model_fingerprint,
            "precision": self.precision,
            "built_at": self.built_at,
        }
        descriptor, temporary = tempfile.mkstemp(prefix=path.name + ".", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
            # mkstemp makes a private file, but the Docker build and the Lambda's user must read it.
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException as error:
            Path(temporary).unlink(missing_ok=True)
            if isinstance(error, RuntimeError):  # torch.save raises it if a write fails
                raise OSError(f"writing {path} failed: {error}") from error
            raise

    @classmethod
    def load(cls, path: str | Path) -> IncidentState:
        """Reads either form. Raises StateError if the file is missing, truncated or isn't a state."""
        try:
            content = read_pt(path)
            return cls._from_dict(content) if isinstance(content, dict) else cls._from_original(content)
        except OSError as error:
            raise StateError(f"{path} can't be read: {error.strerror or error}") from error
        except (ValueError, KeyError, MemoryError) as error:
            reason = f"it has no {error}" if isinstance(error, KeyError) else str(error) or "not enough memory"
            raise StateError(f"{path} isn't an incident state that can be used: {reason}") from error

    @classmethod
    def _from_dict(cls, content: dict[str, Any]) -> IncidentState:
        if (content.get("format"), content.get("version")) != (FORMAT, VERSION):
            raise ValueError(f'its "format" and "version" aren\'t "{FORMAT}" and {VERSION}')
        fields = ("incident_ids", "report_counts", "means", "titles", "model", "model_fingerprint", "precision")
        return cls(**{field: content[field] for field in fields}, built_at=content.get("built_at", ""))

    @classmethod
    def _from_original(cls, content: object) -> IncidentState:
        if not isinstance(content, list):
            raise ValueError(f"it holds a {type(content).__name__}, not a dict or a list")
        ids, counts, means = [], [], []
        for incident_id, vectors in enumerate(content, start=1):
            if vectors is None:
                continue
            if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or vectors.dtype.kind != "f":
                raise ValueError(f"the entry of incident {incident_id} isn't a tensor of floats (reports, hidden)")
            ids.append(incident_id)
            counts.append(len(vectors))
            # (reports, hidden) -> (hidden,). Numbers too large for float32 become infinite; __post_init__ refuses them.
            with np.errstate(over="ignore", invalid="ignore"):
                means.append(vectors.mean(axis=0, dtype=np.float64).astype(np.float32))
        if len({len(mean) for mean in means}) != 1:
            raise ValueError("its incidents have vectors of several lengths" if ids else "it has no incidents")
        return cls(
            incident_ids=np.array(ids),
            report_counts=np.array(counts),
            means=np.stack(means),
            titles=[""] * len(ids),
        )


def state_version(path: Path) -> str:
    """The version of a state's file: the first 16 hex digits of its SHA-256. Raises StateError."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise StateError(f"{path} can't be read: {error.strerror or error}") from error


def _is_time(text: str) -> bool:
    with suppress(ValueError):
        return f"{datetime.strptime(text, TIME_FORMAT):{TIME_FORMAT}}" == text
    return False
