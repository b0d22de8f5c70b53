"""Amounts in USD are short, and say no more than is known."""

from __future__ import annotations

import pytest

from costing.ranges import ZERO, Range


@pytest.mark.parametrize(
    ("low", "high", "printed", "roughly"),
    [
        (0.0087, 0.0144, "$0.0087 to $0.014", "$0.009 to $0.01"),
        (0.182, 0.725, "$0.18 to $0.72", "$0.20 to $0.70"),
        (0.0996, 0.0996, "$0.10", "$0.10"),
        (1.0, 5.0, "$1 to $5", "$1 to $5"),
        (1.2041, 1.2249, "$1.20", "$1.20"),
        (0.99, 0.999, "$0.99 to $1", "$1"),
        (8.0, 14.1, "$8 to $14", "$8 to $14"),
        (36.2, 474.4, "$36 to $474", "$36 to $474"),
        (1234.5, 1_234_567.8, "$1,234 to $1,234,568", "$1,234 to $1,234,568"),
        (0.0, 5.4, "up to $5.40", "up to $5.40"),
        (0.0, 0.0, "nothing", "nothing"),
    ],
)
def test_amounts_are_short(low: float, high: float, printed: str, roughly: str) -> None:
    assert (str(Range(low, high)), Range(low, high).roughly()) == (printed, roughly)


def test_ranges_add_up() -> None:
    assert sum([Range(1, 2), Range(10, 20)], ZERO) == Range(11, 22)
    assert 3 * Range(1, 2) == Range(1, 2) * 3 == Range(3, 6)
    assert Range(1, 2) * Range(10, 20) == Range(10, 40)
