"""The states and the reference of the benchmark of rankings, against sums by hand and indexes of all documents."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks import searches
from benchmarks.searches import Search, documents, random_state, reference, state_of, ways, word_index
from similarity.incidents.metrics import Metric
from similarity.incidents.state import IncidentState
from similarity.incidents.words import WordIndex, words_of


@pytest.mark.parametrize(("metric", "cosines"), [("cosine", [1, 0.8, 0.6]), ("centered", [1, 0.5, 0])])
def test_the_reference_is_that_computed_by_hand(metric: Metric, cosines: list[float]) -> None:
    means = np.array([[0.6, 0.8], [0.8, 0.6], [1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    if metric == "centered":
        # The center is (5, 1); from it, the incidents are at 60, 0, 90 and 210 degrees.
        angles = np.radians([60, 0, 90, 210])
        means = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
        means[3] = -means[:3].sum(axis=0)
        means += np.array([5, 1], dtype=np.float32)
    ids = np.array([4, 7, 9, 11])
    state = IncidentState(ids, np.ones_like(ids), means, [""] * 4)
    vector = np.array([1.0, 0.0], dtype=np.float32) + (np.array([5, 1]) if metric == "centered" else 0)
    found = reference(state, vector.astype(np.float32), metric, "")
    assert [incident_id for incident_id, _ in found] == ([9, 7, 4] if metric == "cosine" else [7, 4, 9])
    assert [similarity for _, similarity in found] == pytest.approx(cosines, abs=1e-6)


def test_documents_are_as_long_as_asked_and_the_same_each_time() -> None:
    found = documents(50, 34)
    assert {len(each.split()) for each in found} == {34}
    assert found == documents(50, 34) != documents(50, 34, seed=1)


@pytest.mark.slow
def test_a_text_finds_as_many_entries_as_one_of_aiid_does() -> None:
    index = word_index(1000)
    for words, entries in ((searches.SHORT, 1.1), (searches.LONG, 4.2)):
        [text] = documents(1, words, seed=1)
        assert len(index.entries(list(dict.fromkeys(words_of(text))))[1]) / 1000 == pytest.approx(entries, rel=0.3)


@pytest.mark.parametrize("incidents", [10, 11, 25, 40])
def test_copies_of_documents_are_indexed_as_if_they_were_documents(
    incidents: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searches, "_MOST_DOCUMENTS", 10)
    found, texts = word_index(incidents), documents(10, searches.SHORT)
    whole = WordIndex.of([texts[row % 10] for row in range(incidents)])
    assert whole is not None
    assert found.words == whole.words
    assert found.starts.tolist() == whole.starts.tolist()
    for number in range(len(whole.words)):
        entries = slice(whole.starts[number], whole.starts[number + 1])
        assert sorted(found.rows[entries].tolist()) == sorted(whole.rows[entries].tolist())
    # How rare a word is depends on the number of documents a little.
    np.testing.assert_allclose(found.scores(["word1"])[:10], whole.scores(["word1"])[:10], rtol=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("search", searches.searches(60), ids=lambda search: search.name)
def test_all_ways_find_the_same(search: Search) -> None:
    answer = ways(search)
    expected = answer("reference")
    ids = [incident_id for incident_id, _ in expected]
    for way in ("ours", "unsure"):
        assert [incident_id for incident_id, _ in answer(way)] == ids
        assert [similarity for _, similarity in answer(way)] == pytest.approx([each for _, each in expected], abs=1e-5)
    if search.metric != "hybrid":
        assert answer("numpy") == ids
    assert math.isfinite(answer("read once"))
    seconds = answer(3)
    assert list(seconds) == ["ours", "unsure", "numpy", "read once"]
    assert min(seconds.values()) > 0


def test_a_state_has_what_its_search_needs() -> None:
    state = state_of(Search("cosine", 0, 5))
    assert (len(state), state.fit.words, state.fit.whitening) == (5, None, None)
    assert list(state.fit.calibration) == ["cosine"]
    assert np.array_equal(state.means, random_state(5).means)
