"""Seconds, memory and sizes. Measured ones come from docs/speed.md and docs/deploying.md.

Seconds of a text are ranges: the first number is for a CPU with AVX-512, the second for an older one. Lambda doesn't
say which one it gives. Both were measured on two CPUs. Lambda gives as many at `TWO_CPUS_MIB`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from costing.ranges import Range
from similarity.settings import DEFAULT_PRECISION, Precision

DAYS_A_MONTH, HOURS_A_DAY, DAYS_A_WEEK = 30, 24, 7
MIB_A_GB = 1024

# Tokens to seconds, of the two tables in docs/speed.md#how-long-a-text-takes. For `onnx` on the newer CPU, the two
# ends are the answers of a handler in a container, from docs/speed.md#starts-in-containers.
ENCODING_S: Mapping[str, Mapping[int, tuple[float, float]]] = {
    "onnx": {
        32: (0.0388, 0.0778),
        128: (0.117, 0.203),
        257: (0.253, 0.343),
        512: (0.491, 0.838),
        1024: (0.924, 1.58),
        2048: (1.62, 2.53),
        4096: (1.69, 2.95),
    },
    "torch": {
        32: (0.0444, 0.0822),
        128: (0.123, 0.231),
        257: (0.235, 0.413),
        512: (0.477, 0.924),
        1024: (0.864, 1.6),
        2048: (1.42, 2.34),
        4096: (1.47, 2.55),
    },
}
ANSWER_S = {"onnx": {40: 0.05, 4096: 1.64}}
# Tokens to the share of float32's seconds that less precision takes, on a newer CPU that multiplies it natively:
# docs/speed.md#less-precision. On the older CPU float32 serves in place of int8, and bfloat16 takes as long as float32.
SHARES: Mapping[Precision, Mapping[int, float]] = {
    "float32": {32: 1.0, 4096: 1.0},
    "int8": {32: 0.442, 128: 0.37, 257: 0.42, 512: 0.404, 700: 0.449, 1024: 0.457, 2048: 0.437, 4096: 0.456},
    "bfloat16": {32: 0.68, 128: 0.565, 257: 0.664, 512: 0.555, 700: 0.627, 1024: 0.61, 2048: 0.602, 4096: 0.671},
}
LONGEST_TOKENS = 4096
SHORT_TOKENS = 40

# 1,769 MB are one CPU: https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
TWO_CPUS_MIB = 2 * 1769
# The smallest memory that was measured, with the share of a CPU that Lambda gives for it, and its seconds for the
# longest text. Two CPUs that are shared out evenly would take 1.64 * 3538 / 384 = 15.1 s.
SMALLEST_MIB, SMALLEST_S = 384, 16.2
# So an answer with less than two CPUs takes as long as its share says, or longer by this factor.
SLOWER_WITH_LITTLE = SMALLEST_S / (ANSWER_S["onnx"][LONGEST_TOKENS] * TWO_CPUS_MIB / SMALLEST_MIB)

# A handler that runs no model: measured at 128 MB, and never counted as less than a hundredth.
LIGHT_MIB, LIGHT_S, LEAST_LIGHT_S = 128, 0.04, 0.01
# The page of 1,400 incidents: compressed, and for a caller that can't read that. To make and compress it took 11 ms of
# a CPU. 1,024 MB buy 0.58 of one.
PAGE_S, PAGE_KB = 0.02, Range(75.0, 210.0)
# A call that keeps a handler warm encodes a word.
WARM_S = 0.05

# From the start of a Lambda to its first answer, without the answer: measured in a container, with files from disk;
# the second number is an estimate for Lambda, which fetches the image over the network. `torch` takes longer to import.
START_S = {"onnx": Range(0.64, 3.0), "torch": Range(2.2, 4.5)}
LIGHT_START_S = Range(0.26, 3.0)

# Estimates for the jobs; the limits of a run with a newer snapshot are docs/refresh.md's.
SHELVING_S = REFRESH_LOOK_S = 5.0
REFRESH_RUN_S = Range(60.0, 900.0)

# Compressed, as ECR stores them. The packages were compressed with zlib: 208 MB became 75, torch became 173. The base
# was not; it is assumed to become a third. Float32 weights become 93 %.
BASE_MB, PACKAGES_MB, TORCH_MB, COMPRESSED_MODEL = 50, 75, 173, 0.93
# Longformer-base, 1,400 incidents, and the vectors of 7,000 reports: docs/deploying.md#the-image, docs/scale.md.
MODEL_MB, STATE_MB, STORE_MB = 510.0, 5.0, 22.0
# The files of int8, for Longformer-base.
INT8_MB = 79.0
KEPT_STATES = 3
# The bucket deletes an old version 90 days after a newer one has replaced it.
KEPT_DAYS = 90
BUCKET_REQUESTS_A_DAY = 10

# Bytes of the log: Lambda's lines about a call, ours, those with metrics, API Gateway's, and 26 bytes for each line,
# which AWS adds. Of an answer, of a call that keeps a handler warm, and of a request that API Gateway refuses.
REQUEST_LOG_BYTES, WARM_LOG_BYTES, REFUSED_LOG_BYTES = 1800, 700, 280
# Hours of a day in which a metric gets a number although nobody calls: cold starts, and the age of the state.
METRIC_HOURS_AT_REST = 3


def answer_s(tokens: int, engine: str, precision: Precision = DEFAULT_PRECISION) -> Range:
    """Seconds of an answer to a text of `tokens`, 1 to LONGEST_TOKENS, on two CPUs. precision: of a newer CPU.

    Between two lengths that were measured, it is on the line between them. A shorter text takes no longer than one of
    SHORT_TOKENS.
    """
    measured = ENCODING_S[engine]
    newer = {count: seconds for count, (seconds, _) in measured.items()} | ANSWER_S.get(engine, {})
    older = {count: seconds for count, (_, seconds) in measured.items()}
    count = max(tokens, SHORT_TOKENS)
    return Range(_on_the_line(newer, count) * _on_the_line(SHARES[precision], count), _on_the_line(older, count))


def is_known(memory_mib: int) -> bool:
    """Whether an answer with this memory follows from measurements."""
    return memory_mib >= SMALLEST_MIB


def slowdown(memory_mib: int) -> Range:
    """By which factor an answer takes longer than on two CPUs. More CPUs may be faster: nobody has measured them."""
    evenly = TWO_CPUS_MIB / memory_mib
    return Range(evenly, evenly * SLOWER_WITH_LITTLE) if evenly > 1 else Range.of(1.0)


def light_s(memory_mib: int) -> float:
    """Seconds of an answer that runs no model."""
    return max(LEAST_LIGHT_S, LIGHT_S * LIGHT_MIB / memory_mib)


def _on_the_line(measured: Mapping[int, float], count: int) -> float:
    for (left, before), (right, after) in pairwise(sorted(measured.items())):
        if left <= count <= right:
            return before + (after - before) * (count - left) / (right - left)
    raise ValueError(f"{count} tokens were not measured")
