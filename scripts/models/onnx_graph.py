"""Makes the encoder's computation as an ONNX graph, one graph for texts of every length.

The graph prunes as `similarity.encoder.torch_encoder` does: a layer computes only the positions that the next layer
needs. `Slice` ends earlier if the text does. Attention takes queries in blocks of BLOCK; the blocks are its batch
dimension. Each block sees a window of keys around it. A mask hides the keys of the window that are out of reach. If one
window holds all keys, all queries are one block.

A text of up to SHORT tokens takes a branch of its own: each token sees all others, and products have their factors
swapped.

Weights are initialisers that name their place in the safetensors file. `models.int8_graph` makes the same graph with
products of 8-bit integers. `models.export` writes the graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from models.graph_builder import GraphBuilder
from similarity.encoder.config import LongformerConfig
from similarity.encoder.text_encoder import GELU_APPROXIMATIONS

# ONNX Runtime 1.32 and OpenVINO 2026.4 both read these versions.
OPSET, IR_VERSION = 20, 10
# The first versions with the operator Attention; only ONNX Runtime reads them.
FUSED_OPSET, FUSED_IR_VERSION = 23, 11
# Queries in a block. With the usual window of 512, a layer often computes 1 + 256 k positions. 2 k blocks hold them.
BLOCK = 129
# The longest text, in tokens, for which ONNX Runtime is quicker with swapped factors. At 32 tokens a product takes 0.73
# of the time, at 128 tokens 0.95, at 257 tokens 1.1.
SHORT = 128
# Added to the score of a key that is out of reach; e to this power is 0.
_UNSEEN = -1e30

# Takes what `_full_attention` takes.
Attention = Callable[[GraphBuilder, str, int | None, int, LongformerConfig], str]


def encoder_graph(
    build: GraphBuilder, config: LongformerConfig, metadata: Mapping[str, str], shown: Sequence[str] = ()
) -> onnx.ModelProto:
    """The graph: ids (tokens,) int64, special tokens included -> cls (hidden,) float32.

    The shapes of the weights must have been checked by `similarity.encoder.torch_encoder`. build: a new builder. With
    its `fused`, attention is one operator, which only ONNX Runtime has; without it, all operators are of the ONNX
    standard. shown: names of linear layers, whose inputs are further outputs of the graph.
    """
    size = config.hidden_size
    if build.has_short_way and not shown:
        # Up to this length, all positions are within reach of each other in each layer.
        short = min(SHORT, min(config.attention_window) // 2 + 1)
        is_short = build.op("LessOrEqual", build.rows("ids"), build.constant([short]))
        build.swaps = True
        then_branch = build.branch("short", lambda: _short(build, config), size)
        build.swaps = False
        else_branch = build.branch("long", lambda: _long(build, config), size)
        cls = build.op("If", is_short, then_branch=then_branch, else_branch=else_branch)
    else:
        cls = _long(build, config)
    build.nodes.append(helper.make_node("Identity", [cls], ["cls"]))
    graph = helper.make_graph(
        build.nodes,
        "longformer_cls",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["tokens"])],
        [
            helper.make_tensor_value_info("cls", TensorProto.FLOAT, [size]),
            *(helper.make_tensor_value_info(build.inputs[name], TensorProto.FLOAT, None) for name in shown),
        ],
        list(build.initializers.values()),
    )
    opset, ir_version = (FUSED_OPSET, FUSED_IR_VERSION) if build.fused else (OPSET, IR_VERSION)
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid("com.microsoft", 1)] if build.fused else [])]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)
    helper.set_model_props(model, dict(metadata))
    return model


def _short(build: GraphBuilder, config: LongformerConfig) -> str:
    """The CLS vector, (hidden,), of a text in which all positions are within reach of each other."""
    x = _embeddings(build, "ids", config)
    layers = len(config.attention_window)
    for index in range(layers):
        x = _layer(build, x, index, 1 if index == layers - 1 else None, config, _full_attention)
    return build.op("Squeeze", x, build.constant([0]))


def _long(build: GraphBuilder, config: LongformerConfig) -> str:
    """The CLS vector, (hidden,), of any text."""
    reach = [window // 2 for window in config.attention_window]
    # For each layer, how many of the first positions of its output are needed; None for all.
    wanted: list[int | None] = [1 + sum(reach[index + 1 :]) for index in range(len(reach))]
    if config.global_attention_on_cls:
        wanted = [None] * (len(reach) - 1) + [1]
    x = _embeddings(build, "ids" if config.global_attention_on_cls else build.first("ids", 1 + sum(reach)), config)
    for index, outputs in enumerate(wanted):
        x = _layer(build, x, index, outputs, config, _banded_attention)
    return build.op("Squeeze", x, build.constant([0]))


def _embeddings(build: GraphBuilder, ids: str, config: LongformerConfig) -> str:
    """(tokens,) -> (tokens, hidden). A literal padding token doesn't take a position, as in RoBERTa."""
    pad = build.constant(config.pad_token_id)
    is_word = build.op("Cast", build.op("Not", build.op("Equal", ids, pad)), to=TensorProto.INT64)
    counted = build.op("Mul", build.op("CumSum", is_word, build.constant(0)), is_word)
    positions = build.op("Add", counted, pad)
    words = build.op("Gather", build.weight("embeddings.word_embeddings.weight"), ids)
    places = build.op("Gather", build.weight("embeddings.position_embeddings.weight"), positions)
    kind = build.op("Gather", build.weight("embeddings.token_type_embeddings.weight"), build.constant(0))
    summed = build.op("Add", build.op("Add", words, places), kind)
    return build.norm(summed, "embeddings.LayerNorm", config.layer_norm_eps)


def _layer(
    build: GraphBuilder, x: str, index: int, outputs: int | None, config: LongformerConfig, attention: Attention
) -> str:
    """(inputs, hidden) -> (outputs, hidden), or fewer rows if the text has fewer."""
    name, eps = f"encoder.layer.{index}", config.layer_norm_eps
    wanted = x if outputs is None else build.first(x, outputs)
    if config.global_attention_on_cls:
        context = _global_attention(build, x, name, config)  # (1, hidden)
        if outputs != 1:
            local = attention(build, x, outputs, index, config)
            others = build.op("Slice", local, build.constant([1]), build.rows(local))
            context = build.op("Concat", context, others, axis=0)
    else:
        context = attention(build, x, outputs, index, config)
    attended = build.linear_sum(context, f"{name}.attention.output.dense", wanted)
    attended = build.norm(attended, f"{name}.attention.output.LayerNorm", eps)
    inner = build.linear(attended, f"{name}.intermediate.dense")  # (outputs, intermediate)
    inner = build.op("Gelu", inner, approximate=GELU_APPROXIMATIONS[config.hidden_act])
    result = build.linear_sum(inner, f"{name}.output.dense", attended)
    return build.norm(result, f"{name}.output.LayerNorm", eps)


def _full_attention(build: GraphBuilder, x: str, outputs: int | None, index: int, config: LongformerConfig) -> str:
    """Attention of the first `outputs` rows of `x` (keys, hidden) to all rows -> (queries, hidden).

    outputs: None for all rows.
    """
    name, heads, first = f"encoder.layer.{index}.attention.self", config.num_attention_heads, build.constant([0])
    rows = {"query": outputs, "key": None, "value": None}
    inputs = [build.op("Unsqueeze", build.linear(x, f"{name}.{part}", most), first) for part, most in rows.items()]
    return build.op("Squeeze", build.op("Attention", *inputs, q_num_heads=heads, kv_num_heads=heads), first)


def _banded_attention(build: GraphBuilder, x: str, outputs: int | None, index: int, config: LongformerConfig) -> str:
    """Attention of the first `outputs` rows of `x` (keys, hidden) to the rows within reach -> (queries, hidden).

    outputs: None for all rows.
    """
    name, reach = f"encoder.layer.{index}.attention.self", config.attention_window[index] // 2
    heads, one = config.num_attention_heads, build.constant([1])
    query = build.linear(x, f"{name}.query", outputs)
    queries, keys = build.rows(query), build.rows(x)
    is_one_window = build.op("LessOrEqual", keys, build.constant([BLOCK + 2 * reach]))
    block = build.op("Where", is_one_window, queries, build.op("Min", queries, build.constant([BLOCK])))
    blocks = build.op("Div", build.op("Sub", build.op("Add", queries, block), one), block)
    window = build.op("Min", keys, build.op("Add", block, build.constant([2 * reach])))
    # A window that would begin before the first key, or end after the last one, is moved.
    starts = build.op("Mul", build.range(blocks), block)  # (blocks,)
    first = build.op("Min", build.op("Sub", starts, build.constant([reach])), build.op("Sub", keys, window))
    first = build.op("Unsqueeze", build.op("Max", first, build.constant([0])), one)
    key_at = build.op("Add", first, build.range(window))  # (blocks, window)
    query_at = build.op("Add", build.op("Unsqueeze", starts, one), build.range(block))  # (blocks, block)
    distance = build.op("Sub", build.op("Unsqueeze", query_at, build.constant([2])), build.op("Unsqueeze", key_at, one))
    hidden = build.op("Greater", build.op("Abs", distance), build.constant(reach))  # (blocks, block, window)
    if config.global_attention_on_cls:
        # Every query sees the CLS token once: not in its window, but as an extra key in front of it.
        cls = build.op("Equal", build.op("Unsqueeze", key_at, one), build.constant(0))
        hidden = build.op("Or", hidden, cls)
        hidden = build.op("Pad", hidden, build.constant([0, 0, 1, 0, 0, 0]))
        key_at = build.op("Pad", key_at, build.constant([0, 1, 0, 0]))
    hidden = build.op("Unsqueeze", hidden, one)  # (blocks, 1, block, window)
    missing = build.op("Sub", build.op("Mul", blocks, block), queries)  # in the last block
    zero, size = build.constant([0]), config.hidden_size
    query = build.op("Pad", query, build.op("Concat", zero, zero, missing, zero, axis=0))
    query = build.op("Reshape", query, build.op("Concat", blocks, block, build.constant([size]), axis=0))
    key = build.op("Gather", build.linear(x, f"{name}.key"), key_at)  # (blocks, window, hidden)
    value = build.op("Gather", build.linear(x, f"{name}.value"), key_at)
    if build.fused:
        seen = build.op("Not", hidden)
        context = build.op("Attention", query, key, value, seen, q_num_heads=heads, kv_num_heads=heads)
    else:
        bias = build.op("Where", hidden, build.constant(_UNSEEN, np.float32), build.constant(0, np.float32))
        split = build.constant([0, 0, heads, size // heads])
        query = build.op("Mul", query, build.constant((size // heads) ** -0.5, np.float32))
        # (blocks, positions, hidden) -> (blocks, positions, heads, head) -> (blocks, heads, ...)
        query = build.op("Transpose", build.op("Reshape", query, split), perm=[0, 2, 1, 3])
        key = build.op("Transpose", build.op("Reshape", key, split), perm=[0, 2, 3, 1])
        value = build.op("Transpose", build.op("Reshape", value, split), perm=[0, 2, 1, 3])
        weights = build.op("Softmax", build.op("Add", build.op("MatMul", query, key), bias), axis=-1)
        context = build.op("Transpose", build.op("MatMul", weights, value), perm=[0, 2, 1, 3])
    return build.first(build.op("Reshape", context, build.constant([-1, size])), queries)


def _global_attention(build: GraphBuilder, x: str, layer: str, config: LongformerConfig) -> str:
    """Attention of the CLS token to all positions, (tokens, hidden) -> (1, hidden).

    The order of the products makes it cheap. With one query, no keys are computed: q (W x) = (q W) x. Values are
    projected after they are summed. The keys' bias is left out: it adds the same to all scores of a head.
    """
    name, heads = f"{layer}.attention.self", config.num_attention_heads
    head = config.hidden_size // heads
    split = build.constant([heads, head, config.hidden_size])
    query = build.linear(build.first(x, 1), f"{name}.query_global")
    query = build.op("Mul", query, build.constant(head**-0.5, np.float32))
    query = build.op("Reshape", query, build.constant([heads, 1, head]))
    key_weight = build.op("Reshape", build.weight(f"{name}.key_global.weight"), split)  # (heads, head, hidden)
    folded = build.op("Squeeze", build.op("MatMul", query, key_weight), build.constant([1]))  # (heads, hidden)
    weights = build.op("Softmax", build.op("Gemm", folded, x, transB=1), axis=-1)  # (heads, tokens)
    summed = build.op("Unsqueeze", build.op("MatMul", weights, x), build.constant([2]))  # (heads, hidden, 1)
    value_weight = build.op("Reshape", build.weight(f"{name}.value_global.weight"), split)
    context = build.op("Reshape", build.op("MatMul", value_weight, summed), build.constant([1, config.hidden_size]))
    return build.op("Add", context, build.weight(f"{name}.value_global.bias"))
