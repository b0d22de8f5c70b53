"""The encoder against transformers' own LongformerModel, which computes every position of every layer."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import LongformerConfig, LongformerModel

from similarity.encoder import Encoder, inputs_needed
from similarity.errors import ModelError
from tiny import TINY_MAX_TOKENS, roberta_tokenizer, write_tiny_longformer

TOLERANCE = 1e-5


def save_longformer(folder: Path, *, seed: int = 0, **config: object) -> tuple[LongformerModel, Encoder]:
    """A random Longformer, as transformers and as our encoder load it."""
    torch.manual_seed(seed)
    model = LongformerModel(
        LongformerConfig(
            **{
                "vocab_size": 600,
                "hidden_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "intermediate_size": 48,
                "attention_window": 16,
                "max_position_embeddings": 4098,
                "type_vocab_size": 1,
                "pad_token_id": 1,
                "initializer_range": 0.2,
                **config,
            }
        )
    ).eval()
    model.save_pretrained(folder)
    roberta_tokenizer().save(str(folder / "tokenizer.json"))
    return model, Encoder.load(folder)


def reference(model: LongformerModel, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return model(ids.unsqueeze(0)).last_hidden_state[0, 0]


def random_ids(tokens: int, seed: int = 0) -> Tensor:
    return torch.randint(4, 600, (tokens,), generator=torch.Generator().manual_seed(seed))


CONFIGS = {
    "one window": {},
    "a window for each layer": {"num_hidden_layers": 4, "attention_window": [32, 8, 4, 16]},
    "one layer": {"num_hidden_layers": 1, "attention_window": [8]},
    "one head": {"num_attention_heads": 1},
    "padding at 0, two token types": {"pad_token_id": 0, "type_vocab_size": 2, "max_position_embeddings": 4097},
    "tanh GELU": {"hidden_act": "gelu_new"},
    "window of Longformer-base": {"attention_window": 512, "num_hidden_layers": 3},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_cls_vector_is_that_of_transformers(name: str, tmp_path: Path) -> None:
    model, encoder = save_longformer(tmp_path, **CONFIGS[name])
    window = max(model.config.attention_window)
    for tokens in {
        1,
        2,
        3,
        window // 2,
        window // 2 + 1,
        window // 2 + 2,
        window - 1,
        window,
        window + 1,
        3 * window + 5,
    }:
        ids = random_ids(tokens, seed=tokens)
        assert (encoder.cls_vector(ids) - reference(model, ids)).abs().max() <= TOLERANCE, f"{tokens} tokens"


def test_the_longest_text_is_exact(tmp_path: Path) -> None:
    model, encoder = save_longformer(tmp_path, attention_window=512, num_hidden_layers=12)
    ids = random_ids(4096)
    assert (encoder.cls_vector(ids) - reference(model, ids)).abs().max() <= TOLERANCE


def test_a_literal_padding_token_in_the_text_is_exact(tmp_path: Path) -> None:
    model, encoder = save_longformer(tmp_path)
    ids = random_ids(40)
    ids[[3, 4, 20]] = 1
    # A text's mask is all ones, whatever its tokens are.
    with torch.no_grad():
        expected = model(ids.unsqueeze(0), attention_mask=torch.ones(1, 40)).last_hidden_state[0, 0]
    assert (encoder.cls_vector(ids) - expected).abs().max() <= TOLERANCE


def test_what_the_cls_vector_depends_on_is_what_is_computed(tmp_path: Path) -> None:
    _, encoder = save_longformer(tmp_path, num_hidden_layers=3, attention_window=[8, 4, 16])
    reach = 1 + 4 + 2 + 8
    ids = random_ids(60)
    before, at_the_edge, beyond = encoder.cls_vector(ids), ids.clone(), ids.clone()
    at_the_edge[reach - 1] = 5 if ids[reach - 1] != 5 else 6
    beyond[reach:] = random_ids(60 - reach, seed=9)
    assert not torch.equal(encoder.cls_vector(at_the_edge), before)
    assert torch.equal(encoder.cls_vector(beyond), before)


def test_the_contract_says_that_longformer_base_sees_3073_tokens() -> None:
    assert inputs_needed(4096, (512,) * 12)[0] == 3073
    assert inputs_needed(3072, (512,) * 12)[0] == 3072
    assert inputs_needed(4096, (512,) * 12)[-2:] == [257, 1]


def test_half_precision_checkpoints_are_computed_in_float32(tmp_path: Path) -> None:
    write_tiny_longformer(tmp_path, dtype="bfloat16")
    model = LongformerModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    vector = Encoder.load(tmp_path).cls_vector(random_ids(50))
    assert vector.dtype == torch.float32
    assert (vector - reference(model, random_ids(50))).abs().max() <= TOLERANCE


def test_a_checkpoint_with_a_head_on_top_loads(tmp_path: Path, tiny_encoder: Encoder, tiny_model_dir: Path) -> None:
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((tiny_model_dir / name).read_bytes())
    weights = {f"longformer.{name}": tensor for name, tensor in load_file(tiny_model_dir / "model.safetensors").items()}
    save_file({**weights, "lm_head.bias": torch.zeros(600)}, tmp_path / "model.safetensors")
    ids = random_ids(30)
    assert torch.equal(Encoder.load(tmp_path).cls_vector(ids), tiny_encoder.cls_vector(ids))


def test_encode_gives_vector_and_tokens(tiny_encoder: Encoder, tiny_model_dir: Path) -> None:
    text = "Robots injured workers. " * 40
    ids = roberta_tokenizer().encode(text).ids
    encoding = tiny_encoder.encode(text)
    assert encoding.vector.shape == (tiny_encoder.dimension,)
    assert encoding.tokens.came == len(ids)
    assert encoding.tokens.ids == [*ids[: TINY_MAX_TOKENS - 1], 2]
    model = LongformerModel.from_pretrained(tiny_model_dir).eval()
    assert (encoding.vector - reference(model, torch.tensor(encoding.tokens.ids))).abs().max() <= TOLERANCE


def test_threads_share_an_encoder(tiny_encoder: Encoder) -> None:
    texts = [f"report number {number} " * number for number in range(1, 30)]
    alone = [tiny_encoder.encode(text).vector for text in texts]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda text: tiny_encoder.encode(text).vector, texts))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(alone, together, strict=True))


def break_weights(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)


def edit_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def add_token(path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.add_tokens(["robot"])
    tokenizer.save(str(path))


BREAKS = {
    "no config": lambda d: (d / "config.json").unlink(),
    "config is no JSON": lambda d: (d / "config.json").write_text("{"),
    "config is a list": lambda d: (d / "config.json").write_text("[]"),
    "another kind of model": lambda d: edit_config(d, model_type="bert"),
    "odd window": lambda d: edit_config(d, attention_window=[15, 16, 16]),
    "a window too few": lambda d: edit_config(d, attention_window=[16, 16]),
    "heads that don't divide": lambda d: edit_config(d, num_attention_heads=5),
    "unknown activation": lambda d: edit_config(d, hidden_act="mystery"),
    "more layers than weights": lambda d: edit_config(d, num_hidden_layers=4, attention_window=16),
    "another size": lambda d: edit_config(d, hidden_size=64),
    "no tokenizer": lambda d: (d / "tokenizer.json").unlink(),
    "tokenizer is cut": lambda d: (d / "tokenizer.json").write_bytes((d / "tokenizer.json").read_bytes()[:500]),
    "more tokens than words": lambda d: add_token(d / "tokenizer.json"),
    "no weights": lambda d: (d / "model.safetensors").unlink(),
    "weights are cut": lambda d: break_weights(d, (d / "model.safetensors").read_bytes()[:-1000]),
    "weights are empty": lambda d: break_weights(d, b""),
    "weights are text": lambda d: break_weights(d, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_model_is_a_model_error(name: str, tmp_path: Path, tiny_model_dir: Path) -> None:
    for path in tiny_model_dir.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert Encoder.load(tmp_path).dimension == 32
    BREAKS[name](tmp_path)
    with pytest.raises(ModelError) as caught:
        Encoder.load(tmp_path)
    assert caught.value.status == 500
    assert str(tmp_path) not in str(caught.value)
    assert caught.value.detail


def test_a_fingerprint_tells_models_apart(tmp_path: Path, tiny_encoder: Encoder) -> None:
    (tmp_path / "same").mkdir()
    (tmp_path / "other").mkdir()
    same = Encoder.load(write_tiny_longformer(tmp_path / "same"))
    other = Encoder.load(write_tiny_longformer(tmp_path / "other", seed=1))
    assert same.fingerprint == tiny_encoder.fingerprint
    assert other.fingerprint != tiny_encoder.fingerprint
    assert same.name == "tiny"


def test_texts_in_one_pass_get_what_each_gets_alone(tmp_path: Path) -> None:
    model, encoder = save_longformer(tmp_path, num_hidden_layers=3, attention_window=[16, 8, 4])
    texts = [random_ids(tokens, seed=tokens) for tokens in (1, 2, 200, 5, 8, 9, 17, 64, 3)]
    together = encoder.cls_vectors(texts)
    assert together.shape == (len(texts), 32)
    for ids, vector in zip(texts, together, strict=True):
        assert (vector - reference(model, ids)).abs().max() <= TOLERANCE, f"{len(ids)} tokens"


def test_without_packed_weights_the_vector_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("similarity.layers._ONEDNN", None)
    model, encoder = save_longformer(tmp_path, hidden_act="gelu_new")
    for tokens in (1, 40, 600):
        ids = random_ids(tokens)
        assert (encoder.cls_vector(ids) - reference(model, ids)).abs().max() <= TOLERANCE
