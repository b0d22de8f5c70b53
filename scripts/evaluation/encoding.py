"""The vectors of texts to ask with. The store keeps them, so that a stopped evaluation resumes."""

from __future__ import annotations

from shared.command import Bar

from collections.abc import Sequence
from pathlib import Path

from evaluation.texts import Query
from similarity.encoder.text_encoder import TextEncoder
from similarity.encoder.tokens import prepare
from similarity.refresh.compute import Computer
from similarity.refresh.vector_store import VectorStore
from similarity.vectors import Vector


def encode(texts: Sequence[str], encoder: TextEncoder, store_path: Path) -> list[Vector]:
    """The vectors (hidden,) of texts as queries. Raises ModelError, StoreError."""
    prepared = [prepare(text, encoder.text_preparation) for text in texts]
    # The store has no vectors of blank texts.
    filled = [text for text in prepared if text.strip()]
    with VectorStore(store_path) as store, Bar("chars") as progress:
        computer = Computer(encoder, store, progress=progress, equals=("torch", "onnx")).for_queries()
        computer.compute(filled)
        vector_of = computer.computed(filled)
        computer.keep(filled)
    return [vector_of[text] if text in vector_of else encoder.encode(text).vector for text in prepared]


def vectors_of(queries: Sequence[Query], encoder: TextEncoder | None, store_path: Path) -> list[Vector]:
    """The vectors of queries: those that they have, and those of all others. Raises ModelError, StoreError.

    encoder: None if all have one.
    """
    lacking = [query.text for query in queries if query.vector is None]
    found = iter(encode(lacking, encoder, store_path) if encoder and lacking else ())
    return [next(found) if query.vector is None else query.vector for query in queries]
