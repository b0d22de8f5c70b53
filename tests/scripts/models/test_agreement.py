"""The agreement of two sets of vectors, against first places and cosines that numpy works out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.agreement import agreement, agreement_on_titles
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.incidents.ranking import Ranking
from similarity.incidents.state import IncidentState


def random_state(incidents: int) -> IncidentState:
    """Means that share a large part, so that the two metrics rank differently."""
    generator = np.random.default_rng(0)
    means = (generator.standard_normal((incidents, 16)) + 4).astype(np.float32)
    return IncidentState(np.arange(1, incidents + 1), np.ones(incidents, dtype=np.int64), means, [""] * incidents)


def first_places(vectors: np.ndarray, means: np.ndarray) -> list[int]:
    unit = means / np.linalg.norm(means, axis=1, keepdims=True)
    return [int(np.argmax(unit @ vector)) for vector in vectors]


def test_first_places_and_the_smallest_cosine_are_counted() -> None:
    state = random_state(40)
    means = state.means.astype(np.float64)
    center = means.mean(axis=0)
    generator = np.random.default_rng(1)
    expected = (means + 0.3 * generator.standard_normal(means.shape)).astype(np.float32)
    found = (expected + 1.5 * generator.standard_normal(means.shape)).astype(np.float32)
    result = agreement(list(found), list(expected), Ranking(state))
    by_cosine = [first_places(each, means) for each in (found, expected)]
    by_centered = [first_places(each - center, means - center) for each in (found, expected)]
    cosine, centered = (sum(a == b for a, b in zip(*pair, strict=True)) / 40 for pair in (by_cosine, by_centered))
    assert 0 < cosine < 1
    assert 0 < centered < 1
    assert cosine != centered
    assert (result.cosine, result.centered, result.texts) == (cosine, centered, 40)
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    assert result.smallest_cosine == pytest.approx(((found * expected).sum(axis=1) / lengths).min(), abs=1e-6)


def test_the_same_vectors_agree_and_their_cosine_is_at_most_1() -> None:
    state = random_state(20)
    result = agreement(list(state.means), list(state.means), Ranking(state))
    assert (result.cosine, result.centered, result.texts) == (1, 1, 20)
    assert 0.999999 < result.smallest_cosine <= 1
    assert result.is_enough


def test_titles_are_the_texts(tiny_state: IncidentState, tiny_encoder: TorchEncoder) -> None:
    found = agreement_on_titles(tiny_state, tiny_encoder, tiny_encoder)
    assert found is not None
    assert (found.cosine, found.centered, found.texts) == (1, 1, 5)
    some = replace(tiny_state, titles=["", "", *tiny_state.titles[2:]])
    found = agreement_on_titles(some, tiny_encoder, tiny_encoder)
    assert found is not None
    assert found.texts == 3


def test_without_titles_there_is_nothing_to_measure_with(tiny_state: IncidentState, tiny_encoder: TorchEncoder) -> None:
    assert agreement_on_titles(replace(tiny_state, titles=[""] * 5), tiny_encoder, tiny_encoder) is None


def test_titles_are_cut_where_the_state_cuts_texts(tiny_state: IncidentState, tiny_encoder: TorchEncoder) -> None:
    """One encoder sees only the first tokens that the state allows, so that long titles are alike."""
    state = replace(tiny_state, titles=["one two three four " + title for title in tiny_state.titles], max_tokens=6)
    texts: list[int] = []

    class Noting(TorchEncoder):
        def vectors(self, ids: object) -> np.ndarray:
            assert isinstance(ids, list)
            texts.extend(map(len, ids))
            return super().vectors(ids)

    noting = object.__new__(Noting)
    vars(noting).update(vars(tiny_encoder))
    agreement_on_titles(state, noting, tiny_encoder)
    assert texts == [6] * 5
