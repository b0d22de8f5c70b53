"""The whitening map against the covariance that it should leave."""

from __future__ import annotations

import numpy as np
import pytest

from similarity.incidents.whitening import DEFAULT_POWER, POWERS, SHRINKAGE, whitening
from similarity.vectors import Vector


def correlated(incidents: int = 400, hidden: int = 12) -> Vector:
    """Means whose numbers go together, and of whose directions none is much weaker than the others."""
    choose = np.random.default_rng(0)
    turn, _ = np.linalg.qr(choose.standard_normal((hidden, hidden)))
    mixed = (choose.standard_normal((incidents, hidden)) * np.linspace(1, 6, hidden)) @ turn
    means: Vector = (mixed + 5).astype(np.float32)
    return means


def covariance(means: np.ndarray, mapped: np.ndarray) -> np.ndarray:
    """(hidden, hidden), of the centered and mapped means; the largest eigenvalue of the unmapped is 1."""
    centered = means.astype(np.float64) - means.astype(np.float64).mean(axis=0)
    largest = np.linalg.eigvalsh(centered.T @ centered).max()
    moved = centered @ mapped.astype(np.float64)
    found: np.ndarray = moved.T @ moved / largest
    return found


def test_half_a_power_leaves_no_direction_in_which_incidents_differ_more() -> None:
    means = correlated()
    before = np.linalg.eigvalsh(covariance(means, np.eye(12)))
    after = covariance(means, whitening(means, 0.5))
    assert before.max() / before.min() > 20
    # Without shrinkage it would be 1 exactly. The weakest direction has l / (l + 1e-3).
    assert np.linalg.eigvalsh(after) == pytest.approx(1, abs=SHRINKAGE / before.min() + 1e-5)
    assert SHRINKAGE / before.min() < 0.2


@pytest.mark.parametrize("power", POWERS)
def test_each_eigenvalue_is_raised_to_a_power(power: float) -> None:
    means = correlated()
    values, directions = np.linalg.eigh(covariance(means, np.eye(12)))
    after = covariance(means, whitening(means, power))
    expected = directions @ np.diag(values * (values + SHRINKAGE) ** (-2 * power)) @ directions.T
    np.testing.assert_allclose(after, expected, atol=1e-5)


def test_the_power_0_changes_nothing() -> None:
    assert whitening(correlated(), 0.0).tolist() == np.eye(12).tolist()
    assert DEFAULT_POWER in POWERS


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("incidents", [1, 3, 1000])
def test_equal_means_change_nothing(incidents: int, power: float) -> None:
    means = np.tile(np.random.default_rng(0).standard_normal(7, np.float32), (incidents, 1))
    assert whitening(means, power).tolist() == np.eye(7).tolist()


@pytest.mark.parametrize("size", [1e-38, 1e-20, 1e20, 3e36])
def test_the_size_of_the_means_does_not_matter(size: float) -> None:
    means: Vector = correlated() / np.abs(correlated()).max()
    scaled: Vector = (means.astype(np.float64) * size * 100).astype(np.float32)
    assert np.isfinite(scaled).all()
    np.testing.assert_allclose(whitening(scaled, 0.5), whitening(means, 0.5), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", [1e-45, 1e-38, 3e38])
def test_numbers_at_the_ends_of_float32_give_finite_maps(size: float) -> None:
    means: Vector = (np.sign(correlated(30) - 5) * np.float64(size)).astype(np.float32)
    assert np.unique(means).size > 1
    found = whitening(means, 0.5)
    assert np.isfinite(found).all()
    assert np.linalg.eigvalsh(found.astype(np.float64)).min() > 0


@pytest.mark.parametrize("incidents", [2, 5, 400])
def test_a_map_is_symmetric_and_of_float32(incidents: int) -> None:
    """Also with fewer incidents than dimensions."""
    found = whitening(correlated(incidents), 0.25)
    assert found.shape == (12, 12)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, found.T, atol=1e-6)
    # A direction in which no incident differs from another gets no more than the shrinkage lets it have.
    assert np.linalg.eigvalsh(found.astype(np.float64)).max() <= SHRINKAGE**-0.25 + 1e-4


def test_the_means_stay_as_they_are() -> None:
    means = correlated()
    before = means.copy()
    whitening(means, 0.5)
    assert means.tobytes() == before.tobytes()
