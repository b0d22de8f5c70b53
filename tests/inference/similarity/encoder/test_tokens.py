"""Text to tokens: transliteration as unidecode's, tokens as transformers', and the cut of long texts."""

from __future__ import annotations

import csv
import random
import warnings
from functools import cache
from typing import Any

import hypothesis.strategies
import pytest
from tokenizers import Encoding, Tokenizer
from transformers import PreTrainedTokenizerFast
from unidecode import unidecode

import similarity.encoder.tokens as tokens_module
from similarity.encoder.tokens import (
    CHARS_PER_TOKEN,
    LONGEST_RUN,
    SPARSE_CHARS_PER_TOKEN,
    TextTokenizer,
    prepared,
    transliterate,
)
from tiny import AIID_DIR, LONGFORMER_DIR, TINY_MAX_TOKENS, bert_tokenizer, roberta_tokenizer, sample_texts

TEXTS = [
    "plain ASCII",
    "Pokémon GO — “smart” quotes’ end…",  # noqa: RUF001
    "北京 Москва Ελλάδα 😀 €",
    "control \x00\x01\x07 characters\x7f\x80\x9f",
    "combining e\u0301, zero\u200bwidth, right-to-left \u202e",
    "\U0001f600\U000e0001\U0010ffff",
]


@pytest.mark.parametrize("text", TEXTS)
def test_transliteration_is_unidecode(text: str) -> None:
    assert transliterate(text) == unidecode(text)


def test_transliteration_of_every_character_of_the_basic_plane_is_unidecode() -> None:
    text = "".join(chr(code) for code in range(0x10000) if not 0xD800 <= code <= 0xDFFF)
    assert transliterate(text) == unidecode(text)


def test_lone_surrogates_are_dropped_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert transliterate("a\ud800b\udfffé") == "abe"


def real_longformer_tokenizer() -> Tokenizer:
    if not LONGFORMER_DIR.is_dir():
        pytest.skip("the real Longformer's tokenizer is not here")
    return Tokenizer.from_file(str(LONGFORMER_DIR / "tokenizer.json"))


TOKENIZERS = {"byte-level": roberta_tokenizer, "WordPiece": bert_tokenizer, "Longformer's": real_longformer_tokenizer}


class Counting:
    """A tokenizer that counts the characters that it gets."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.characters = 0

    def encode(self, text: str, **options: Any) -> Encoding:
        self.characters += len(text)
        return self.tokenizer.encode(text, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)


def text_tokenizer(counting: Counting, max_tokens: int) -> TextTokenizer:
    like_a_tokenizer: Any = counting
    return TextTokenizer(like_a_tokenizer, max_tokens)


@pytest.fixture(scope="module", params=TOKENIZERS)
def each(request: pytest.FixtureRequest) -> Tokenizer:
    """Tokenizers of each kind. Shared: wrap it, don't change it."""
    tokenizer: Tokenizer = TOKENIZERS[request.param]()
    return tokenizer


def expected_ids(text: str, tokenizer: Tokenizer, max_tokens: int) -> list[int]:
    """The first max_tokens of what transformers makes of the whole text."""
    ids: list[int] = by_transformers(tokenizer)(unidecode(text), truncation=True, max_length=max_tokens).input_ids
    return ids


@cache
def by_transformers(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    wrapped: PreTrainedTokenizerFast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)  # type: ignore[no-untyped-call]
    return wrapped


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    whole = roberta_tokenizer()
    # What tokenizer.json files of sentence encoders often carry must not show.
    whole.enable_truncation(8)
    whole.enable_padding(length=40)
    whole.save(str(path))
    return TextTokenizer.load(path, TINY_MAX_TOKENS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", [*TEXTS, *(report[:4000] for report in sample_texts()[:10]), "a </s> b <pad> c <s>", " ", "\n\t x"]
)
def test_tokens_are_those_of_transformers(text: str, tokenizer: TextTokenizer) -> None:
    tokens = tokenizer(text)
    assert tokens.ids == expected_ids(text, roberta_tokenizer(), TINY_MAX_TOKENS)
    assert tokens.came == len(roberta_tokenizer().encode(unidecode(text)).ids)
    assert tokens.came_is_exact


@pytest.mark.slow
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_the_cut_is_at_the_maximum(more: int, tokenizer: TextTokenizer) -> None:
    one_token_each = " the" * (TINY_MAX_TOKENS - 2 + more)
    assert len(roberta_tokenizer().encode(one_token_each).ids) == TINY_MAX_TOKENS + more
    tokens = tokenizer(one_token_each)
    assert len(tokens.ids) == TINY_MAX_TOKENS + min(more, 0)
    assert tokens.ids[-1] == 2
    assert tokens.warnings() == (
        [f'Provided value for "text" has {TINY_MAX_TOKENS + 1} tokens, using the first {TINY_MAX_TOKENS}.']
        if more == 1
        else []
    )


def random_text(characters: int, seed: int) -> str:
    choose = random.Random(seed)
    pieces = ["the ", "robot", " ", "\n\n", "é", "。", "\u3000", "...", "don't ", "1234567890", "\t", "😀"]
    return "".join(choose.choices(pieces, k=characters))[:characters]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_a_text_that_is_cut_before_it_is_tokenised_whole_gets_the_same_tokens(
    seed: int, tokenizer: TextTokenizer
) -> None:
    text = random_text(3 * CHARS_PER_TOKEN * TINY_MAX_TOKENS, seed)
    tokens = tokenizer(text)
    assert not tokens.came_is_exact
    assert tokens.ids == expected_ids(text, roberta_tokenizer(), TINY_MAX_TOKENS)
    assert tokens.came <= len(roberta_tokenizer().encode(unidecode(text)).ids)
    assert f"more than {tokens.came} tokens" in tokens.warnings()[0]


def test_a_long_text_with_few_tokens_is_read_to_its_end(tokenizer: TextTokenizer) -> None:
    text = "\ud83d" * (20 * CHARS_PER_TOKEN * TINY_MAX_TOKENS) + " the end"
    tokens = tokenizer(text)
    assert tokens.ids == roberta_tokenizer().encode(" the end").ids
    assert tokens.warnings() == []


SIX_MB = 6_000_000
HOSTILE_TEXTS = {
    "spaces": " " * SIX_MB,
    "spaces between words": "x" + " " * (SIX_MB - 2) + "x",
    "spaces before a word": " " * SIX_MB + "x",
    "newlines": "\n" * SIX_MB,
    "form feeds": "\f" * SIX_MB,
    "one letter": "x" * SIX_MB,
    "one letter behind words": "the robot " * 20 + "x" * SIX_MB,
    "dashes": "-" * SIX_MB,
    "control characters": "\x01" * SIX_MB,
    "an endless word": "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=SIX_MB)),
    "endless words": ("robots" * 1000 + " ") * (SIX_MB // 6001),
    "long words and gaps": ("x" * 1024 + " " * 1024) * (SIX_MB // 2048),
    "words": "the robot " * (SIX_MB // 10),
    "emoji": "😀" * (SIX_MB // 4),
    "emoji and words": "😀 robot" * (SIX_MB // 10),
    "one character that becomes twelve": "♞" * (SIX_MB // 3),
    "one character that becomes four words": "㏂ " * (SIX_MB // 4),
    "everything": "".join(
        random.Random(0).choices(["a", " ", "\n", "é", "♞", "😀", "-", "x" * 3000, " " * 3000], k=9000)
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("max_tokens", [TINY_MAX_TOKENS, 4096])
@pytest.mark.parametrize("name", HOSTILE_TEXTS)
def test_a_bounded_number_of_characters_reaches_the_tokenizer(name: str, max_tokens: int, each: Tokenizer) -> None:
    counting = Counting(each)
    tokens = text_tokenizer(counting, max_tokens)(HOSTILE_TEXTS[name])
    assert counting.characters <= (CHARS_PER_TOKEN + SPARSE_CHARS_PER_TOKEN) * max_tokens
    assert len(tokens.ids) <= max_tokens
    assert tokens.is_blank == (name in ("spaces", "newlines", "form feeds", "emoji"))


def test_the_bound_for_longformer_is_as_documented() -> None:
    assert (CHARS_PER_TOKEN * 4096, (CHARS_PER_TOKEN + SPARSE_CHARS_PER_TOKEN) * 4096) == (131_072, 655_360)


@pytest.mark.parametrize("name", ["words", "emoji and words", "one character that becomes twelve"])
def test_a_text_with_words_reaches_the_tokenizer_once(name: str, each: Tokenizer) -> None:
    counting = Counting(each)
    text_tokenizer(counting, TINY_MAX_TOKENS)(HOSTILE_TEXTS[name])
    assert counting.characters <= CHARS_PER_TOKEN * TINY_MAX_TOKENS


# Of one to ninety characters when they are transliterated.
WORDS = hypothesis.strategies.builds(
    "{}{}{}".format,
    hypothesis.strategies.text(max_size=3),
    hypothesis.strategies.text("abcdefghijklmnopqrstuvwxyz'-.,</>", min_size=1, max_size=12),
    hypothesis.strategies.text("éßж北😀♞㎯\x00\x1c", max_size=3),
)
GAPS = hypothesis.strategies.text(" \t\n\r\v\f\xa0\u3000", min_size=1, max_size=6)


@pytest.mark.slow
@hypothesis.settings(
    derandomize=True,
    deadline=None,
    max_examples=100,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(
    words=hypothesis.strategies.lists(WORDS, min_size=1, max_size=20),
    gaps=hypothesis.strategies.lists(GAPS, min_size=1, max_size=5),
    count=hypothesis.strategies.integers(1, 3000),
    max_tokens=hypothesis.strategies.sampled_from([16, TINY_MAX_TOKENS]),
    seed=hypothesis.strategies.integers(0, 1000),
)
def test_the_tokens_of_any_text_with_words_are_those_of_the_whole_text(
    words: list[str], gaps: list[str], count: int, max_tokens: int, seed: int, each: Tokenizer
) -> None:
    choose = random.Random(seed)
    text = "".join(choose.choice(words) + choose.choice(gaps) for _ in range(count))
    tokens = TextTokenizer(each, max_tokens)(text)
    assert tokens.ids == expected_ids(text, each, max_tokens)
    came = len(each.encode(unidecode(text)).ids)
    assert tokens.came == came if tokens.came_is_exact else tokens.came == max_tokens < came
    assert not tokens.is_shortened
    assert not tokens.is_blank


@pytest.mark.slow
@pytest.mark.parametrize("max_tokens", [TINY_MAX_TOKENS, 4096])
def test_the_tokens_of_the_sample_are_those_of_the_whole_text(max_tokens: int, each: Tokenizer) -> None:
    reports = sample_texts()
    for text in (*reports, "\n\n".join(reports), " ".join(reports * 3)):
        tokens = TextTokenizer(each, max_tokens)(text)
        assert tokens.ids == expected_ids(text, each, max_tokens)
        assert not tokens.is_shortened


@pytest.mark.slow
@pytest.mark.skipif(not AIID_DIR.is_dir(), reason="the AI Incident Database's data is not here")
@pytest.mark.parametrize("max_tokens", [TINY_MAX_TOKENS, 4096])
def test_the_tokens_of_real_descriptions_are_those_of_the_whole_text(max_tokens: int, each: Tokenizer) -> None:
    with (AIID_DIR / "incidents.csv").open(encoding="utf-8", newline="") as file:
        descriptions = [row["description"] for row in csv.DictReader(file)]
    for text in (
        *descriptions[::50],
        *(description * 400 for description in descriptions[::200]),
        "".join(descriptions),
    ):
        tokens = TextTokenizer(each, max_tokens)(text)
        assert tokens.ids == expected_ids(text, each, max_tokens)
        assert not tokens.is_shortened


SPARSE = {
    "lines of 60 characters that are one token or few": ("-" * 60 + "\n") * 9_000,
    "words of 110 characters": ("x" * 110 + "\n") * 6_000,
    "words between gaps of 100 spaces": ("robot" + " " * 100) * 6_000,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SPARSE)
def test_a_text_of_few_tokens_for_its_length_has_those_of_the_whole_text(name: str, each: Tokenizer) -> None:
    for max_tokens in (TINY_MAX_TOKENS, 4096):
        tokens = TextTokenizer(each, max_tokens)(SPARSE[name])
        assert tokens.ids == expected_ids(SPARSE[name], each, max_tokens)
        assert tokens.warnings() == [
            f'Provided value for "text" has more than {max_tokens} tokens, using the first {max_tokens}.'
        ]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["spaces between words", "one letter", "an endless word"])
def test_a_very_long_run_behind_few_words_is_cut(name: str) -> None:
    """WordPiece has few tokens for it, and exactly those of the whole text."""
    tokenizer = bert_tokenizer()
    text = "the robot " + HOSTILE_TEXTS[name] + " the end"
    tokens = TextTokenizer(tokenizer, 4096)(text)
    assert tokens.ids == expected_ids(text, tokenizer, 4096)
    assert (tokens.came, tokens.came_is_exact) == (len(tokens.ids), True)
    assert tokens.warnings() == [
        f'Provided value for "text" has words or gaps of more than {LONGEST_RUN} characters, '
        f"using the first {LONGEST_RUN} of each."
    ]


@pytest.mark.slow
@pytest.mark.parametrize("behind", ["", " " * 1000, "\n" * 200_000, "😀" * 200_000])
def test_128_k_spaces_before_a_word_are_not_a_blank_text(behind: str, each: Tokenizer) -> None:
    for max_tokens in (TINY_MAX_TOKENS, 4096):
        for space in (" ", "\n", "😀", " 😀"):
            before = space * (2 * CHARS_PER_TOKEN * 4096)
            assert not TextTokenizer(each, max_tokens)(f"{before}robot{behind}").is_blank
            assert TextTokenizer(each, max_tokens)(before + behind).is_blank


def test_wordpiece_finds_the_word_behind_128_k_spaces() -> None:
    tokenizer = bert_tokenizer()
    tokens = TextTokenizer(tokenizer, 4096)(" " * (CHARS_PER_TOKEN * 4096) + "robot")
    assert tokens.ids == tokenizer.encode("robot").ids


@pytest.mark.parametrize("text", ["a♞é北" * 50_000, "plain " * 50_000, "", "\ud800é😀" * 50_000])
def test_pieces_are_transliterated_as_the_whole(text: str) -> None:
    assert "".join(prepared(text, "unidecode")) == transliterate(text)


def test_ten_megabytes_are_cut_before_anything_reads_them(
    tokenizer: TextTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    def noting_length(text: str) -> str:
        read.append(len(text))
        return unidecode(text)

    monkeypatch.setattr(tokens_module, "transliterate", noting_length)
    assert len(tokenizer("word é " * 1_400_000).ids) == TINY_MAX_TOKENS
    assert sum(read) <= CHARS_PER_TOKEN * TINY_MAX_TOKENS


@pytest.mark.parametrize("text", ["", " \n\t", "😀😀", "\ud800"])
def test_what_is_blank_once_transliterated_is_said_to_be(text: str, tokenizer: TextTokenizer) -> None:
    assert tokenizer(text).is_blank
    assert not tokenizer(text + "a").is_blank


@pytest.mark.slow
def test_the_real_longformer_tokenizer_is_cut_at_4096() -> None:
    whole = real_longformer_tokenizer()
    tokenizer = TextTokenizer.load(LONGFORMER_DIR / "tokenizer.json", 4096)
    text = "\n\n".join(sample_texts())[:100_000]
    tokens = tokenizer(text)
    assert tokens.ids == expected_ids(text, whole, 4096)
    assert tokens.came == len(by_transformers(whole)(unidecode(text)).input_ids) > 10_000
