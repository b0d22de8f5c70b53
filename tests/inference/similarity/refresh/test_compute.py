"""Vectors are computed in parts, each text once, and all that is known already isn't computed again."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from databases import IN_MEMORY, computer
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.refresh.compute import PART_CHARS, Computer, in_this_process, parts, work
from similarity.refresh.vector_store import VectorStore
from similarity.vectors import Vector
from tiny import sample_texts


def test_parts_have_each_text_once_longest_first_and_a_limit() -> None:
    texts = ["b" * 5000, "a" * 5000, "b" * 5000, "c" * 40_000, "d" * 7000, *(f"short {number}" for number in range(9))]
    made = list(parts(texts))
    assert [text for part in made for text in part] == sorted(set(texts), key=lambda text: (-len(text), text))
    assert [len(part) for part in made] == [1, 2, 10]
    assert all(len(part) == 1 or sum(map(len, part)) <= PART_CHARS for part in made)
    assert list(parts(reversed(texts))) == made


def test_no_texts_make_no_parts() -> None:
    assert list(parts([])) == []


def test_a_vector_does_not_depend_on_the_texts_beside_it(tiny_encoder: TorchEncoder) -> None:
    texts = sample_texts()[:6]
    [together] = [dict(part) for part in in_this_process(tiny_encoder)([text[:300] for text in texts])]
    for text in texts:
        [alone] = in_this_process(tiny_encoder)([text[:300]])
        assert alone[text[:300]].tobytes() == together[text[:300]].tobytes()


def test_progress_counts_what_has_to_be_computed(tiny_encoder: TorchEncoder) -> None:
    texts = ["a" * (PART_CHARS + 5), "b" * 20, "c" * 10]
    said: list[tuple[int, int]] = []
    with VectorStore(IN_MEMORY) as store:
        by = Computer(tiny_encoder, store, progress=lambda done, total: said.append((done, total)))
        by.compute(["d" * 30])
        said.clear()
        assert by.compute([*texts, *texts, "d" * 30]) == frozenset(texts)
        assert said == [(0, PART_CHARS + 30), (PART_CHARS, PART_CHARS + 30), (PART_CHARS + 30, PART_CHARS + 30)]
        said.clear()
        assert by.compute(texts) == frozenset()
    assert said == []
    assert work(texts) == PART_CHARS + 30


def test_vectors_of_another_limit_of_tokens_are_others(tiny_encoder: TorchEncoder, encoded: list[str]) -> None:
    text = "A robot in a warehouse hurt workers. " * 3
    vectors = {}
    with VectorStore(IN_MEMORY) as store:
        for limit in (10, 20, 10):
            by = Computer(tiny_encoder.cut_at(limit), store)
            by.compute([text])
            vectors[limit] = by.get([text])[text]
    assert encoded == [text, text]
    assert not np.allclose(vectors[10], vectors[20], atol=1e-3)


@pytest.mark.parametrize("damage", ["another length", "infinite", "not whole numbers"])
def test_a_damaged_vector_is_computed_again(
    damage: str, tmp_path: Path, tiny_encoder: TorchEncoder, encoded: list[str]
) -> None:
    blob = {
        "another length": np.ones(31, dtype=np.float32).tobytes(),
        "infinite": np.full(32, np.inf, dtype=np.float32).tobytes(),
        "not whole numbers": b"odd",
    }[damage]
    path = tmp_path / "vectors.sqlite"
    with computer(tiny_encoder, path) as by:
        by.compute(["a text"])
        right = by.get(["a text"])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE vectors SET vector = ?", [blob])
    with computer(tiny_encoder, path) as by:
        assert by.get(["a text"]) == {}
        assert by.compute(["a text"]) == {"a text"}
        assert by.get(["a text"])["a text"].tobytes() == right["a text"].tobytes()
    assert len(encoded) == 2


def test_another_way_to_compute_may_give_parts_in_any_order(tiny_encoder: TorchEncoder) -> None:
    def backwards(texts: Sequence[str]) -> Iterator[Mapping[str, Vector]]:
        for text in reversed(texts):
            yield {text: np.full(32, len(text), dtype=np.float32)}

    with VectorStore(IN_MEMORY) as store:
        by = Computer(tiny_encoder, store, backwards)
        assert by.compute(["a", "bb", "ccc", "bb"]) == {"a", "bb", "ccc"}
        assert {text: vector[0] for text, vector in by.get(["a", "bb", "ccc"]).items()} == {"a": 1, "bb": 2, "ccc": 3}
