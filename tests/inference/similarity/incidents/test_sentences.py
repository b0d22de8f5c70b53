"""Sentences of a text that can be quoted, against splits by hand, and by rules that hold for any text."""

# ruff: noqa: RUF001  # quotes and marks of many languages

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from similarity.incidents.sentences import MOST_SENTENCE_CHARS, sentences
from tiny import MANY_SCRIPTS

# " | " stands where a sentence ends.
SPLIT = [
    "A robot fell. | It broke an arm! | Was anybody hurt? | Nobody knows",
    "it fell. | nobody was hurt. | so they said",
    "It cost $3.5 million and version 2.0.1 of it more. | That was on 1.5.2026 at 10.30. | Later it fell.",
    "Dr. Smith of the U.S. Army met Mr. J. R. Jones, Jr. at St. Mary's. | Both left.",
    "He moved to the U.S. | The robot stayed in the U.K. | It is there.",
    "At 5 p.m. Monday it stopped. | At 6 p.m. | The doors opened.",
    "Robots, cars, etc. are meant, e.g. Tay, i.e. a chatbot. | See Fig. 3 and No. 5. | He said no. | Then he left.",
    "Acme Inc. said so. | It belongs to Widget Corp. | The owner is Mr. Doe.",
    "In Jan. 2026 it began. | It ended in Dec. | Nobody cared in Feb. 2027.",
    "So do I. | They do not.",
    '"Stop!" | She ran. | “Why?” he asked. | (It was late.) | ‘No.’ | The end.',
    "Well... it fell. | And then ... nothing. | Really?! | yes!!! | Version 2.0. | New.",
    "Yahoo! | Japan was first. | Yahoo! | was last.",
    "運転手のいない車が衝突した。 | 消防車は停まっていた！ | 本当？ | 「はい。」 | 終わり",
    "一。 | Two. | 三！ | four",
    "Wait… | Now it fell.",
    "He works for the U.S. | Is that so?",
    "Ph.D. student. | The M.I.T. Lab. | x = 3. | y = 4.",
    "Ein Dr. Müller fuhr z.B. nach Köln. | Es war ca. 5 Uhr.",
    "https://example.org/a.b?c=d!e is a page. | another.file.txt too",
    "1. | First. | 2. | Second.",
]


@pytest.mark.parametrize("split", SPLIT)
def test_a_text_is_cut_where_a_reader_would_cut_it(split: str) -> None:
    for space in (" ", "\n", "  \t "):
        if space == "\n" and ". Is" in split:
            continue
        text = split.replace(" | ", space)
        # Without white space, marks of Chinese and Japanese end a sentence too.
        assert sentences(text) == split.split(" | ")
    assert sentences(re.sub(r"(?<=[。！？」]) \| ", "", split).replace(" | ", " ")) == split.split(" | ")


def test_every_line_is_a_sentence_of_its_own() -> None:
    assert sentences("A title\nby Dr.\r\nSmith\n\n \n the U.S.\u2028Army\x85and\x0bmore\x0c") == [
        *("A title", "by Dr.", "Smith", "the U.S.", "Army", "and", "more")
    ]


@pytest.mark.parametrize("text", ["", " ", "\n\n", "\u3000\t"])
def test_nothing_has_no_sentence(text: str) -> None:
    assert sentences(text) == []


@pytest.mark.parametrize("text", MANY_SCRIPTS)
def test_a_sentence_of_any_script_stays_whole(text: str) -> None:
    assert sentences(f"  {text}\n") == [text]


def test_a_long_sentence_is_cut_at_spaces() -> None:
    words = [f"word{number}" for number in range(200)]
    pieces = sentences("  ".join(words) + ". Short.")
    assert " ".join(pieces) == " ".join(words) + ". Short."
    assert pieces[-1] == "Short."
    for piece, following in pairwise(pieces[:-1]):
        assert len(piece) <= 300 < len(piece) + 1 + len(following.split()[0])


def test_a_word_that_is_too_long_is_cut_anywhere() -> None:
    assert sentences("京" * 700) == ["京" * 300, "京" * 300, "京" * 100]
    assert sentences(f"a {'b' * 300} c") == ["a", "b" * 300, "c"]
    assert sentences(f"a {'b' * 301} c") == ["a", "b" * 300, "b c"]
    assert sentences("d" * 300) == ["d" * 300]


PARTS = st.sampled_from(
    [*".!?…。！？", "...", "?!", '"', "”", ")", "」", " ", "  ", "\n", "\r\n", "\u2028", "\x85", "Dr"]
)
OTHERS = st.sampled_from(
    ["U.S", "U", "i", "I", "The", "the", "3.5", "no", "Jan", "inc", "京都", "🤖", "\ud800", "x" * 301, "ﬃ"]
)


@pytest.mark.slow
@given(st.lists(PARTS | OTHERS | st.text(max_size=3), max_size=40).map("".join))
def test_no_character_of_any_text_is_lost_or_made_up(text: str) -> None:
    found = sentences(text)
    assert "".join("".join(found).split()) == "".join(text.split())
    for sentence in found:
        assert 0 < len(sentence) <= MOST_SENTENCE_CHARS
        assert sentence == " ".join(sentence.split())


@pytest.mark.parametrize(
    "part", [".", ". ", "U.", "a. ", '."', '"a. ', "。", "a。", "\n", " ", ".  ", "(", "x. Y", "…\t"]
)
def test_a_long_text_of_marks_is_cut_as_a_short_one(part: str) -> None:
    text = part * (65_536 // len(part))
    found = sentences(text)
    assert "".join("".join(found).split()) == "".join(text.split())
    assert found[:2] == sentences(text[:2000])[:2]
