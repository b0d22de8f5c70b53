"""An answer of the service on its way to the caller and the log, and the values that answers hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from similarity.incidents.confidence import Verdict
from similarity.incidents.facts import StateFacts
from similarity.incidents.ranking import Match
from similarity.metrics import Metric
from similarity.settings import Engine, Precision
from similarity.vectors import Vector

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True)
class Facts:
    """The work on one answer, for the log. Holds nothing that a caller chose; None stands for work that wasn't needed.

    tokens: how many tokens were encoded, special tokens included.
    state: the version of the state that was searched.
    match: whether an incident was found, as the caller is told.
    """

    tokens: int | None = None
    tokenising_s: float | None = None
    encoding_s: float | None = None
    ranking_s: float | None = None
    state: str | None = None
    match: Verdict | None = None

    def measured(self) -> dict[Metric, float]:
        """The facts that are numbers, by the metric that has them. Milliseconds, as in the log."""
        values = {
            Metric.TOKENS: self.tokens,
            Metric.TOKENISING_TIME: _milliseconds(self.tokenising_s),
            Metric.ENCODING_TIME: _milliseconds(self.encoding_s),
            Metric.RANKING_TIME: _milliseconds(self.ranking_s),
            Metric.NO_MATCH: 1 if self.match == "none" else None,
        }
        return {metric: value for metric, value in values.items() if value is not None}

    def log_fields(self) -> dict[str, object]:
        """The facts by the names that they have in the log, where times are in milliseconds."""
        return {
            "tokens": self.tokens,
            "tokenising_ms": _milliseconds(self.tokenising_s),
            "encoding_ms": _milliseconds(self.encoding_s),
            "ranking_ms": _milliseconds(self.ranking_s),
            "state": self.state,
            "match": self.match,
        }


@dataclass(frozen=True)
class Answer(Generic[T_co]):
    """The value that was asked for, with warnings for the caller and facts for the log."""

    value: T_co
    warnings: list[str] = field(default_factory=list)
    facts: Facts = Facts()


@dataclass(frozen=True)
class Embedding:
    """The CLS vector of a text (hidden,), and the SHA-1 of the prepared text in hex digits."""

    vector: Vector
    from_text_hash: str


@dataclass(frozen=True)
class Ranked:
    """Incidents, best first, and the state that ranked them.

    verdict: whether the best incident of the state is a match, even if `matches` is empty. None if the state can't say.
    explained: whether the matches were to say why. embedding: of the text, if it was asked for.
    """

    matches: Sequence[Match]
    state: StateFacts
    verdict: Verdict | None = None
    explained: bool = False
    embedding: Embedding | None = None


@dataclass(frozen=True)
class Health:
    """The state and the model that answer a text."""

    state: StateFacts
    model_fingerprint: str
    engine: Engine
    precision: Precision


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 2)
