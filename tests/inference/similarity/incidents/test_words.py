"""The word index gives BM25 as bm25s computes it, and the same index in every process."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import bm25s
import numpy as np
import pytest
import Stemmer
from bm25s.stopwords import STOPWORDS_EN
from hypothesis import given
from hypothesis import strategies as st

from similarity.incidents.words import K1, MOST_CHARS, STOP_WORDS, B, WordIndex, placed_words_of, words_of
from tiny import ROOT, sample_texts

DOCUMENTS = [
    "A robot hurt a worker. The robot was repaired.",
    "Two planes went down after automated commands.",
    "",
    "Workers were hurt in a warehouse of robots",
    "Überwachung in der U-Bahn; надзор в метро",
    "the and of",
]


def index_of(documents: list[str]) -> WordIndex:
    found = WordIndex.of(documents)
    assert found is not None
    return found


def test_the_stop_words_are_those_of_bm25s() -> None:
    assert frozenset(STOPWORDS_EN) == STOP_WORDS


def test_words_are_stems_in_order_without_stop_words_and_single_letters() -> None:
    assert words_of("The robots, a Robot and 2 WORKERS of x-ray in 2026") == ["robot", "robot", "worker", "ray", "2026"]
    assert words_of("ÜBERWACHUNG надзор 運転手") == ["überwachung", "надзор", "運転手"]
    assert words_of("") == words_of("the . a ?") == []


def test_only_the_beginning_of_a_text_counts() -> None:
    filled = "ab " * (MOST_CHARS // 3)
    assert len(filled) <= MOST_CHARS < len(filled) + 3
    assert words_of(filled + " robot zebra") == words_of(filled) == ["ab"] * (MOST_CHARS // 3)
    assert words_of(filled[3 * 10 :] + " robot zebra")[-2:] == ["robot", "zebra"]


def by_bm25s(documents: list[str], query: str) -> np.ndarray:
    """The scores by bm25s alone, with its own tokenizer, stop words and index."""
    stemmer = Stemmer.Stemmer("english")
    options: dict[str, Any] = {"stopwords": "en", "stemmer": stemmer, "show_progress": False}
    retriever = bm25s.BM25(method="lucene", k1=K1, b=B)
    retriever.index(bm25s.tokenize(documents, **options), show_progress=False)
    [words] = bm25s.tokenize([query], return_ids=False, **options)
    # Each word counts once here; bm25s counts it as often as the query has it.
    return np.asarray(retriever.get_scores(list(dict.fromkeys(words))))


@pytest.mark.parametrize("query", ["robots that hurt workers", "WAREHOUSE robot robot", "überwachung метро", "zebra"])
def test_scores_are_those_of_bm25s(query: str) -> None:
    found = index_of(DOCUMENTS).scores(words_of(query))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, by_bm25s(DOCUMENTS, query), rtol=1e-6, atol=1e-6)
    assert found.any() == (query != "zebra")


def test_scores_of_long_texts_are_those_of_bm25s() -> None:
    documents = sample_texts()
    index = index_of(documents)
    for query in documents[::7]:
        np.testing.assert_allclose(index.scores(words_of(query)), by_bm25s(documents, query), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("frequent", [0, 1, 2, 5, 1000])
def test_frequent_words_score_as_rare_ones(frequent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("similarity.incidents.words._FREQUENT", frequent)
    documents = sample_texts()
    index = index_of(documents)
    for query in (documents[0], documents[5], "robot", "zebra"):
        np.testing.assert_allclose(index.scores(words_of(query)), by_bm25s(documents, query), rtol=1e-5, atol=1e-5)


def test_a_score_is_the_one_computed_by_hand() -> None:
    # robot is in 2 of 3 documents, with 2 of 3 words and 1 of 1; on average a document has (3 + 1 + 2) / 3 words.
    index = index_of(["robot robot arm", "robot", "plane crash"])
    rarity = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    first = rarity * 2 / (2 + 0.9 * (1 - 0.4 + 0.4 * 3 / 2))
    second = rarity * 1 / (1 + 0.9 * (1 - 0.4 + 0.4 * 1 / 2))
    assert index.scores(["robot"]).tolist() == pytest.approx([first, second, 0], rel=1e-6)
    assert (index.mean_length, index.incidents, list(index.words)) == (2.0, 3, ["arm", "crash", "plane", "robot"])
    arm = math.log(1 + (3 - 1 + 0.5) / (1 + 0.5)) / (1 + 0.9 * (1 - 0.4 + 0.4 * 3 / 2))
    assert index.scores(["arm", "robot", "unknown"])[0] == pytest.approx(first + arm, rel=1e-6)


def test_a_word_of_the_query_counts_once() -> None:
    index = index_of(DOCUMENTS)
    assert index.scores(["robot"] * 5).tolist() == index.scores(["robot"]).tolist()
    assert index.score_of(DOCUMENTS[0], ["robot"] * 5) == index.score_of(DOCUMENTS[0], ["robot"]) > 0


@pytest.mark.parametrize("query", ["robots hurt workers", "überwachung in warehouse", "unknown", ""])
def test_the_score_of_an_indexed_document_is_its_score_in_the_index(query: str) -> None:
    index, words = index_of(DOCUMENTS), words_of(query)
    given_again = [index.score_of(document, words) for document in DOCUMENTS]
    np.testing.assert_allclose(given_again, index.scores(words), rtol=1e-6, atol=1e-9)


def test_another_document_scores_by_the_rarity_of_words_in_the_index() -> None:
    index = index_of(["robot robot arm", "robot", "plane crash"])
    # No document has "zebra": the rarest that a word can be. The new document has 2 words, as many as the average.
    zebra = math.log(1 + (3 - 0 + 0.5) / (0 + 0.5)) / (1 + 0.9)
    assert index.score_of("zebra arm", ["zebra"]) == pytest.approx(zebra, rel=1e-12)
    assert index.score_of("", ["zebra"]) == 0.0


def test_an_empty_document_scores_nothing_and_counts_as_a_document() -> None:
    index = index_of(DOCUMENTS)
    assert index.incidents == len(DOCUMENTS)
    every = index.scores(list(index.words))
    assert every[[2, 5]].tolist() == [0, 0]
    assert (every[[0, 1, 3, 4]] > 0).all()
    assert index.mean_length == sum(len(words_of(each)) for each in DOCUMENTS) / len(DOCUMENTS)


@pytest.mark.parametrize("documents", [[], [""], ["the", "a b c", "?!"]])
def test_without_a_word_there_is_no_index(documents: list[str]) -> None:
    assert WordIndex.of(documents) is None


WORDS = st.sampled_from(["robot", "robots", "arm", "the", "überwachung", "метро", "x", "2026", "crash", "🤖", "."])


@given(st.lists(st.lists(WORDS, max_size=9).map(" ".join), min_size=1, max_size=6), st.lists(WORDS, max_size=6))
def test_any_documents_score_by_the_formula(documents: list[str], query: list[str]) -> None:
    stems = [words_of(each) for each in documents]
    index, asked = WordIndex.of(documents), words_of(" ".join(query))
    if not any(stems):
        assert index is None
        return
    assert index is not None
    mean = sum(map(len, stems)) / len(stems)
    expected = []
    for document in stems:
        score = 0.0
        for word in set(asked):
            having, count = sum(word in each for each in stems), document.count(word)
            rarity = math.log(1 + (len(stems) - having + 0.5) / (having + 0.5))
            score += rarity * count / (count + K1 * (1 - B + B * len(document) / mean))
        expected.append(score)
    np.testing.assert_allclose(index.scores(asked), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose([index.score_of(each, asked) for each in documents], expected, rtol=1e-9, atol=1e-12)


@given(st.lists(WORDS | st.sampled_from(["İ", "ΣΑΣ", "don't", "Workers"]), max_size=9).map(" ".join))
def test_a_word_is_found_at_its_place(text: str) -> None:
    found, stem = placed_words_of(text), Stemmer.Stemmer("english").stemWord
    assert [each for each, _, _ in found] == words_of(text)
    assert [stem(text.lower()[start:end]) for _, start, end in found] == words_of(text)
    assert [start for _, start, _ in found] == sorted({start for _, start, _ in found})


def test_the_entries_of_words_are_their_weights_in_each_document() -> None:
    index = index_of(DOCUMENTS)
    asked = ["unknown", "robot", "hurt", "zebra", "warehous"]
    places, rows, weights = index.entries(asked)
    table = np.zeros((len(asked), len(DOCUMENTS)))
    table[places, rows] = weights
    assert table.tolist() == [index.scores([word]).tolist() for word in asked]
    assert places.tolist() == sorted(places.tolist())
    for each in index.entries(["unknown"]), index.entries([]):
        assert [part.shape for part in each] == [(0,)] * 3


BYTES_OF_AN_INDEX = """
import hashlib, json, sys
from similarity.incidents.words import WordIndex
index = WordIndex.of(json.load(sys.stdin))
content = [part.tobytes() for part in (index.starts, index.rows, index.weights)]
print(hashlib.sha256(b"|".join([" ".join(index.words).encode(), *content])).hexdigest())
"""


@pytest.mark.slow
def test_processes_with_other_hashes_make_the_same_index() -> None:
    documents = [*DOCUMENTS, *sample_texts()]
    printed = set()
    for seed in ("0", "1", "2"):
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "inference"), "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", BYTES_OF_AN_INDEX]
        ended = subprocess.run(
            command, input=json.dumps(documents), capture_output=True, text=True, check=True, env=environment
        )
        printed.add(ended.stdout.strip())
    index = index_of(documents)
    content = [part.tobytes() for part in (index.starts, index.rows, index.weights)]
    assert printed == {hashlib.sha256(b"|".join([" ".join(index.words).encode(), *content])).hexdigest()}
    assert list(index.words) == sorted(set(index.words))


def test_threads_that_ask_first_get_the_same() -> None:
    documents = [f"{text} {number}" for number, text in enumerate(sample_texts() * 3)]
    expected = index_of(documents).scores(words_of(documents[5])).tolist()
    index, barrier = index_of(documents), threading.Barrier(8)

    def ask() -> list[float]:
        barrier.wait()
        found: list[float] = index.scores(words_of(documents[5])).tolist()
        return found

    with ThreadPoolExecutor(8) as pool:
        assert [answer.result() for answer in [pool.submit(ask) for _ in range(8)]] == [expected] * 8


BROKEN: dict[str, dict[str, Any]] = {
    "starts of int32": {"starts": np.array([0, 1, 2], dtype=np.int32)},
    "a start too few": {"starts": np.array([0, 2])},
    "starts from 1": {"starts": np.array([1, 1, 2])},
    "starts that end early": {"starts": np.array([0, 1, 1])},
    "starts that go down": {"words": ["a", "b", "c"], "starts": np.array([0, 2, 1, 2])},
    "starts whose differences are too large": {
        "words": ["a", "b", "c", "d"],
        "starts": np.array([0, 2**63 - 1, -(2**63), -1, 2]),
    },
    "starts of two dimensions": {"starts": np.array([[0, 1, 2]])},
    "rows of int64": {"rows": np.array([0, 1])},
    "rows of two dimensions": {"rows": np.array([[0, 1]], dtype=np.int32)},
    "a row too large": {"rows": np.array([0, 2], dtype=np.int32)},
    "a row below 0": {"rows": np.array([-1, 1], dtype=np.int32)},
    "weights of float64": {"weights": np.array([1.0, 1.0])},
    "a weight too many": {"weights": np.ones(3, dtype=np.float32)},
    "a weight that is NaN": {"weights": np.array([1, np.nan], dtype=np.float32)},
    "a weight that is infinite": {"weights": np.array([1, np.inf], dtype=np.float32)},
    "a weight below 0": {"weights": np.array([1, -1], dtype=np.float32)},
    "a mean length of 0": {"mean_length": 0.0},
    "a mean length that is NaN": {"mean_length": math.nan},
    "a mean length that is infinite": {"mean_length": math.inf},
    "a mean length that is a text": {"mean_length": "2"},
}


@pytest.mark.parametrize("name", BROKEN)
def test_parts_that_do_not_fit_together_are_refused(name: str) -> None:
    whole = WordIndex(
        ["a", "b"], np.array([0, 1, 2]), np.array([0, 1], dtype=np.int32), np.ones(2, dtype=np.float32), 2.0, 2
    )
    assert whole.scores(["b"]).tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"^the word index (must have|names|has) "):
        replace(whole, **BROKEN[name])
