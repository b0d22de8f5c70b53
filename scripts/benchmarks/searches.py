"""Random states of any size, and the ways to search them that `benchmark.py ranking` compares.

torch is imported only by the ways that use it, because other workers import this module too.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from similarity.incidents.confidence import EVIDENCE, Confidence
from similarity.incidents.fit import Fit
from similarity.incidents.metrics import VECTOR_METRICS, Metric, VectorMetric
from similarity.incidents.ranking import SIMILARITY_WEIGHT, WORDS_WEIGHT, Ranking
from similarity.incidents.state import IncidentState
from similarity.incidents.vector_index import origin_of
from similarity.incidents.whitening import DEFAULT_POWER, whitening
from similarity.incidents.words import WordIndex, words_of
from similarity.vectors import Vector

# How many incidents to find: the API's default.
FIRST = 3

# Words of a text that is searched for. A document has SHORT words too, as many as the title and description of an AIID
# incident without stop words. A text of SHORT words finds 1.1 entries of the word index for each incident, and one of
# LONG words finds 4.2. With AIID's data, these are the numbers for titles with descriptions, and for reports of 700
# tokens.
SHORT, LONG = 34, 190
_VOCABULARY = 20_000
# An index of more documents is made of copies. Making one of a million would take minutes and 5 GiB.
_MOST_DOCUMENTS = 10_000

TIMED = ("ours", "unsure", "numpy", "read once")
# With more incidents, all ways use several threads. After the pause, those of the last way have stopped spinning.
MANY, PAUSE_S = 10_000, 0.1

# Rows that the reference converts at a time.
_CHUNK = 10_000


@dataclass(frozen=True)
class Search:
    """A metric, for hybrid the number of words in the text that is searched for, and the number of incidents."""

    metric: Metric
    words: int
    incidents: int

    @property
    def name(self) -> str:
        return f"{self.metric}, {self.words} words" if self.words else self.metric


def searches(incidents: int) -> list[Search]:
    """All metrics, and `hybrid` for a short and a long text."""
    return [
        *(Search(metric, 0, incidents) for metric in VECTOR_METRICS),
        *(Search("hybrid", words, incidents) for words in (SHORT, LONG)),
    ]


def random_vectors(number: int, seed: int = 0) -> Vector:
    """(number, 768), the same in every worker."""
    return np.random.default_rng(seed).standard_normal((number, 768), np.float32)


def random_state(incidents: int) -> IncidentState:
    """A state with random means (incidents, 768), titles as long as AIID's, and dates."""
    ids = np.arange(1, incidents + 1)
    titles = [f"Incident {incident_id}: a machine did what nobody had asked it to do" for incident_id in ids]
    dates = [f"20{day % 26:02}-{day % 12 + 1:02}-{day % 28 + 1:02}" for day in range(incidents)]
    return IncidentState(ids, np.ones_like(ids), random_vectors(incidents), titles, dates=dates)


def documents(number: int, words: int, seed: int = 0) -> list[str]:
    """Texts of random words by the law of Zipf and Mandelbrot: few words are frequent, and most are rare."""
    shares = 1 / (np.arange(_VOCABULARY) + 21)
    drawn = np.random.default_rng(seed).choice(_VOCABULARY, (number, words), p=shares / shares.sum())
    return [" ".join(f"word{word}" for word in each) for each in drawn.tolist()]


def word_index(incidents: int) -> WordIndex:
    """The word index of random documents, one for each incident."""
    found = WordIndex.of(documents(min(incidents, _MOST_DOCUMENTS), SHORT))
    assert found is not None
    first_rows = np.arange(0, incidents, found.incidents, dtype=np.int32)  # of each copy
    starts, rows, weights = [0], [], []
    for start, end in pairwise(found.starts.tolist()):
        copied = first_rows[:, None] + found.rows[start:end]  # (copies, entries of a word)
        kept = copied < incidents
        rows.append(copied[kept])
        weights.append(np.broadcast_to(found.weights[start:end], copied.shape)[kept])
        starts.append(starts[-1] + len(rows[-1]))
    return replace(
        found, starts=np.array(starts), rows=np.concatenate(rows), weights=np.concatenate(weights), incidents=incidents
    )


def state_of(search: Search) -> IncidentState:
    """A state with all that the search needs, and a calibration for its metric."""
    state = random_state(search.incidents)
    weights = (1.0,) * (2 * len(EVIDENCE[search.metric]) + 1)
    fit = Fit(
        # More random vectors would give a similar map.
        whitening=whitening(state.means[:2000], DEFAULT_POWER) if search.metric == "whitened" else None,
        words=word_index(search.incidents) if search.metric == "hybrid" else None,
        calibration={search.metric: Confidence(weights, weights, 0.1)},
    )
    return replace(state, fit=fit)


def ways(search: Search) -> Callable[[str | int], Any]:
    """The name of a way -> its first incidents; a number of turns -> each way's median seconds.

    All ways read the same matrix, and take turns. So other load on the machine affects all of them alike.
    ours: `Ranking`, with confidence. Pairs of id and similarity.
    unsure: the same without confidence.
    reference: the same pairs in float64, without the matrix.
    numpy: a product of the matrix and the vector, and argpartition. Ids. For hybrid it doesn't score words.
    read once: the sum of the matrix, which takes as long as reading it from memory.
    """
    import torch

    ranking = Ranking(state_of(search))
    unsure = Ranking(replace(ranking.state, fit=replace(ranking.state.fit, calibration={})))
    unsure.index = ranking.index
    [vector], [text] = random_vectors(1, seed=1), documents(1, search.words, seed=1)
    without_text: VectorMetric = "centered" if search.metric == "hybrid" else search.metric
    matrix = ranking.index.directions(without_text)
    values = torch.from_numpy(matrix)
    origin = origin_of(ranking.state.means, without_text).astype(np.float32)
    mapped = ranking.state.fit.whitening

    def by(ranking: Ranking) -> list[tuple[int, float]]:
        matches = ranking.most_similar(vector, FIRST, search.metric, text)
        return [(match.incident_id, match.similarity) for match in matches]

    def by_numpy() -> list[int]:
        query = vector - origin
        if mapped is not None:
            query = query @ mapped
        similarities = matrix @ (query / np.linalg.norm(query))
        best = np.argpartition(-similarities, FIRST)[:FIRST]
        return [int(row) + 1 for row in best[np.argsort(-similarities[best])]]

    answers: dict[str, Callable[[], Any]] = {
        "ours": lambda: by(ranking),
        "unsure": lambda: by(unsure),
        "numpy": by_numpy,
        "read once": lambda: values.sum().item(),
        "reference": lambda: reference(ranking.state, vector, search.metric, text),
    }

    def answer(asked: str | int) -> Any:
        if isinstance(asked, str):
            return answers[asked]()
        seconds: dict[str, list[float]] = {way: [] for way in TIMED}
        for _ in range(asked):
            for way, found in seconds.items():
                time.sleep(PAUSE_S if search.incidents > MANY else 0)
                start = time.perf_counter()
                answers[way]()
                found.append(time.perf_counter() - start)
        return {way: statistics.median(found) for way, found in seconds.items()}

    return answer


def reference(state: IncidentState, vector: Vector, metric: Metric, text: str) -> list[tuple[int, float]]:
    """The ids of the first incidents and their similarities, in float64 and as plainly as can be."""
    center = 0 if metric == "cosine" else state.means.mean(axis=0, dtype=np.float64)

    def moved(vectors: Vector) -> NDArray[np.float64]:
        found: NDArray[np.float64] = vectors.astype(np.float64) - center
        return found if metric != "whitened" or state.fit.whitening is None else found @ state.fit.whitening

    query = moved(vector)
    chunks = (moved(state.means[start : start + _CHUNK]) for start in range(0, len(state), _CHUNK))
    found = [chunk @ query / np.linalg.norm(chunk, axis=1) / np.linalg.norm(query) for chunk in chunks]
    similarities = np.concatenate(found)
    if state.fit.words is not None:
        words, index = np.zeros(len(state)), state.fit.words
        for number in {index.words.index(word) for word in set(words_of(text)).intersection(index.words)}:
            entries = slice(index.starts[number], index.starts[number + 1])
            words[index.rows[entries]] += index.weights[entries]
        similarities = SIMILARITY_WEIGHT * _z_scores(similarities) + WORDS_WEIGHT * _z_scores(words)
    best = np.argsort(-similarities, kind="stable")[:FIRST]
    return [(int(state.incident_ids[row]), float(similarities[row])) for row in best]


def _z_scores(values: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = (values - values.mean()) / values.std()
    return found


def rank_as_original(incidents: int) -> Callable[[object], list[int]]:
    """The first ids by the original service's loop over cosines."""
    import torch

    means, [vector] = torch.from_numpy(random_vectors(incidents)), torch.from_numpy(random_vectors(1, seed=1))

    def rank() -> list[int]:
        cosine = torch.nn.functional.cosine_similarity
        pairs = [(cosine(vector, means[row], dim=-1).item(), row + 1) for row in range(incidents)]
        return [number for _, number in sorted(pairs, reverse=True)[:FIRST]]

    return lambda _: rank()
