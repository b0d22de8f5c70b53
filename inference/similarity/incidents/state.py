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
       built_at          str, time of the build: UTC, ISO 8601 with seconds, e.g. "2026-11-26T07:04:05Z"; "" if unknown
       dates             list of str, one per incident, YYYY-MM-DD, "" if unknown; an empty list if all are unknown
       source            dict of str, the data that the texts come from; empty if unknown. Keys: kind, one of KINDS;
                         name, a file name or URL; date, the time of the data, like built_at, "" if unknown
       options           dict of str, the options of the build: vectors, responses, words (the parts of an incident
                         that the word index has, e.g. "title,description"); empty if unknown
       max_tokens        int, limit at which each text was cut, with special tokens; 0: the model's maximum
       text_preparation  str, preparation of each text before tokenisation, e.g. "unidecode"
       duplicates        int64 (merged, 2): id of a merged incident, in ascending order, unique; id of the incident
                         that it became, which isn't a merged one
       dissimilar        int64 (pairs, 2): ids of incidents that people marked as dissimilar, the smaller id first
       collection        str, name of the database that the incidents are of; in states of earlier versions the AI
                         Incident Database
       record_url        str, URL of an incident's page with {id} for its id, "" if there are no pages; in states of
                         earlier versions that of the AI Incident Database
       urls              list of str, one per incident, the URL of its page where it isn't that of record_url, otherwise
                         ""; an empty list if all are that of record_url
       licence           str, licence of the database, e.g. "CC BY-SA 4.0", "" if the state doesn't name it
       points            float32 (incidents, 2), from -1 to 1: places on the map of all incidents, see
                         `similarity.incidents.points`; (0, 2) without a map
   and what was fitted to the incidents, each part absent where there is none:
       whitening         float32 (hidden, hidden), from -1e6 to 1e6: the map of `similarity.incidents.whitening`
       whitening_power   float, its power, from 0 to 1
       words             str, the stems of the word index (`similarity.incidents.words`), a line each
       word_starts       int64 (words + 1,), word_rows int32 (entries,), word_weights float32 (entries,): its tensors
       word_mean_length  float, the mean length of its documents
       calibration       dict by metric of {"first": list of float, "later": list of float, "none_below": float}, see
                         `similarity.incidents.confidence`. A reader ignores metrics that it doesn't know
   States of earlier versions lack the fields from built_at on. A missing field gets the value for "unknown".
2. The original's form, a list: entry i is a tensor (reports, hidden) for incident i + 1, or None without reports.

`similarity.incidents.ranking` compares vectors. `pt_writer` and `pt_file` write and read the bytes.
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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from similarity.errors import StateError
from similarity.incidents.collection import (
    DEFAULT_COLLECTION,
    DEFAULT_RECORD_URL,
    require_name,
    require_template,
    require_url,
    url_of,
)
from similarity.incidents.facts import MadeBy, StateFacts
from similarity.incidents.fit import Fit
from similarity.incidents.points import no_points, require_points
from similarity.incidents.pt_file import read_pt
from similarity.incidents.pt_writer import write_pt
from similarity.settings import DEFAULT_TEXT_PREPARATION, FEWEST_TOKENS
from similarity.vectors import Vector

FORMAT, VERSION = "incident-state", 1
# The format of built_at, for strftime.
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"

# What the states of all versions have.
_FIRST_FIELDS = ("incident_ids", "report_counts", "means", "titles", "model", "model_fingerprint", "precision")
# Of a source: an archive that AIID published, its tables, its documents, or the table of another database.
KINDS = ("aiid-snapshot", "csv", "records", "other")

# An encoder ends with layer normalisation, so a number of a vector is at most sqrt(hidden) times a weight. Real numbers
# stay below 20. A larger one comes from a damaged file, and would dominate every comparison.
MAX_SIZE = 1e6
# The largest id that int64 holds.
MAX_ID = 2**63 - 1
# Beyond that, a program that reads our JSON may round the number.
MAX_REPORTS = 2**53


def _no_pairs() -> NDArray[np.int64]:
    return np.empty((0, 2), dtype=np.int64)


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
    dates: Sequence[str] = ()
    source: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    max_tokens: int = 0
    text_preparation: str = DEFAULT_TEXT_PREPARATION
    duplicates: NDArray[np.int64] = field(default_factory=_no_pairs)
    dissimilar: NDArray[np.int64] = field(default_factory=_no_pairs)
    collection: str = DEFAULT_COLLECTION
    record_url: str = DEFAULT_RECORD_URL
    urls: Sequence[str] = ()
    licence: str = ""
    points: Vector = field(default_factory=no_points)
    fit: Fit = field(default_factory=Fit)

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
        self._require_origin()
        self._require_pairs()
        self._require_pages()
        require_points(self.points, len(self.titles))
        if not (self.incident_ids > 0).all() or not (np.diff(self.incident_ids) > 0).all():
            raise ValueError("incident_ids must be 1 or more, in ascending order and unique")
        if not (self.report_counts > 0).all():
            raise ValueError("report_counts must be at least 1")
        if self.report_counts.sum(dtype=np.float64) > MAX_REPORTS:  # int64 would overflow
            raise ValueError(f"report_counts must add up to at most {MAX_REPORTS:,}")
        self._require_usable_means()
        self.fit.require_of(*self.means.shape)

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

    def _require_pages(self) -> None:
        if not isinstance(self.urls, list | tuple) or len(self.urls) not in (0, len(self.titles)):
            raise ValueError("urls must be a list of as many URLs as there are incidents, or of none")
        if not all(isinstance(each, str) for each in (self.collection, self.record_url, self.licence, *self.urls)):
            raise ValueError("collection, record_url, licence and urls must be strings")
        for name, require, values in (
            ("collection", require_name, [self.collection]),
            ("record_url", require_template, [self.record_url]),
            ("each of urls", require_url, filter(None, self.urls)),
            ("licence", require_name, filter(None, [self.licence])),
        ):
            for value in values:
                try:
                    require(value)
                except ValueError as error:
                    raise ValueError(f"{name} {error}") from error

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

    def row_of(self, incident_id: int) -> int | None:
        """The row of an incident; None if the state doesn't have it."""
        row = int(np.searchsorted(self.incident_ids, incident_id)) if incident_id <= self.incident_ids[-1] else -1
        return row if row >= 0 and self.incident_ids[row] == incident_id else None

    def became(self, incident_id: int) -> int:
        """The id of the incident that a merged one became; the same id for one that wasn't merged."""
        found = self.duplicates[self.duplicates[:, 0] == incident_id, 1] if incident_id <= MAX_ID else []
        return int(found[0]) if len(found) else incident_id

    def url_of(self, row: int) -> str | None:
        """The URL of the page of an incident; None if it isn't known."""
        return (self.urls[row] if self.urls else "") or url_of(self.record_url, int(self.incident_ids[row]))

    def facts(self, version: str = "") -> StateFacts:
        """All that the state says of itself. version: of its file, see `state_version`."""
        return StateFacts(
            version=version,
            incidents=len(self),
            reports=int(self.report_counts.sum()),
            dimension=self.dimension,
            model=self.model,
            model_fingerprint=self.model_fingerprint,
            precision=self.precision,
            built_at=self.built_at,
            source=self.source,
            options=self.options,
            max_tokens=self.max_tokens,
            text_preparation=self.text_preparation,
            collection=self.collection,
            record_url=self.record_url,
            licence=self.licence,
        )

    def require_made_by(self, encoder: MadeBy, name: str) -> None:
        """As `StateFacts.require_made_by`."""
        self.facts().require_made_by(encoder, name)

    def save(self, path: str | Path) -> None:
        """Writes the file whole or not at all. If it raises OSError, the old file stays."""
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
            "collection": self.collection,
            "record_url": self.record_url,
            "urls": list(map(str, self.urls)),
            "licence": self.licence,
            "points": self.points,
            **self.fit.to_plain(),
        }
        descriptor, temporary = tempfile.mkstemp(prefix=path.name + ".", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                write_pt(content, file)
                file.flush()
                os.fsync(file.fileno())
            # mkstemp makes a private file, but the Docker build and the Lambda's user must read it.
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException as error:
            Path(temporary).unlink(missing_ok=True)
            if isinstance(error, OSError) and error.filename is None:
                error.filename = str(path)
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
        later = {each.name for each in fields(cls)}.difference((*_FIRST_FIELDS, "fit")).intersection(content)
        ids = content["incident_ids"]
        fit = Fit.from_plain(content, ids.size if isinstance(ids, np.ndarray) else 0)
        return cls(**{name: content[name] for name in (*_FIRST_FIELDS, *later)}, fit=fit)

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


def _is_date(text: str) -> bool:
    with suppress(ValueError):
        return date.fromisoformat(text).isoformat() == text
    return False
