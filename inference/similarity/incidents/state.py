"""The incident state, `incident_cls.pt`: the mean CLS vector of all reports of every incident.

Reads two forms, without torch (`similarity.incidents.pt_file`); `torch.load(..., weights_only=True)` reads them too:

1. This project's own, a dict:
       format            "incident-state"
       version           1
       incident_ids      int64 (incidents,), 1 or more, ascending, no two alike; at least one incident
       report_counts     int64 (incidents,), how many vectors went into each mean, at least 1
       means             float32 (incidents, hidden), finite, from -MAX_SIZE to MAX_SIZE
       titles            list of str, one an incident, "" where unknown
       model             str, e.g. "allenai/longformer-base-4096", "" where unknown
       model_fingerprint str, `TextEncoder.fingerprint` of the model that made it, "" where unknown
       precision         str, what the vectors were computed in, e.g. "float32"
       built_at          str, when it was built: UTC, ISO 8601 with seconds, e.g. "2026-11-26T07:04:05Z"; "" where
                         unknown
       dates             list of str, one an incident, YYYY-MM-DD, "" where unknown; empty where all are
       source            dict of str, which data the texts come from; empty where unknown. Its keys: kind, one of KINDS;
                         name, of the file, or its URL; date, of the data, as built_at
       options           dict of str, what the build was asked for, e.g. vectors, responses; empty where unknown
       max_tokens        int, where each text was cut, special tokens included; 0: at the model's maximum
       text_preparation  str, what was done to each text before it became tokens, e.g. "unidecode"
       duplicates        int64 (merged, 2), id of an incident that was merged, ascending, no two alike, and id of the
                         incident that it became, which is none of the merged
       dissimilar        int64 (pairs, 2), ids of incidents that people marked as dissimilar, the smaller first
   States of earlier versions lack the fields from built_at on; each then has the value that stands for unknown.
2. The original's: a list whose entry i is a tensor (reports, hidden) for incident i + 1, or None where there is none.

Comparing is left to `similarity.incidents.ranking`, the bytes of the file to `similarity.incidents.pt_writer` and
`pt_file`, making the vectors to `scripts/build_state.py`.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import date, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from similarity.errors import StateError
from similarity.incidents.pt_file import read_pt
from similarity.incidents.pt_writer import write_pt
from similarity.settings import DEFAULT_TEXT_PREPARATION, FEWEST_TOKENS
from similarity.vectors import Vector

FORMAT, VERSION = "incident-state", 1
# Of built_at, for strftime.
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"

_REMEDY = "build the state again with this model (scripts/build_state.py)"
# What the states of all versions have.
_FIRST_FIELDS = ("incident_ids", "report_counts", "means", "titles", "model", "model_fingerprint", "precision")
# Of a source: an archive that AIID published, tables, or documents.
KINDS = ("aiid-snapshot", "csv", "records")

# Layer normalisation ends an encoder, so a number of a vector is sqrt(hidden) times a weight at most: real ones stay
# below 20. A larger number comes from a damaged file, and would drown all others in a comparison.
MAX_SIZE = 1e6


class MadeBy(Protocol):
    """What a state knows of the encoder that made it."""

    @property
    def dimension(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def longest_input(self) -> int:
        """The most tokens that the model takes."""

    @property
    def text_preparation(self) -> str: ...


def _no_pairs() -> NDArray[np.int64]:
    return np.empty((0, 2), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class IncidentState:
    """What every incident looks like to the model. Shapes and meanings as in this module's docstring."""

    incident_ids: NDArray[np.int64]
    report_counts: NDArray[np.int64]
    means: Vector
    titles: Sequence[str]
    model: str = ""
    model_fingerprint: str = ""
    precision: str = "float32"
    built_at: str = ""
    dates: Sequence[str] = ()
    source: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    max_tokens: int = 0
    text_preparation: str = DEFAULT_TEXT_PREPARATION
    duplicates: NDArray[np.int64] = field(default_factory=_no_pairs)
    dissimilar: NDArray[np.int64] = field(default_factory=_no_pairs)

    def __post_init__(self) -> None:
        """Raises ValueError where the parts don't fit together, or where they can't be ranked."""
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
        self._require_origin()
        self._require_pairs()
        if not (self.incident_ids > 0).all() or not (np.diff(self.incident_ids) > 0).all():
            raise ValueError("incident_ids must be 1 or more, in ascending order and unique")
        if not (self.report_counts > 0).all():
            raise ValueError("report_counts must be at least 1")
        self._require_usable_means()

    def _require_strings(self) -> None:
        names = (self.model, self.model_fingerprint, self.precision, self.built_at, self.text_preparation)
        if not all(isinstance(s, str) for s in (*self.titles, *names)):
            raise ValueError(
                "titles, model, model_fingerprint, precision, text_preparation and built_at must be strings"
            )
        if self.built_at and not _is_time(self.built_at):
            raise ValueError('built_at must be a time in UTC such as "2026-11-26T07:04:05Z", or empty')

    def _require_origin(self) -> None:
        """What the state says of the data and the texts it was made of."""
        if not isinstance(self.dates, list | tuple) or len(self.dates) not in (0, len(self.titles)):
            raise ValueError("dates must be a list of as many dates as there are incidents, or of none")
        if not all(isinstance(each, str) and (not each or _is_date(each)) for each in self.dates):
            raise ValueError('dates must be strings such as "2026-11-26", or empty where unknown')
        for name, values in {"source": self.source, "options": self.options}.items():
            if not isinstance(values, Mapping) or not all(isinstance(s, str) for s in (*values, *values.values())):
                raise ValueError(f"{name} must be a dict of strings")
        if self.source:
            if set(self.source) != {"kind", "name", "date"} or self.source["kind"] not in KINDS:
                raise ValueError(
                    f"source must have kind, name and date, and the kind must be one of {', '.join(KINDS)}"
                )
            if self.source["date"] and not _is_time(self.source["date"]):
                raise ValueError('the date of source must be a time in UTC such as "2026-11-26T07:04:05Z", or empty')
        if type(self.max_tokens) is not int or (self.max_tokens != 0 and self.max_tokens < FEWEST_TOKENS):
            raise ValueError(f"max_tokens must be a whole number from {FEWEST_TOKENS} on, or 0 for the model's maximum")

    def _require_pairs(self) -> None:
        for name, pairs in {"duplicates": self.duplicates, "dissimilar": self.dissimilar}.items():
            if not isinstance(pairs, np.ndarray) or pairs.dtype != np.int64 or pairs.shape[1:] != (2,):
                raise ValueError(f"{name} must be a tensor of int64 of shape (pairs, 2)")
            if not (pairs > 0).all():
                raise ValueError(f"{name} must have ids of 1 or more")
        merged, became = self.duplicates.T  # (merged, 2) -> twice (merged,)
        if not (np.diff(merged) > 0).all() or np.isin(became, merged).any():
            raise ValueError(
                "duplicates must have each merged incident once, ascending, and with it one that wasn't merged itself"
            )
        if not (np.diff(self.dissimilar) > 0).all():
            raise ValueError("dissimilar must have two ids in each pair, the smaller one first")

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
        """Raises StateError where this state was made with another model than `encoder`, which is called `name`."""
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
        if self.text_preparation != encoder.text_preparation:
            raise StateError(
                f"the texts of the state were prepared with {self.text_preparation or 'nothing'}, those that are "
                f"compared with it are prepared with {encoder.text_preparation}; {_REMEDY}"
            )
        self.require_limit_within(encoder.longest_input)

    def require_limit_within(self, longest_input: int) -> None:
        """Raises StateError where the texts were cut behind the `longest_input` tokens that a model takes."""
        if self.max_tokens > longest_input:
            raise StateError(
                f"the texts of the state were cut at {self.max_tokens} tokens, but the model takes {longest_input} at "
                "most; build the state again with a lower MAX_TOKENS"
            )

    def save(self, path: str | Path) -> None:
        """Writes the state whole or not at all. Raises OSError, e.g. on a full disk; the file from before stays."""
        path = Path(path)
        content = {
            "format": FORMAT,
            "version": VERSION,
            "incident_ids": self.incident_ids,
            "report_counts": self.report_counts,
            "means": self.means,
            "titles": list(map(str, self.titles)),
            "model": self.model,
            "model_fingerprint": self.model_fingerprint,
            "precision": self.precision,
            "built_at": self.built_at,
            "dates": list(map(str, self.dates)),
            "source": dict(self.source),
            "options": dict(self.options),
            "max_tokens": self.max_tokens,
            "text_preparation": self.text_preparation,
            "duplicates": self.duplicates,
            "dissimilar": self.dissimilar,
        }
        descriptor, temporary = tempfile.mkstemp(prefix=path.name + ".", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                write_pt(content, file)
                file.flush()
                os.fsync(file.fileno())
            # mkstemp makes it private; others (the Docker build, the Lambda's user) have to read it.
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, path: str | Path) -> IncidentState:
        """Reads either form. Raises StateError for a file that is missing, truncated or no state."""
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
        later = {each.name for each in fields(cls)}.difference(_FIRST_FIELDS).intersection(content)
        return cls(**{name: content[name] for name in (*_FIRST_FIELDS, *later)})

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
            if not len(vectors):
                raise ValueError(f"the tensor of incident {incident_id} is empty; without reports, its entry is None")
            ids.append(incident_id)
            counts.append(len(vectors))
            # (reports, hidden) -> (hidden,). A number too large for float32 becomes infinite, which is refused below.
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
    """What a state's file is known by: the first 16 hex digits of its SHA-256. Raises StateError."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise StateError(f"{path} can't be read: {error.strerror or error}") from error


def _is_time(text: str) -> bool:
    with suppress(ValueError):
        return f"{datetime.strptime(text, TIME_FORMAT):{TIME_FORMAT}}" == text
    return False


def _is_date(text: str) -> bool:
    with suppress(ValueError):
        return date.fromisoformat(text).isoformat() == text
    return False
