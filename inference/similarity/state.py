"""The incident state, `incident_cls.pt`: the mean CLS vector of all reports of every incident.

Reads two forms, both with `torch.load(..., weights_only=True)`, so that a file can't run code:

1. This project's own, a dict:
       format            "incident-state"
       version           1
       incident_ids      int64 (incidents,), ascending, no two alike
       report_counts     int64 (incidents,), how many vectors went into each mean, at least 1
       means             float32 (incidents, hidden)
       titles            list of str, one an incident, "" where unknown
       model             str, e.g. "allenai/longformer-base-4096", "" where unknown
       model_fingerprint str, `Encoder.fingerprint` of the model that made it, "" where unknown
       precision         str, what the vectors were computed in, e.g. "float32"
2. The original's: a list whose entry i is a tensor (reports, hidden) for incident i + 1, or None where there is none.

Comparing is left to `similarity.ranking`, making the vectors to `scripts/build_state.py`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (the name everyone uses)
from torch import Tensor

from similarity.encoder import Encoder
from similarity.errors import StateError

FORMAT, VERSION = "incident-state", 1


@dataclass(frozen=True, eq=False)
class IncidentState:
    """What every incident looks like to the model. Shapes and meanings as in this module's docstring."""

    incident_ids: Tensor
    report_counts: Tensor
    means: Tensor
    titles: Sequence[str]
    model: str = ""
    model_fingerprint: str = ""
    precision: str = "float32"

    def __post_init__(self) -> None:
        """Raises ValueError where the parts don't fit together."""
        incidents = self.incident_ids.shape[0] if self.incident_ids.dim() == 1 else -1
        if self.incident_ids.dtype != torch.int64 or self.report_counts.dtype != torch.int64:
            raise ValueError("incident_ids and report_counts must be int64")
        if self.means.dtype != torch.float32 or self.means.dim() != 2 or self.means.shape[1] == 0:
            raise ValueError("means must be float32 of shape (incidents, hidden)")
        if not incidents == self.means.shape[0] == len(self.titles) or self.report_counts.shape != (incidents,):
            raise ValueError("incident_ids, report_counts, means and titles must have the same length")
        if not all(isinstance(s, str) for s in (*self.titles, self.model, self.model_fingerprint, self.precision)):
            raise ValueError("titles, model, model_fingerprint and precision must be strings")
        if not bool((self.incident_ids.diff() > 0).all()):
            raise ValueError("incident_ids must be ascending, no two alike")
        if not bool((self.report_counts > 0).all()):
            raise ValueError("report_counts must be at least 1")
        if not bool(torch.isfinite(self.means).all()):
            raise ValueError("means must be finite")

    def __len__(self) -> int:
        return self.means.shape[0]

    @property
    def dimension(self) -> int:
        return self.means.shape[1]

    @cached_property
    def unit_means(self) -> Tensor:
        """(incidents, hidden), each of length 1, or 0 where a mean is 0."""
        return F.normalize(self.means, dim=1)

    @cached_property
    def center(self) -> Tensor:
        """(hidden,): the mean of all incidents' vectors, each counted once."""
        return self.means.mean(dim=0) if len(self) else torch.zeros(self.dimension)

    @cached_property
    def unit_centered_means(self) -> Tensor:
        """(incidents, hidden): means less `center`, each of length 1, or 0 where nothing is left."""
        return F.normalize(self.means - self.center, dim=1)

    def require_made_by(self, encoder: Encoder, name: str) -> None:
        """Raises StateError where this state was made with another model than `encoder`, which is called `name`."""
        if self.dimension != encoder.dimension:
            raise StateError(f"the state has {self.dimension} dimensions, the model {encoder.dimension}")
        if self.model_fingerprint:
            if self.model_fingerprint != encoder.fingerprint:
                raise StateError(f"the state was made with another model ({self.model or 'unnamed'}) than {name}")
        elif self.model and self.model != name:
            raise StateError(f"the state was made with the model {self.model}, the one loaded is {name}")

    def save(self, path: str | Path) -> None:
        """Writes the state whole or not at all. Raises OSError, e.g. on a full disk; what was there before stays."""
        path = Path(path)
        content = {
            "format": FORMAT,
            "version": VERSION,
            "incident_ids": self.incident_ids,
            "report_counts": self.report_counts,
            "means": self.means,
            "titles": list(self.titles),
            "model": self.model,
            "model_fingerprint": self.model_fingerprint,
            "precision": self.precision,
        }
        descriptor, temporary = tempfile.mkstemp(prefix=path.name + ".", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
            # mkstemp makes it private; others (the Docker build, the Lambda's user) have to read it.
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException as error:
            Path(temporary).unlink(missing_ok=True)
            if isinstance(error, RuntimeError):  # how torch.save reports a failed write
                raise OSError(f"writing {path} failed: {error}") from error
            raise

    @classmethod
    def load(cls, path: str | Path) -> IncidentState:
        """Reads either form. Raises StateError for a file that is missing, truncated or no state."""
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            return cls._from_dict(content) if isinstance(content, dict) else cls._from_original(content)
        except Exception as error:  # depending on where it is broken, torch raises nearly anything
            # Behind its first sentence torch goes on for a page, which advises to load the file without protection.
            reason = str(error).partition("\n")[0].partition(". ")[0]
            raise StateError(f"{path} can't be read as an incident state: {type(error).__name__}: {reason}") from error

    @classmethod
    def _from_dict(cls, content: dict[str, Any]) -> IncidentState:
        if content.get("format") != FORMAT or content.get("version") != VERSION:
            raise ValueError(f"no {FORMAT} of version {VERSION}")
        fields = ("incident_ids", "report_counts", "means", "titles", "model", "model_fingerprint", "precision")
        return cls(**{field: content[field] for field in fields})

    @classmethod
    def _from_original(cls, content: object) -> IncidentState:
        if not isinstance(content, list):
            raise ValueError(f"holds a {type(content).__name__}, neither a dict nor a list")
        ids, counts, means = [], [], []
        for incident_id, vectors in enumerate(content, start=1):
            if vectors is None:
                continue
            if not isinstance(vectors, Tensor) or vectors.dim() != 2 or not len(vectors):
                raise ValueError(f"the entry of incident {incident_id} is no tensor of shape (reports, hidden)")
            ids.append(incident_id)
            counts.append(len(vectors))
            means.append(vectors.double().mean(dim=0).float())  # (reports, hidden) -> (hidden,)
        if not ids:
            raise ValueError("holds no incident")
        return cls(
            incident_ids=torch.tensor(ids),
            report_counts=torch.tensor(counts),
            means=torch.stack(means),
            titles=[""] * len(ids),
        )
