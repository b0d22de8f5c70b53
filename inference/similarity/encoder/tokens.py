"""Text to token ids: transliterated, tokenised, cut at a maximum, the model's or a lower one.

The same preparation serves a request and the building of the state; otherwise their vectors would not compare.

A long text is cut before it is tokenised, so that 6 MB of anything cost what a full-length text costs. The ids are
those of the whole text, cut at the maximum, but for two kinds of text. A run is a word, or the white space between two
words; characters are counted after transliteration.

1. The first CHARS_PER_TOKEN * max_tokens characters give max_tokens tokens or fewer. The text is read anew, up to
   SPARSE_CHARS_PER_TOKEN * max_tokens characters, and every run in it is cut to LONGEST_RUN characters. The ids differ
   where a byte-level tokenizer would have made more of such a run, and where still too few tokens are reached.
2. A run of more than 2 * LONGEST_RUN characters stands where the text is cut. Its last tokens may differ, which shows
   only where they are among the first max_tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unidecode import unidecode

from similarity.encoder.model_folder import require_content
from similarity.errors import ModelError
from similarity.settings import DEFAULT_TEXT_PREPARATION

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Real texts have 4 to 5 characters a token. At 32 even a report full of markup is tokenised, and so counted, whole.
CHARS_PER_TOKEN = 32
# Longformer's longest token of ASCII has 66 characters.
SPARSE_CHARS_PER_TOKEN = 128
# WordPiece makes one token of every word of over 100 characters, and none of white space of any length.
LONGEST_RUN = 1024

_LONG_RUN = re.compile(rf"(?<!\S)(\S{{{LONGEST_RUN}}})\S+|(?<!\s)(\s{{{LONGEST_RUN}}})\s+")
# Every tokenizer splits words at these; WordPiece drops the two others.
_SPLITTING_SPACE, _SPACE = " \t\n\r", " \t\n\r\v\f"
_PIECE = 65_536

# What is done to each text: `transliterate`. A state that was made of texts prepared otherwise isn't compared with it.
TEXT_PREPARATION = DEFAULT_TEXT_PREPARATION


def transliterate(text: str) -> str:
    """`text` in ASCII, exactly as `unidecode` gives it, but with lone surrogates dropped without a warning.

    unidecode maps each character on its own, so it is asked only once for each different one.
    """
    if text.isascii():
        return text
    return text.translate(
        {ord(c): "" if "\ud800" <= c <= "\udfff" else unidecode(c) for c in set(text) if not c.isascii()}
    )


def transliterated(text: str) -> Iterator[str]:
    """`transliterate(text)` in pieces: as a whole it may be twelve times as long as `text`."""
    return (transliterate(text[start : start + _PIECE]) for start in range(0, len(text), _PIECE))


@dataclass(frozen=True)
class Tokens:
    """What becomes of a text.

    ids: token ids with the special tokens, at most the tokenizer's maximum.
    came: tokens of the whole text, special tokens included; where came_is_exact is False, it has more than that.
    is_blank: the text has nothing but white space once it is transliterated.
    is_shortened: a word or a gap of it was cut to LONGEST_RUN characters.
    """

    ids: list[int]
    came: int
    came_is_exact: bool
    is_blank: bool
    is_shortened: bool

    def warnings(self) -> list[str]:
        """For the caller: what of the text was left out."""
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
    """A `tokenizer.json` with a maximum, special tokens included; its own truncation and padding are switched off."""

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer: Any = tokenizer
        self.max_tokens = max_tokens
        self.vocabulary_size: int = tokenizer.get_vocab_size()
        self._max_content = max_tokens - tokenizer.num_special_tokens_to_add(is_pair=False)

    @classmethod
    def load(cls, path: Path, max_tokens: int) -> TextTokenizer:
        """Raises ModelError for a file that is missing or isn't a tokenizer."""
        # Not at the top: /embed-to-db-similar does without.
        from tokenizers import Tokenizer

        require_content(path)
        with tokenizer_errors(f"{path} isn't a tokenizer"):
            # from_str rather than from_file: tokenizers reports a missing file as a bare Exception too.
            return cls(Tokenizer.from_str(path.read_text(encoding="utf-8-sig")), max_tokens)

    def cut_at(self, max_tokens: int) -> TextTokenizer:
        """This tokenizer with another maximum."""
        return TextTokenizer(self._tokenizer, max_tokens)

    def __call__(self, text: str) -> Tokens:
        """Tokens of `text`.

        The tokenizer gets at most (CHARS_PER_TOKEN + SPARSE_CHARS_PER_TOKEN) * max_tokens characters.
        """
        start = _beginning(text, CHARS_PER_TOKEN * self.max_tokens)
        content = self._tokenizer.encode(start.text, add_special_tokens=False)
        if not start.is_whole and len(content.ids) <= self._max_content:
            start = _beginning(text, SPARSE_CHARS_PER_TOKEN * self.max_tokens, shorten=True)
            content = self._tokenizer.encode(start.text, add_special_tokens=False)
        came = len(content.ids) + self.max_tokens - self._max_content
        came_is_exact = start.is_whole and not (start.is_shortened and came > self.max_tokens)
        content.truncate(self._max_content)
        return Tokens(
            ids=self._tokenizer.post_process(content).ids,
            came=came if came_is_exact else min(came, self.max_tokens),
            came_is_exact=came_is_exact,
            is_blank=_is_blank(start.text) and (start.is_whole or all(map(_is_blank, transliterated(text)))),
            is_shortened=start.is_shortened,
        )


@contextmanager
def tokenizer_errors(what: str) -> Iterator[None]:
    """Turns all that tokenizers raises into a ModelError that begins with `what`.

    Its code in Rust may panic. That reaches Python as a class that isn't an Exception, and its words may hold the text.
    """
    try:
        yield
    except Exception as error:  # tokenizers raises nothing more special
        raise ModelError(f"{what}: {error}") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ModelError(f"{what}: its code panicked") from error


@dataclass(frozen=True)
class _Beginning:
    """How a text begins, transliterated. is_whole: that is all of it. is_shortened: less the ends of its long runs."""

    text: str
    is_whole: bool
    is_shortened: bool


def _beginning(text: str, limit: int, *, shorten: bool = False) -> _Beginning:
    """The first `limit` characters or fewer, ending where no token reaches across, or within a very long run."""
    start, is_shortened, is_whole = "", False, True
    for place in range(0, len(text), limit):
        if len(start) >= limit:
            is_whole = False
            break
        start += transliterate(text[place : place + limit])
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
