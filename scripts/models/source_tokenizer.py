"""What a conversion needs to know of an encoder's tokenizer: its padding id, and whether it reads other scripts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.normalizers import Lowercase, Sequence

from models.checkpoint_tokenizer import OPTIONS_FILENAME, read_tokenizer
from models.checkpoints import is_there, read_object
from models.longformer import ConversionError
from similarity.settings import TextPreparation

SPECIAL_TOKENS_FILENAME = "special_tokens_map.json"

# From this share of tokens with letters beyond ASCII, a vocabulary needs them. Measured: BERT (English, uncased) 0.050,
# RoBERTa and Longformer 0.007, XLM-R 0.656, and its tokens in Latin letters alone 0.259. Of the words in translated
# messages of programs, 0.171 in French and 0.121 in German.
MULTILINGUAL_SHARE = 0.08

_WELL_KNOWN_PADDING = ("[PAD]", "<pad>")


@dataclass(frozen=True)
class SourceTokenizer:
    """An encoder's tokenizer, which neither cuts nor pads.

    content: of its tokenizer.json. padding: the id of its padding token, None if it names none. share: of its tokens,
    those with letters beyond ASCII.
    """

    content: str
    tokenizer: Tokenizer
    padding: int | None
    share: float

    @classmethod
    def read(cls, folder: Path, *, lowercases: bool = False) -> SourceTokenizer:
        """lowercases: texts are put into lower case first. Raises CheckpointError or OSError."""
        values = json.loads(read_tokenizer(folder))
        padding = values.get("padding")
        # The limits are for the short encoder.
        values["truncation"] = values["padding"] = None
        content = json.dumps(values, ensure_ascii=False)
        tokenizer = Tokenizer.from_str(content)
        normalizer = tokenizer.normalizer
        if lowercases and (normalizer is None or normalizer.normalize_str("A") != "a"):
            tokenizer.normalizer = Lowercase() if normalizer is None else Sequence([Lowercase(), normalizer])
            content = tokenizer.to_str()
        ids = (tokenizer.token_to_id(name) for name in _padding_names(padding, tokenizer, folder))
        is_byte_level = "ByteLevel" in str(values.get("pre_tokenizer"))
        return cls(
            content=content,
            tokenizer=tokenizer,
            padding=next((each for each in ids if each is not None), None),
            share=share_beyond_ascii(tokenizer.get_vocab(), is_byte_level=is_byte_level),
        )

    @property
    def text_preparation(self) -> TextPreparation:
        """The preparation of texts that suits the vocabulary."""
        return "none" if self.share >= MULTILINGUAL_SHARE else "unidecode"

    def require_padding(self, pad: object) -> int:
        """pad: the padding id. Raises ConversionError if texts have this token, or if it isn't an id."""
        if type(pad) is not int or pad < 0:
            raise ConversionError(
                "neither the tokenizer nor config.json names a padding token; add pad_token to tokenizer_config.json."
            )
        model = json.loads(self.content)["model"]
        unknown = model.get("unk_id", self.tokenizer.token_to_id(str(model.get("unk_token"))))
        # A Longformer gives its padding token no position. So no other token may have its id.
        if pad in {*self.tokenizer.encode("").ids, unknown}:
            token = self.tokenizer.id_to_token(pad)
            raise ConversionError(
                f"the padding id {pad} is that of {token!r}, which texts contain, so their vectors would differ; name "
                "the right pad_token in tokenizer_config.json, and take the section padding out of tokenizer.json."
            )
        return pad

    def require_special_tokens(self) -> None:
        """Raises ConversionError if the tokenizer puts no token around a text: then there is no CLS token."""
        if not self.tokenizer.num_special_tokens_to_add(is_pair=False):
            raise ConversionError(
                "the tokenizer puts no special tokens around a text (tokenizer.json has no post_processor for that), "
                "so a text has no CLS token; make tokenizer.json anew with transformers."
            )

    def require_words(self, rows: int, *, pad: int) -> None:
        """Raises ConversionError if the word table, of `rows` rows, lacks tokens of the tokenizer or the padding's."""
        if pad >= rows:
            raise ConversionError(
                f"the padding id {pad} is beyond the {rows} rows of the encoder's word table; name the right pad_token "
                "in tokenizer_config.json."
            )
        if beyond := [token for token, each in self.tokenizer.get_vocab().items() if each >= rows]:
            raise ConversionError(
                f"{len(beyond)} tokens of the tokenizer are beyond the {rows} rows of the encoder's word table, for "
                f"example {min(beyond)!r}; copy or fetch tokenizer and weights of the same model."
            )


def _padding_names(section: object, tokenizer: Tokenizer, folder: Path) -> Iterator[str]:
    """The names that the padding token may have, the likeliest first."""
    # tokenizers fills in 0 and [PAD] if nobody says the token. Then these two don't belong together.
    if isinstance(section, Mapping) and tokenizer.token_to_id(str(section.get("pad_token"))) == section.get("pad_id"):
        yield str(section.get("pad_token"))
    for filename in (OPTIONS_FILENAME, SPECIAL_TOKENS_FILENAME):
        token: Any = read_object(folder / filename).get("pad_token") if is_there(folder / filename) else None
        if isinstance(token, Mapping):
            token = token.get("content")
        if isinstance(token, str):
            yield token
    yield from _WELL_KNOWN_PADDING


def share_beyond_ascii(tokens: Mapping[str, int], *, is_byte_level: bool) -> float:
    """The share of tokens that have letters beyond ASCII. is_byte_level: tokens are bytes, written as GPT-2 does."""
    symbols = _byte_symbols()
    found = 0
    for token in tokens:
        if is_byte_level and all(symbol in symbols for symbol in token):
            token = bytes(symbols[symbol] for symbol in token).decode(errors="ignore")
        found += any(letter.isalpha() and not letter.isascii() for letter in token)
    return found / max(len(tokens), 1)


def _byte_symbols() -> dict[str, int]:
    """GPT-2's symbols for bytes: a printable character of Latin-1 stands for itself, the others follow from 256 on."""
    printable = [byte for byte in range(256) if chr(byte).isprintable() and chr(byte) not in " \xa0"]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{chr(byte): byte for byte in printable}, **{chr(256 + n): byte for n, byte in enumerate(others)}}
