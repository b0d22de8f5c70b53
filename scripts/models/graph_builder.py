"""Parts of an ONNX graph: nodes, and initialisers that name the place of a tensor in a safetensors file.

`models.onnx_graph` builds the encoder from them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

from similarity.encoder.safetensors_header import read_header
from similarity.errors import ModelError

_NUMPY_TYPES = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "BF16": "<u2"}


class WeightsFile:
    """The tensors of a safetensors file and their places in it. Names are without a head's prefix."""

    def __init__(self, path: Path) -> None:
        """Raises ModelError if the file is cut off, damaged or of another format."""
        self.path = path
        self._places = read_header(path)
        self._prefix = "longformer." if any(name.startswith("longformer.") for name in self._places) else ""

    def shape(self, name: str) -> tuple[int, ...]:
        return self._places[self._prefix + name].shape

    def read(self, name: str) -> NDArray[np.float32]:
        """The tensor as float32."""
        place = self._places[self._prefix + name]
        with self.path.open("rb") as file:
            file.seek(place.start)
            content = file.read(place.end - place.start)
        array = np.frombuffer(content, _NUMPY_TYPES[place.dtype]).reshape(place.shape)
        if place.dtype == "BF16":  # the upper half of a float32
            return (array.astype("u4") << 16).view("f4")
        with np.errstate(over="ignore"):  # `require_finite` reports it
            return array.astype(np.float32)

    def require_finite(self) -> None:
        """Raises ModelError if a number of the encoder is NaN, infinite or too large for float32."""
        for name, place in self._places.items():
            short = name.removeprefix(self._prefix)
            if not short.startswith(("embeddings.", "encoder.")) or place.dtype not in _NUMPY_TYPES:
                continue
            if bad := int(np.count_nonzero(~np.isfinite(self.read(short)))):
                raise ModelError(
                    f"{bad} numbers of the weights {name} are NaN, infinite or too large for float32: "
                    "the file is damaged, or the training failed"
                )

    def initializer(self, name: str, *, column: str | None = None) -> TensorProto:
        """The tensor as an initialiser: float32 by its place, other types converted and inside the graph.

        column: the name of an initialiser of shape (length, 1), for a tensor that is a vector.
        """
        place = self._places[self._prefix + name]
        shape = (*place.shape, 1) if column else place.shape
        if place.dtype != "F32":
            return numpy_helper.from_array(self.read(name).reshape(shape), column or name)
        tensor = TensorProto(
            name=column or name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL
        )
        length = place.end - place.start
        for key, value in (("location", self.path.name), ("offset", place.start), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
        return tensor


class GraphBuilder:
    """Collects nodes and initialisers. Methods take and return names of values."""

    def __init__(self, weights: WeightsFile, *, fused: bool = True) -> None:
        self.weights = weights
        self.fused = fused
        # Whether short texts take a branch of their own.
        self.has_short_way = fused
        self.swaps = False
        # By the name of a linear layer: the name of its input.
        self.inputs: dict[str, str] = {}
        self._names = itertools.count()
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, TensorProto] = {}

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Adds a node with one output, and returns the output's name."""
        name = f"{kind}_{next(self._names)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, domain=domain, **attributes))
        return name

    def constant(self, value: ArrayLike, dtype: type[np.generic] = np.int64) -> str:
        array = np.array(value, dtype=dtype)
        name = f"{array.dtype}_{array.shape}_{array.tolist()}"
        self.initializers.setdefault(name, numpy_helper.from_array(array, name))
        return name

    def weight(self, name: str) -> str:
        if name not in self.initializers:
            self.initializers[name] = self.weights.initializer(name)
        return name

    def branch(self, name: str, make: Callable[[], str], size: int) -> onnx.GraphProto:
        """The nodes that `make` adds, as one branch of an `If`. It gives the value that `make` names, (size,)."""
        outside, self.nodes = self.nodes, []
        output = helper.make_tensor_value_info(make(), TensorProto.FLOAT, [size])
        inside, self.nodes = self.nodes, outside
        return helper.make_graph(inside, name, [], [output])

    def linear(self, x: str, name: str, rows: int | None = None) -> str:
        """x W^T + b for the first `rows` rows of x; None: for all."""
        self.inputs[name] = x
        x = x if rows is None else self.first(x, rows)
        weight = self.weight(f"{name}.weight")
        if not self.swaps:
            return self.op("Gemm", x, weight, self.weight(f"{name}.bias"), transB=1)
        # (W x^T + b)^T. At each product ONNX Runtime copies the second factor into another order. If that is the
        # weight, the copy takes longer than the product for a short text.
        column = f"{name}.bias.column"
        if column not in self.initializers:
            self.initializers[column] = self.weights.initializer(f"{name}.bias", column=column)
        return self.op("Transpose", self.op("Gemm", weight, x, column, transB=1), perm=[1, 0])

    def linear_sum(self, x: str, name: str, residual: str) -> str:
        """x W^T + b + residual"""
        return self.op("Add", self.linear(x, name), residual)

    def norm(self, x: str, name: str, eps: float) -> str:
        weight, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=eps)

    def first(self, x: str, rows: int | str) -> str:
        """The first `rows` rows, or all if there are fewer."""
        return self.op("Slice", x, self.constant([0]), self.constant([rows]) if isinstance(rows, int) else rows)

    def rows(self, x: str) -> str:
        """The number of rows, of shape (1,)."""
        return self.op("Shape", x, start=0, end=1)

    def range(self, count: str) -> str:
        """0, 1, ... below `count`, which is of shape (1,)."""
        return self.op("Range", self.constant(0), self.op("Squeeze", count), self.constant(1))
