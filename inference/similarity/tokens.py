"""Text to token ids: transliterated, tokenised, cut at the model's maximum.

The same preparation serves a request and the building of the state; otherwise their vectors would not compare.
A very long text is cut before it is tokenised whole, so that 10 MB cost what a full-length text costs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unidecode import unidecode

from similarity.errors import ModelError
from similarity.model_files import require_content

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Real texts have 4 to 5 characters a token. At 32 even a report full of markup is tokenised, and so counted, whole.
CHARS_PER_TOKEN = 32


def transliterate(text: str) -> str:
    """`text` in ASCII, exactly as `unidecode` gives it, but with lone surrogates dropped without a warning.

    unidecode maps each character on its own, so it is asked only once for each different one.
    """
    if text.isascii():
        return text
    return text.translate(
        {ord(c): "" if "\ud800" <= c <= "\udfff" else unidecode(c) for c in set(text) if not c.isascii()}
    )


@dataclass(frozen=True)
class Tokens:
    """What becomes of a text.

    ids: token ids with the special tokens, at most the model's maximum.
    came: tokens of the whole text, special tokens included; where came_is_exact is False, it has more than that.
    is_blank: nothing but white space is left of the text.
    """

    ids: list[int]
    came: int
    came_is_exact: bool
    is_blank: bool

    def warnings(self) -> list[str]:
        """For the caller: nothing, or that the text was cut."""
        if len(self.ids) == self.came and self.came_is_exact:
            return []
        came = f"{self.came}" if self.came_is_exact else f"more than {self.came}"
        return [f'Provided value for "text" has {came} tokens, using the first {len(self.ids)}.']


class TextTokenizer:
    """A `tokenizer.json` with the model's maximum; its own truncation and padding are switched off."""

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
            return cls(Tokenizer.from_str(path.read_text(encoding="utf-8")), max_tokens)

    def __call__(self, text: str) -> Tokens:
        """Tokens of `text`, exact unless one of its words has over CHARS_PER_TOKEN * max_tokens characters."""
        limit = CHARS_PER_TOKEN * self.max_tokens
        while True:
            start, is_whole = _prefix(text, limit)
            start = transliterate(start)
            content = self._tokenizer.encode(start, add_special_tokens=False)
            if is_whole or len(content.ids) > self._max_content:
                break
            limit *= 4
        came = len(content.ids) + self.max_tokens - self._max_content
        content.truncate(self._max_content)
        return Tokens(
            ids=self._tokenizer.post_process(content).ids,
            came=came,
            came_is_exact=is_whole,
            is_blank=not start.strip(),
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


def _prefix(text: str, limit: int) -> tuple[str, bool]:
    """The first `limit` characters or fewer, ending where no token reaches across; and whether that is all of it."""
    if len(text) <= limit:
        return text, True
    end = limit
    while end > 0 and not (text[end].isspace() and not text[end - 1].isspace()):
        end -= 1
    return text[: end or limit], False
