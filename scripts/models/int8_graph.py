"""The encoder's graph with products of 8-bit integers, for CPUs that add such products without saturation.

Linear layers multiply unsigned 8-bit inputs by signed 8-bit weights. Each output channel has a scale of its own. Before
an input is rounded, orthogonal transforms spread its large values over many channels. The weights hold the inverses:

- Query, key, value and the first feed-forward product: SmoothQuant (Xiao et al. 2023, section 4) divides each channel,
  then a Hadamard transform mixes channels in blocks, as in QuaRot (Ashkboos et al. 2024). The input's scale is fixed.
  `models.int8_calibration` measures it on texts.
- The attention's output product: the Hadamard transform lies in the weights of value and output. Each token has a
  scale.
- The second feed-forward product: a Hadamard transform after GELU. Each token has a scale.

Some products stay float32. They cost little, because few positions need them, and they are nearest to the CLS vector:
the values of the last two layers, and what the last layer does with the CLS token alone. So do attention, norms and
embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from models.graph_builder import GraphBuilder, WeightsFile
from similarity.encoder.config import LongformerConfig
from similarity.vectors import Vector

# The most channels that a Hadamard transform mixes. With more, vectors are hardly more exact, and take longer.
BLOCK = 32
# ONNX Runtime maps a file into memory in whole pages.
_PAGE = 4096
# An unsigned byte that stands for 0, and the largest integer on either side of it.
_ZERO = 128
LARGEST = 127


@dataclass(frozen=True)
class InputScale:
    """How the input of linear layers becomes integers.

    smoothing: (in,), divides each channel. scale: of an integer, after smoothing and Hadamard transform.
    """

    smoothing: Vector
    scale: float


class Int8Builder(GraphBuilder):
    """A builder whose linear layers multiply integers. `content` becomes the file that the graph names."""

    def __init__(
        self, weights: WeightsFile, config: LongformerConfig, scales: Mapping[str, InputScale], filename: str
    ) -> None:
        """scales: by `input_of`, for all layers. filename: of the integer weights, beside the graph."""
        super().__init__(weights)
        # ONNX Runtime copies no weights of this kind, so short texts gain nothing.
        self.has_short_way = False
        self.content = bytearray()
        self._scales, self._filename = scales, filename
        self._head = config.hidden_size // config.num_attention_heads
        self._all_see_cls = config.global_attention_on_cls
        last = config.num_hidden_layers - 1
        self._float32 = {
            *(f"encoder.layer.{index}.attention.self.value" for index in (last - 1, last)),
            *(
                f"encoder.layer.{last}.{part}"
                for part in ("attention.output.dense", "intermediate.dense", "output.dense")
            ),
        }
        self._rounded: dict[tuple[str, str], str] = {}

    def linear(self, x: str, name: str, rows: int | None = None) -> str:
        if name in self._float32 or (source := input_of(name)) not in self._scales:
            return super().linear(x, name, rows)
        given = self._scales[source]
        weight, bias = self.weights.read(f"{name}.weight"), self.weights.read(f"{name}.bias")
        if name.endswith(".value") and self._is_folded(name):
            # The outputs of each head are mixed here, so the inputs of the next product needn't be.
            weight = mixed(weight.T, self._head).T
            bias = mixed(bias, self._head)
        integers = self._smoothed(x, source, given)
        integers = integers if rows is None else self.first(integers, rows)
        return self._product(integers, name, mixed(weight * given.smoothing), given.scale, bias)

    def linear_sum(self, x: str, name: str, residual: str) -> str:
        if name in self._float32:
            return super().linear_sum(x, name, residual)
        weight = self.weights.read(f"{name}.weight")
        if name.endswith(".attention.output.dense") and self._is_folded(name):
            weight = mixed(weight, self._head)
        else:
            x, weight = self._mixed(x, weight.shape[1]), mixed(weight)
        # (tokens, in) -> (tokens, 1); a token of zeros stays one
        largest = self.op("ReduceMax", self.op("Abs", x), self.constant([-1]), keepdims=1)
        largest = self.op("Max", largest, self.constant(np.finfo(np.float32).tiny, np.float32))
        step = self.constant(1 / LARGEST, np.float32)
        integers = self.op("QuantizeLinear", self.op("Div", x, largest), step, self.constant(_ZERO, np.uint8))
        product = self.op("Mul", self._product(integers, name, weight, 1 / LARGEST), largest)
        return self.op("Add", self.op("Add", product, self.weight(f"{name}.bias")), residual)

    def _is_folded(self, name: str) -> bool:
        """Whether value and output weights of a layer hold the Hadamard transform of what lies between them."""
        layer = name.split(".attention.")[0]
        # With global attention, the CLS token's values come from products of their own.
        return not self._all_see_cls and f"{layer}.attention.self.value" not in self._float32

    def _smoothed(self, x: str, source: str, given: InputScale) -> str:
        """(tokens, in) float32 -> (tokens, in) uint8, once for all products with this input."""
        if (x, source) not in self._rounded:
            divided = self.op("Mul", x, self._values(f"{source}.smoothing", 1 / given.smoothing))
            spread = self._mixed(divided, len(given.smoothing))
            step = self._values(f"{source}.scale", np.array(given.scale))
            self._rounded[x, source] = self.op("QuantizeLinear", spread, step, self.constant(_ZERO, np.uint8))
        return self._rounded[x, source]

    def _mixed(self, x: str, channels: int) -> str:
        """As `mixed`, for a value of the graph of shape (tokens, channels)."""
        transform = hadamard(block_of(channels))
        shaped = self.op("Reshape", x, self.constant([-1, len(transform)]))
        product = self.op("MatMul", shaped, self._values(f"hadamard.{len(transform)}", transform))
        return self.op("Reshape", product, self.constant([-1, channels]))

    def _product(
        self, integers: str, name: str, weight: NDArray[np.float32], step: float, bias: Vector | None = None
    ) -> str:
        """integers (tokens, in) uint8, weight (out, in) -> (tokens, out) float32. step: of the integers."""
        rounded, steps = rounded_rows(weight)
        inputs = [
            integers,
            self._mapped(f"{name}.weight.int8", rounded.T),
            self.constant(1, np.float32),
            self._values(f"{name}.weight.steps", steps * step),
            self.constant(_ZERO, np.uint8),
            "",
            *([] if bias is None else [self._values(f"{name}.bias.folded", bias)]),
        ]
        return self.op("MatMulIntegerToFloat", *inputs, domain="com.microsoft")

    def _values(self, name: str, value: NDArray[np.floating]) -> str:
        """Adds float32 values inside the graph."""
        self.initializers.setdefault(name, numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
        return name

    def _mapped(self, name: str, value: NDArray[np.int8]) -> str:
        """Adds weights to the file beside the graph, each from the start of a page."""
        self.content += bytes(-len(self.content) % _PAGE)
        tensor = TensorProto(
            name=name, data_type=TensorProto.INT8, dims=value.shape, data_location=TensorProto.EXTERNAL
        )
        for key, place in (("location", self._filename), ("offset", len(self.content)), ("length", value.nbytes)):
            tensor.external_data.add(key=key, value=str(place))
        self.content += np.ascontiguousarray(value).tobytes()
        self.initializers[name] = tensor
        return name


def input_of(name: str) -> str:
    """The name of a linear layer's input, which query, key and value share."""
    for part in (".query", ".key", ".value"):
        name = name.removesuffix(f".attention.self{part}")
    return name


def block_of(channels: int) -> int:
    """The number of channels that a Hadamard transform mixes: the largest power of two up to BLOCK that divides."""
    return int(np.gcd(channels, BLOCK))


def hadamard(size: int) -> NDArray[np.float32]:
    """The orthonormal Hadamard matrix (size, size), by Sylvester's construction. It is its own inverse."""
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return np.asarray(matrix / np.sqrt(len(matrix)), np.float32)


def mixed(values: NDArray[np.float32], channels: int | None = None) -> NDArray[np.float32]:
    """(..., n) -> (..., n), each block of the last axis times the Hadamard matrix.

    channels: blocks don't reach over groups of so many channels; None: all are one group.
    """
    transform = hadamard(block_of(channels or values.shape[-1]))
    product = values.reshape(*values.shape[:-1], -1, len(transform)) @ transform
    return np.asarray(product.reshape(values.shape), np.float32)


def rounded_rows(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], Vector]:
    """(out, in) -> integers (out, in) from -127 to 127, and each row's step (out,). Their product is about `weight`."""
    steps = np.abs(weight).max(axis=1) / np.float32(LARGEST)
    steps[steps == 0] = 1
    return np.rint(weight / steps[:, None]).astype(np.int8), steps
