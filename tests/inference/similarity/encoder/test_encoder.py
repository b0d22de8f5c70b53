"""Every engine against transformers' own LongformerModel, which computes every position of every layer."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread
from typing import Any, get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from longformers import cls_vector, random_ids, save_longformer
from models.export import export
from models.onnx_graph import BLOCK, SHORT
from reference import LENGTHS, TOLERANCE, load_longformer, reference
from similarity.encoder import torch_encoder
from similarity.encoder.config import LongformerConfig as LongformerFacts
from similarity.encoder.loading import load_encoder
from similarity.encoder.model_folder import ModelFiles
from similarity.encoder.text_encoder import inputs_needed
from similarity.encoder.tokens import tokenizer_errors
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.errors import ModelError
from similarity.settings import Engine, Precision, Settings
from similarity.shelf.usable import FolderModel
from similarity.vectors import Vector
from tiny import ROOT, TINY_MAX_TOKENS, Deployed, cleared, edit_config, roberta_tokenizer, write_tiny_longformer

ENGINES: tuple[Engine, ...] = get_args(Engine)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    engine: Engine = request.param
    return engine


BASE_CONFIG = {
    "model_type": "longformer",
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "attention_window": 512,
    "max_position_embeddings": 4098,
}

CONFIGS: dict[str, dict[str, Any]] = {
    "one window": {},
    "a window for each layer": {"num_hidden_layers": 4, "attention_window": [32, 8, 4, 16]},
    "one layer": {"num_hidden_layers": 1, "attention_window": [8]},
    "one head": {"num_attention_heads": 1},
    "padding at 0, two token types": {"pad_token_id": 0, "type_vocab_size": 2, "max_position_embeddings": 4097},
    "tanh GELU": {"hidden_act": "gelu_new"},
    "window of Longformer-base": {"attention_window": 512, "num_hidden_layers": 3},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_the_cls_vector_is_that_of_transformers(name: str, engine: Engine, tmp_path: Path) -> None:
    model, _ = save_longformer(tmp_path, **CONFIGS[name])
    encoder = load_encoder(tmp_path, engine=engine)
    windows = model.config.attention_window
    assert isinstance(windows, list)
    window = max(windows)
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
        # In the graph: the longest text with swapped factors, and the longest one whose queries are one block.
        SHORT,
        SHORT + 1,
        BLOCK + window,
        BLOCK + window + 1,
        3 * BLOCK + window,
    }:
        ids = random_ids(tokens, seed=tokens)
        assert (cls_vector(encoder, ids) - reference(model, ids)).abs().max() <= TOLERANCE, f"{tokens} tokens"


@pytest.mark.slow
def test_texts_of_every_length_are_exact(tmp_path: Path) -> None:
    model, _ = save_longformer(tmp_path, attention_window=512, num_hidden_layers=12)
    encoders = {engine: load_encoder(tmp_path, engine=engine) for engine in ENGINES}
    for tokens in LENGTHS:
        ids = random_ids(tokens, seed=tokens)
        expected = reference(model, ids)
        for engine, encoder in encoders.items():
            assert (cls_vector(encoder, ids) - expected).abs().max() <= TOLERANCE, f"{engine}, {tokens} tokens"


def test_a_literal_padding_token_in_the_text_is_exact(engine: Engine, tmp_path: Path) -> None:
    model, _ = save_longformer(tmp_path)
    ids = random_ids(40)
    ids[[3, 4, 20]] = 1
    found = cls_vector(load_encoder(tmp_path, engine=engine), ids)
    assert (found - reference(model, ids)).abs().max() <= TOLERANCE


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
    config = LongformerFacts.from_json(BASE_CONFIG)
    assert inputs_needed(4096, config)[0] == 3073
    assert inputs_needed(3072, config)[0] == 3072
    assert inputs_needed(4096, config)[-2:] == [257, 1]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_checkpoints_are_computed_in_float32(dtype: str, engine: Engine, tmp_path: Path) -> None:
    write_tiny_longformer(tmp_path, dtype=dtype)
    model = load_longformer(tmp_path, pooler=True)
    vector = cls_vector(load_encoder(tmp_path, engine=engine), random_ids(50))
    assert vector.dtype == torch.float32
    assert (vector - reference(model, random_ids(50))).abs().max() <= TOLERANCE


def test_a_checkpoint_with_a_head_on_top_loads(
    engine: Engine, tmp_path: Path, tiny_encoder: TorchEncoder, tiny_model_dir: Path
) -> None:
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((tiny_model_dir / name).read_bytes())
    weights = {f"longformer.{name}": tensor for name, tensor in load_file(tiny_model_dir / "model.safetensors").items()}
    save_file({**weights, "lm_head.bias": torch.zeros(600)}, tmp_path / "model.safetensors")
    export(tmp_path)
    ids = random_ids(30)
    found = cls_vector(load_encoder(tmp_path, engine=engine), ids)
    assert (found - tiny_encoder.cls_vector(ids)).abs().max() <= TOLERANCE


def test_encode_gives_vector_and_tokens(tiny_encoder: TorchEncoder, tiny_model_dir: Path) -> None:
    text = "Robots injured workers. " * 40
    ids = roberta_tokenizer().encode(text).ids
    encoding = tiny_encoder.encode(text)
    assert encoding.vector.shape == (tiny_encoder.dimension,)
    assert encoding.tokens.came == len(ids)
    assert encoding.tokens.ids == [*ids[: TINY_MAX_TOKENS - 1], 2]
    expected = reference(load_longformer(tiny_model_dir, pooler=True), torch.tensor(encoding.tokens.ids))
    assert (torch.from_numpy(encoding.vector) - expected).abs().max() <= TOLERANCE


def test_threads_share_an_encoder(engine: Engine, tiny_model_dir: Path) -> None:
    encoder = load_encoder(tiny_model_dir, engine=engine)
    texts = [f"report number {number} " * number for number in range(1, 30)]
    alone = [encoder.encode(text).vector for text in texts]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda text: encoder.encode(text).vector, texts))
    assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(alone, together, strict=True))


@pytest.mark.slow
def test_texts_of_several_threads_are_encoded_one_after_the_other(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = TorchEncoder.load(tiny_model_dir)
    other = Thread(target=encoder.cut_at(20).encode, args=("another text",))
    vectors, waited = TorchEncoder.vectors, []

    def vectors_while_another_asks(encoder: TorchEncoder, texts: Sequence[Sequence[int]]) -> Vector:
        monkeypatch.undo()
        other.start()
        other.join(0.5)  # long enough for a text of two words that doesn't wait
        waited.append(other.is_alive())
        return vectors(encoder, texts)

    monkeypatch.setattr(TorchEncoder, "vectors", vectors_while_another_asks)
    encoder.encode("a text")
    other.join()
    assert waited == [True]


def break_weights(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)


def add_token(path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.add_tokens(["robot"])
    tokenizer.save(str(path))


def edit_tokenizer(folder: Path, **values: object) -> None:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def with_length(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header


def header(places: dict[str, list[int]]) -> bytes:
    """A safetensors file that is all header."""
    entries = {name: {"dtype": "F32", "shape": [1], "data_offsets": place} for name, place in places.items()}
    return with_length(json.dumps(entries).encode())


LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 123456\n"
DEEP = "[" * 200_000

# What is done to a model's folder, and what the log says of it then.
BREAKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda d: (d / "config.json").unlink(), "there is no model in .*: scripts/fetch_model.py"),
    "nothing": (lambda d: shutil.rmtree(d), "there is no model in .*convert_encoder.py --quick-start"),
    "config is no JSON": (lambda d: (d / "config.json").write_text("{"), "it isn't JSON: "),
    "config is a list": (lambda d: (d / "config.json").write_text("[]"), "it holds a list, not an object"),
    "config is empty": (lambda d: (d / "config.json").write_text(""), "is empty"),
    "config is nested too deep": (lambda d: (d / "config.json").write_text('{"a": ' + DEEP), "nested too deeply"),
    "config is a pointer": (lambda d: (d / "config.json").write_bytes(LFS_POINTER), "run `git lfs pull`"),
    "another kind of model": (lambda d: edit_config(d, model_type="t5"), "model_type is 't5', not 'longformer'$"),
    "an encoder to convert": (lambda d: edit_config(d, model_type="bert"), "convert it with scripts/convert"),
    "odd window": (lambda d: edit_config(d, attention_window=[15, 16, 16]), "attention_window must be an even"),
    "a window too few": (lambda d: edit_config(d, attention_window=[16, 16]), "3 even numbers, one for each layer"),
    "no window": (lambda d: edit_config(d, attention_window=None), "attention_window must be an even"),
    "heads that don't divide": (lambda d: edit_config(d, num_attention_heads=5), "isn't a multiple of"),
    "no heads": (lambda d: edit_config(d, num_attention_heads=0), "num_attention_heads must be a whole number from 1"),
    "heads below 0": (lambda d: edit_config(d, num_attention_heads=-4), "num_attention_heads must be a whole number"),
    "heads that are a string": (lambda d: edit_config(d, num_attention_heads="4"), "num_attention_heads must be"),
    "heads that are a boolean": (lambda d: edit_config(d, num_attention_heads=True), "num_attention_heads must be"),
    "layers to fill the memory": (
        lambda d: edit_config(d, num_hidden_layers=1 << 24, attention_window=16), "num_hidden_layers must be a whole"
    ),
    "global attention as a string": (
        lambda d: edit_config(d, global_attention_on_cls="false"), "global_attention_on_cls must be true or false"
    ),
    "a size of 10^30": (lambda d: edit_config(d, hidden_size=10**30), "hidden_size must be a whole number from 1 to"),
    "an epsilon of 0": (lambda d: edit_config(d, layer_norm_eps=0), "layer_norm_eps must be"),
    "no positions": (lambda d: edit_config(d, max_position_embeddings=4), "leaves room for 2 tokens"),
    "unknown activation": (lambda d: edit_config(d, hidden_act="mystery"), "mystery|was made from other files"),
    "more layers than weights": (
        lambda d: edit_config(d, num_hidden_layers=4, attention_window=16), "no tensor|was made from other files"
    ),
    "another size": (lambda d: edit_config(d, hidden_size=64), "has the shape|was made from other files"),
    "no tokenizer": (lambda d: (d / "tokenizer.json").unlink(), "there is no file .*tokenizer.json"),
    "tokenizer is cut": (
        lambda d: (d / "tokenizer.json").write_bytes((d / "tokenizer.json").read_bytes()[:500]), "isn't a tokenizer: "
    ),
    "tokenizer is a pointer": (lambda d: (d / "tokenizer.json").write_bytes(LFS_POINTER), "run `git lfs pull`"),
    "tokenizer is nested too deep": (lambda d: (d / "tokenizer.json").write_text(DEEP), "isn't a tokenizer: "),
    "tokenizer panics": (lambda d: edit_tokenizer(d, normalizer=precompiled("AAAA")), "its code panicked"),
    "more tokens than words": (lambda d: add_token(d / "tokenizer.json"), "tokens, but the model|other files"),
    "no weights": (lambda d: (d / "model.safetensors").unlink(), "there is no file .*model.safetensors"),
    "weights are pickled": (
        lambda d: (d / "model.safetensors").rename(d / "pytorch_model.bin"), "with scripts/fetch_model.py --from"
    ),
    "weights are in shards": (
        lambda d: (d / "model.safetensors").rename(d / "model.safetensors.index.json"), "fetch_model.py --from"
    ),
    "weights are a folder": (
        lambda d: cleared(d / "model.safetensors").mkdir(), "is a folder where a file"
    ),
    "weights are cut": (
        lambda d: break_weights(d, (d / "model.safetensors").read_bytes()[:-1000]), r"but its header describes \d+"
    ),
    "weights go on": (
        lambda d: break_weights(d, (d / "model.safetensors").read_bytes() + b"x"), r"but its header describes \d+"
    ),
    "weights end elsewhere": (lambda d: break_weights(d, header({"a": [0, 10**15]})), r"describes 1\d{15}; copy or"),
    "weights begin before": (lambda d: break_weights(d, header({"a": [-4, 0]})), "has a damaged header"),
    "weights without a place": (lambda d: break_weights(d, header({"a": []})), "has a damaged header"),
    "weights nested too deep": (lambda d: break_weights(d, with_length(DEEP.encode())), "has a damaged header"),
    "weights are cut short": (lambda d: break_weights(d, (d / "model.safetensors").read_bytes()[:100]), "is cut off"),
    "weights are empty": (lambda d: break_weights(d, b""), "is empty"),
    "weights are a pointer": (lambda d: break_weights(d, LFS_POINTER), "run `git lfs pull`"),
    "weights claim a huge header": (lambda d: break_weights(d, b"\xff" * 7 + b"\x7f{}"), "is cut off, or isn't"),
    "provenance is no JSON": (lambda d: (d / "provenance.json").write_text("{"), "provenance.json: it isn't JSON"),
    "provenance is nested too deep": (lambda d: (d / "provenance.json").write_text(DEEP), "nested too deeply"),
    "an installation that was stopped": (lambda d: (d / ".installing").mkdir(), "stopped halfway; to finish it"),
}  # fmt: skip


def precompiled(charsmap: str) -> dict[str, str]:
    """A normalizer that makes the tokenizer's code panic."""
    return {"type": "Precompiled", "precompiled_charsmap": charsmap}


# With torch, only loading the weights shows these. The export writes what it needs to know of them into a graph.
ONLY_LOADING_SHOWS = ("unknown activation", "more layers than weights", "another size", "more tokens than words")


@pytest.mark.slow
@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_model_is_a_model_error(name: str, engine: Engine, tmp_path: Path, tiny_model_dir: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_dir, folder)
    assert load_encoder(folder, engine=engine).dimension == 32
    check = FolderModel(Settings.from_environment({"MODEL_DIR": str(folder)})).require_loadable
    check(engine, "float32")
    damage, reason = BREAKS[name]
    damage(folder)
    if engine == "onnx" or name not in ONLY_LOADING_SHOWS:
        with pytest.raises(ModelError, check=lambda error: bool(re.search(reason, error.detail))):
            check(engine, "float32")
    with pytest.raises(ModelError) as caught:
        load_encoder(folder, engine=engine)
    assert caught.value.status == 503
    assert str(tmp_path) not in str(caught.value)
    assert re.search(reason, caught.value.detail), caught.value.detail
    assert caught.value.detail.isprintable()


def test_a_tokenizer_that_panics_on_a_text_is_a_model_error(tmp_path: Path, tiny_model_dir: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_dir, folder)
    edit_tokenizer(folder, normalizer=precompiled("BAAAAP////8="))
    encoder = TorchEncoder.load(folder)
    with pytest.raises(ModelError) as caught:
        encoder.encode("A secret text")
    assert caught.value.detail == "the tokenizer fails on a text: its code panicked"


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_what_stops_the_process_passes_through_the_tokenizer(stop: type[BaseException]) -> None:
    with pytest.raises(stop), tokenizer_errors("x"):
        raise stop


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_vector_that_is_not_finite_is_a_model_error(
    value: float, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = TorchEncoder.load(tiny_model_dir)
    vectors = encoder.vectors

    def with_a_bad_one(texts: Sequence[Sequence[int]]) -> Vector:
        found = vectors(texts)
        found[-1, 3] = value
        return found

    monkeypatch.setattr(encoder, "vectors", with_a_bad_one)
    with pytest.raises(ModelError) as caught:
        encoder.encode_batch(["one", "two words"])
    assert "gives NaN or infinity for a text of " in caught.value.detail


@pytest.mark.parametrize("values", [{"model": "a"}, {"weights_sha256": None}, {"model": "a", "graph_sha256": []}, {}])
def test_a_folder_of_an_earlier_version_loads(
    values: dict[str, object], engine: Engine, tiny_model_dir: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_dir, folder)
    (folder / "provenance.json").write_text(json.dumps(values))
    encoder = load_encoder(folder, engine=engine)
    encoder.files.require_weights_unchanged()
    assert encoder.name == values.get("model")


def test_weights_that_were_changed_are_told_by_their_hash(tiny_model_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_dir, folder)
    files = ModelFiles(folder)
    sha256 = hashlib.sha256(files.weights_path.read_bytes()).hexdigest()
    (folder / "provenance.json").write_text(json.dumps({"model": "tiny", "weights_sha256": sha256}))
    files.require_weights_unchanged()
    content = bytearray(files.weights_path.read_bytes())
    content[-1] ^= 1
    files.weights_path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        files.require_weights_unchanged()
    assert "isn't the file that was installed" in caught.value.detail


def test_a_fingerprint_tells_models_apart(tmp_path: Path, tiny_encoder: TorchEncoder) -> None:
    (tmp_path / "same").mkdir()
    (tmp_path / "other").mkdir()
    same = TorchEncoder.load(write_tiny_longformer(tmp_path / "same"))
    other = TorchEncoder.load(write_tiny_longformer(tmp_path / "other", seed=1))
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
    monkeypatch.setattr("similarity.encoder.torch_encoder._ONEDNN", None)
    model, encoder = save_longformer(tmp_path, hidden_act="gelu_new")
    for tokens in (1, 40, 600):
        ids = random_ids(tokens)
        assert (encoder.cls_vector(ids) - reference(model, ids)).abs().max() <= TOLERANCE


# CLS attends to all and all attend to it, as transformers computes it where a global_attention_mask says so.
@pytest.mark.slow
@pytest.mark.parametrize("layers", [1, 3])
def test_global_attention_on_cls_is_that_of_transformers(layers: int, engine: Engine, tmp_path: Path) -> None:
    model, _ = save_longformer(tmp_path, num_hidden_layers=layers, attention_window=16)
    edit_config(tmp_path, global_attention_on_cls=True)
    export(tmp_path)
    encoder = load_encoder(tmp_path, engine=engine)
    for tokens in (1, 2, 8, 9, 10, 17, 64, 73, 100, 300):
        ids = random_ids(tokens, seed=tokens)
        expected = reference(model, ids, global_attention_on_cls=True)
        assert (cls_vector(encoder, ids) - expected).abs().max() <= TOLERANCE, f"{tokens} tokens"


def test_global_attention_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    _, encoder = save_longformer(tmp_path)
    edit_config(tmp_path, global_attention_on_cls=True)
    assert TorchEncoder.load(tmp_path).fingerprint != encoder.fingerprint


def test_a_graph_made_from_other_weights_is_refused(tmp_path: Path) -> None:
    write_tiny_longformer(tmp_path)
    graph = (tmp_path / "encoder.onnx").read_bytes()
    write_tiny_longformer(tmp_path, seed=1)
    (tmp_path / "encoder.onnx").write_bytes(graph)
    with pytest.raises(ModelError) as caught:
        load_encoder(tmp_path, engine="onnx")
    assert "with scripts/export_onnx.py" in caught.value.detail


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:999])])
def test_a_graph_that_is_missing_or_cut_is_a_model_error(damage: Callable[[Path], object], tmp_path: Path) -> None:
    damage(write_tiny_longformer(tmp_path) / "encoder.onnx")
    with pytest.raises(ModelError) as caught:
        load_encoder(tmp_path, engine="onnx")
    assert "with scripts/export_onnx.py" in caught.value.detail


def test_a_graph_that_holds_weights_is_not_read_at_each_start(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_dir, folder)
    (folder / "provenance.json").write_text(json.dumps({"graph_sha256": {"encoder.onnx": "0" * 64}}))
    with pytest.raises(ModelError, match="could not be loaded"):
        load_encoder(folder)
    monkeypatch.setattr("similarity.encoder.model_folder._SMALL_BYTES", (folder / "encoder.onnx").stat().st_size - 1)
    files = load_encoder(folder).files
    with pytest.raises(ModelError) as caught:
        files.require_unchanged()
    assert "isn't the file that was exported" in caught.value.detail


SERVES_WITHOUT = """
import builtins, json, sys
sys.path.insert(0, sys.argv[1])
import similar, embed_to_db_similar, text_to_embed
similar.handler({"text": "A robot hurt a worker"}, None)
vector = text_to_embed.handler({"text": "A robot"}, None)["body"]["embedding"]["vector"]
answer = embed_to_db_similar.handler({"embed": vector}, None)
assert answer["statusCode"] == 200, answer
print(sorted({"torch", "transformers", "safetensors"} & set(sys.modules)))
"""


@pytest.mark.slow
def test_the_default_engine_serves_without_torch(deployed: Deployed) -> None:
    command = [sys.executable, "-c", SERVES_WITHOUT, str(ROOT / "inference")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


def test_embed_to_db_similar_loads_no_engine(deployed: Deployed) -> None:
    program = """
import sys
sys.path.insert(0, sys.argv[1])
import embed_to_db_similar
assert embed_to_db_similar.handler({"embed": [1.0] * 32}, None)["statusCode"] == 200
print(sorted({"torch", "onnxruntime", "tokenizers"} & set(sys.modules)))
"""
    command = [sys.executable, "-c", program, str(ROOT / "inference")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


# Random weights have no outliers, so the tolerance is a little wider than what real models need.
@pytest.mark.slow
@pytest.mark.parametrize(("engine", "precision"), [("torch", "bfloat16"), ("onnx", "int8")])
def test_reduced_precision_points_the_same_way(engine: Engine, precision: Precision, tmp_path: Path) -> None:
    model, exact = save_longformer(tmp_path, hidden_size=96, intermediate_size=200, num_hidden_layers=3)
    if engine == "onnx":
        export(tmp_path, precision)
    reduced = load_encoder(tmp_path, engine=engine, precision=precision)
    assert reduced.precision == precision
    assert reduced.fingerprint == exact.fingerprint
    for tokens in (1, 9, 60, 300):
        ids = random_ids(tokens)
        found, expected = cls_vector(reduced, ids), reference(model, ids)
        assert torch.cosine_similarity(found, expected, dim=0) >= 0.995, f"{tokens} tokens"
        assert not torch.equal(found, cls_vector(exact, ids))


@pytest.mark.parametrize("product", [torch.float32, torch.bfloat16])
def test_bfloat16_is_that_on_a_cpu_with_and_without_products_of_it(
    product: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if product == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        monkeypatch.setattr(torch_encoder, "_ONEDNN", None)
    monkeypatch.setitem(torch_encoder._PRODUCTS, torch.bfloat16, product)
    torch.manual_seed(0)
    x, weight, bias = torch.randn(70, 96), torch.randn(40, 96), torch.randn(40)
    linear = torch_encoder.Linear(weight, bias, torch.bfloat16)
    rounded = [each.bfloat16().double() for each in (x, weight, bias)]
    expected = torch.nn.functional.linear(*rounded)
    step = 2**-7 * expected.abs().clamp(min=1)
    assert ((linear(x).double() - expected).abs() <= step).all()
    assert ((linear.gelu(x, "none").double() - torch.nn.functional.gelu(expected)).abs() <= step).all()
    assert torch.equal(linear(x).float(), linear(x).bfloat16().float())
    residual = torch.randn(70, 40)
    assert torch.equal(linear.add(x, residual), residual + linear(x))


@pytest.mark.parametrize(("engine", "precision"), [("torch", "int8"), ("onnx", "bfloat16")])
def test_a_precision_that_an_engine_lacks_is_a_model_error(
    engine: Engine, precision: Precision, tiny_model_dir: Path
) -> None:
    with pytest.raises(ModelError) as caught:
        load_encoder(tiny_model_dir, engine=engine, precision=precision)
    assert "must be one of float32" in caught.value.detail
    assert f"not {precision}" in caught.value.detail


def test_an_engine_that_is_not_installed_is_a_model_error(
    engine: Engine, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = {"onnx": "onnxruntime", "torch": "torch"}[engine]
    for name in ("similarity.encoder.torch_encoder", "similarity.encoder.onnx_encoder"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModelError) as caught:
        load_encoder(tiny_model_dir, engine=engine)
    assert caught.value.detail == f"ENCODER_ENGINE is {engine}, but the package {package} isn't installed"
