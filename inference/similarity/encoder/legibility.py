"""Whether a text has enough words, and is in a script that the model reads. If not, its matches are often wrong.

Only the beginning of a text is looked at, so a text of megabytes costs no more than a page.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

from similarity.settings import TextPreparation

FEWEST_WORDS = 5
# Characters that are looked at, after the white space in front.
START = 20_000

FOREIGN = "Most letters of the text are in a script that the model doesn't read. Its matches are often wrong."

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")  # noqa: RUF001  # both kinds of apostrophe
# How Unicode's names of letters begin, in scripts that are written without spaces.
_SPACELESS = (
    *("CJK ", "IDEOGRAPHIC ", "HIRAGANA ", "KATAKANA ", "HALFWIDTH KATAKANA "),
    *("THAI ", "LAO ", "KHMER ", "MYANMAR "),
)


def length_warnings(text: str) -> list[str]:
    """A sentence for the caller if the text has fewer than FEWEST_WORDS words. A text longer than START isn't counted.

    A word is a run of letters, digits and marks. In scripts without spaces, each letter counts as a word.
    """
    text = text.strip()
    count = words(text) if len(text) <= START else FEWEST_WORDS
    if count >= FEWEST_WORDS:
        return []
    found = {0: "no words", 1: "only 1 word"}.get(count, f"only {count} words")
    return [f"The text has {found}. Matches of texts with fewer than {FEWEST_WORDS} words are often wrong."]


def script_warnings(text: str, unread: float, preparation: TextPreparation) -> list[str]:
    """A sentence for the caller if the model reads fewer than half of the text's letters.

    unread: `Tokens.unread`. With the preparation "unidecode" it doesn't count: the letters that such a model reads are
    those of the Latin script, however well the others are transliterated.
    """
    is_foreign = unread > 0.5 if preparation == "none" else _is_mostly_not_latin(text.lstrip()[:START])
    return [FOREIGN] if is_foreign else []


def words(text: str) -> int:
    """The number of words of `text`."""
    return len(_WORD.findall(text.translate({ord(c): _apart(c) for c in set(text) if not c.isascii()})))


def letters(text: str) -> int:
    """The number of letters of `text`, without marks, digits, punctuation and emoji."""
    return sum(count for c, count in Counter(text).items() if _is_letter(c))


def _apart(c: str) -> str:
    """A character such that `\\w+` finds words: without marks, which would split them, and with spaces around."""
    if unicodedata.category(c) in ("Mn", "Mc", "Me", "Cf"):
        return ""
    return f" {c} " if _is_letter(c) and unicodedata.name(c, "").startswith(_SPACELESS) else c


def _is_letter(c: str) -> bool:
    return unicodedata.category(c).startswith("L")


def _is_mostly_not_latin(text: str) -> bool:
    found = Counter(text)
    all_letters = {c: count for c, count in found.items() if _is_letter(c)}
    latin = sum(count for c, count in all_letters.items() if _is_latin(c))
    return 2 * latin < sum(all_letters.values())


def _is_latin(letter: str) -> bool:
    """Also wide, bold and other forms of a Latin letter, which Unicode decomposes to it."""
    return unicodedata.name(unicodedata.normalize("NFKC", letter)[0], "").startswith("LATIN ")
