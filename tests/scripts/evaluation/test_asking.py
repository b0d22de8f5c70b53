"""Ranks and scores are those worked out by hand, and no text is asked of a state that was fitted to its incident."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from evaluation.asking import FOLDS, Answers, Compared, answers, cross_fitted, fold_of, unmatched
from evaluation.texts import Query
from similarity.incidents.confidence import EVIDENCE, Confidence
from similarity.incidents.fit import Fit
from similarity.incidents.ranking import Own, Ranking
from similarity.incidents.state import IncidentState
from similarity.incidents.words import WordIndex
from similarity.vectors import Vector

EAST = np.array([1.0, 0.0], dtype=np.float32)


def state_of(*means: tuple[float, float], documents: list[str] | None = None) -> IncidentState:
    count = len(means)
    return IncidentState(
        incident_ids=np.arange(1, count + 1),
        report_counts=np.ones(count, dtype=np.int64),
        means=np.array(means, dtype=np.float32),
        titles=[""] * count,
        fit=Fit(words=WordIndex.of(documents) if documents else None),
    )


def asked(state: IncidentState, *queries: Query, vector: Vector = EAST) -> dict[Compared, Answers]:
    rankings = [Ranking(state)] * FOLDS
    return answers(queries, [vector] * len(queries), rankings, "unidecode", lambda: None)


def by_cosine(state: IncidentState, *queries: Query) -> Answers:
    return asked(state, *queries)["cosine"]


def test_an_answer_has_the_rank_and_the_largest_scores_with_and_without_the_incident() -> None:
    state = state_of((3, 4), (1, 0), (0, 1))  # cosines with EAST: 0.6, 1, 0
    found = by_cosine(state, Query(1, "A"), Query(2, "B"), Query(3, "C"))
    assert found.rank.tolist() == [2, 1, 3]
    np.testing.assert_allclose(found.right, [0.6, 1, 0], atol=1e-6)
    np.testing.assert_allclose(found.best, [1, 1, 1])
    np.testing.assert_allclose(found.rival, [1, 0.6, 1], atol=1e-6)
    # Rows of the other incidents, best first; there is no third one.
    assert found.others.tolist() == [[1, 2, -1], [0, 2, -1], [1, 0, -1]]


def test_incidents_with_the_same_vector_share_a_rank() -> None:
    found = by_cosine(state_of((3, 4), (3, 4), (1, 0)), Query(1, "A"), Query(2, "B"), Query(3, "C"))
    assert found.rank.tolist() == [2, 2, 1]


def test_without_its_only_incident_a_state_has_no_best() -> None:
    found = by_cosine(state_of((1, 0)), Query(1, "A"))
    assert math.isnan(found.rival[0])
    assert found.others.tolist() == [[-1, -1, -1]]


def test_an_incident_is_asked_as_it_would_be_without_the_text() -> None:
    state = state_of((1, 0), (3, 4))
    own = Own(1, np.array([0, 1], dtype=np.float32), "")
    found = by_cosine(state, Query(1, "A", own=own))
    assert found.rank.tolist() == [2]
    assert found.right[0] == pytest.approx(0, abs=1e-7)
    np.testing.assert_allclose(found.best, 0.6, atol=1e-6)
    # Without the incident, nothing changes.
    np.testing.assert_allclose(found.rival, 0.6, atol=1e-6)


def test_words_are_compared_alone_and_in_no_state_without_them() -> None:
    means = ((1, 0), (1, 0), (0, 1))
    documents = ["A chatbot lied", "A robot fell on a worker", "A plane fell"]
    state = state_of(*means, documents=documents)
    found = asked(state, Query(2, "robots hurting workers"), Query(3, "Planes are falling"), Query(1, "robots"))
    assert found["words"].rank.tolist() == [1, 1, 2]
    assert "words" not in asked(state_of(*means), Query(1, "A"))


def test_folds_depend_on_the_id_alone_and_are_about_equal() -> None:
    folds = [fold_of(number) for number in range(1, 1001)]
    assert folds == [fold_of(number) for number in range(1, 1001)]
    assert set(folds) == set(range(FOLDS))
    assert min(map(folds.count, range(FOLDS))) > 150


def test_no_state_is_fitted_to_the_incidents_that_are_asked_of_it() -> None:
    ids = range(1, 51)
    given: list[frozenset[int]] = []

    def fit(incident_ids: frozenset[int]) -> IncidentState:
        given.append(incident_ids)
        return state_of((1, 0))

    assert len(cross_fitted(fit, ids)) == len(given) == FOLDS
    for fold, fitted_to in enumerate(given):
        assert fitted_to == {number for number in ids if fold_of(number) != fold}


def test_a_query_is_asked_of_its_own_folds_state_and_an_unrelated_text_of_all() -> None:
    # In the state of fold k, the one incident's cosine with EAST is k / 10.
    rankings = [
        Ranking(state_of((fold / 10, math.sqrt(1 - (fold / 10) ** 2)), *[(-1, 0)] * 9)) for fold in range(FOLDS)
    ]
    ids = list(range(1, 11))
    assert len({fold_of(number) for number in ids}) > 2
    found = answers([Query(number, "") for number in ids], [EAST] * 10, rankings, "unidecode", lambda: None)["cosine"]
    np.testing.assert_allclose(found.best, [fold_of(number) / 10 for number in ids], atol=1e-6)
    no_match = unmatched(["", ""], [EAST, EAST], rankings, "unidecode")["cosine"]
    np.testing.assert_allclose(no_match.best, np.repeat(np.arange(FOLDS)[:, None] / 10, 2, axis=1), atol=1e-6)
    assert [list(each) for each in no_match.verdicts] == [[None, None]] * FOLDS


def test_confidence_is_that_of_the_states_calibration() -> None:
    # The confidence of a first match is the logistic of 10 times its cosine, less 5.
    size = 2 * len(EVIDENCE["cosine"])
    calibration = Confidence((10.0, *[0.0] * (size - 1), -5.0), (0.0,) * (size + 1), none_below=0.3)
    state = state_of((3, 4), (0, 1), (-1, 0))
    state = replace(state, fit=Fit(calibration={"cosine": calibration}))
    found = by_cosine(state, Query(1, "A"), Query(2, "B"))
    first = 1 / (1 + math.exp(-1))  # the cosine is 0.6
    np.testing.assert_allclose(found.there.confidence[:, 0], first, atol=1e-6)
    assert found.there.is_right.tolist() == [[True, False, False], [False, True, False]]
    assert found.there.verdicts == ["likely", "likely"]
    # Without incident 1, the first match's cosine is 0.
    np.testing.assert_allclose(found.removed.confidence[:, 0], [1 / (1 + math.exp(5)), first], atol=1e-6)
    assert found.removed.verdicts == ["none", "likely"]
    assert not found.removed.is_right.any()
    assert np.isnan(found.removed.confidence[:, 2]).all()
    [verdicts, *_] = unmatched(["", ""], [EAST, -EAST], [Ranking(state)] * FOLDS, "unidecode")["cosine"].verdicts
    # The cosine of incident 3 with the opposite vector is 1.
    assert verdicts == ["likely", "likely"]
