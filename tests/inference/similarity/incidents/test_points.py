"""Points of the map: PCA as sklearn computes it, new points as computed by hand, old ones kept bit by bit."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from similarity.incidents import points as module
from similarity.incidents.points import directions, evenly, kept_points, no_points, pca, placed, require_points, scaled
from similarity.incidents.vector_index import Index
from similarity.incidents.whitening import whitening
from similarity.vectors import Vector
from tiny import ROOT


def random_index(incidents: int, hidden: int = 8, seed: int = 0, power: float | None = 0.25) -> Index:
    means = (np.random.default_rng(seed).normal(size=(incidents, hidden)) * np.arange(1, hidden + 1)).astype(np.float32)
    return Index(means, None if power is None else whitening(means, power))


@pytest.mark.parametrize("power", [None, 0.25])
def test_directions_give_the_similarities_of_the_metric(power: float | None) -> None:
    index = random_index(20, power=power)
    found = directions(index, np.array([3, 7])) @ directions(index, slice(None)).T
    for row, similarities in zip((3, 7), found, strict=True):
        expected = index.similarities(index.means[row], "centered" if power is None else "whitened")
        np.testing.assert_allclose(similarities, expected, rtol=0, atol=1e-5)


def test_rows_are_chosen_evenly() -> None:
    assert evenly(5, 10).tolist() == [0, 1, 2, 3, 4]
    assert evenly(9, 3).tolist() == [0, 4, 8]
    many = evenly(1_000_003, 10_000)
    assert (many[0], many[-1], len(np.unique(many))) == (0, 1_000_002, 10_000)
    assert set(np.diff(many)) == {100, 101}


def test_places_are_moved_into_the_middle_and_scaled_by_one_factor() -> None:
    found = scaled(np.array([[10.0, 1.0], [14.0, 1.0], [12.0, 2.0]]))
    assert found.tolist() == [[-1.0, -0.25], [1.0, -0.25], [0.0, 0.25]]
    assert found.dtype == np.float32
    assert scaled(np.full((3, 2), 7.0)).tolist() == [[0.0, 0.0]] * 3


@pytest.mark.slow
def test_pca_is_that_of_scikit_learn_but_for_the_signs_of_the_axes(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.decomposition import PCA

    index = random_index(50)
    expected = PCA(2, svd_solver="full").fit_transform(directions(index, slice(None)).astype(np.float64))
    expected = scaled(expected)
    found = pca(index)
    for axis in range(2):
        sign = np.sign(found[:, axis] @ expected[:, axis])
        np.testing.assert_allclose(found[:, axis], sign * expected[:, axis], rtol=0, atol=1e-5)
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 7)
    np.testing.assert_allclose(pca(index), found, rtol=0, atol=1e-5)


DEGENERATE: dict[str, Any] = {
    "one incident": [[1, 2, 3]],
    "two incidents": [[1, 2, 3], [3, 2, 0]],
    "two equal incidents": [[1, 2, 3]] * 2,
    "zeros": [[0, 0, 0]] * 30,
    "equal means": [[0.1, 0.2, 0.3]] * 30,
    "two kinds": [[1, 2, 3], [3, 2, 0]] * 20,
    "all but one": [[1, 2, 3]] * 30 + [[0, 0, 0]],
    "on a line": [[number, number, number] for number in range(40)],
    "one number": [[number] for number in range(40)],
    "one number, equal": [[1.0]] * 40,
    "large": [[1e6, -1e6, number * 1e4] for number in range(40)],
    "small": [[1e-44 * (number % 7), 1e-38 * number, 0] for number in range(40)],
}


@pytest.mark.parametrize("case", DEGENERATE)
def test_means_that_differ_little_have_points_too(case: str) -> None:
    means = np.array(DEGENERATE[case], dtype=np.float32)
    for power in (None, 0.25):
        index = Index(means, None if power is None else whitening(means, power))
        points = pca(index)
        require_points(points, len(means))
        assert points.shape == (len(means), 2)
        first = placed(index, np.arange(len(means)), np.array([0]), points[:1])
        assert np.array_equal(first, np.repeat(points[:1], len(means), axis=0))


def test_a_new_point_is_the_weighted_mean_of_the_nearest_five() -> None:
    """By hand: the cosines of unit vectors in a plane, whose mean is 0."""
    angles = np.radians([0, 60, 90, 180, 240, 270, 120, 300])
    means = np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)
    means = np.vstack([means, -means.sum(axis=0)])  # so their mean is 0
    points = np.array([[0, 0], [1, 0], [0, 1], [-1, 0], [0, -1], [1, 1], [-1, 1]], dtype=np.float32)
    [found] = placed(Index(means), np.array([0]), np.array([1, 2, 3, 4, 5, 6, 7]), points)
    # cosines: 60° 0.5, 90° 0, 180° -1, 240° -0.5, 270° 0, 120° -0.5, 300° 0.5: only two count.
    np.testing.assert_allclose(found, [(0.5 * 0 + 0.5 * -1) / 1, (0.5 * 0 + 0.5 * 1) / 1], rtol=0, atol=1e-6)
    [unweighted] = placed(Index(means), np.array([0]), np.array([3, 4, 6]), points[:3])
    np.testing.assert_allclose(unweighted, points[:3].mean(axis=0), rtol=0, atol=1e-6)


def slowly_placed(index: Index, row: int, known: list[int], points: Vector) -> list[float]:
    """The same in plain Python, by the similarities that a ranking gives."""
    similarities = index.similarities(index.means[row], "whitened")
    nearest = sorted(range(len(known)), key=lambda place: -similarities[known[place]])[:5]
    weights = [max(float(similarities[known[place]]), 0.0) for place in nearest]
    weights = weights if sum(weights) else [1.0] * len(weights)
    return [
        sum(weight * float(points[place][axis]) for weight, place in zip(weights, nearest, strict=True)) / sum(weights)
        for axis in range(2)
    ]


@pytest.mark.parametrize("known", [1, 3, 5, 40])
def test_many_new_points_are_placed_block_by_block(known: int, monkeypatch: pytest.MonkeyPatch) -> None:
    index = random_index(100)
    rows = np.random.default_rng(1).permutation(100)
    there, new = np.sort(rows[:known]), np.sort(rows[known:])
    points = np.random.default_rng(2).uniform(-1, 1, (known, 2)).astype(np.float32)
    expected = [slowly_placed(index, int(row), there.tolist(), points) for row in new]
    np.testing.assert_allclose(placed(index, new, there, points), expected, rtol=0, atol=1e-5)
    monkeypatch.setattr(module, "_BLOCK", 70)
    np.testing.assert_allclose(placed(index, new, there, points), expected, rtol=0, atol=1e-5)


def test_points_of_incidents_that_stay_are_kept_to_the_bit() -> None:
    index = random_index(6)
    ids, before_ids = np.array([1, 4, 7, 10, 23, 30]), np.array([1, 2, 7, 10, 23, 24])
    before = np.random.default_rng(3).uniform(-1, 1, (6, 2)).astype(np.float32)
    found = kept_points(index, ids, before_ids, before)
    # 2 and 24 are gone, 4 and 30 are new.
    assert found[[0, 2, 3, 4]].tobytes() == before[[0, 2, 3, 4]].tobytes()
    for row in (1, 5):
        expected = slowly_placed(index, row, [0, 2, 3, 4], before[[0, 2, 3, 4]])
        np.testing.assert_allclose(found[row], expected, rtol=0, atol=1e-5)
    assert kept_points(index, ids, ids, before).tobytes() == before.tobytes()


def test_without_points_to_keep_the_map_is_made_by_pca() -> None:
    index, ids = random_index(20), np.arange(1, 21)
    expected = pca(index)
    assert np.ptp(expected, axis=0).min() > 0.1
    assert np.array_equal(kept_points(index, ids, ids, no_points()), expected)
    others = np.ones((20, 2), dtype=np.float32)
    assert np.array_equal(kept_points(index, ids, ids + 100, others), expected)


REFUSED: dict[str, Any] = {
    "a list": [[0.0, 0.0]] * 3,
    "float64": np.zeros((3, 2)),
    "too few": np.zeros((2, 2), dtype=np.float32),
    "three axes": np.zeros((3, 3), dtype=np.float32),
    "flat": np.zeros(6, dtype=np.float32),
    "none of another shape": np.zeros((0, 3), dtype=np.float32),
    "NaN": np.full((3, 2), np.nan, dtype=np.float32),
    "infinite": np.full((3, 2), -np.inf, dtype=np.float32),
    "too large": np.full((3, 2), 1.001, dtype=np.float32),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_points_are_refused(case: str) -> None:
    with pytest.raises(ValueError, match=r"^points must "):
        require_points(REFUSED[case], 3)


def test_points_up_to_the_edges_are_right() -> None:
    require_points(np.array([[-1, 1], [1, -1], [0, 0]], dtype=np.float32), 3)
    require_points(no_points(), 3)


PROGRAM = """
import sys
import jobs.refresh, similar, explore
print(sorted({"sklearn", "scipy", "threadpoolctl"}.intersection(sys.modules)))
"""


@pytest.mark.slow
def test_the_image_needs_no_scikit_learn() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT / "inference", capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
    for path in (ROOT / "inference" / "locks").iterdir():
        assert "scikit-learn" not in path.read_text(encoding="utf-8")
