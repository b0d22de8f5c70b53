"""Compares the vectors of another precision with those of float32."""

from __future__ import annotations

from shared.command import progress_bar

from collections.abc import Sequence

from similarity.encoder.reports import Agreement
from similarity.encoder.text_encoder import TextEncoder
from similarity.incidents.metrics import Metric
from similarity.incidents.ranking import Ranking
from similarity.incidents.state import IncidentState
from similarity.vectors import Vector, unit


def agreement_on_titles(state: IncidentState, encoder: TextEncoder, reference: TextEncoder) -> Agreement | None:
    """How the vectors of a state's titles agree; None if it has no titles. reference: float32. Raises ModelError."""
    titles = [title for title in state.titles if title]
    if not titles:
        return None
    encoder, reference = (each.cut_at(state.max_tokens) for each in (encoder, reference))
    vectors: list[tuple[Vector, Vector]] = []
    with progress_bar(len(titles), "titles") as progress:
        for title in titles:
            vectors.append((encoder.encode(title).vector, reference.encode(title).vector))
            progress.update()
    found, expected = zip(*vectors, strict=True)
    return agreement(found, expected, Ranking(state))


def agreement(vectors: Sequence[Vector], reference: Sequence[Vector], ranking: Ranking) -> Agreement:
    """vectors, reference: of the same texts, each (hidden,); at least one."""
    pairs = list(zip(vectors, reference, strict=True))

    def kept(metric: Metric) -> float:
        first = [[ranking.most_similar(vector, 1, metric)[0].incident_id for vector in pair] for pair in pairs]
        return sum(found == expected for found, expected in first) / len(pairs)

    smallest = min(float(unit(found) @ unit(expected)) for found, expected in pairs)
    return Agreement(kept("cosine"), kept("centered"), min(smallest, 1.0), len(pairs))
