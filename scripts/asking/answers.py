"""The answers to texts and incidents, as /similar would give them: one, or those of a table.

The vectors of a table are computed as those of a state, each text once. A store keeps them, so that a stopped run
resumes. `similarity.answering` makes the answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from asking.tables import Row, Table
from similarity.answer import Answer, Ranked
from similarity.answering import answer_to_text, require_text
from similarity.api import answers, parameters
from similarity.api.request import Request
from similarity.asked import Asked
from similarity.encoder.loading import load_encoder
from similarity.encoder.text_encoder import TextEncoder
from similarity.encoder.tokens import prepare
from similarity.errors import RequestError, SimilarityError
from similarity.incidents.ranking import Ranking
from similarity.incidents.state import IncidentState, state_version
from similarity.refresh.compute import Computer
from similarity.refresh.vector_store import VectorStore
from similarity.settings import DEFAULT_MODEL_URI, Engine, Precision

# The `body` of an answer: that of a ranking, or of an error.
Body = Mapping[str, Any]

# Not the store of builds: publish_state.py publishes that, and the texts are the user's own.
STORE_FILENAME = "asked.sqlite"
# What is in memory at a time. A vector has 3 KB.
_MOST_ROWS = 1000
_MOST_CHARS = 8_000_000


def load_ranking(state_path: Path) -> Ranking:
    """Raises StateError."""
    return Ranking(IncidentState.load(state_path), state_version(state_path))


def load_encoder_of(state: IncidentState, model_dir: Path, engine: Engine, precision: Precision) -> TextEncoder:
    """The model that made the state, which cuts texts where the state's are cut. Raises ModelError or StateError."""
    encoder = load_encoder(model_dir, engine=engine, precision=precision)
    state.require_made_by(encoder, encoder.name or DEFAULT_MODEL_URI)
    return encoder.cut_at(state.max_tokens)


def text_of(value: object) -> str | RequestError:
    """The text that a caller gave, or the API's error where there is none. It is found before anything else is read."""
    try:
        return parameters.text(Request({"text": value}))
    except RequestError as error:
        return error


def of_text(encoder: TextEncoder, ranking: Ranking, text: str, asked: Asked) -> Answer[Ranked]:
    """Raises RequestError or ModelError."""
    encoding = encoder.encode(text)
    require_text(encoding.tokens)
    return answer_to_text(encoder, ranking, text, encoding.tokens, encoding.vector, asked)


def of_table(
    encoder: TextEncoder,
    ranking: Ranking,
    table: Table,
    asked: Asked,
    warnings: Iterable[str],
    store: VectorStore,
    progress: Callable[[int, int], None],
) -> Iterator[tuple[Row, Body]]:
    """Each row with its answer, in their order; an error's body for a row without a usable text.

    warnings: about `asked`, for each answer. progress: gets the rows that are done, and all rows.
    Raises ModelError, StoreError, TableError or OSError.
    """
    warnings = list(warnings)
    done = size = 0

    def report(computed: int, of: int) -> None:
        progress(done + size * computed // of, table.rows)

    computer = Computer(encoder, store, progress=report, equals=("torch", "onnx")).for_queries()
    for batch in _batches(table):
        size = len(batch)
        texts = [text_of(row.text) for row in batch]
        prepared = [prepare(text, encoder.text_preparation) if isinstance(text, str) else "" for text in texts]
        # The store has no vectors of blank texts.
        filled = [text for text in prepared if text.strip()]
        computer.compute(filled)
        vector_of = computer.computed(filled)
        for row, text, key in zip(batch, texts, prepared, strict=True):
            if isinstance(text, RequestError):
                yield row, body_of_error(text, [])
                continue
            tokens = encoder.tokenizer(text)
            try:
                require_text(tokens)
                found = answer_to_text(encoder, ranking, text, tokens, vector_of[key], asked)
                yield row, body_of(found, warnings)
            except RequestError as error:
                yield row, body_of_error(error, warnings)
        done += size
        progress(done, table.rows)
    # Removes the vectors of earlier runs that are too old.
    computer.keep([])


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += len(row.source) + sum(map(len, row.fields))
        if len(batch) >= _MOST_ROWS or size >= _MOST_CHARS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def body_of(answer: Answer[Ranked], warnings: Iterable[str]) -> Body:
    """warnings: about the request, which come first."""
    return {"warnings": [*warnings, *answer.warnings], **answers.ranked(answer.value)}


def body_of_error(error: SimilarityError, warnings: Iterable[str]) -> Body:
    return {"warnings": list(warnings), "msg": str(error), "code": error.code}
