"""Tells whether this CPU multiplies numbers of a precision natively.

numpy asks the CPU itself, so the answer also holds in an emulator.
"""

from __future__ import annotations

from numpy._core._multiarray_umath import __cpu_features__  # type: ignore[import-not-found]

from similarity.settings import Precision

# int8: products of unsigned and signed bytes are summed in 32 bits. Older instructions sum two of them in 16 bits and
# saturate, so the vectors are wrong (their cosine with the right ones is 0.998).
# bfloat16: without these instructions, numbers are rounded to bfloat16 and multiplied as float32.
_FEATURES: dict[Precision, tuple[str, ...]] = {
    "int8": ("AVX512VNNI", "ASIMDDP"),
    "bfloat16": ("AVX512BF16",),
}
_NAMES: dict[Precision, str] = {
    "int8": "it has neither AVX-512 VNNI (Intel from Cascade Lake on, AMD from Zen 4 on) nor Arm's dot products "
    "(Graviton2 and newer), so sums of 8-bit products would saturate",
    "bfloat16": "it lacks AVX512-BF16 (Intel Cooper Lake, Sapphire Rapids and newer, AMD from Zen 4 on), so bfloat16 "
    "isn't faster",
}


def lack_of(precision: Precision) -> str | None:
    """A sentence that says what this CPU lacks for a precision; None if it lacks nothing."""
    features = _FEATURES.get(precision)
    if features is None or any(__cpu_features__.get(name) for name in features):
        return None
    return f"this CPU doesn't multiply {precision} natively: {_NAMES[precision]}"
