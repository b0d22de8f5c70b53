"""Which encoders are refused and why, and the layer that pools."""

from __future__ import annotations

import pytest
import torch
from transformers import CONFIG_MAPPING

from models.longformer import REASONS, ConversionError, Form, longformer_config, require_convertible
from models.longformer import _spare as spare
from similarity.encoder.config import CONVERTIBLE_KINDS

CONVERT = "all-MiniLM-L6-v2, all-distilroberta-v1, bge-base-en-v1.5, e5-base-v2"


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("mpnet", "learned relative positions that every attention adds"),
        ("modernbert", "rotary positions"),
        ("nomic_bert", "rotary positions"),
        ("new", "GTE from version 1.5 on .*rotary positions"),
        ("jina_bert", "has no table of positions"),
        ("t5", "a bias for each distance"),
        ("mt5", "a bias for each distance"),
        ("deberta-v2", "relative positions"),
        ("albert", "wasn't tried"),
        ("electra", "wasn't tried"),
        ("qwen3", "a decoder"),
        ("mobilebert", "it must be one of bert, roberta, xlm-roberta, camembert, distilbert"),
        (None, "it must be one of bert, roberta"),
        (["bert"], "it must be one of bert, roberta"),
    ],
)
def test_other_encoders_are_refused_with_the_reason_and_names_that_convert(kind: object, reason: str) -> None:
    with pytest.raises(ConversionError, match=rf"^model_type is .*{reason}.*{CONVERT}.*multilingual-e5-base\.$"):
        require_convertible({"model_type": kind})


@pytest.mark.parametrize("positions", ["rotary", "alibi", "relative_key_query"])
def test_other_positions_are_refused_with_names_that_convert(positions: str) -> None:
    with pytest.raises(ConversionError, match=rf"must be absolute.*not '{positions}'.*{CONVERT}"):
        require_convertible({"model_type": "bert", "position_embedding_type": positions})


def test_no_kind_has_a_reason_and_converts() -> None:
    assert not REASONS.keys() & set(CONVERTIBLE_KINDS)
    for kind in CONVERTIBLE_KINDS:
        require_convertible({"model_type": kind})
        assert kind in CONFIG_MAPPING


def test_a_distilberts_config_has_berts_keys() -> None:
    config = {"model_type": "distilbert", "dim": 6, "n_layers": 2, "n_heads": 3, "hidden_dim": 9, "activation": "gelu"}
    found = longformer_config({**config, "vocab_size": 7}, Form(16, 50, pooling_window=8), pad=4)
    assert found == {
        "model_type": "longformer",
        "architectures": ["LongformerModel"],
        "hidden_size": 6,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "intermediate_size": 9,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "vocab_size": 7,
        "type_vocab_size": 1,
        "pad_token_id": 4,
        "attention_window": [16, 16, 8],
        "max_position_embeddings": 55,
    }


@pytest.mark.parametrize(
    ("form", "fitting"),
    [(Form(512), 257), (Form(512, pooling_window=2048), 257), (Form(512, pooling_window=64), 33)],
)
def test_a_text_fits_if_all_its_tokens_see_each_other(form: Form, fitting: int) -> None:
    assert form.fitting == fitting


def test_a_number_is_spared_if_that_loses_less_than_the_average() -> None:
    ones, zeros = torch.ones(8), torch.zeros(8)
    assert spare(ones, zeros) is None, "the average of the numbers is zero already"
    dead = ones.clone()
    dead[5] = 1e-9
    assert spare(dead, zeros) == 5
    moved = zeros.clone()
    moved[5] = 3
    assert spare(dead, moved) != 5, "the number has a bias, so it isn't near zero"
