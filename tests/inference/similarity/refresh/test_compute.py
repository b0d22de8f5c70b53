"""Vectors are computed in parts, each text once, and all that is known already isn't computed again."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from databases import IN_MEMORY, computer
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.refresh.compute import PART_CHARS, Computer, TooManyTextsError, in_this_process, parts, work
from similarity.refresh.vector_store import KEPT_FOR, MadeWith, StoreError, VectorStore
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


# Vectors of another engine, and a limit.


def of_engine(engine: str, encoder: TorchEncoder, number: float, texts: Sequence[str], store: VectorStore) -> None:
    """Stores vectors that say by their numbers who made them."""
    made_with = MadeWith(encoder.fingerprint, engine, encoder.precision, encoder.max_tokens)
    store.put({text: np.full(32, number, dtype=np.float32) for text in texts}, made_with)


def test_vectors_of_an_equal_engine_are_not_computed_again_but_its_own_come_first(
    tiny_encoder: TorchEncoder, encoded: list[str]
) -> None:
    with VectorStore(IN_MEMORY) as store:
        of_engine("torch", tiny_encoder, 1, ["both", "ours"], store)
        of_engine("onnx", tiny_encoder, 2, ["both", "theirs"], store)
        by = Computer(tiny_encoder, store, equals=("onnx", "torch"))
        texts = ["both", "ours", "theirs", "new"]
        assert by.compute(texts) == {"new"}
        assert (encoded, by.done) == (["new"], 1)
        found = by.computed(texts)
        assert [found[text][0] for text in texts[:3]] == [1, 1, 2]
        assert Computer(tiny_encoder, store).get(texts).keys() == {"both", "ours", "new"}


@pytest.mark.parametrize("other", [{"precision": "int8"}, {"max_tokens": 64}, {"fingerprint": "0"}])
def test_vectors_of_another_kind_are_no_equals(other: dict[str, Any], tiny_encoder: TorchEncoder) -> None:
    made_with = MadeWith(tiny_encoder.fingerprint, "onnx", "float32", tiny_encoder.max_tokens)
    with VectorStore(IN_MEMORY) as store:
        store.put({"a text": np.ones(32, dtype=np.float32)}, replace(made_with, **other))
        assert Computer(tiny_encoder, store, equals=("onnx",)).get(["a text"]) == {}


def test_the_vectors_of_equal_engines_are_kept_too(tiny_encoder: TorchEncoder, tmp_path: Path) -> None:
    path, first = tmp_path / "vectors.sqlite", date(2026, 1, 1)
    for days, texts in ((0, ["one", "two"]), (KEPT_FOR.days, ["one"]), (KEPT_FOR.days + 1, ["one"])):
        with VectorStore(path, first + timedelta(days)) as store:
            if not days:
                of_engine("onnx", tiny_encoder, 2, texts, store)
            Computer(tiny_encoder, store, equals=("onnx",)).keep(texts)
    with VectorStore(path) as store:
        assert Computer(tiny_encoder, store, equals=("onnx",)).get(["one", "two"]).keys() == {"one"}


def test_a_vector_that_no_engine_has_is_told(tiny_encoder: TorchEncoder) -> None:
    with VectorStore(IN_MEMORY) as store, pytest.raises(StoreError, match="it has lost 1 vectors"):
        Computer(tiny_encoder, store, equals=("onnx",)).computed(["a text"])


def test_more_texts_than_allowed_are_not_begun(tiny_encoder: TorchEncoder, encoded: list[str]) -> None:
    with VectorStore(IN_MEMORY) as store:
        by = Computer(tiny_encoder, store, most=3)
        assert by.compute(["one", "two", "two"]) == {"one", "two"}
        by.require_few(["one", "two", "three"])
        for refuse in (by.require_few, by.compute):
            with pytest.raises(TooManyTextsError) as error:
                refuse(["two", "three", "four", "four"])
            assert str(error.value) == "4 texts would have to be computed, but at most 3 are allowed."
            assert error.value.texts == 4
        assert encoded == ["one", "two"]
        assert by.compute(["three"]) == {"three"}


def test_without_a_limit_nothing_is_counted(tiny_encoder: TorchEncoder) -> None:
    with VectorStore(IN_MEMORY) as store:
        Computer(tiny_encoder, store).require_few(["a text"] * 3)
