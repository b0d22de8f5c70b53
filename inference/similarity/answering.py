"""The answers that an encoder and a ranking give: to a text, a vector or an incident. It reads no file.

`similarity.service` loads the encoder and the ranking of a process. scripts/similar.py has its own.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from similarity.answer import Answer, Embedding, Facts, Ranked
from similarity.asked import Asked
from similarity.encoder.legibility import length_warnings, script_warnings
from similarity.encoder.text_encoder import TextEncoder
from similarity.encoder.tokens import Tokens, prepare, prepared, prepared_beginning
from similarity.errors import RequestError, UnknownIncidentError, one_of
from similarity.incidents.metrics import VECTOR_METRICS, Metric
from similarity.incidents.ranking import Ranking
from similarity.incidents.words import MOST_CHARS
from similarity.vectors import Vector

# What a state lacks if it can't be searched by a metric.
_DATA = {"whitened": "whitening map", "hybrid": "word index"}


def answer_to_text(
    encoder: TextEncoder, ranking: Ranking, text: str, tokens: Tokens, vector: Vector, asked: Asked
) -> Answer[Ranked]:
    """The incidents most like a text that `encoder` has encoded. vector: (hidden,).

    `require_usable` and `require_text` come before.
    """
    # The words of a text are those in its beginning. Preparing megabytes takes time, so only where they count.
    needs_words = asked.metric not in VECTOR_METRICS
    beginning = prepared_beginning(text, MOST_CHARS, encoder.text_preparation) if needs_words else ""
    found = _ranked(ranking, vector, asked, beginning)
    warnings = [*vector_warnings(encoder, tokens, text), *length_warnings(text), *found.warnings]
    ranked = found.value
    if asked.explain:
        # The answer quotes the text, and many readers of JSON refuse a lone surrogate.
        quotable = prepare(text[:MOST_CHARS], "none")
        matches = ranking.explained(ranked.matches, quotable, lambda part: prepare(part, encoder.text_preparation))
        ranked = replace(ranked, matches=matches, explained=True)
        if ranking.state.fit.words is None:
            warnings.append("The state has no word index, so it can't explain its matches.")
    if asked.embedding:
        ranked = replace(ranked, embedding=embedding_of(encoder, text, vector))
    return Answer(ranked, warnings, found.facts)


def answer_to_incident(ranking: Ranking, incident_id: int, asked: Asked) -> Answer[Ranked]:
    """The other incidents most like one of the state, by its stored mean. Raises RequestError."""
    require_usable(ranking, asked.metric, "an incident is compared by its vector alone")
    state = ranking.state
    ignored = [name for name in ("explain", "embedding") if getattr(asked, name)]
    warnings = [f'"{name}" is about a text, so it is ignored with "incident_id".' for name in ignored]
    became = state.became(incident_id)
    if became != incident_id and state.row_of(became) is not None:
        warnings.append(f"Incident {incident_id} was merged into incident {became}, which is answered instead.")
        incident_id = became
    if state.row_of(incident_id) is None:
        raise UnknownIncidentError(f'Error! No incident in the database has the "incident_id" {incident_id}.')
    start_s = perf_counter()
    matches = ranking.most_like(incident_id, asked.num, asked.metric, asked.exclude)
    facts = Facts(ranking_s=perf_counter() - start_s, state=ranking.version or None)
    return Answer(Ranked(matches, ranking.facts), warnings, facts)


def answer_to_vector(ranking: Ranking, vector: NDArray[np.float64], asked: Asked) -> Answer[Ranked]:
    """The incidents most like a CLS vector (hidden,). Raises RequestError."""
    require_usable(ranking, asked.metric, "a vector has no words")
    return _ranked(ranking, vector, asked)


def require_usable(ranking: Ranking, metric: Metric, no_words: str | None = None) -> None:
    """Raises RequestError if the state lacks the metric's data, or if the query has no words and the metric needs them.

    no_words: why the query has none, for the caller; None if it has.
    """
    usable = [each for each in ranking.metrics if no_words is None or each in VECTOR_METRICS]
    if metric not in usable:
        cause = f"the state has no {_DATA[metric]}" if no_words is None or metric in VECTOR_METRICS else no_words
        raise RequestError(
            "metric_unavailable", f'Error! "metric" can\'t be "{metric}" here, because {cause}. Use {one_of(usable)}.'
        )


def require_text(tokens: Tokens) -> None:
    """Raises RequestError if nothing is left of a text once it is prepared, e.g. of emoji, which are dropped."""
    if tokens.is_blank:
        raise RequestError("text_missing", "Error! Valid input text not provided!")


def _ranked(
    ranking: Ranking, vector: NDArray[np.floating[Any]], asked: Asked, text: str | None = None
) -> Answer[Ranked]:
    """The incidents most like a vector (hidden,), or like the text of that vector."""
    start_s = perf_counter()
    # At least one, which tells whether anything matches.
    matches = ranking.most_similar(vector, asked.num or 1, asked.metric, text or "", asked.exclude)
    verdict = ranking.verdict(matches, asked.metric)
    facts = Facts(ranking_s=perf_counter() - start_s, state=ranking.version or None, match=verdict)
    given = "vector" if text is None else "text"
    none = f"No incident in the database is close enough: this {given} probably belongs to none of them."
    warnings = [none] if verdict == "none" else []
    return Answer(Ranked(matches if asked.num else [], ranking.facts, verdict), warnings, facts)


def embedding_of(encoder: TextEncoder, text: str, vector: Vector) -> Embedding:
    """A text's vector (hidden,) with the hash of the prepared text."""
    digest = hashlib.sha1(usedforsecurity=False)
    for piece in prepared(text, encoder.text_preparation):
        digest.update(piece.encode())
    return Embedding(vector, digest.hexdigest())


def vector_warnings(encoder: TextEncoder, tokens: Tokens, text: str) -> list[str]:
    """What the caller should know of the text's vector."""
    return [*tokens.warnings(), *script_warnings(text, tokens.unread, encoder.text_preparation)]
