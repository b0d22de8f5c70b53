"""The map that a laptop makes: it keeps more neighbours than PCA, it has limits, and nothing makes it fail."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from similarity.incidents import points as points_module
from similarity.incidents.fit import Fit
from similarity.incidents.points import directions, evenly, pca, placed, require_points
from similarity.incidents.state import IncidentState
from similarity.incidents.vector_index import Index
from similarity.incidents.whitening import whitening
from similarity.vectors import Vector
from states import mapping
from states.mapping import kept_shares, map_of
from tiny import ROOT


def state_of(means: Any) -> IncidentState:
    vectors = np.array(means, dtype=np.float32)
    count = len(vectors)
    fit = Fit(whitening(vectors, 0.25), 0.25)
    return IncidentState(np.arange(1, count + 1), np.ones(count, dtype=np.int64), vectors, [""] * count, fit=fit)


def clusters(count: int, size: int, hidden: int = 24, seed: int = 0) -> Vector:
    """As many clusters, each around a direction of its own: (count * size, hidden)."""
    rng = np.random.default_rng(seed)
    centres = np.repeat(np.eye(hidden)[:count], size, axis=0)
    found: Vector = (centres + 0.1 * rng.normal(size=centres.shape)).astype(np.float32)
    return found


def index_of(state: IncidentState) -> Index:
    return Index(state.means, state.fit.whitening)


def slowly_kept(state: IncidentState, points: Vector) -> float:
    """The share of the ten nearest that a map keeps, by sorting all."""
    index, shares = index_of(state), []
    for row in range(len(state)):
        others = [each for each in range(len(state)) if each != row]
        similarities = index.similarities(state.means[row], "whitened")
        distances = np.linalg.norm(points - points[row], axis=1)
        nearest = set(sorted(others, key=lambda each: -similarities[each])[:10])
        shares.append(len(nearest.intersection(sorted(others, key=lambda each: distances[each])[:10])) / 10)
    return float(np.mean(shares))


@pytest.mark.slow
def test_of_clusters_it_keeps_more_than_pca(capfd: pytest.CaptureFixture[str]) -> None:
    state = state_of(clusters(20, 11))
    found = map_of(state)
    assert list(found.kept) == ["t-SNE", "PCA"]
    assert found.kept["t-SNE"] > 0.8
    assert found.kept["PCA"] < 0.5
    assert found.kept["t-SNE"] == pytest.approx(slowly_kept(state, found.points), abs=1e-3)
    assert found.kept["PCA"] == pytest.approx(slowly_kept(state, pca(index_of(state))), abs=1e-3)
    require_points(found.points, 220)
    low, high = found.points.min(axis=0), found.points.max(axis=0)
    np.testing.assert_allclose(low, -high, rtol=0, atol=1e-6)
    assert high.max() == 1
    assert capfd.readouterr() == ("", "")
    assert map_of(state).points.tobytes() == found.points.tobytes()


def test_the_better_map_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    state = state_of(np.random.default_rng(0).normal(size=(40, 3)) * [9, 3, 0.1])
    plain = pca(index_of(state))
    noise = np.random.default_rng(1).uniform(-1, 1, (40, 2)).astype(np.float32)
    monkeypatch.setattr(mapping, "_tsne", lambda index, start: noise)
    found = map_of(state)
    assert list(found.kept) == ["PCA", "t-SNE"]
    assert found.kept["PCA"] > found.kept["t-SNE"]
    assert np.array_equal(found.points, plain)
    monkeypatch.setattr(mapping, "_tsne", lambda index, start: plain)
    monkeypatch.setattr(mapping, "pca", lambda index: noise)
    assert list(map_of(state).kept) == ["t-SNE", "PCA"]
    assert np.array_equal(map_of(state).points, plain)


FEW: dict[str, Any] = {
    "one": [[1, 2, 3]],
    "two": [[1, 2, 3], [3, 2, 0]],
    "two equal ones": [[1, 2, 3]] * 2,
    "eleven": np.random.default_rng(0).normal(size=(11, 3)),
    "many equal ones": [[0.1, 0.2, 0.3]] * 40,
    "zeros": [[0, 0, 0]] * 40,
}
PROGRAM = """
import sys
import build_state
import numpy as np
from similarity.incidents.state import IncidentState
from states.mapping import map_of
means = np.random.default_rng(0).normal(size=(11, 3)).astype(np.float32)
state = IncidentState(np.arange(1, 12), np.ones(11, dtype=np.int64), means, [""] * 11)
assert map_of(state).points.shape == (11, 2)
print(sorted({"sklearn", "scipy", "threadpoolctl"}.intersection(sys.modules)))
"""


@pytest.mark.parametrize("case", FEW)
def test_few_or_equal_incidents_need_no_choice(case: str) -> None:
    state = state_of(FEW[case])
    found = map_of(state)
    require_points(found.points, len(state))
    assert np.array_equal(found.points, pca(index_of(state)))
    assert found.kept == {}


@pytest.mark.slow
def test_few_incidents_do_without_scikit_learn() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT / "scripts", capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


UNUSUAL: dict[str, Any] = {
    "twelve": np.random.default_rng(0).normal(size=(12, 3)),
    "two kinds": [[1, 2, 3], [3, 2, 0]] * 20,
    "four kinds": np.repeat(np.random.default_rng(0).normal(size=(4, 8)), 20, axis=0),
    "all but one are equal": [[1, 2, 3]] * 60 + [[0, 0, 0]],
    "one number": [[number] for number in range(40)],
    "large": [[1e6, -1e6, number * 1e4] for number in range(40)],
    "small": [[1e-44 * (number % 7), 1e-38 * number, 0] for number in range(40)],
}


@pytest.mark.slow
@pytest.mark.parametrize("most", [10_000, 15])
@pytest.mark.parametrize("case", UNUSUAL)
def test_unusual_means_have_a_map(case: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping, "TSNE_MOST", most)
    state = state_of(UNUSUAL[case])
    found = map_of(state)
    require_points(found.points, len(state))
    assert len(found.points) == len(state)
    assert set(found.kept) == {"PCA", "t-SNE"}
    assert all(0 <= share <= 1 for share in found.kept.values())


@pytest.mark.slow
def test_of_many_incidents_t_sne_gets_some_and_the_others_are_placed_beside_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from sklearn.manifold import TSNE

    shapes: list[tuple[int, ...]] = []
    fit_transform = TSNE.fit_transform

    def noted(method: Any, vectors: Vector) -> Any:
        shapes.append(vectors.shape)
        return fit_transform(method, vectors)

    monkeypatch.setattr(TSNE, "fit_transform", noted)
    monkeypatch.setattr(mapping, "TSNE_MOST", 120)
    state = state_of(clusters(20, 15))
    found = map_of(state)
    assert shapes == [(120, 24)]
    rows = evenly(300, 120)
    others = np.setdiff1d(np.arange(300), rows)
    expected = placed(index_of(state), others, rows, found.points[rows])
    assert found.points[others].tobytes() == expected.tobytes()
    assert list(found.kept) == ["t-SNE", "PCA"]
    # An incident is beside its cluster's: the nearest of the sample on the map is one of them.
    distances = np.linalg.norm(found.points[others, None] - found.points[rows], axis=-1)
    assert (rows[distances.argmin(axis=1)] // 15 == others // 15).mean() > 0.9


@pytest.mark.slow
def test_the_share_is_measured_in_blocks_on_some_incidents(monkeypatch: pytest.MonkeyPatch) -> None:
    state = state_of(np.random.default_rng(0).normal(size=(90, 5)))
    points = pca(index_of(state))
    expected = slowly_kept(state, points)
    assert 0.2 < expected < 0.9
    assert kept_shares(index_of(state), {"PCA": points})["PCA"] == pytest.approx(expected, abs=2e-3)
    monkeypatch.setattr(points_module, "_ROWS_AT_ONCE", 7)
    assert kept_shares(index_of(state), {"PCA": points})["PCA"] == pytest.approx(expected, abs=2e-3)
    monkeypatch.setattr(mapping, "_MEASURED", 60)
    assert kept_shares(index_of(state), {"PCA": points})["PCA"] == pytest.approx(expected, abs=0.1)


def test_a_map_of_the_directions_keeps_all() -> None:
    """In two dimensions, the directions themselves are such a map."""
    means = np.random.default_rng(0).normal(size=(60, 2))
    state = state_of(means)
    found = kept_shares(index_of(state), {"directions": directions(index_of(state), slice(None))})
    assert found["directions"] > 0.99


@pytest.mark.slow
def test_ctrl_c_ends_it_and_threads_are_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_info

    def threads() -> list[int]:
        return [each["num_threads"] for each in threadpool_info() if each["user_api"] == "openmp"]

    during: list[int] = []

    def stopped(method: Any, vectors: Vector) -> Any:
        during.extend(threads())
        raise KeyboardInterrupt

    monkeypatch.setattr(TSNE, "fit_transform", stopped)
    before = threads()
    with pytest.raises(KeyboardInterrupt):
        map_of(state_of(clusters(5, 5)))
    assert set(during) == {1}
    assert threads() == before
