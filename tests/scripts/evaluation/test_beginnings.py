"""First sentences and words are those that a reader would find."""

from __future__ import annotations

import pytest

from evaluation.beginnings import BEGINNINGS, first_sentence, first_words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A car hit a man. He was hurt.", "A car hit a man."),
        ("  A car hit\na man!  \n\nHe was hurt.", "A car hit\na man!"),
        ("A car of the U.S. Army hit a man. He lived.", "A car of the U.S. Army hit a man."),
        ("Mr. Doe and J. Roe sued Acme Inc. Tuesday. They won.", "Mr. Doe and J. Roe sued Acme Inc. Tuesday."),
        ("It cost 3.5 million. Why? Nobody knows.", "It cost 3.5 million."),
        ("It was e.g. slow, i.e. late. Then it fell.", "It was e.g. slow, i.e. late."),
        ("A lawyer in Mata v. Avianca lied. He paid.", "A lawyer in Mata v. Avianca lied."),
        ('He said "It lied." Then it fell.', 'He said "It lied."'),
        ("It fell... and rose. Then it stopped.", "It fell... and rose."),
        ("Was it hacked? It was.", "Was it hacked?"),
        ("車が人に衝突した。けがはなかった。", "車が人に衝突した。"),
        ("No end at all", "No end at all"),
        ("Only one.", "Only one."),
        ("", ""),
    ],
)
def test_a_first_sentence_ends_where_a_reader_would_end_it(text: str, expected: str) -> None:
    assert first_sentence(text) == expected


def test_first_words_keep_the_text_as_it_stands() -> None:
    assert first_words(" one  two\nthree four", 3) == "one  two\nthree"
    assert first_words("one two", 3) == "one two"
    assert first_words("one two", 1) == "one"
    assert first_words(" ", 3) == ""


def test_each_beginning_is_what_its_name_says() -> None:
    text = " ".join(f"w{number}" for number in range(1, 101)) + ". The end."
    assert len(BEGINNINGS["first-20-words"](text).split()) == 20
    assert len(BEGINNINGS["first-60-words"](text).split()) == 60
    assert BEGINNINGS["first-sentence"](text).endswith("w100.")
