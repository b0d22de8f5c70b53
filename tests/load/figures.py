"""What a run under load is summed up in: a table for docs/operations.md, and a line on memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from load.callers import Answered

# Of texts, in tokens. 0: a vector, or none of both.
CLASSES = {
    "no text": range(1),
    "up to 256 tokens": range(1, 257),
    "257 to 1,024 tokens": range(257, 1025),
    "1,025 to 4,096 tokens": range(1025, 4097),
}


def by_length(answered: Sequence[Answered]) -> str:
    """p50 and p99 of the answers by the length of the text, as a table in Markdown. Malformed requests are apart."""
    rows = {
        name: [each.took_s for each in answered if each.ask.status == 200 and each.ask.tokens in lengths]
        for name, lengths in CLASSES.items()
    }
    rows["malformed"] = [each.took_s for each in answered if each.ask.status != 200]
    lines = ["| request | number | p50 s | p99 s |", "|---|---|---|---|"]
    for name, times in rows.items():
        p50, p99 = (f"{np.percentile(times, rank):.3g}" if times else "" for rank in (50, 99))
        lines.append(f"| {name} | {len(times):,} | {p50} | {p99} |")
    return "\n".join(lines)


def by_status(answered: Sequence[Answered]) -> dict[int, int]:
    return dict(sorted(Counter(each.status for each in answered).items()))
