"""A tokenizer made of vocab.json and merges.txt gives the tokens of transformers' own, and of the published one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer
from transformers import RobertaTokenizerFast

from models.checkpoint_tokenizer import read_tokenizer
from models.checkpoints import CheckpointError
from tiny import LONGFORMER_DIR, roberta_tokenizer, sample_texts

ODD_TEXTS = [
    "",
    " ",
    "  two  spaces \n\n and\ttabs ",
    "Hello world",
    " Hello world",
    "naïve café, Zürich, 東京, עברית",
    "🤖 robots 👩‍🔬",
    "it's 1,000.5% they'll",
    "</s> in <s> the <pad>text</s>",
    "a <mask> and<mask>no",
    "<unk>",
    "\x00\x7f",
    "a" * 300,
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """vocab.json and merges.txt of a tokenizer that has a mask, as RoBERTa's has."""
    tokenizer = roberta_tokenizer()
    tokenizer.model.save(str(tmp_path))
    path = tmp_path / "vocab.json"
    vocabulary = json.loads(path.read_text())
    path.write_text(json.dumps({**vocabulary, "<mask>": len(vocabulary)}))
    return tmp_path


def of_transformers(folder: Path, **options: Any) -> RobertaTokenizerFast:
    # transformers 5 says that this must be a string, and takes what its own configs hold.
    mask: Any = AddedToken("<mask>", lstrip=True, special=True)
    return RobertaTokenizerFast(
        vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), mask_token=mask, **options
    )


@pytest.mark.parametrize("prefix_space", [None, False, True])
def test_two_files_make_the_tokenizer_that_transformers_makes_of_them(prefix_space: bool | None, folder: Path) -> None:
    if prefix_space is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps({"add_prefix_space": prefix_space}))
    (folder / "added_tokens.json").write_text('{"<mask>": 600}')
    found = Tokenizer.from_str(read_tokenizer(folder).decode())
    expected = of_transformers(folder, add_prefix_space=bool(prefix_space))
    assert found.get_vocab() == expected.get_vocab()
    for text in ODD_TEXTS + sample_texts()[:20]:
        assert found.encode(text).ids == expected(text)["input_ids"], text
    assert found.encode("one", "two").ids == expected("one", "two")["input_ids"]
    assert found.decode(found.encode("Hello world").ids) == expected.decode(expected("Hello world")["input_ids"], True)


def test_the_published_files_make_the_published_tokenizer(tmp_path: Path) -> None:
    if not LONGFORMER_DIR.is_dir():
        pytest.skip(f"{LONGFORMER_DIR} is not there")
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).symlink_to(LONGFORMER_DIR / name)
    found = Tokenizer.from_str(read_tokenizer(tmp_path).decode())
    published = Tokenizer.from_file(str(LONGFORMER_DIR / "tokenizer.json"))
    assert found.get_vocab() == published.get_vocab()
    for text in ODD_TEXTS + sample_texts():
        assert found.encode(text).ids == published.encode(text).ids, text


def test_tokenizer_json_is_handed_on_as_it_is(folder: Path) -> None:
    roberta_tokenizer().save(str(folder / "tokenizer.json"))
    assert read_tokenizer(folder) == (folder / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_one_of_the_two_files_is_too_few(name: str, folder: Path) -> None:
    (folder / name).unlink()
    with pytest.raises(CheckpointError) as caught:
        read_tokenizer(folder)
    assert str(caught.value) == (
        f"{folder} has neither tokenizer.json nor vocab.json and merges.txt; "
        "make tokenizer.json with transformers: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)."
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", "{}", "isn't a tokenizer: "),
        ("tokenizer.json", '{"a":' * 100_000, "isn't a tokenizer: "),
        ("tokenizer.json", '{"version": "1.0", "pre_tokenizer":' + "[" * 1000, "isn't a tokenizer: "),
        ("tokenizer.json", "version https://git-lfs.github.com/spec/v1\noid", "is a pointer of Git LFS"),
        ("vocab.json", "version https://git-lfs.github.com/spec/v1\noid", "is a pointer of Git LFS"),
        ("merges.txt", "version https://git-lfs.github.com/spec/v1\noid", "is a pointer of Git LFS"),
        ("tokenizer.json", "", "is empty"),
        ("vocab.json", "", "is empty"),
        ("vocab.json", "[]", "it holds a list, not an object"),
        ("vocab.json", '{"a":' * 100_000, "is nested too deeply"),
        ("vocab.json", '{"<s>": 0}', "has no token </s>; "),
        ("vocab.json", '{"<s>": 0, "</s>": "two"}', "vocab.json and merges.txt aren't a valid tokenizer: "),
        ("vocab.json", '{"<s>": 0, "</s>": 1}', "vocab.json and merges.txt aren't a valid tokenizer: "),
        ("merges.txt", "#version: 0.2\na b c d", "vocab.json and merges.txt aren't a valid tokenizer: "),
        ("added_tokens.json", '{"<sep>": 601}', "has 1 tokens that vocab.json lacks; "),
    ],
)
def test_a_tokenizer_that_can_not_be_read_is_refused_in_one_sentence(
    name: str, content: str, message: str, folder: Path
) -> None:
    (folder / name).write_text(content)
    with pytest.raises(CheckpointError) as caught:
        read_tokenizer(folder)
    assert message in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
