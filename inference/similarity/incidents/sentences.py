"""Cuts a text into sentences that can be quoted.

Sentence ends are found by a few rules, for texts in any language. Where a full stop may belong to an abbreviation, two
sentences rather stay one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from similarity.incidents.words import STOP_WORDS

# A longer piece is cut at spaces.
MOST_SENTENCE_CHARS = 300

_CLOSING = r"""["'”’»)\]}]*"""  # noqa: RUF001
# The last alternative looks at no character twice, so that a text of full stops takes no longer than another.
_END = re.compile(rf"[。！？｡]+[」』）】”’]*|(?<![.!?…])[.!?…]+{_CLOSING}(?=\s)")  # noqa: RUF001
_NEXT = re.compile(r"\s+[^\w\s]*(\w*)")
_LAST_WORD = re.compile(r"(?<![\w'’])(?:\w+\.)*\w+$")  # noqa: RUF001  # not the s of Mary's
_LONGEST_ABBREVIATION = 12

# These stand before a name or a further word, whether it has a capital letter or not.
_TITLES = """
    adm al approx brig capt cf cmdr col dept dr esp est ft gen gov hon lt maj messrs mme mr mrs ms mt mx pres prof
    rep reps rev sen sens sgt st supt vs
"""
_BEFORE_ANYTHING = frozenset(_TITLES.split())
# These stand before a number.
_COUNTED = """
    art ca ch eq fig figs no nos nr p para pp sec vol
    jan feb mar apr jun jul aug sep sept oct nov dec
"""
_BEFORE_NUMBERS = frozenset(_COUNTED.split())
# These may also end a sentence: a stop word with a capital letter then begins the next.
_AT_ENDS_TOO = frozenset(("bros", "co", "corp", "etc", "inc", "jr", "llc", "ltd", "plc", "sr"))


def sentences(text: str) -> list[str]:
    """The sentences of a text in order, trimmed, with single spaces. None is empty or above MOST_SENTENCE_CHARS."""
    return [piece for line in text.splitlines() for sentence in _of_line(line) for piece in _pieces(sentence.split())]


def _of_line(line: str) -> Iterator[str]:
    start = 0
    for end in _END.finditer(line):
        if _is_end(line, end):
            yield line[start : end.end()]
            start = end.end()
    yield line[start:]


def _is_end(line: str, end: re.Match[str]) -> bool:
    """Whether a mark, with the closing quotes behind it, is the end of a sentence."""
    mark = end[0]
    if mark[0] not in ".!?…":
        return True
    following = _NEXT.match(line, end.end())
    following_word = following[1] if following else ""
    if mark != ".":
        # "Why?" he asked. Well ... perhaps.
        return set(mark) <= set("!?") or not following_word[:1].islower()
    found = _LAST_WORD.search(line[max(end.start() - _LONGEST_ABBREVIATION, 0) : end.start()])
    word = found[0].lower() if found else ""
    if word in _BEFORE_NUMBERS:
        return not following_word[:1].isdigit()
    is_short = word[:1].isalpha() and ("." in word or (len(word) == 1 and word != "i"))
    if is_short or word in _AT_ENDS_TOO:
        return following_word.istitle() and len(following_word) > 1 and following_word.lower() in STOP_WORDS
    return word not in _BEFORE_ANYTHING


def _pieces(words: list[str]) -> Iterator[str]:
    """The words with single spaces, in pieces of at most MOST_SENTENCE_CHARS. A longer word is cut."""
    piece = ""
    for word in words:
        if piece and len(piece) + 1 + len(word) > MOST_SENTENCE_CHARS:
            yield piece
            piece = ""
        piece = f"{piece} {word}" if piece else word
        while len(piece) > MOST_SENTENCE_CHARS:
            yield piece[:MOST_SENTENCE_CHARS]
            piece = piece[MOST_SENTENCE_CHARS:]
    if piece:
        yield piece
