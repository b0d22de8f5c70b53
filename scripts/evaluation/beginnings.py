"""Beginnings of a text: its first sentence, or its first words. A longer text is cut; a shorter one is all there is."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Literal

Beginning = Literal["first-sentence", "first-20-words", "first-60-words"]

# An end of a sentence: a mark, quotes or brackets that close behind it, white space, and no small letter next. Chinese
# and Japanese have no white space there.
_END = re.compile(
    r"[.!?\u2026]+[\"'\u201d\u2019)\]]*(?=\s+[^\sa-z])"
    r"|[\u3002\uff01\uff1f]+[\u300d\u300f\u201d\u2019\uff09]*"
)
# Full stops behind these don't end a sentence: one capital (U.S., J. Doe), and abbreviations before names and numbers.
_ABBREVIATED = re.compile(
    r"(?:^|[\W_])(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof|St|Sr|Jr|Gov|Sen|Rep|Gen|Lt|Sgt|Inc|Ltd|Co|Corp|No|vs?|approx|e\.g|i\.e)$"
)


def first_sentence(text: str) -> str:
    """The text up to the end of its first sentence, without white space around it."""
    text = text.strip()
    for end in _END.finditer(text):
        if not end[0].startswith(".") or not _ABBREVIATED.search(text, 0, end.start()):
            return text[: end.end()]
    return text


def first_words(text: str, words: int) -> str:
    """The text up to the end of its word `words`, without white space around it. White space parts words."""
    found = re.match(rf"\S+(?:\s+\S+){{0,{words - 1}}}", text := text.strip())
    return found[0] if found else text


BEGINNINGS: Mapping[str, Callable[[str], str]] = {
    "first-sentence": first_sentence,
    "first-20-words": lambda text: first_words(text, 20),
    "first-60-words": lambda text: first_words(text, 60),
}
