"""Queries are asked with their vectors, of states that were fitted to other incidents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import evaluation.measuring
from evaluation.asking import FOLDS, fold_of
from evaluation.encoding import encode
from evaluation.measuring import Encoders, measure
from evaluation.tasks import Task
from evaluation.texts import Query, Unrelated
from similarity.encoder.text_encoder import TextEncoder
from similarity.incidents.fit import Fit
from similarity.incidents.ranking import Own
from similarity.incidents.state import IncidentState
from similarity.incidents.words import WordIndex
from similarity.refresh.questions import Question
from similarity.vectors import Vector
from tiny import state_of_texts

TEXTS = {number: f"Text {number} is about robots and cars" for number in range(1, 9)}
QUERIES = [Query(number, f"Asks for {number}") for number in TEXTS]


def test_each_fold_is_fitted_to_the_questions_of_the_others(
    tiny_encoder: TextEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = state_of_texts(tiny_encoder, TEXTS)
    given: list[set[int]] = []

    def fitted_to(questions: Sequence[Question], fitted: IncidentState, words: WordIndex | None) -> IncidentState:
        assert fitted is state
        assert words is state.fit.words
        given.append({each.incident_id for each in questions})
        return fitted

    def questions(vectors: Sequence[Vector]) -> list[Question]:
        assert len(vectors) == len(QUERIES)
        return [Question("title", "", state.means[0], Own(number, state.means[0], "")) for number in TEXTS]

    monkeypatch.setattr(evaluation.measuring, "fitted_to", fitted_to)
    encoders = Encoders(tiny_encoder, tiny_encoder)
    measure(Task(QUERIES, state, questions), encoders, [], tmp_path / "store")
    assert given == [{number for number in TEXTS if fold_of(number) != fold} for fold in range(FOLDS)]


def test_a_state_that_was_not_fitted_to_the_queries_is_asked_as_it_is(
    tiny_encoder: TextEncoder, tmp_path: Path
) -> None:
    state = state_of_texts(tiny_encoder, TEXTS)
    whitening = np.eye(state.dimension, dtype=np.float32)
    fitted = IncidentState(
        state.incident_ids, state.report_counts, state.means, state.titles, fit=Fit(whitening, power=0.3)
    )
    encoders = Encoders(tiny_encoder, tiny_encoder)
    yours = Unrelated("yours", "", "A cake")
    found = measure(Task(QUERIES, fitted, None, (), [yours]), encoders, [Unrelated("news", "", "Rain")], tmp_path / "s")
    assert found.result.powers == [0.3] * FOLDS
    assert set(found.plots) == {"cosine", "centered", "whitened"}
    assert len(found.plots["cosine"].unrelated) == 2
    assert found.agreement is None


def test_a_query_with_a_vector_needs_no_model(tiny_encoder: TextEncoder, tmp_path: Path) -> None:
    state = state_of_texts(tiny_encoder, TEXTS)
    # Each query has the vector of the next incident, so its own never comes first.
    queries = [Query(number, "", vector=state.means[number % len(TEXTS)]) for number in TEXTS]
    found = measure(Task(queries, state, None), None, [Unrelated("news", "", "Rain")], tmp_path / "store")
    assert found.result.metrics["cosine"].ranks.recall[1].value == 0
    assert list(found.plots["cosine"].unrelated) == []


def test_vectors_are_those_of_queries_and_are_kept(
    tiny_encoder: TextEncoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["A car", "  ", "A car", "Ein Käfer"]
    expected = np.stack([tiny_encoder.encode(text).vector for text in texts])
    np.testing.assert_allclose(encode(texts, tiny_encoder, tmp_path / "store"), expected, atol=1e-6)
    assert " chars" in capsys.readouterr().err
    np.testing.assert_allclose(encode(texts, tiny_encoder, tmp_path / "store"), expected, atol=1e-6)
    assert " chars" not in capsys.readouterr().err
