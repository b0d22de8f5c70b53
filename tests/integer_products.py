"""The graph of int8 with products of floats in place of products of integers: the same on every CPU.

CPUs without VNNI saturate where they multiply 8-bit integers, so that tests of the vectors would depend on the CPU.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from similarity.encoder import onnx_encoder
from similarity.encoder.cpu import lack_of
from similarity.settings import Precision

LACK = lack_of("int8")
needs_vnni = pytest.mark.skipif(LACK is not None, reason=f"{LACK}")

_start_session = onnx_encoder.start_session


def with_products_of_floats(graph: onnx.ModelProto, *, rounds: bool = True) -> onnx.ModelProto:
    """The same computation without operators of integers. rounds: whether inputs are still rounded and cut off.

    The definitions are those of the operators: MatMulIntegerToFloat multiplies a - zero by b - zero and by both scales,
    and adds a bias; QuantizeLinear divides by its scale, rounds, adds its zero, and cuts off.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(graph)
    nodes: list[onnx.NodeProto] = []

    def add(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    for node in graph.graph.node:
        out = node.output[0]
        if node.op_type == "MatMulIntegerToFloat":
            a, b, a_scale, b_scale, a_zero, b_zero, bias = (list(node.input) + [""] * 7)[:7]
            factors = []
            for factor, scale, zero in ((a, a_scale, a_zero), (b, b_scale, b_zero)):
                name = add("Cast", [factor], f"{out} {factor} float", to=TensorProto.FLOAT)
                if zero:
                    below = add("Cast", [zero], f"{out} {factor} zero", to=TensorProto.FLOAT)
                    name = add("Sub", [name, below], f"{out} {factor} centered")
                factors.append(add("Mul", [name, scale], f"{out} {factor} scaled"))
            summed = add("MatMul", factors, f"{out} product" if bias else out)
            if bias:
                add("Add", [summed, bias], out)
        elif node.op_type == "QuantizeLinear" and not rounds:
            x, scale, zero = node.input
            divided = add("Div", [x, scale], f"{out} divided")
            add("Add", [divided, add("Cast", [zero], f"{out} zero", to=TensorProto.FLOAT)], out)
        else:
            nodes.append(node)
    del changed.graph.node[:]
    changed.graph.node.extend(nodes)
    return changed


def session_of_floats(path: Path) -> onnxruntime.InferenceSession:
    """The graph `path` of int8, computed with products of floats."""
    graph = with_products_of_floats(onnx.load(path, load_external_data=False))
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".new-", suffix=".onnx") as file:
        file.write(graph.SerializeToString())
        file.flush()
        return _start_session(Path(file.name), "float32")


@contextmanager
def int8_on_every_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where the CPU lacks VNNI: this process takes int8 for native, and computes it with products of floats."""

    def start_session(path: Path, precision: Precision) -> onnxruntime.InferenceSession:
        return session_of_floats(path) if precision == "int8" else _start_session(path, precision)

    with monkeypatch.context() as patch:
        if LACK:
            for module in ("similarity.encoder.loading", "models.export"):
                patch.setattr(
                    f"{module}.lack_of", lambda precision: None if precision == "int8" else lack_of(precision)
                )
            patch.setattr(onnx_encoder, "start_session", start_session)
        yield


def unrounded_weights(patch: pytest.MonkeyPatch) -> None:
    """Lets the graph of int8 keep its weights as floats, so that only the inputs are rounded."""

    def steps_alone(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        steps = np.abs(weight).max(axis=1) / np.float32(127)
        steps[steps == 0] = 1
        return weight / steps[:, None], steps

    def inside(build: object, name: str, value: np.ndarray) -> str:
        tensors: dict[str, TensorProto] = build.initializers  # type: ignore[attr-defined]
        tensors[name] = numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name)
        return name

    patch.setattr("models.int8_graph.rounded_rows", steps_alone)
    patch.setattr("models.int8_graph.Int8Builder._mapped", inside)
