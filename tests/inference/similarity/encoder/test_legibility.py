"""Texts of too few words, and texts in a script that the model doesn't read, in many scripts and odd forms."""

from __future__ import annotations

import unicodedata

import pytest
from tokenizers import Tokenizer

from similarity.encoder.legibility import FOREIGN, START, length_warnings, letters, script_warnings, words
from similarity.encoder.tokens import TextTokenizer
from tiny import MANY_SCRIPTS, TINY_MAX_TOKENS, bert_tokenizer, multilingual_tokenizer, roberta_tokenizer

ENGLISH, JAPANESE, RUSSIAN, GERMAN, ARABIC, GREEK = MANY_SCRIPTS
KOREAN = "운전자 없는 차가 소방차를 들이받았다."
CHINESE = "无人驾驶汽车撞上了消防车。"
HINDI = "बिना चालक की कार दमकल से टकरा गई।"
THAI = "รถไร้คนขับชนรถดับเพลิงที่จอดอยู่บนถนน"
COPTIC = "ⲁⲃⲅ ⲇⲉⲍ ⲏⲑⲓ ⲕⲗⲙ ⲛⲝⲟ"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        (". ? !", 0),
        ("🤖 🚗💥", 0),
        ("robots", 1),
        ("self-driving car", 3),
        ("A chatbot insulted its users", 5),
        ("A chatbot\n\tinsulted,its\u00a0users", 5),
        ("don't isn’t", 2),  # noqa: RUF001
        ("C-3PO 1999", 3),
        ("___ a_b", 2),
        # A mark or an invisible joiner doesn't split a word, however it is written.
        ("Pokémon", 1),
        (unicodedata.normalize("NFD", "Pokémon résumé"), 2),
        ("soft\u00adhyphen", 1),
        ("می‌خواهم", 1),
        ("हिन्दी", 1),
        (HINDI, 8),
        ("운전자 없는 차가", 3),
        ("Автомобиль врезался", 2),
        # Written without spaces.
        ("消防車", 3),
        ("佐々木", 3),
        ("ロボット", 4),
        ("ﾃｽﾗ", 3),
        ("รถ", 2),
        ("ရထား", 2),
        ("រថយន្ត", 5),
        ("ລົດ", 2),
        ("Teslaの車", 3),
        ("車,x", 2),
    ],
)
def test_words_are_counted_as_people_would(text: str, count: int) -> None:
    assert words(text) == count


def few(found: str) -> list[str]:
    return [f"The text has {found}. Matches of texts with fewer than 5 words are often wrong."]


@pytest.mark.parametrize(
    ("text", "warnings"),
    [
        (".", few("no words")),
        ("robots", few("only 1 word")),
        ("  robots\n", few("only 1 word")),
        ("two words", few("only 2 words")),
        ("a b c d", few("only 4 words")),
        ("a b c d e", []),
        ("消防車に", few("only 4 words")),
        ("消防車に衝突した", []),
        (THAI, []),
        # The words may stand far behind.
        (" " * START + "robot", few("only 1 word")),
        ("robot" + "." * START + " in a warehouse hurt workers", []),
        ("." * START + "robot", []),
    ],
)
def test_a_text_of_few_words_is_warned_of(text: str, warnings: list[str]) -> None:
    assert length_warnings(text) == warnings


def test_letters_are_neither_marks_nor_digits_nor_emoji() -> None:
    assert letters("Aé e\u0301 1٣ 車- _ 🤖 ǅ ª") == 6


@pytest.mark.parametrize(
    ("text", "is_foreign"),
    [
        (ENGLISH, False),
        (GERMAN, False),
        ("Łódź Ørsted ħ ə", False),
        (unicodedata.normalize("NFD", "Pokémon résumé Ångström"), False),
        ("Việt Nam", False),
        ("ＴＥＳＬＡ ｃａｒ", False),  # noqa: RUF001
        ("𝐓𝐞𝐬𝐥𝐚 𝓬𝓪𝓻", False),  # noqa: RUF001
        ("5 K Å", False),  # the signs of kelvin and angstrom
        (JAPANESE, True),
        (CHINESE, True),
        (KOREAN, True),
        (RUSSIAN, True),
        (ARABIC, True),
        (GREEK, True),
        (HINDI, True),
        (THAI, True),
        ("𝚨𝚩𝚪", True),  # bold Greek
        # Half and half, and one letter more.
        ("abc где", False),
        ("abc где ё", True),
        ("TeslaのAutopilotが消防車に衝突した", False),
        ("Teslaの車が消防車に衝突した", True),
        # Without letters there is no script.
        ("", False),
        ("123 🤖 ... ٣ \u0301", False),
        ("🤖🤖🤖🤖🤖🤖 a", False),
        ("а" + "." * START, True),  # noqa: RUF001
        (" " * START + "車", True),
        ("a" * START + "車" * 10 * START, False),
    ],
)
def test_a_model_that_transliterates_reads_latin(text: str, is_foreign: bool) -> None:
    assert script_warnings(text, unread=0.0, preparation="unidecode") == [FOREIGN] * is_foreign


def read(text: str, tokenizer: Tokenizer, max_tokens: int = TINY_MAX_TOKENS, prefix: str = "") -> float:
    """The share of letters that the tokenizer knows."""
    return 1 - TextTokenizer(tokenizer, max_tokens, "none", prefix)(text).unread


@pytest.mark.parametrize("text", MANY_SCRIPTS)
def test_a_multilingual_tokenizer_reads_the_scripts_it_has_learned(text: str) -> None:
    assert read(text, multilingual_tokenizer()) == 1


@pytest.mark.parametrize("text", [COPTIC, KOREAN, HINDI, THAI])
def test_it_does_not_read_others(text: str) -> None:
    tokens = TextTokenizer(multilingual_tokenizer(), TINY_MAX_TOKENS, "none")(text)
    assert tokens.unread > 0.9
    assert script_warnings(text, tokens.unread, "none") == [FOREIGN]


def test_letters_count_rather_than_tokens() -> None:
    """A run of unknown letters is one token, beside which there is one for the space."""
    half = f"{COPTIC} driver that hit"
    assert read(half, multilingual_tokenizer()) == pytest.approx(13 / 28)
    assert script_warnings(half, 15 / 28, "none") == [FOREIGN]
    assert script_warnings(half, 14 / 28, "none") == []


def test_neither_the_prefix_nor_what_is_cut_away_counts() -> None:
    assert read(COPTIC, multilingual_tokenizer(), prefix="query: ") == 0
    assert read(f"{ENGLISH} {COPTIC * 100}", multilingual_tokenizer(), max_tokens=10) == 1
    assert read(f"{COPTIC} {ENGLISH * 100}", multilingual_tokenizer(), max_tokens=10) == 0


def test_unknown_emoji_and_signs_are_no_letters() -> None:
    assert read("🤖🤖🤖 ⇒⇒⇒⇒ a car", multilingual_tokenizer()) == 1
    assert read("🤖🤖🤖", multilingual_tokenizer()) == 1


def test_a_word_piece_tokenizer_says_what_it_does_not_know() -> None:
    assert read(COPTIC, bert_tokenizer()) == 0
    assert read(ENGLISH, bert_tokenizer()) == 1


@pytest.mark.parametrize("text", [*MANY_SCRIPTS, COPTIC, KOREAN])
def test_a_byte_level_tokenizer_knows_every_letter(text: str) -> None:
    assert read(text, roberta_tokenizer()) == 1
