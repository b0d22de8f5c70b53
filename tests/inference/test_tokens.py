"""Text to tokens: transliteration as unidecode's, tokens as transformers', and the cut of long texts."""

from __future__ import annotations

import random
import warnings
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast
from unidecode import unidecode

import similarity.tokens as tokens_module
from similarity.tokens import CHARS_PER_TOKEN, TextTokenizer, transliterate
from tiny import LONGFORMER_DIR, TINY_MAX_TOKENS, roberta_tokenizer, sample_texts

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


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    whole = roberta_tokenizer()
    # What tokenizer.json files of sentence encoders often carry must not show.
    whole.enable_truncation(8)
    whole.enable_padding(length=40)
    whole.save(str(path))
    return TextTokenizer.load(path, TINY_MAX_TOKENS)


def reference() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=roberta_tokenizer(), model_max_length=TINY_MAX_TOKENS)


@pytest.mark.parametrize(
    "text", [*TEXTS, *(report[:4000] for report in sample_texts()[:10]), "a </s> b <pad> c <s>", " ", "\n\t x"]
)
def test_tokens_are_those_of_transformers(text: str, tokenizer: TextTokenizer) -> None:
    tokens = tokenizer(text)
    assert tokens.ids == reference()(unidecode(text), truncation=True).input_ids
    assert tokens.came == len(roberta_tokenizer().encode(unidecode(text)).ids)
    assert tokens.came_is_exact


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


@pytest.mark.parametrize("seed", range(20))
def test_a_text_that_is_cut_before_it_is_tokenised_whole_gets_the_same_tokens(
    seed: int, tokenizer: TextTokenizer
) -> None:
    text = random_text(3 * CHARS_PER_TOKEN * TINY_MAX_TOKENS, seed)
    tokens = tokenizer(text)
    assert not tokens.came_is_exact
    assert tokens.ids == reference()(unidecode(text), truncation=True).input_ids
    assert tokens.came <= len(roberta_tokenizer().encode(unidecode(text)).ids)
    assert f"more than {tokens.came} tokens" in tokens.warnings()[0]


def test_a_long_text_with_few_tokens_is_read_to_its_end(tokenizer: TextTokenizer) -> None:
    text = "\ud83d" * (20 * CHARS_PER_TOKEN * TINY_MAX_TOKENS) + " the end"
    tokens = tokenizer(text)
    assert tokens.ids == roberta_tokenizer().encode(" the end").ids
    assert tokens.warnings() == []


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


@pytest.mark.skipif(not LONGFORMER_DIR.is_dir(), reason="the real Longformer's tokenizer is not here")
def test_the_real_longformer_tokenizer_is_cut_at_4096(tmp_path: Path) -> None:
    tokenizer = TextTokenizer.load(LONGFORMER_DIR / "tokenizer.json", 4096)
    text = "\n\n".join(sample_texts())[:100_000]
    whole = PreTrainedTokenizerFast(tokenizer_file=str(LONGFORMER_DIR / "tokenizer.json"), model_max_length=4096)
    tokens = tokenizer(text)
    assert tokens.ids == whole(unidecode(text), truncation=True).input_ids
    assert tokens.came == len(whole(unidecode(text)).input_ids) > 10_000
