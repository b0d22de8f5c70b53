"""Turns a text into token ids: prepared, tokenised, cut at a maximum (the model's, or a lower one).

The model's folder says how texts are prepared: transliterated to ASCII, or left as they are. It may also name a prefix,
which is put before each text. Requests and the building of the state use the same preparation. Otherwise their vectors
couldn't be compared.

A long text is cut before it is tokenised. So 6 MB cost no more than a text of the maximum length. The ids are almost
always those of the whole text, cut at the maximum. They may differ in two cases. In these, a run is a word, or the
white space between two words. Characters are counted after the preparation.

1. The first CHARS_PER_TOKEN * max_tokens characters give at most max_tokens tokens. Then the text is read again, up to
   SPARSE_CHARS_PER_TOKEN * max_tokens characters, and each run is cut to LONGEST_RUN characters. The ids differ if a
   byte-level tokenizer makes more tokens of the whole run, or if there are still too few tokens.
2. The cut is inside a run of more than 2 * LONGEST_RUN characters. The last tokens of that run may differ. This matters
   only if they are among the first max_tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unidecode import unidecode

from similarity.encoder.legibility import letters
from similarity.encoder.model_folder import require_content
from similarity.errors import ModelError
from similarity.settings import DEFAULT_TEXT_PREPARATION, TextPreparation

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Real texts have 4 to 5 characters a token. With 32, even a report full of markup is tokenised and counted as a whole.
CHARS_PER_TOKEN = 32
# Longformer's longest token of ASCII has 66 characters. The longest of XLM-RoBERTa has 16.
SPARSE_CHARS_PER_TOKEN = 128
# WordPiece makes one token of every word of over 100 characters. It makes no token of white space, however long.
LONGEST_RUN = 1024

_LONG_RUN = re.compile(rf"(?<!\S)(\S{{{LONGEST_RUN}}})\S+|(?<!\s)(\s{{{LONGEST_RUN}}})\s+")
# Every tokenizer splits words at the first four. WordPiece drops the other two.
_SPLITTING_SPACE, _SPACE = " \t\n\r", " \t\n\r\v\f"
_PIECE = 65_536
# Two letters of scripts that no encoder was trained on: Sumerian and Egyptian. Their last bytes differ.
_UNKNOWN_LETTERS = "\U00012001", "\U00013002"
_SURROGATES = re.compile("[\ud800-\udfff]")


def transliterate(text: str) -> str:
    """`text` in ASCII, exactly as `unidecode` gives it. Lone surrogates are dropped without a warning.

    unidecode maps each character by itself, so it is called once for each different character.
    """
    if text.isascii():
        return text
    return text.translate(
        {ord(c): "" if "\ud800" <= c <= "\udfff" else unidecode(c) for c in set(text) if not c.isascii()}
    )


def prepare(text: str, preparation: TextPreparation) -> str:
    """`text` as the tokenizer gets it. "none" only drops lone surrogates, which no tokenizer takes."""
    if preparation == "unidecode" or text.isascii():
        return transliterate(text)
    return _SURROGATES.sub("", text)


def prepared(text: str, preparation: TextPreparation) -> Iterator[str]:
    """`prepare(text, preparation)` in pieces, because the whole may be twelve times as long as `text`."""
    return (prepare(text[start : start + _PIECE], preparation) for start in range(0, len(text), _PIECE))


def prepared_beginning(text: str, length: int, preparation: TextPreparation) -> str:
    """The first `length` characters of `prepare(text, preparation)`, which may stand far behind in `text`."""
    found = ""
    for piece in prepared(text, preparation):
        found += piece
        if len(found) >= length:
            break
    return found[:length]


@dataclass(frozen=True)
class Tokens:
    """A text as tokens.

    ids: token ids with the prefix and the special tokens, at most the tokenizer's maximum.
    came: number of tokens of the whole text with prefix and special tokens. If came_is_exact is False, it has more.
    is_blank: the prepared text is only white space.
    is_shortened: a word or a gap was cut to LONGEST_RUN characters.
    unread: the share of the letters that became the tokenizer's unknown token, 0 to 1; 0 with "unidecode".
    """

    ids: list[int]
    came: int
    came_is_exact: bool
    is_blank: bool
    is_shortened: bool
    unread: float = 0.0

    def warnings(self) -> list[str]:
        """Sentences that tell the caller which part of the text wasn't used."""
        found = []
        if self.is_shortened:
            found.append(
                f'Provided value for "text" has words or gaps of more than {LONGEST_RUN} characters, '
                f"using the first {LONGEST_RUN} of each."
            )
        if len(self.ids) < self.came or not self.came_is_exact:
            came = f"{self.came}" if self.came_is_exact else f"more than {self.came}"
            found.append(f'Provided value for "text" has {came} tokens, using the first {len(self.ids)}.')
        return found


class TextTokenizer:
    """A `tokenizer.json` with a maximum. Its own truncation and padding are off.

    max_tokens: the maximum; it includes the prefix and the special tokens. preparation: of each text and of the prefix.
    prefix: is put before each text.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        max_tokens: int,
        preparation: TextPreparation = DEFAULT_TEXT_PREPARATION,
        prefix: str = "",
    ) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer: Any = tokenizer
        self.max_tokens = max_tokens
        self.preparation = preparation
        self.prefix = prefix
        self.vocabulary_size: int = tokenizer.get_vocab_size()
        self._max_content = max_tokens - tokenizer.num_special_tokens_to_add(is_pair=False)

    @classmethod
    def load(
        cls,
        path: Path,
        max_tokens: int,
        preparation: TextPreparation = DEFAULT_TEXT_PREPARATION,
        prefix: str = "",
    ) -> TextTokenizer:
        """Raises ModelError if the file is missing or isn't a tokenizer."""
        # Imported here, because /embed-to-db-similar doesn't need it.
        from tokenizers import Tokenizer

        require_content(path)
        with tokenizer_errors(f"{path} isn't a tokenizer"):
            # Not from_file: it raises a plain Exception for a missing file too.
            return cls(Tokenizer.from_str(path.read_text(encoding="utf-8-sig")), max_tokens, preparation, prefix)

    def cut_at(self, max_tokens: int) -> TextTokenizer:
        """This tokenizer with another maximum."""
        return TextTokenizer(self._tokenizer, max_tokens, self.preparation, self.prefix)

    def with_prefix(self, prefix: str) -> TextTokenizer:
        """This tokenizer with another prefix."""
        return TextTokenizer(self._tokenizer, self.max_tokens, self.preparation, prefix)

    def room(self) -> int:
        """The number of tokens that are left for a text, beside prefix and special tokens. Raises ModelError."""
        prefix = prepare(self.prefix, self.preparation)
        with tokenizer_errors("the tokenizer fails on the model's prefix"):
            return self._max_content - len(self._tokenizer.encode(prefix, add_special_tokens=False).ids)

    def require_room(self) -> None:
        """Raises ModelError if prefix and special tokens leave no room for a text."""
        if self.room() < 1:
            which = "the model's prefix leaves" if self.prefix else "the tokenizer's special tokens leave"
            raise ModelError(f"texts can't be cut at {self.max_tokens} tokens: {which} no room for a text")

    def __call__(self, text: str) -> Tokens:
        """The tokens of `text`.

        The tokenizer gets at most (CHARS_PER_TOKEN + SPARSE_CHARS_PER_TOKEN) * max_tokens characters.
        """
        given, text = text, self.prefix + text
        start = _beginning(text, CHARS_PER_TOKEN * self.max_tokens, self.preparation)
        content = self._tokenizer.encode(start.text, add_special_tokens=False)
        if not start.is_whole and len(content.ids) <= self._max_content:
            start = _beginning(text, SPARSE_CHARS_PER_TOKEN * self.max_tokens, self.preparation, shorten=True)
            content = self._tokenizer.encode(start.text, add_special_tokens=False)
        came = len(content.ids) + self.max_tokens - self._max_content
        came_is_exact = start.is_whole and not (start.is_shortened and came > self.max_tokens)
        content.truncate(self._max_content)
        return Tokens(
            ids=self._tokenizer.post_process(content).ids,
            came=came if came_is_exact else min(came, self.max_tokens),
            came_is_exact=came_is_exact,
            is_blank=(bool(self.prefix) or _is_blank(start.text))
            and all(map(_is_blank, prepared(given, self.preparation))),
            is_shortened=start.is_shortened,
            unread=self._unread(start.text, content),
        )

    def _unread(self, text: str, content: Any) -> float:
        """`Tokens.unread` of `text`, which begins with the prefix, and its tokens `content`.

        Letters are counted rather than tokens, because a whole run of unknown letters may become one token.
        """
        if self.preparation != "none" or self._unknown not in content.ids:
            return 0.0
        first, places = len(self.prefix), list(zip(content.ids, content.offsets, strict=True))
        unread = [text[max(start, first) : end] for id_, (start, end) in places if id_ == self._unknown]
        _, (_, last) = places[-1]
        return letters("".join(unread)) / (letters(text[first:last]) or 1)

    @cached_property
    def _unknown(self) -> int | None:
        """The id of the unknown token, found by trying. None if there is none, as in a byte-level tokenizer."""
        first, second = (self._tokenizer.encode(c, add_special_tokens=False).ids[-1:] for c in _UNKNOWN_LETTERS)
        return first[0] if first and first == second else None


@contextmanager
def tokenizer_errors(what: str) -> Iterator[None]:
    """Turns every error of tokenizers into a ModelError that begins with `what`.

    Its Rust code may panic. A panic reaches Python as a BaseException, and its message may contain the text.
    """
    try:
        yield
    except Exception as error:  # tokenizers raises plain Exception
        raise ModelError(f"{what}: {error}") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ModelError(f"{what}: its code panicked") from error


@dataclass(frozen=True)
class _Beginning:
    """The start of a prepared text. is_whole: it is the whole text. is_shortened: long runs were cut."""

    text: str
    is_whole: bool
    is_shortened: bool


def _beginning(text: str, limit: int, preparation: TextPreparation, *, shorten: bool = False) -> _Beginning:
    """At most the first `limit` characters. They end between two words, or inside a very long run."""
    start, is_shortened, is_whole = "", False, True
    for place in range(0, len(text), limit):
        if len(start) >= limit:
            is_whole = False
            break
        start += prepare(text[place : place + limit], preparation)
        if shorten:
            start, long_runs = _LONG_RUN.subn(r"\1\2", start)
            is_shortened = is_shortened or long_runs > 0
    if is_whole and len(start) <= limit:
        return _Beginning(start, is_whole=True, is_shortened=is_shortened)
    start = start[:limit]
    last_space = max(start.rfind(space) for space in _SPLITTING_SPACE)
    words = start[: max(last_space, 0)].rstrip(_SPACE)
    if len(words) > max(limit - 2 * LONGEST_RUN, 0):
        start = words
    return _Beginning(start, is_whole=False, is_shortened=is_shortened)


def _is_blank(text: str) -> bool:
    return not text.strip()
