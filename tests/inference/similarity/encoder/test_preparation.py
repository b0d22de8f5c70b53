"""How a model's folder wants its texts: transliterated or not, with a prefix for queries or for reports."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers.processors import TemplateProcessing

from databases import computer, database
from reference import load_longformer, reference
from similarity.encoder.config import LongformerConfig
from similarity.encoder.loading import load_encoder
from similarity.encoder.model_folder import ModelFiles
from similarity.encoder.text_encoder import TextEncoder
from similarity.encoder.tokens import TextTokenizer, prepare, prepared
from similarity.errors import ModelError, StateError
from similarity.refresh.build import build_state
from similarity.settings import Engine
from similarity.vectors import Vector
from tiny import (
    MANY_SCRIPTS,
    TINY_MAX_TOKENS,
    edit_config,
    multilingual_tokenizer,
    write_multilingual_longformer,
    write_tiny_longformer,
)

JAPANESE = MANY_SCRIPTS[1]


def model_with(folder: Path, engine: Engine = "torch", **values: object) -> TextEncoder:
    """A tiny Longformer with a multilingual tokenizer and with `values` in its config.json."""
    return load_encoder(write_multilingual_longformer(folder, **values), engine=engine)


def by_transformers(folder: Path, ids: list[int]) -> Vector:
    return reference(load_longformer(folder, pooler=True), torch.tensor(ids)).numpy()


@pytest.mark.slow
@pytest.mark.parametrize("text", MANY_SCRIPTS)
@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_unprepared_texts_get_the_vector_of_their_own_script(text: str, engine: Engine, tmp_path: Path) -> None:
    encoder = model_with(tmp_path, engine)
    ids = multilingual_tokenizer().encode(text).ids
    assert 3 not in ids[1:-1]  # <unk>
    found = encoder.encode(text)
    assert found.tokens.ids == ids
    assert np.abs(found.vector - by_transformers(tmp_path, ids)).max() <= 1e-5


@pytest.mark.parametrize("text", [*MANY_SCRIPTS, "plain", "", "a\ud800b\udfff\ud83d", "\ud800"])
def test_none_drops_lone_surrogates_alone(text: str) -> None:
    kept = re.sub("[\ud800-\udfff]", "", text)
    assert prepare(text, "none") == kept
    assert "".join(prepared(text * 20_000, "none")) == kept * 20_000


def test_a_long_text_without_spaces_is_cut_at_the_maximum() -> None:
    text = JAPANESE * 2000
    expected = multilingual_tokenizer().encode(text[:2000]).ids[: TINY_MAX_TOKENS - 1]
    tokens = TextTokenizer(multilingual_tokenizer(), TINY_MAX_TOKENS, "none")(text)
    assert tokens.ids == [*expected, 2]
    assert not tokens.came_is_exact or tokens.came > TINY_MAX_TOKENS


@pytest.mark.parametrize("text", ["", " \n", "\u3000", "\ud800"])
def test_a_blank_text_is_blank_behind_a_prefix_too(text: str) -> None:
    tokenizer = TextTokenizer(multilingual_tokenizer(), TINY_MAX_TOKENS, "none", "query: ")
    assert tokenizer(text).is_blank
    assert not tokenizer(text + "車").is_blank


@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_queries_and_reports_get_their_own_prefixes(engine: Engine, tmp_path: Path) -> None:
    encoder = model_with(tmp_path, engine, query_prefix="query: ", report_prefix="passage: ")
    for by, prefix in ((encoder, "query: "), (encoder.for_reports(), "passage: ")):
        ids = multilingual_tokenizer().encode(f"{prefix}a fire engine").ids
        found = by.encode("a fire engine")
        assert (found.tokens.ids, found.tokens.came) == (ids, len(ids))
        assert np.abs(found.vector - by_transformers(tmp_path, ids)).max() <= 1e-5
        cut = by.cut_at(len(ids) - 1).encode("a fire engine")
        assert cut.tokens.ids == [*ids[:-2], ids[-1]]
        assert len(cut.tokens.warnings()) == 1


def test_a_prefix_is_prepared_as_the_texts_are(tmp_path: Path) -> None:
    encoder = model_with(tmp_path, text_preparation="unidecode", query_prefix="für: ")
    assert encoder.encode("é").tokens.ids == multilingual_tokenizer().encode("fur: e").ids


def test_a_prefix_must_leave_room_for_a_text(tmp_path: Path) -> None:
    encoder = model_with(tmp_path, query_prefix="query: ", report_prefix="a fire engine on the road: " * 20)
    room = encoder.tokenizer.room()
    fewest = TINY_MAX_TOKENS - room + 1
    assert len(encoder.cut_at(fewest).encode("a").tokens.ids) <= fewest
    with pytest.raises(ModelError) as caught:
        encoder.cut_at(fewest - 1)
    assert "leaves no room for a text" in caught.value.detail
    with pytest.raises(ModelError):
        encoder.for_reports()


def test_special_tokens_must_leave_room_for_a_text(tmp_path: Path) -> None:
    tokenizer = multilingual_tokenizer()
    special = [("<s>", 0), ("</s>", 2)]
    tokenizer.post_processor = TemplateProcessing(single="<s> $A </s> </s>", special_tokens=special)
    model_with(tmp_path)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    encoder = load_encoder(tmp_path, engine="torch")
    assert len(encoder.cut_at(4).encode("a b c").tokens.ids) == 4
    with pytest.raises(ModelError) as caught:
        encoder.cut_at(3)
    assert "special tokens leave no room for a text" in caught.value.detail


def test_a_state_is_built_with_the_prefix_of_reports_and_says_its_preparation(tmp_path: Path) -> None:
    encoder = model_with(tmp_path, query_prefix="query: ", report_prefix="passage: ")
    with computer(encoder) as by:
        made = build_state(
            database({1: [JAPANESE], 2: ["a \ud800 car"]}),
            vectors="computed", responses="include", max_tokens=TINY_MAX_TOKENS, computer=by,
        ).state  # fmt: skip
    assert made.text_preparation == "none"
    for mean, text in zip(made.means, (JAPANESE, "a  car"), strict=True):
        expected = [encoder.vectors([multilingual_tokenizer().encode(prefix + text).ids])[0] for prefix in PREFIXES]
        assert np.abs(mean - expected[1]).max() <= 1e-6
        assert np.abs(mean - expected[0]).max() > 1e-3
    made.require_made_by(encoder, "tiny")
    with pytest.raises(StateError):
        made.require_made_by(model_with(tmp_path, text_preparation="unidecode"), "tiny")


PREFIXES = ("query: ", "passage: ")


def test_defaults_keep_the_fingerprint_and_other_values_change_it(tmp_path: Path) -> None:
    write_tiny_longformer(tmp_path)
    before = ModelFiles(tmp_path).fingerprint()
    edit_config(tmp_path, text_preparation="unidecode", query_prefix="", report_prefix="")
    assert ModelFiles(tmp_path).fingerprint() == before
    others = [{"text_preparation": "none"}, {"query_prefix": "a"}, {"query_prefix": "", "report_prefix": "a"}]
    found = {before}
    for values in others:
        edit_config(tmp_path, **values)
        found.add(ModelFiles(tmp_path).fingerprint())
    assert len(found) == 4


def test_the_identity_of_a_config_is_that_of_before_the_later_keys(tmp_path: Path) -> None:
    write_tiny_longformer(tmp_path)
    config = LongformerConfig.from_json(json.loads((tmp_path / "config.json").read_text()))
    assert config.identity() == (
        "LongformerConfig(hidden_size=32, num_hidden_layers=3, num_attention_heads=4, attention_window=(16, 32, 16), "
        "hidden_act='gelu', layer_norm_eps=1e-05, pad_token_id=1, max_position_embeddings=130)"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [
        {"text_preparation": "lower"},
        {"text_preparation": None},
        {"text_preparation": ["none"]},
        {"query_prefix": 1},
        {"report_prefix": None},
        {"report_prefix": "a" * 1001},
    ],
)
def test_unusable_values_are_refused_by_name(values: dict[str, object], tmp_path: Path) -> None:
    write_tiny_longformer(tmp_path)
    edit_config(tmp_path, **values)
    with pytest.raises(ModelError) as caught:
        load_encoder(tmp_path, engine="torch")
    assert next(iter(values)) in caught.value.detail
