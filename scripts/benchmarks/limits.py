"""The minimum work of the encoder: necessary arithmetic, and reading the weights."""

from __future__ import annotations

from similarity.encoder.config import LongformerConfig
from similarity.encoder.text_encoder import inputs_needed


def arithmetic(tokens: int, config: LongformerConfig, intermediate_size: int) -> float:
    """The necessary FLOP for the CLS vector of `tokens` tokens: two for each product and its sum."""
    needed = inputs_needed(tokens, config)
    hidden, total = config.hidden_size, 0.0
    for window, inputs, outputs in zip(config.attention_window, needed, needed[1:], strict=False):
        reach = window // 2
        pairs = sum(min(inputs, query + reach + 1) - max(0, query - reach) for query in range(outputs))
        total += 2 * inputs * 2 * hidden * hidden  # keys and values
        total += 2 * outputs * 2 * hidden * hidden  # queries and the projection after attention
        total += 2 * 2 * pairs * hidden  # scores and weighted values, over all heads
        total += 2 * 2 * outputs * hidden * intermediate_size
    return total


def weight_bytes(config: LongformerConfig, intermediate_size: int) -> int:
    """Bytes of all layers' float32 weights, which must be read once."""
    return 4 * config.num_hidden_layers * config.hidden_size * (4 * config.hidden_size + 2 * intermediate_size)
