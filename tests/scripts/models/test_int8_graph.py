"""The graph of int8 against transformers, and its arithmetic against a plain one, on every CPU.

`integer_products.py` computes the graph with products of floats, where the CPU's own products would saturate.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, external_data_helper, helper, numpy_helper
from transformers import LongformerModel

from integer_products import (
    int8_on_every_cpu,
    needs_vnni,
    session_of_floats,
    unrounded_weights,
    with_products_of_floats,
)
from longformers import add_pooling, random_ids, save_longformer
from models.export import export
from models.graph_builder import WeightsFile
from models.int8_calibration import calibrate, texts_of
from models.int8_graph import BLOCK, InputScale, Int8Builder, block_of, hadamard, input_of, mixed, rounded_rows
from models.onnx_graph import IR_VERSION, OPSET, encoder_graph
from reference import TOLERANCE, load_longformer, reference
from similarity.encoder.loading import load_encoder
from similarity.encoder.model_folder import ModelFiles
from similarity.encoder.onnx_encoder import start_session
from similarity.encoder.torch_encoder import TorchEncoder
from tiny import edit_config, write_tiny_longformer


@pytest.fixture(autouse=True)
def every_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with int8_on_every_cpu(monkeypatch):
        yield


def random_matrix(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def test_a_row_is_restored_to_half_a_step() -> None:
    weight = random_matrix(5, 50)
    weight[3] = 0
    integers, steps = rounded_rows(weight)
    assert integers.dtype == np.int8
    assert (np.abs(integers).max(axis=1) == [127, 127, 127, 0, 127]).all()
    assert (np.abs(integers * steps[:, None] - weight) <= 0.501 * steps[:, None]).all()


@pytest.mark.parametrize("size", [1, 2, 4, 8, 16, 32])
def test_the_transform_is_orthogonal_and_spreads_a_channel_evenly(size: int) -> None:
    found = hadamard(size).astype(np.float64)
    assert np.allclose(found @ found.T, np.eye(size), atol=1e-6)
    assert np.allclose(found, found.T)
    assert np.allclose(np.abs(found), size**-0.5)


@pytest.mark.parametrize(
    ("channels", "block"), [(768, 32), (3072, 32), (64, 32), (32, 32), (48, 16), (200, 8), (20, 4), (5, 1)]
)
def test_blocks_divide_the_channels(channels: int, block: int) -> None:
    assert block_of(channels) == block <= BLOCK


def test_each_block_is_mixed_alone() -> None:
    values = random_matrix(3, 96)
    found = mixed(values)
    for start in (0, 32, 64):
        block = slice(start, start + 32)
        assert np.allclose(found[:, block], values[:, block] @ hadamard(32), atol=1e-6)
    assert np.allclose(mixed(found), values, atol=1e-6)
    # Groups of 24 channels have blocks of 8.
    assert np.allclose(mixed(values, 24)[:, 8:16], values[:, 8:16] @ hadamard(8), atol=1e-6)


def test_query_key_and_value_share_an_input() -> None:
    name = "encoder.layer.3.attention.self"
    assert {input_of(f"{name}.{part}") for part in ("query", "key", "value")} == {"encoder.layer.3"}
    for other in (f"{name}.query_global", "encoder.layer.3.intermediate.dense"):
        assert input_of(other) == other


def calibrated(folder: Path) -> tuple[TorchEncoder, WeightsFile, dict[str, InputScale]]:
    encoder = TorchEncoder.load(folder)
    weights = WeightsFile(folder / "model.safetensors")
    return encoder, weights, calibrate(folder, encoder.config, weights, texts_of(encoder.tokenizer))


def vector_of(session: onnxruntime.InferenceSession, ids: torch.Tensor) -> torch.Tensor:
    (vector,) = session.run(None, {"ids": ids.numpy()})
    return torch.from_numpy(vector)


# Blocks of 32 and fewer channels, in the hidden layer, a head and the feed-forward layer.
FORMS: dict[str, dict[str, Any]] = {
    "one layer": {"num_hidden_layers": 1},
    "two layers": {},
    "four layers, a window for each": {"num_hidden_layers": 4, "attention_window": [32, 8, 4, 16]},
    "heads of 32": {"num_hidden_layers": 3, "hidden_size": 96, "num_attention_heads": 3, "intermediate_size": 200},
    "odd heads": {"num_hidden_layers": 3, "hidden_size": 20, "intermediate_size": 50},
    "one head, tanh GELU": {"num_hidden_layers": 3, "num_attention_heads": 1, "hidden_act": "gelu_new"},
    "PyTorch's tanh GELU": {"num_hidden_layers": 3, "hidden_act": "gelu_pytorch_tanh"},
    "two token types, padding at 0": {"pad_token_id": 0, "type_vocab_size": 2, "max_position_embeddings": 4097},
}
LENGTHS = (1, 2, 3, 8, 9, 10, 16, 17, 40, 130)


def assert_exact_without_rounding(folder: Path, model: LongformerModel, *, global_attention: bool = False) -> None:
    """Smoothing and transforms cancel out: with nothing rounded, the graph is transformers' model."""
    encoder, weights, scales = calibrated(folder)
    with pytest.MonkeyPatch.context() as patch:
        unrounded_weights(patch)
        graph = encoder_graph(Int8Builder(weights, encoder.config, scales, "unused.bin"), encoder.config, {})
    assert any(node.op_type == "MatMulIntegerToFloat" for node in graph.graph.node)
    path = folder / "unrounded.onnx"
    path.write_bytes(with_products_of_floats(graph, rounds=False).SerializeToString())
    session = start_session(path, "float32")
    for tokens in LENGTHS:
        ids = random_ids(tokens, seed=tokens)
        expected = reference(model, ids, global_attention_on_cls=global_attention)
        assert (vector_of(session, ids) - expected).abs().max() <= TOLERANCE, f"{tokens} tokens"


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMS)
def test_without_rounding_the_graph_is_exact(name: str, tmp_path: Path) -> None:
    model, _ = save_longformer(tmp_path, **FORMS[name])
    assert_exact_without_rounding(tmp_path, model)


@pytest.mark.slow
@pytest.mark.parametrize("layers", [2, 3])
def test_without_rounding_global_attention_is_exact(layers: int, tmp_path: Path) -> None:
    model, _ = save_longformer(tmp_path, num_hidden_layers=layers)
    edit_config(tmp_path, global_attention_on_cls=True)
    assert_exact_without_rounding(tmp_path, model, global_attention=True)


def test_one_layer_with_global_attention_has_nothing_to_round(tmp_path: Path) -> None:
    model, _ = save_longformer(tmp_path, num_hidden_layers=1)
    edit_config(tmp_path, global_attention_on_cls=True)
    export(tmp_path, "int8")
    ids = random_ids(40)
    (found,) = load_encoder(tmp_path, precision="int8").vectors([ids.tolist()])
    expected = reference(model, ids, global_attention_on_cls=True)
    assert (torch.from_numpy(found) - expected).abs().max() <= TOLERANCE


@pytest.mark.slow
def test_without_rounding_mean_pooling_is_exact(tmp_path: Path) -> None:
    save_longformer(tmp_path, num_hidden_layers=3)
    assert_exact_without_rounding(tmp_path, add_pooling(tmp_path, 32))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_without_rounding_a_checkpoint_of_half_precision_is_exact(dtype: str, tmp_path: Path) -> None:
    write_tiny_longformer(tmp_path, dtype=dtype)
    model = load_longformer(tmp_path, pooler=True)
    encoder, weights, _ = calibrated(tmp_path)
    assert weights.read("encoder.layer.0.output.dense.weight").dtype == np.float32
    assert encoder.config.max_tokens < LENGTHS[-1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{__name__}.LENGTHS", (1, 9, 100))
        assert_exact_without_rounding(tmp_path, model)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMS)
def test_int8_points_the_same_way_as_transformers(name: str, tmp_path: Path) -> None:
    model, exact = save_longformer(tmp_path, **FORMS[name])
    export(tmp_path, "int8")
    encoder = load_encoder(tmp_path, precision="int8")
    assert (encoder.precision, encoder.fingerprint) == ("int8", exact.fingerprint)
    for tokens in LENGTHS:
        ids = random_ids(tokens, seed=tokens)
        found, expected = torch.from_numpy(encoder.vectors([ids.tolist()])[0]), reference(model, ids)
        # Random weights have no outliers, so the tolerance is a little wider than what real models need.
        assert torch.cosine_similarity(found, expected, dim=0) >= 0.995, f"{tokens} tokens"
        assert not torch.equal(found, exact.cls_vector(ids))


NATIVE_OR_FLOATS = [pytest.param("native", marks=needs_vnni), "floats"]


def model_of(build: Int8Builder, outputs: list[str], channels: int) -> onnx.ModelProto:
    """A graph of linear layers alone: x (tokens, channels) -> outputs."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["tokens", channels])
    gives = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(build.nodes, "products", [x], gives, list(build.initializers.values()))
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


@pytest.mark.parametrize("products", NATIVE_OR_FLOATS)
def test_products_are_those_of_integers(products: str, tmp_path: Path) -> None:
    """The largest integers there are, whose sums of two need more than 16 bits, against Python's own integers.

    All scales are powers of two, and the transforms have blocks of four: so only the products round.
    """
    save_longformer(tmp_path, num_hidden_layers=4, hidden_size=20, intermediate_size=36)
    weights = WeightsFile(tmp_path / "model.safetensors")
    config = ModelFiles(tmp_path).config()
    generator = np.random.default_rng(0)
    x = generator.choice([-127.0, 126.0, 127.0], (7, 20)).astype(np.float32)
    x = mixed(x)  # so that the graph's transform gives integers
    name = "encoder.layer.0.intermediate.dense"
    scales = {name: InputScale(np.full(20, 0.5, np.float32), 2.0)}
    build = Int8Builder(weights, config, scales, "weights.bin")
    found = build.linear("x", name)
    summed = build.linear_sum("x", "encoder.layer.0.attention.output.dense", "x")
    path = tmp_path / "products.onnx"
    path.write_bytes(model_of(build, [found, summed], 20).SerializeToString())
    (tmp_path / "weights.bin").write_bytes(build.content)
    session = start_session(path, "int8") if products == "native" else session_of_floats(path)
    by_linear, by_sum = session.run(None, {"x": x})

    weight, bias = weights.read(f"{name}.weight"), weights.read(f"{name}.bias")
    integers, steps = rounded_rows(mixed(weight * np.float32(0.5)))
    inputs = np.rint(mixed(x)).astype(np.int64)
    exact = inputs @ integers.T.astype(np.int64)
    assert np.abs(exact).max() > 2**15
    assert np.allclose(
        by_linear, exact * steps.astype(np.float64) * 2.0 + bias, rtol=1e-5, atol=1e-5 * np.abs(exact * steps).max()
    )

    name = "encoder.layer.0.attention.output.dense"
    weight, bias = weights.read(f"{name}.weight"), weights.read(f"{name}.bias")
    integers, steps = rounded_rows(mixed(weight, 5))
    largest = np.abs(x).max(axis=1, keepdims=True)
    exact = np.rint(x / largest * 127).astype(np.int64) @ integers.T.astype(np.int64)
    expected = exact * steps.astype(np.float64) * (largest / 127) + bias + x
    assert np.allclose(by_sum, expected, rtol=1e-5, atol=1e-4 * np.abs(expected).max())


@needs_vnni
@pytest.mark.slow
@pytest.mark.parametrize("name", ["heads of 32", "odd heads", "four layers, a window for each"])
def test_native_products_point_the_same_way_as_those_of_floats(name: str, tmp_path: Path) -> None:
    """A rounding error may move an input by a whole step, and random weights carry that on."""
    save_longformer(tmp_path, **FORMS[name])
    export(tmp_path, "int8")
    path = tmp_path / "encoder.int8.onnx"
    native, floats = start_session(path, "int8"), session_of_floats(path)
    for tokens in LENGTHS:
        ids = random_ids(tokens, seed=tokens)
        found, expected = vector_of(native, ids), vector_of(floats, ids)
        assert torch.cosine_similarity(found, expected, dim=0) >= 0.998, f"{tokens} tokens"


def test_the_integer_weights_lie_in_whole_pages_of_a_file_of_their_own(tmp_path: Path) -> None:
    save_longformer(tmp_path, num_hidden_layers=3)
    export(tmp_path, "int8")
    graph = onnx.load(tmp_path / "encoder.int8.onnx", load_external_data=False)
    files: dict[str, list[tuple[int, int]]] = {}
    for tensor in graph.graph.initializer:
        if external_data_helper.uses_external_data(tensor):
            place = {each.key: each.value for each in tensor.external_data}
            files.setdefault(place["location"], []).append((int(place["offset"]), int(place["length"])))
            if place["location"] == "encoder.int8.bin":
                assert tensor.data_type == TensorProto.INT8
    assert files.keys() == {"model.safetensors", "encoder.int8.bin"}
    size = (tmp_path / "encoder.int8.bin").stat().st_size
    end = 0
    for offset, length in sorted(files["encoder.int8.bin"]):
        assert offset % 4096 == 0
        assert end <= offset
        end = offset + length
    assert end == size


def test_the_weights_in_the_file_are_those_of_the_model(tmp_path: Path) -> None:
    """The second feed-forward layer's, which a transform of the channels mixes: undone, they are off by half a step."""
    save_longformer(tmp_path, num_hidden_layers=3)
    export(tmp_path, "int8")
    graph = onnx.load(tmp_path / "encoder.int8.onnx")
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    name = "encoder.layer.1.output.dense.weight"
    expected = WeightsFile(tmp_path / "model.safetensors").read(name)
    integers = tensors[f"{name}.int8"].T.astype(np.float32)  # (out, in)
    steps = np.abs(mixed(expected)).max(axis=1) / 127
    restored = mixed(integers * steps[:, None])
    # A transform of 16 numbers, each off by half a step at most.
    assert (np.abs(restored - expected) <= 0.51 * 4 * steps[:, None]).all()
    assert np.abs(restored - expected).mean() < 0.3 * steps.mean()


def test_calibration_depends_on_the_model_and_the_sample_alone(tmp_path: Path) -> None:
    save_longformer(tmp_path, num_hidden_layers=3)
    before = {path.name for path in tmp_path.iterdir()}
    encoder, _, first = calibrated(tmp_path)
    _, _, second = calibrated(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == before
    layers = [f"encoder.layer.{index}" for index in range(3)]
    assert first.keys() == {*layers, *(f"{layer}.intermediate.dense" for layer in layers)}
    for source, scale in first.items():
        assert scale.smoothing.shape == (encoder.dimension,)
        assert (scale.smoothing > 0).all()
        assert scale.scale > 0
        assert np.array_equal(scale.smoothing, second[source].smoothing)
        assert scale.scale == second[source].scale


@pytest.mark.slow
def test_calibration_sees_the_inputs_that_transformers_gives_the_layers(tmp_path: Path) -> None:
    """Smoothing, worked out anew from transformers' own layers, for short texts that no layer cuts."""
    model, encoder = save_longformer(tmp_path, num_hidden_layers=3, attention_window=64)
    weights = WeightsFile(tmp_path / "model.safetensors")
    texts = [random_ids(tokens, seed=tokens) for tokens in (5, 12, 20)]
    found = calibrate(tmp_path, encoder.config, weights, [ids.numpy() for ids in texts])
    seen: list[torch.Tensor] = []
    layer: Any = model.encoder.layer[1]
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0]))
    padded = [reference(model, ids) for ids in texts]
    hook.remove()
    assert len(padded) == len(seen) == 3
    # transformers pads a text to whole windows.
    rows = torch.cat([each[: len(ids)] for each, ids in zip(seen, texts, strict=True)])
    largest = rows.abs().amax(dim=0).double()
    attention = layer.attention.self
    columns = torch.stack([part.weight.abs().amax(dim=0) for part in (attention.query, attention.key, attention.value)])
    expected = largest**0.7 / columns.amax(dim=0).double() ** 0.3
    assert np.allclose(found["encoder.layer.1"].smoothing, expected.detach().numpy(), rtol=1e-4)


def test_a_channel_that_is_always_zero_gets_a_scale(tmp_path: Path) -> None:
    """Mean pooling has query and key of zeros."""
    save_longformer(tmp_path)
    model = add_pooling(tmp_path, 32)
    export(tmp_path, "int8")
    encoder = load_encoder(tmp_path, precision="int8")
    ids = random_ids(12)
    found = torch.from_numpy(encoder.vectors([ids.tolist()])[0])
    assert torch.cosine_similarity(found, reference(model, ids), dim=0) >= 0.99


def test_texts_of_the_calibration_fit_the_model(tiny_model_dir: Path) -> None:
    encoder = TorchEncoder.load(tiny_model_dir)
    texts = texts_of(encoder.tokenizer)
    assert max(map(len, texts)) == encoder.max_tokens
    assert min(map(len, texts)) > 2
    assert all(text.dtype == np.int64 for text in texts)


def test_int8_may_differ_by_a_quarter_of_its_distance_from_float32(tmp_path: Path) -> None:
    model, _ = save_longformer(tmp_path, num_hidden_layers=3)
    report = export(tmp_path, "int8")
    written = json.loads((tmp_path / "encoder.int8.json").read_bytes())
    ids = torch.tensor(written["self_test"]["ids"])
    assert len(ids) == 5
    expected = reference(model, ids).double()
    found = torch.tensor(written["self_test"]["vector"]).double()
    distance = float((found - expected).norm() / expected.norm())
    assert report.tolerance == pytest.approx(distance / 4, rel=1e-3)
    assert written["self_test"]["tolerance"] == report.tolerance
    assert written["agreement"] is None
    assert ModelFiles(tmp_path).has_graph("int8")
