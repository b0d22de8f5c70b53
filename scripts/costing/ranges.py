"""Amounts that aren't known exactly, and how they are printed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """From low to high, USD or another amount."""

    low: float
    high: float

    @classmethod
    def of(cls, value: float) -> Range:
        return cls(value, value)

    def __add__(self, other: Range) -> Range:
        return Range(self.low + other.low, self.high + other.high)

    def __mul__(self, factor: float | Range) -> Range:
        by = factor if isinstance(factor, Range) else Range.of(factor)
        return Range(self.low * by.low, self.high * by.high)

    __rmul__ = __mul__

    def __str__(self) -> str:
        """In USD, with two digits that count, e.g. "$0.018 to $1.20", "up to $3", "nothing"."""
        return self._written(usd)

    def roughly(self) -> str:
        """In USD, with one digit that counts below a dollar, e.g. "$0.20 to $1.20"."""
        return self._written(lambda value: usd(value, digits=1 if value < 1 else 2))

    def _written(self, write: Callable[[float], str]) -> str:
        low, high = write(self.low), write(self.high)
        if low == high:
            return low
        return f"{low} to {high}" if self.low else f"up to {high}"


ZERO = Range(0.0, 0.0)


def usd(value: float, digits: int = 2) -> str:
    """An amount with so many digits that count. Dollars are whole, and below ten of them there are cents, if any."""
    if not value:
        return "nothing"
    rounded = round(value, _decimals(value, digits))
    # 0.0996 has one decimal less after rounding.
    decimals = _decimals(rounded, digits)
    return f"${rounded:,.{max(decimals, 2) if rounded < 10 else decimals}f}".removesuffix(".00")


def _decimals(value: float, digits: int) -> int:
    return max(0, digits - 1 - math.floor(math.log10(value)))
