"""Finds the incidents that are most similar to a vector or a text.

`cosine` is the plain cosine of the CLS vector and an incident's mean. `centered` first subtracts the mean of all
incidents from both ("all but the top", Mu and Viswanath 2018, first step). Raw Longformer vectors share one large
component, so their plain cosines all lie between 0.99 and 1. `whitened` also applies the state's whitening map to both.
`hybrid` is `centered` with the words of the text: see `fused`.

`similarity.incidents.vector_index` computes the first three.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from similarity.incidents.confidence import Verdict, features
from similarity.incidents.fit import Fit
from similarity.incidents.metrics import METRICS, VECTOR_METRICS, Metric, VectorMetric
from similarity.incidents.state import MAX_ID, IncidentState
from similarity.incidents.vector_index import Index, largest
from similarity.incidents.why import Why, explain
from similarity.incidents.words import words_of
from similarity.vectors import Vector

# The weights of the two parts of `hybrid`. From 0.5 to 0.7 they hardly matter: docs/evaluation.md has the figures.
SIMILARITY_WEIGHT, WORDS_WEIGHT = 0.6, 0.4

# The least standard deviation of BM25. It is larger for 99 % of the titles of AIID's incidents. If a text has a single
# known word, in a single incident, the deviation is tiny, and that incident would be far above the others by chance.
_LEAST_SPREAD = 0.5


@dataclass(frozen=True, slots=True)
class Match:
    """An incident and its similarity to the query: -1 to 1, but `hybrid` has no bounds.

    confidence: the probability that the text belongs to the incident, 0 to 1; None if the state has no calibration, or
        the query is an incident.
    date: YYYY-MM-DD, "" if unknown. url: of the incident's page, None if unknown.
    why: the reason in the words of the text, if it was asked for.
    """

    incident_id: int
    similarity: float
    title: str
    confidence: float | None = None
    date: str = ""
    url: str | None = None
    why: Why | None = None


@dataclass(frozen=True)
class Own:
    """An incident as the state would have it without one of its texts. mean: (hidden,). document: prepared."""

    incident_id: int
    mean: Vector
    document: str


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of all incidents for one query, each float64 (incidents,); None for those that the state can't give.

    incident_ids: int64 (incidents,). words: BM25. terms: number of different words in the text.
    """

    incident_ids: NDArray[np.int64]
    cosine: NDArray[np.float64]
    centered: NDArray[np.float64]
    whitened: NDArray[np.float64] | None
    words: NDArray[np.float64] | None
    terms: int

    @property
    def hybrid(self) -> NDArray[np.float64] | None:
        return None if self.words is None else fused(self.centered, self.words)

    def of(self, metric: Metric) -> NDArray[np.float64]:
        """(incidents,). Raises ValueError if the state can't give it."""
        found: NDArray[np.float64] | None = getattr(self, metric)
        if found is None:
            raise ValueError(f"the state can't be searched by {metric}")
        return found

    def without(self, incident_id: int) -> Scores:
        """The scores of the other incidents, as if the state didn't have this one."""
        kept = self.incident_ids != incident_id
        parts = {each.name: getattr(self, each.name) for each in fields(self)}
        return Scores(**{name: part[kept] if isinstance(part, np.ndarray) else part for name, part in parts.items()})

    def evidence(self, metric: Metric, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """The features of the matches in `rows`, best first: (rows,) -> (rows, features)."""
        found = {"cosine": self.cosine[rows], "centered": self.centered[rows], metric: self.of(metric)[rows]}
        return evidence(metric, found, None if self.words is None else self.words[rows], self.terms)


class Ranking:
    """A state with its facts and its index. Safe to use from several threads.

    version: from `state_version`, "" if the state isn't from a file. metrics: those that the state can be searched by.
    index: of its vectors.
    """

    def __init__(self, state: IncidentState, version: str = "") -> None:
        self.state = state
        self.version = version
        self.facts = state.facts(version)
        self.metrics = _metrics(state.fit)
        self.index = Index(state.means, state.fit.whitening)

    def most_similar(
        self,
        vector: NDArray[np.floating[Any]],
        num: int,
        metric: Metric = "cosine",
        text: str = "",
        exclude: Collection[int] = (),
    ) -> list[Match]:
        """The `num` incidents most like `vector` (hidden,), best first, ties by incident id; all incidents if num < 0.

        text: the query's, prepared as the texts of the state; `hybrid` alone looks at it.
        exclude: ids of incidents that are left out, those that were merged as what they became. The similarities of the
            others stay as they are.
        A vector of zeros has no direction, so its similarities are 0. With `centered`, so has the center. Raises
        ValueError if the vector has another shape than the state's, or the state can't be searched by the metric.
        """
        state = self.state
        self._require(vector, metric)
        words, terms = None, 0
        similarities: NDArray[np.floating[Any]]
        if metric == "hybrid":
            words, terms = self._words(text)
            similarities = fused(self.index.similarities(vector, "centered"), words)
        else:
            similarities = self.index.similarities(vector, metric)
        left = self._exclude(similarities, exclude)
        count = left if num < 0 else min(num, left)
        # The confidence of the first match depends on the second one.
        best = largest(similarities, min(max(count, 2), left))
        confidences: Sequence[float | None] = [None] * len(best)
        if len(best) and metric in state.fit.calibration:
            parts: dict[str, NDArray[np.float64]] = {
                each: self.index.between(vector, state.means[best], each) for each in _PLAIN if each != metric
            }
            found = evidence(
                metric,
                {**parts, metric: similarities[best].astype(np.float64)},
                None if words is None else words[best],
                terms,
            )
            confidences = state.fit.calibration[metric].of(found).tolist()
        return self._matches(best[:count], similarities, confidences[:count])

    def most_like(
        self, incident_id: int, num: int, metric: Metric = "cosine", exclude: Collection[int] = ()
    ) -> list[Match]:
        """The `num` other incidents most like an incident of the state, by its stored mean, as `most_similar`.

        Incidents that were merged into it are left out as well. The matches have no confidence, because that is fitted
        to texts. Raises ValueError if the state doesn't have the incident, or can't be searched by the metric.
        """
        state = self.state
        row = state.row_of(incident_id)
        if row is None:
            raise ValueError(f"the state has no incident {incident_id}")
        if metric == "hybrid":
            raise ValueError("hybrid compares words too, and the mean of an incident has none")
        self._require(state.means[row], metric)
        similarities = self.index.similarities(state.means[row], metric)
        left = self._exclude(similarities, {incident_id, *exclude})
        best = largest(similarities, left if num < 0 else min(num, left))
        return self._matches(best, similarities, [None] * len(best))

    def _exclude(self, similarities: NDArray[np.floating[Any]], exclude: Collection[int]) -> int:
        """Makes the similarities (incidents,) of excluded incidents minus infinity. Returns how many are left."""
        if not exclude:
            return len(similarities)
        merged, became = self.state.duplicates.T  # (merged, 2) -> twice (merged,)
        ids = np.array([each for each in exclude if each <= MAX_ID], dtype=np.int64)
        ids = np.union1d(ids, became[np.isin(merged, ids)])
        ids = np.union1d(ids, merged[np.isin(became, ids)])
        out = np.isin(self.state.incident_ids, ids)
        similarities[out] = -np.inf
        return len(similarities) - int(out.sum())

    def _matches(
        self, rows: NDArray[np.intp], similarities: NDArray[np.floating[Any]], confidences: Sequence[float | None]
    ) -> list[Match]:
        """The matches in `rows` (matches,). similarities: of all incidents. confidences: of the matches."""
        state = self.state
        return [
            Match(
                incident_id,
                similarity,
                state.titles[row],
                confidence,
                date=state.dates[row] if state.dates else "",
                url=state.url_of(row),
            )
            for row, incident_id, similarity, confidence in zip(
                rows.tolist(),
                state.incident_ids[rows].tolist(),
                similarities[rows].tolist(),
                confidences,
                strict=True,
            )
        ]

    def explained(self, matches: Sequence[Match], text: str, prepare: Callable[[str], str]) -> list[Match]:
        """The matches of a text, each with its reason; without one if the state has no word index.

        text: as it came. prepare: prepares a part of it as the texts of the state.
        """
        index = self.state.fit.words
        if index is None:
            return list(matches)
        rows = np.searchsorted(self.state.incident_ids, [match.incident_id for match in matches])
        reasons = explain(index, rows, text, prepare)
        return [replace(match, why=why) for match, why in zip(matches, reasons, strict=True)]

    def verdict(self, matches: Sequence[Match], metric: Metric) -> Verdict | None:
        """What the confidence of the first of `matches`, found by `metric`, means; None if it has none."""
        if not matches or matches[0].confidence is None:
            return None
        return self.state.fit.calibration[metric].verdict(matches[0].confidence)

    def scores(self, vector: NDArray[np.floating[Any]], text: str = "", own: Own | None = None) -> Scores:
        """All scores of all incidents. Raises ValueError as `most_similar`.

        own: replaces an incident of the state, for a text that the state was made of. All else stays as it is: the
        center, the whitening map and how rare a word is.
        """
        self._require(vector, "cosine")
        state = self.state
        row = None if own is None else int(np.searchsorted(state.incident_ids, own.incident_id))
        found: dict[str, NDArray[np.float64]] = {}
        for metric in VECTOR_METRICS:
            if metric in self.metrics:
                each = self.index.similarities(vector, metric).astype(np.float64)
                if own is not None:
                    each[row] = self.index.between(vector, own.mean[None], metric)[0]
                found[metric] = each
        words, terms = None, 0
        if state.fit.words is not None:
            words, terms = self._words(text)
            if own is not None:
                words[row] = state.fit.words.score_of(own.document, words_of(text))
        return Scores(state.incident_ids, found["cosine"], found["centered"], found.get("whitened"), words, terms)

    def _require(self, vector: NDArray[np.floating[Any]], metric: Metric) -> None:
        state = self.state
        if vector.shape != (state.dimension,):
            raise ValueError(f"vector has the shape {tuple(vector.shape)}; the state needs ({state.dimension},)")
        if metric not in self.metrics:
            raise ValueError(f"metric must be one of {self.metrics}, not {metric!r}")

    def _words(self, text: str) -> tuple[NDArray[np.float64], int]:
        """BM25 (incidents,), and the number of different words in the text."""
        index = self.state.fit.words
        assert index is not None
        words = list(dict.fromkeys(words_of(text)))
        return index.scores(words), len(words)


_PLAIN: tuple[VectorMetric, ...] = ("cosine", "centered")


def _metrics(fit: Fit) -> tuple[Metric, ...]:
    lacks: set[Metric] = set()
    if fit.whitening is None:
        lacks.add("whitened")
    if fit.words is None:
        lacks.add("hybrid")
    return tuple(metric for metric in METRICS if metric not in lacks)


def evidence(
    metric: Metric, similarities: Mapping[str, NDArray[np.float64]], words: NDArray[np.float64] | None, terms: int
) -> NDArray[np.float64]:
    """The features of matches, best first, for the metric's confidence: (matches, features).

    similarities: (matches,) by cosine, centered and the metric itself. words: BM25 (matches,), for hybrid.
    terms: number of different words in the text.
    """
    by_words = {} if words is None else {"words": np.log1p(words), "words_each": words / max(terms, 1)}
    return features({**similarities, **by_words}, metric)


def fused(similarities: NDArray[np.floating[Any]], words: NDArray[np.float64]) -> NDArray[np.float64]:
    """Two scores of all incidents as one, each (incidents,): the weighted sum of their z-scores."""
    # Rounding gives equal similarities a tiny deviation.
    found = _weighted(similarities, SIMILARITY_WEIGHT, 1e-9)
    found += _weighted(words, WORDS_WEIGHT, _LEAST_SPREAD)
    return found


def _weighted(values: NDArray[np.floating[Any]], weight: float, least: float) -> NDArray[np.float64]:
    """The weight times the z-score of each value: (n,) -> (n,). least: a smaller standard deviation counts as this."""
    deviations: NDArray[np.float64] = np.subtract(values, values.mean(dtype=np.float64), dtype=np.float64)
    # For so long a dot product, BLAS would start threads and wait for them.
    spread = math.sqrt(np.einsum("i,i", deviations, deviations) / len(deviations))
    deviations *= weight / max(spread, least)
    return deviations
