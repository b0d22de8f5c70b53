"""Reports ask without their part in their incident, titles without theirs, and pairs are those that people marked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from databases import computer, database
from evaluation.asking import FOLDS
from evaluation.pairs import marked_pairs, pair_result
from evaluation.snapshot_tasks import snapshot_task
from evaluation.snapshots import Snapshot, build_snapshot
from evaluation.tasks import NothingToMeasureError
from similarity.encoder.text_encoder import TextEncoder
from similarity.incidents.ranking import Ranking
from similarity.sources.database import Database
from similarity.vectors import Vector

TEXTS = {
    1: ["A car hit a man. He lived.", "A car braked late."],
    2: ["A chatbot lied."],
    3: ["A plane fell.", "Planes fell twice.", "Both reports say this."],
    4: ["A robot fell.", "A robot fell.", "Both reports say this."],
}


def published(texts: Mapping[int, list[str]], seed: int = 0) -> dict[str, Vector]:
    random = np.random.default_rng(seed)
    unique = dict.fromkeys(text for each in texts.values() for text in each)
    return {text: random.normal(size=8).astype(np.float32) for text in unique}


VECTORS = published(TEXTS)


def described(found: Database) -> Database:
    incidents = [replace(each, description=f"About {each.incident_id}") for each in found.incidents]
    return replace(found, incidents=tuple(incidents))


@pytest.fixture
def snapshot() -> Snapshot:
    """Without a model."""
    return build_snapshot(described(database(TEXTS, VECTORS)), "published", None)


def test_a_report_asks_with_its_vector_and_is_left_out_of_its_incident(snapshot: Snapshot) -> None:
    task = snapshot_task("report", snapshot)
    asked = {query.text: query for query in task.queries}
    # Incident 2 has one report. Incident 4 has one text twice, which goes as a whole. Two share a report.
    assert set(asked) == {*TEXTS[1], *TEXTS[3][:2], "A robot fell."}
    query = asked[TEXTS[3][0]]
    assert query.incident_id == 3
    assert query.vector is not None
    np.testing.assert_array_equal(query.vector, VECTORS[query.text])
    assert query.own is not None
    others = [VECTORS[TEXTS[3][1]], VECTORS[TEXTS[3][2]]]
    np.testing.assert_allclose(query.own.mean, np.mean(others, axis=0), rtol=1e-6)
    assert query.own.document == "Incident 3\nAbout 3"
    twice = asked["A robot fell."].own
    assert twice is not None
    np.testing.assert_allclose(twice.mean, VECTORS["Both reports say this."], rtol=1e-6)
    assert task.notes == [
        "1 reports left out: their incident has no other text.",
        "2 reports left out: another incident holds the same text.",
    ]
    assert task.state is snapshot.state


def test_a_title_asks_without_the_title_in_the_word_index(snapshot: Snapshot) -> None:
    task = snapshot_task("title", snapshot, most=2)
    assert [query.text for query in task.queries] == ["Incident 1", "Incident 3"]
    for query in task.queries:
        assert query.vector is None
        assert query.own is not None
        assert query.own.document == f"About {query.incident_id}"
        row = snapshot.state.incident_ids.tolist().index(query.incident_id)
        np.testing.assert_array_equal(query.own.mean, snapshot.state.means[row])


def test_the_beginning_of_a_report_asks_of_the_incident_without_the_whole_report(snapshot: Snapshot) -> None:
    [whole, *_], [cut, *_] = (snapshot_task(name, snapshot).queries for name in ("report", "first-sentence"))
    assert (whole.text, cut.text) == ("A car hit a man. He lived.", "A car hit a man.")
    assert cut.vector is None
    assert cut.own is not None
    np.testing.assert_array_equal(cut.own.mean, VECTORS["A car braked late."])


def test_without_a_report_to_ask_nothing_is_measured() -> None:
    alone = {number: [f"Report {number}"] for number in range(1, 4)}
    snapshot = build_snapshot(described(database(alone, published(alone))), "published", None)
    with pytest.raises(NothingToMeasureError, match="3 reports left out"):
        snapshot_task("report", snapshot)


def test_a_model_computes_the_vectors_and_the_questions_to_fit_to(tiny_encoder: TextEncoder) -> None:
    with computer(tiny_encoder) as computing:
        snapshot = build_snapshot(described(database(TEXTS)), "auto", computing)
    [query, *_] = snapshot_task("report", snapshot).queries
    assert query.vector is not None
    np.testing.assert_allclose(query.vector, tiny_encoder.encode(query.text).vector, atol=1e-5)
    assert {question.kind for question in snapshot.questions} == {"report", "title"}
    assert list(snapshot_task("title", snapshot).questions([])) == list(snapshot.questions)  # type: ignore[misc]


def test_a_model_with_prefixes_encodes_reports_again(
    tiny_encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny_encoder, "config", replace(tiny_encoder.config, query_prefix="ask: "))
    with computer(tiny_encoder) as computing:
        snapshot = build_snapshot(described(database(TEXTS)), "computed", computing)
    assert {query.vector for query in snapshot_task("report", snapshot).queries} == {None}


# Incidents at these angles.
ANGLES = {1: 0, 2: 10, 3: 30, 4: 90, 5: 20}


def turned() -> Database:
    texts = {number: [f"Report {number}"] for number in ANGLES}
    radians = {number: np.radians(angle) for number, angle in ANGLES.items()}
    vectors = {f"Report {n}": np.array([np.cos(r), np.sin(r)], dtype=np.float32) for n, r in radians.items()}
    found = described(database(texts, vectors))
    # 1 and 2 are marked as both, so they say nothing. 9 isn't in the state.
    return replace(
        found, similar=frozenset({(1, 2), (1, 5), (3, 4), (2, 9)}), dissimilar=frozenset({(1, 2), (1, 3), (3, 5)})
    )


def test_the_similar_incident_should_be_nearer_than_the_dissimilar_one() -> None:
    snapshot = build_snapshot(turned(), "published", None)
    similar, dissimilar = marked_pairs(snapshot)
    assert (similar, dissimilar) == ([(1, 5), (3, 4)], [(1, 3), (3, 5)])
    found = pair_result(snapshot, [Ranking(snapshot.state)] * FOLDS, similar, dissimilar)
    assert (found.similar, found.dissimilar, found.incidents) == (2, 2, 3)
    cosine = found.metrics["cosine"]
    # 1: its similar one is 20 degrees away, the dissimilar one 30. 3: 60 against 30 and 10. 5: 20 against 10.
    assert cosine.nearer.value == pytest.approx(1 / 3)
    # Similar pairs are 20 and 60 degrees apart, dissimilar ones 30 and 10: 1 of 4 is in order.
    assert cosine.auc == pytest.approx(1 / 4)
    assert {"whitened", "hybrid", "words"} <= set(found.metrics)


def test_without_labels_there_are_no_pairs(snapshot: Snapshot) -> None:
    with pytest.raises(NothingToMeasureError, match="0 similar and 0 dissimilar pairs"):
        marked_pairs(snapshot)
