"""The reasons for matches, against BM25 by hand and by bm25s, and against one word and one sentence at a time."""

# ruff: noqa: RUF001  # letters of many scripts

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

import bm25s
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from similarity.encoder.tokens import prepare
from similarity.incidents.sentences import sentences
from similarity.incidents.why import Why, explain
from similarity.incidents.words import K1, MOST_CHARS, B, WordIndex, words_of
from tiny import sample_texts

DOCUMENTS = [
    "A robot hurt a worker in a warehouse. Robots, robots!",
    "Two planes went down after automated commands",
    "",
    "Workers were hurt by a car in the night of the robots",
    "Überwachung in der U-Bahn; надзор в метро; 北京 地铁",
    "the and of",
    "A chatbot insulted workers and cost 25 million",
]

Prepare = Callable[[str], str]


def transliterated(text: str) -> str:
    return prepare(text, "unidecode")


def as_it_is(text: str) -> str:
    return prepare(text, "none")


def index_of(documents: Sequence[str], prepare: Prepare = transliterated) -> WordIndex:
    found = WordIndex.of([prepare(document) for document in documents])
    assert found is not None
    return found


def explained(text: str, documents: Sequence[str] = DOCUMENTS, prepare: Prepare = transliterated) -> list[Why]:
    """Of every document."""
    return explain(index_of(documents, prepare), np.arange(len(documents)), text, prepare)


def by_hand(stem: str, document: int) -> float:
    """BM25 of one word, by the formula."""
    stems = [words_of(transliterated(each)) for each in DOCUMENTS]
    having, count = sum(stem in each for each in stems), stems[document].count(stem)
    length = len(stems[document]) / (sum(map(len, stems)) / len(stems))
    return math.log(1 + (len(stems) - having + 0.5) / (having + 0.5)) * count / (count + K1 * (1 - B + B * length))


def test_the_words_and_the_sentence_are_those_of_bm25_by_hand() -> None:
    text = (
        "The workers went home. At night the ROBOT was near a worker; it hurt nobody. Robots are in many a warehouse."
    )
    # The first has robot three times, and a rarer word once.
    weights = {stem: by_hand(stem, 0) for stem in ("robot", "warehous", "hurt", "worker")}
    assert sorted(weights, key=lambda stem: -weights[stem]) == ["robot", "warehous", "hurt", "worker"]
    by_sentence = [
        weights["worker"],
        weights["robot"] + weights["worker"] + weights["hurt"],
        weights["robot"] + weights["warehous"],
    ]
    assert max(by_sentence) == by_sentence[1]
    first, *_, other = explained(text)[:4]
    sentence = "At night the ROBOT was near a worker; it hurt nobody."
    assert first == Why(("ROBOT", "warehouse", "hurt"), sentence)
    of_other = {stem: by_hand(stem, 3) for stem in ("night", "robot", "hurt", "worker")}
    assert min(of_other, key=lambda stem: of_other[stem]) == "worker"
    assert other == Why(("night", "ROBOT", "hurt"), sentence)


def test_an_incident_that_no_word_speaks_for_has_no_reason() -> None:
    assert explained("A robot and a plane.")[2] == Why((), None)
    for text in ("", " \n", "The of and it.", "Zebra!", "a b c", "🤖", "\ud800"):
        assert explained(text) == [Why()] * len(DOCUMENTS)
    zero = WordIndex(["robot"], np.array([0, 1]), np.array([0], dtype=np.int32), np.zeros(1, dtype=np.float32), 1.0, 1)
    assert explain(zero, np.array([0]), "robot", transliterated) == [Why()]


def test_the_reasons_are_in_the_order_of_the_rows() -> None:
    index, text = index_of(DOCUMENTS), "A robot. A plane. A chatbot."
    every = explain(index, np.arange(7), text, transliterated)
    rows = np.array([6, 2, 0, 6, 1, 5])
    assert explain(index, rows, text, transliterated) == [every[row] for row in rows]
    assert explain(index, rows[:0], text, transliterated) == []


def test_the_first_counts_among_equals() -> None:
    documents = ["ant bee cat dog", "fox"]
    assert explained("dog, cat! Bee? ant", documents)[0] == Why(("dog", "cat", "Bee"), "dog, cat!")
    assert explained("the fox\nA fox\nfox", documents)[1] == Why(("fox",), "the fox")


def test_a_word_is_quoted_as_it_comes_first_and_once() -> None:
    [why, *_] = explained("WAREHOUSES have Robots; a robot in a warehouse of the robots")
    assert why.words == ("Robots", "WAREHOUSES")


def test_a_sentence_counts_a_word_once() -> None:
    [why, *_] = explained("robot robot robots robot. A robot hurt it.")
    assert why.sentence == "A robot hurt it."


def test_a_transliterated_text_is_quoted_as_it_came() -> None:
    why = explained("Bahn. Überwachung im МЕТРО")[4]
    assert set(why.words) == {"Bahn", "Überwachung", "МЕТРО"}
    assert why.sentence == "Überwachung im МЕТРО"


def test_a_word_that_becomes_several_weighs_as_all_of_them() -> None:
    # 北京 becomes "Bei Jing ", and 地铁 "Di Tie ".
    index = index_of(DOCUMENTS)
    [why] = explain(index, np.array([4]), "метро 北京地铁站。北京", transliterated)
    assert why.words == ("北京地铁站", "метро"), "北京 has no stem of its own"
    assert why.sentence == "метро 北京地铁站。"
    weights = [index.scores([word])[4] for word in ("bei", "jing", "di", "tie", "metro")]
    assert min(weights) > 0


def test_two_words_that_become_one_are_quoted_as_one() -> None:
    [why, *_] = explained("A ro🤖bot in a ware\u0301house.")
    assert why == Why(("ro🤖bot", "ware\u0301house"), "A ro🤖bot in a ware\u0301house.")


def test_a_text_that_is_not_transliterated_is_compared_as_it_is() -> None:
    documents = ["Überwachung im МЕТРО", "İstanbul ΣΟΦΟΣ", "uberwachung metro"]
    found = explained("überwachung! Istanbul σοφος; metro \ud800metro", documents, as_it_is)
    assert [why.words for why in found] == [("überwachung",), ("σοφος",), ("metro",)]
    [why, *_] = explained("x İ İ İstanbul ÜBERWACHUNG", documents, as_it_is)
    assert why.words == ("ÜBERWACHUNG",), "a letter whose small form is longer moves nothing"


@pytest.mark.slow
def test_the_beginning_of_a_text_counts() -> None:
    begin = "warehouse. " + "so " * (MOST_CHARS // 3 - 10)
    [why, *_] = explained(begin + " " * (MOST_CHARS - len(begin) - 8) + " worker robot hurt")
    assert why.words == ("warehouse", "worker")
    [why, *_] = explained("." * MOST_CHARS + " robot")
    assert why == Why()


def test_only_short_words_are_quoted() -> None:
    documents = ["x" * 50, "x" * 51]
    found = explained(f"{'x' * 50} and {'x' * 51}", documents)
    assert [why.words for why in found] == [("x" * 50,), ()]
    assert [len(why.sentence or "") for why in found] == [106, 106]


@pytest.mark.slow
def test_the_weights_are_those_of_bm25s_in_real_texts() -> None:
    documents = sample_texts()
    asked, of = documents[::9], documents[1::2]
    found_words = [words_of(transliterated(each)) for each in of]
    vocabulary = {word: number for number, word in enumerate(sorted({w for each in found_words for w in each}))}
    model = bm25s.BM25(method="lucene", k1=K1, b=B)
    ids = [[vocabulary[word] for word in each] for each in found_words]
    model.index(bm25s.tokenization.Tokenized(ids=ids, vocab=vocabulary), show_progress=False)

    def weights_of(part: str) -> np.ndarray:
        known = [word for word in dict.fromkeys(words_of(transliterated(part))) if word in vocabulary]
        found = np.zeros(len(of))
        for word in known:
            found += model.get_scores([word])
        return found

    for text in asked:
        parts = sentences(text)
        by_sentence = np.array([weights_of(part) for part in parts])
        # Set from the last to the first, which stays.
        stemmed = [(words_of(transliterated(word)), word) for word in re.findall(r"\w\w+", text)]
        quotes = {stems[0]: word for stems, word in reversed(stemmed) if stems}
        by_word = np.array([weights_of(quote) for quote in quotes.values()])
        for row, why in enumerate(explained(text, of)):
            if why.sentence is None:
                assert by_sentence[:, row].max() == 0
                continue
            weight = by_sentence[parts.index(why.sentence), row]
            assert weight == pytest.approx(by_sentence[:, row].max(), rel=1e-5)
            assert set(why.words) <= set(quotes.values())
            weights = [weights_of(word)[row] for word in why.words]
            heaviest = [weight for weight in np.sort(by_word[:, row])[::-1][:3].tolist() if weight]
            assert weights == pytest.approx(heaviest, rel=1e-5)


# Fragments such that the words between separators are prepared each by itself.
WORDS = st.sampled_from(
    [
        "robot",
        "Robots",
        "ROBOTS",
        "hurt",
        "wörkers",
        "worker",
        "U.S",
        "Dr",
        "the",
        "x",
        "25",
        "北京",
        "北京地铁",
        "京x",
        "метро",
        "МЕТРО",
        "plane",
        "don’t",
        "_",
        "self-driving",
        "Überwachung",
        "cost",
        "ﬃ",
        "½",
        "chatbot",
        "京" * 60,
    ]
)
BETWEEN = st.sampled_from([" ", "  ", ". ", "! ", "\n", ", ", "。", "\u3000", ".", "/", "… "])


@pytest.mark.slow
@given(
    st.lists(st.tuples(WORDS, BETWEEN), max_size=25).map(lambda pairs: "".join(map("".join, pairs))),
    st.sampled_from([transliterated, as_it_is]),
)
def test_any_text_is_explained_as_one_word_and_one_sentence_at_a_time(text: str, prepare: Prepare) -> None:
    index = index_of(DOCUMENTS, prepare)

    def weight_of(part: str, row: int, without: set[str]) -> float:
        stems = dict.fromkeys(stem for stem in words_of(prepare(part)) if stem not in without)
        return float(sum(index.scores([stem])[row] for stem in stems))

    parts = sentences(text)
    quotes = list(dict.fromkeys(word for part in parts for word in re.findall(r"\w+", part) if len(word) <= 50))
    for row, why in enumerate(explain(index, np.arange(len(DOCUMENTS)), text, prepare)):
        weights = [weight_of(part, row, set()) for part in parts]
        best = max(weights, default=0)
        assert why.sentence == (parts[weights.index(best)] if best > 0 else None)
        expected: list[str] = []
        said = set[str]()
        for _ in range(3):
            left = {
                quote: weight_of(quote, row, set()) for quote in quotes if not known(quote, index, row, prepare) & said
            }
            if not left or max(left.values()) <= 0:
                break
            expected.append(max(left, key=lambda quote: left[quote]))
            said |= known(expected[-1], index, row, prepare)
        assert list(why.words) == expected


def known(quote: str, index: WordIndex, row: int, prepare: Prepare) -> set[str]:
    """The stems of a word that weigh anything for an incident."""
    return {stem for stem in words_of(prepare(quote)) if index.scores([stem])[row] > 0}


HOSTILE = st.text(max_size=60) | st.lists(
    st.sampled_from(
        ["robot", "İ", "Σ", "\ud800", "\udfff", "🤖", "\u0301", "\x00", "\x85", "\u2028", "北", "ß", "ﷺ", "½", " ", "."]
    ),
    max_size=30,
).map("".join)


@pytest.mark.slow
@given(HOSTILE, HOSTILE, st.sampled_from([transliterated, as_it_is]))
def test_whatever_a_text_holds_it_is_quoted_as_it_came(text: str, other: str, prepare: Prepare) -> None:
    documents = [*DOCUMENTS, text, f"{other} robot"]
    plain = " ".join(text.split())
    for why in explained(text, documents, prepare):
        assert len(why.words) <= 3
        assert (why.sentence is None) <= (not why.words)
        assert why.sentence is None or (why.sentence in plain and 0 < len(why.sentence) <= 300)
        assert all(word in plain and 0 < len(word) <= 50 for word in why.words)
        assert len(set(why.words)) == len(why.words)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "robot. " * 9000,
        "京" * 65_536,
        "京robot" * 9000,
        "robot" + "🤖" * 60_000 + "s",
        "." * 65_536,
        "robot\n" * 10_000,
        "x" * 65_536,
        "robot " * 10_000,
        "U." * 32_768,
        "\ud800" * 65_536,
        " " * 65_536,
        "ﷺ" * 65_536,
    ],
)
def test_a_long_hostile_text_has_short_reasons(text: str) -> None:
    for why in explained(text):
        assert sum(map(len, why.words)) + len(why.sentence or "") <= 450
    assert explained(text + " worker" * 9000) == explained((text + " worker" * 9000)[:MOST_CHARS])
