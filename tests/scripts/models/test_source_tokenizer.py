"""The padding id of an encoder's tokenizer, and the preparation of texts that its vocabulary asks for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from models.longformer import ConversionError
from models.source_tokenizer import MULTILINGUAL_SHARE, SourceTokenizer, share_beyond_ascii
from short_encoders import unigram_tokenizer, write_json
from tiny import LONGFORMER_DIR, bert_tokenizer, roberta_tokenizer


def write(folder: Path, tokenizer: Tokenizer, *, pad: str | None = None) -> Path:
    """tokenizer.json; pad: the token in its section padding."""
    if pad is not None:
        tokenizer.enable_padding(pad_id=tokenizer.token_to_id(pad), pad_token=pad)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_the_section_padding_comes_first(tmp_path: Path) -> None:
    write_json(tmp_path / "tokenizer_config.json", {"pad_token": "<pad>"})
    write(tmp_path, unigram_tokenizer(), pad="<unk>")
    assert SourceTokenizer.read(tmp_path).padding == 3


def test_a_section_padding_whose_token_has_another_id_does_not_count(tmp_path: Path) -> None:
    tokenizer = unigram_tokenizer()
    tokenizer.enable_padding()  # 0 and [PAD], which this tokenizer doesn't have
    assert SourceTokenizer.read(write(tmp_path, tokenizer)).padding == 1


@pytest.mark.parametrize("filename", ["tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("token", ["<unk>", {"content": "<unk>", "lstrip": False}])
def test_a_pad_token_comes_second(filename: str, token: object, tmp_path: Path) -> None:
    write_json(tmp_path / filename, {"pad_token": token})
    assert SourceTokenizer.read(write(tmp_path, unigram_tokenizer())).padding == 3


@pytest.mark.parametrize("token", [None, 7, "[NONE]"])
def test_a_pad_token_that_is_none_does_not_count(token: object, tmp_path: Path) -> None:
    write_json(tmp_path / "tokenizer_config.json", {"pad_token": token})
    assert SourceTokenizer.read(write(tmp_path, unigram_tokenizer())).padding == 1


def test_well_known_names_come_third(tmp_path: Path) -> None:
    assert SourceTokenizer.read(write(tmp_path, bert_tokenizer())).padding == bert_tokenizer().token_to_id("[PAD]")
    assert SourceTokenizer.read(write(tmp_path, roberta_tokenizer())).padding == 1


@pytest.mark.parametrize(("token", "number"), [("<s>", 0), ("</s>", 2), ("<unk>", 3)])
def test_a_padding_token_that_texts_have_is_refused(token: str, number: int, tmp_path: Path) -> None:
    tokenizer = SourceTokenizer.read(write(tmp_path, unigram_tokenizer()))
    assert tokenizer.require_padding(1) == 1
    with pytest.raises(
        ConversionError, match=rf"^the padding id {number} is that of '{token}', which texts contain.*\.$"
    ):
        tokenizer.require_padding(number)


@pytest.mark.parametrize("pad", [None, "1", -1, True])
def test_a_padding_id_that_is_none_is_refused(pad: object, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"add pad_token to tokenizer_config\.json"):
        SourceTokenizer.read(write(tmp_path, bert_tokenizer())).require_padding(pad)


def test_ids_count_rather_than_the_number_of_tokens(tmp_path: Path) -> None:
    tokenizer = SourceTokenizer.read(write(tmp_path, bert_tokenizer()))
    rows = 1 + max(tokenizer.tokenizer.get_vocab().values())
    tokenizer.require_words(rows, pad=0)
    with pytest.raises(ConversionError, match=rf"^1 tokens .* beyond the {rows - 1} rows .*\.$"):
        tokenizer.require_words(rows - 1, pad=0)


def test_english_vocabularies_are_transliterated_and_others_are_not(tmp_path: Path) -> None:
    for english in (bert_tokenizer(), roberta_tokenizer()):
        tokenizer = SourceTokenizer.read(write(tmp_path, english))
        assert tokenizer.text_preparation == "unidecode"
        assert tokenizer.share < MULTILINGUAL_SHARE / 2
    assert SourceTokenizer.read(write(tmp_path, unigram_tokenizer())).text_preparation == "none"


@pytest.mark.slow
@pytest.mark.skipif(not LONGFORMER_DIR.is_dir(), reason="Longformer's tokenizer isn't on this machine")
def test_longformers_own_vocabulary_is_english() -> None:
    tokenizer = SourceTokenizer.read(LONGFORMER_DIR)
    assert (tokenizer.padding, tokenizer.text_preparation) == (1, "unidecode")
    assert tokenizer.share < 0.01


def test_symbols_for_bytes_are_not_letters() -> None:
    # As GPT-2 writes them: Ġthe is " the", Ã© is é, ÃĬ is the letter of two bytes that follows it.
    tokens = {"Ġthe": 0, "Ġ": 1, "Ã©": 2, "ÃĬ": 3, "the": 4, "Ð±": 5, "Ã": 6, "<s>": 7}
    assert share_beyond_ascii(tokens, is_byte_level=True) == 3 / 8
    assert share_beyond_ascii({"▁the": 0, "▁été": 1, "##é": 2, "…": 3}, is_byte_level=False) == 2 / 4


def test_texts_are_put_into_lower_case_if_the_folder_says_so(tmp_path: Path) -> None:
    write(tmp_path, roberta_tokenizer())
    as_it_is, lowered = (SourceTokenizer.read(tmp_path, lowercases=each) for each in (False, True))
    assert as_it_is.tokenizer.encode("A Robot").ids != as_it_is.tokenizer.encode("a robot").ids
    found = Tokenizer.from_str(lowered.content)
    assert found.encode("A Robot").ids == as_it_is.tokenizer.encode("a robot").ids
    # A tokenizer that does so itself stays as it is.
    write(tmp_path, bert_tokenizer())
    assert json.loads(SourceTokenizer.read(tmp_path, lowercases=True).content)["normalizer"]["type"] == "BertNormalizer"
