"""Folders of sentence-transformers: every form of the pooling's config, prompts, and where the encoder is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from models.checkpoints import CheckpointError
from models.longformer import ConversionError
from models.sentence_encoder import SentenceEncoder
from short_encoders import POOLING_KEYS, write_json, write_modules, write_pooling

POOLING = Path("1_Pooling", "config.json")
PROMPTS = "config_sentence_transformers.json"
OLD = {f"pooling_mode_{key}": False for key in POOLING_KEYS}


def read_with_pooling(folder: Path, config: dict[str, Any]) -> SentenceEncoder:
    write_json(folder / POOLING, config)
    return SentenceEncoder.read(folder)


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({**OLD, "pooling_mode_cls_token": True}, "cls"),
        ({**OLD, "pooling_mode_mean_tokens": True}, "mean"),
        ({**OLD, "pooling_mode_mean_sqrt_len_tokens": True}, "mean"),
        ({"pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode": "mean_sqrt_len_tokens"}, "mean"),
        ({"pooling_mode": ["mean"]}, "mean"),
        ({"pooling_mode": "mean", "pooling_mode_cls_token": True}, "mean"),
        ({"pooling_mode": None, **OLD, "pooling_mode_cls_token": True}, "cls"),
        ({"word_embedding_dimension": 32}, "mean"),
        ({"pooling_mode": "mean", "include_prompt": False}, "mean"),
    ],
    ids=str,
)
def test_a_pooling_that_a_longformer_has(config: dict[str, Any], pooling: str, tmp_path: Path) -> None:
    assert read_with_pooling(tmp_path, config).own_pooling(has_prompt=False) == pooling


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({**OLD, "pooling_mode_max_tokens": True}, "max"),
        ({**OLD, "pooling_mode_weightedmean_tokens": True}, "weightedmean"),
        ({**OLD, "pooling_mode_lasttoken": True}, "lasttoken"),
        ({**OLD, "pooling_mode_of_the_future": True}, "pooling_mode_of_the_future"),
        ({**OLD, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, "cls and mean together"),
        (OLD, "nothing"),
        ({"pooling_mode": "max"}, "max"),
        ({"pooling_mode": ["cls", "max"]}, "cls and max together"),
        ({"pooling_mode": []}, "nothing"),
        ({"pooling_mode": 3}, "3"),
    ],
    ids=str,
)
def test_another_pooling_is_refused(config: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=rf"^the encoder pools {named}, but .*--pooling mean.*\.$"):
        read_with_pooling(tmp_path, config).own_pooling(has_prompt=False)


def test_a_mean_without_its_prompt_is_refused(tmp_path: Path) -> None:
    folder = read_with_pooling(tmp_path, {"pooling_mode": "mean", "include_prompt": False})
    with pytest.raises(ConversionError, match=r"include_prompt is false.*--query-prefix \"\""):
        folder.own_pooling(has_prompt=True)


def test_a_plain_encoder_does_not_say_how_it_pools(tmp_path: Path) -> None:
    assert SentenceEncoder.read(tmp_path).own_pooling(has_prompt=True) is None
    # Nor does one whose list of modules leaves the pooling out: then its folder isn't used.
    write_modules(tmp_path, "Transformer", "Normalize")
    write_pooling(tmp_path, "max_tokens")
    assert SentenceEncoder.read(tmp_path).own_pooling(has_prompt=True) is None


def test_modules_say_where_encoder_and_pooling_are(tmp_path: Path) -> None:
    modules = [
        {"idx": 0, "name": "0", "path": "0_Transformer", "type": "sentence_transformers.base.models.Transformer"},
        {"idx": 1, "name": "1", "path": "2_Pooling", "type": "sentence_transformers.models.Pooling.Pooling"},
    ]
    write_json(tmp_path / "modules.json", modules)
    write_json(tmp_path / "2_Pooling" / "config.json", {"pooling_mode": "mean"})
    write_pooling(tmp_path, "cls_token")
    write_json(
        tmp_path / "0_Transformer" / "sentence_roberta_config.json", {"max_seq_length": 75, "do_lower_case": True}
    )
    folder = SentenceEncoder.read(tmp_path)
    assert folder.encoder == tmp_path / "0_Transformer"
    assert folder.own_pooling(has_prompt=True) == "mean"
    assert (folder.longest, folder.lowercases) == (75, True)


@pytest.mark.parametrize("kind", ["Dense", "LSTM", "Router", "WordEmbeddings"])
def test_a_module_that_a_longformer_lacks_is_refused(kind: str, tmp_path: Path) -> None:
    refused = rf"^the encoder has a module {kind}, .*all-MiniLM-L6-v2.*\.$"
    write_modules(tmp_path, "Transformer", "Pooling", kind)
    with pytest.raises(ConversionError, match=refused):
        SentenceEncoder.read(tmp_path)
    # Without the list of modules, the module's folder tells.
    (tmp_path / "modules.json").unlink()
    write_pooling(tmp_path, "mean_tokens")
    assert SentenceEncoder.read(tmp_path).own_pooling(has_prompt=False) == "mean"
    write_json(tmp_path / f"2_{kind}" / "config.json", {})
    with pytest.raises(ConversionError, match=refused):
        SentenceEncoder.read(tmp_path)


def test_two_encoders_are_refused(tmp_path: Path) -> None:
    write_modules(tmp_path, "Transformer", "Transformer")
    with pytest.raises(ConversionError, match="several modules Transformer"):
        SentenceEncoder.read(tmp_path)


@pytest.mark.parametrize(
    ("filename", "content", "message"),
    [
        ("modules.json", {}, "must be a list of modules"),
        ("modules.json", [3], "must be a list of modules"),
        ("modules.json", [{"type": "x.Transformer", "path": 3}], "must be a list of modules"),
        ("modules.json", [], "lists no module Transformer"),
        (POOLING, [], "it holds a list, not an object"),
        (PROMPTS, [], "it holds a list, not an object"),
        (PROMPTS, {"prompts": ["query: "]}, "must be an object of strings"),
        (PROMPTS, {"prompts": {"query": None}}, "must be an object of strings"),
        (PROMPTS, {"prompts": {"a": "b"}, "default_prompt_name": "c"}, "has no prompt 'c'"),
        (PROMPTS, {"prompts": {"a": "b"}, "default_prompt_name": ["a"]}, "has no prompt"),
        ("sentence_bert_config.json", [], "it holds a list, not an object"),
    ],
)
def test_a_broken_file_is_refused(filename: str, content: object, message: str, tmp_path: Path) -> None:
    write_json(tmp_path / filename, content)
    with pytest.raises(CheckpointError, match=rf"{Path(filename).name}.*{message}"):
        SentenceEncoder.read(tmp_path)


def test_files_that_are_not_json_are_refused(tmp_path: Path) -> None:
    for content in ("[", "[" * 100_000, "\ufeff["):
        (tmp_path / "modules.json").write_text(content)
        with pytest.raises(CheckpointError, match=r"modules\.json can't be read: it isn't JSON"):
            SentenceEncoder.read(tmp_path)


def test_a_missing_pooling_config_is_refused(tmp_path: Path) -> None:
    write_modules(tmp_path, "Transformer", "Pooling")
    with pytest.raises(CheckpointError, match=r"there is no file .*1_Pooling"):
        SentenceEncoder.read(tmp_path)


@pytest.mark.parametrize(
    ("prompts", "default", "query", "report", "unused"),
    [
        ({"query": "q: ", "document": "d: "}, None, "q: ", "d: ", []),
        ({"query": "q: ", "passage": "p: "}, None, "q: ", "p: ", []),
        ({"query": "q: ", "corpus": "c: "}, None, "q: ", "c: ", []),
        ({"corpus": "c: ", "passage": "p: ", "document": "d: "}, None, "", "d: ", ["corpus", "passage"]),
        ({"query": "q: "}, None, "q: ", "", []),
        ({"query": "", "document": ""}, None, "", "", []),
        ({"all": "a: "}, "all", "a: ", "a: ", []),
        ({"query": "q: ", "all": "a: "}, "all", "q: ", "a: ", []),
        ({"query": "", "all": "a: "}, "all", "", "a: ", []),
        ({"clustering": "c: ", "empty": ""}, None, "", "", ["clustering"]),
        ({}, None, "", "", []),
        (None, None, "", "", []),
    ],
)
def test_prompts_of_queries_and_reports(
    prompts: object, default: str | None, query: str, report: str, unused: list[str], tmp_path: Path
) -> None:
    write_json(tmp_path / PROMPTS, {"prompts": prompts, "default_prompt_name": default})
    folder = SentenceEncoder.read(tmp_path)
    assert (folder.query_prompt(), folder.report_prompt(), folder.unused_prompts()) == (query, report, unused)


def test_a_prompt_may_have_1000_characters(tmp_path: Path) -> None:
    write_json(tmp_path / PROMPTS, {"prompts": {"query": "q" * 1000, "passage": "p" * 1001}})
    folder = SentenceEncoder.read(tmp_path)
    assert len(folder.query_prompt()) == 1000
    with pytest.raises(ConversionError, match=r"the prompt 'passage' .* has 1001 characters.*--report-prefix\.$"):
        folder.report_prompt()
