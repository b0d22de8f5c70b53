"""A state that is updated, however often and in whatever order, equals one that is built from scratch."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from databases import IN_MEMORY, computer, database
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.incidents.state import IncidentState
from similarity.refresh.build import VectorsFrom, build_state
from similarity.refresh.compute import PART_CHARS, Computer, encode_part, parts
from similarity.refresh.vector_store import KEPT_FOR, VectorStore
from similarity.sources.database import Database
from similarity.vectors import Vector

TEXTS = [
    "A robot hurt a worker.",
    "A car without a driver hit a woman who pushed a bicycle. " * 3,
    "“Überwachung” in der U-Bahn",
    "🤖",
    "Two planes went down.",
    "two planes went down",
    "A court's risk scores",
]


@dataclass
class Records:
    """What AIID's editors have entered so far. published: texts that have a vector of AIID's."""

    incidents: dict[int, list[str]] = field(default_factory=dict)
    duplicates: dict[int, int] = field(default_factory=dict)
    published: set[str] = field(default_factory=set)

    def add(self, incident: int, text: str) -> None:
        if incident not in self.duplicates:
            self.incidents.setdefault(incident, []).append(text)

    def change(self, incident: int, text: str) -> None:
        if self.incidents.get(incident):
            self.incidents[incident][0] = text

    def remove(self, incident: int, text: str) -> None:
        reports = self.incidents.get(incident, [])
        if text in reports:
            reports.remove(text)

    def remove_incident(self, incident: int, text: str) -> None:
        self.incidents.pop(incident, None)

    def reorder(self, incident: int, text: str) -> None:
        random.Random(text).shuffle(self.incidents.get(incident, []))

    def merge(self, incident: int, text: str) -> None:
        if incident in self.incidents and len(self.incidents) > 1:
            reports = self.incidents.pop(incident)
            became = min(self.incidents)
            self.incidents[became] += reports
            self.duplicates = {merged: became if end == incident else end for merged, end in self.duplicates.items()}
            self.duplicates[incident] = became

    def publish(self, incident: int, text: str) -> None:
        self.published ^= {text}

    def database(self, encoder: TorchEncoder) -> Database:
        published = {text: encoder.encode(text).vector + np.float32(0.001) for text in self.published}
        texts = {each: reports for each, reports in self.incidents.items() if reports}
        return database(texts, published, duplicates=self.duplicates)


OPERATIONS: list[Callable[[Records, int, str], None]] = [
    *(Records.add, Records.add, Records.add, Records.change, Records.remove),
    *(Records.remove_incident, Records.reorder, Records.merge, Records.publish),
]
UPDATES = st.lists(
    st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(1, 4), st.sampled_from(TEXTS)), min_size=1, max_size=8),
    min_size=2,
    max_size=5,
)


def state_of(records: Database, vectors: VectorsFrom, by: Computer) -> IncidentState:
    limit = by.encoder.max_tokens
    return build_state(records, vectors=vectors, responses="include", max_tokens=limit, computer=by).state


@pytest.mark.slow
@pytest.mark.parametrize("vectors", ["computed", "auto"])
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(updates=UPDATES)
def test_a_series_of_updates_ends_as_a_build_from_scratch(
    vectors: VectorsFrom, updates: list[list[tuple[Callable[..., None], int, str]]], tiny_encoder: TorchEncoder
) -> None:
    records = Records()
    with computer(tiny_encoder) as updating:
        for update in updates:
            for operation, incident, text in update:
                operation(records, incident, text)
            if not any(text != "🤖" for reports in records.incidents.values() for text in reports):
                continue
            now = records.database(tiny_encoder)
            with computer(tiny_encoder) as anew:
                scratch = state_of(now, vectors, anew)
            updated = state_of(now, vectors, updating)
            assert updated.incident_ids.tolist() == scratch.incident_ids.tolist()
            assert updated.report_counts.tolist() == scratch.report_counts.tolist()
            np.testing.assert_allclose(updated.means, scratch.means, rtol=0, atol=1e-6)
            assert list(updated.titles) == list(scratch.titles)
            assert (
                updated.duplicates.tolist() == scratch.duplicates.tolist() == sorted(map(list, now.duplicates.items()))
            )


def test_the_order_of_updates_and_of_reports_changes_nothing(tiny_encoder: TorchEncoder) -> None:
    parts = [{1: [TEXTS[0]]}, {2: [TEXTS[1], TEXTS[2]]}, {1: [TEXTS[4], TEXTS[0]], 3: [TEXTS[0]]}]
    last = {1: [TEXTS[4], TEXTS[0], TEXTS[2]], 2: [TEXTS[1]], 3: [TEXTS[6]]}
    states = []
    for order in ([0, 1, 2], [2, 1, 0], []):
        with computer(tiny_encoder) as updating:
            for each in order:
                state_of(database(parts[each]), "computed", updating)
            reports = {each: texts if order else texts[::-1] for each, texts in last.items()}
            states.append(state_of(database(reports), "computed", updating))
    for state in states[1:]:
        np.testing.assert_allclose(state.means, states[0].means, rtol=0, atol=1e-6)
        assert state.report_counts.tolist() == states[0].report_counts.tolist() == [3, 1, 1]


def test_only_new_and_changed_texts_are_encoded(tiny_encoder: TorchEncoder, encoded: list[str]) -> None:
    first = {1: ["one", "two"], 2: ["two", "three"]}
    with computer(tiny_encoder) as updating:

        def encodes(texts: dict[int, list[str]]) -> list[str]:
            encoded.clear()
            state_of(database(texts), "computed", updating)
            return sorted(encoded)

        assert encodes(first) == ["one", "three", "two"]
        assert encodes(first) == []
        assert encodes({2: ["three", "two"], 5: ["one"]}) == []
        assert encodes({1: ["one", "two, changed"], 2: ["three", "four"]}) == ["four", "two, changed"]
        assert encodes({1: ["one"]}) == []
        assert encodes(first) == [], "a text that is put back"


def test_texts_that_are_the_same_once_transliterated_have_one_vector(
    tiny_encoder: TorchEncoder, encoded: list[str]
) -> None:
    with computer(tiny_encoder) as updating:
        both = state_of(database({1: ["“Überwachung”"], 2: ['"Uberwachung"']}), "computed", updating)
        state_of(database({1: ["“Ûberwachung“"]}), "computed", updating)
    assert encoded == ['"Uberwachung"']
    assert both.means[0].tobytes() == both.means[1].tobytes()


def test_an_interrupted_build_keeps_all_parts_before(tiny_encoder: TorchEncoder, encoded: list[str]) -> None:
    texts = [letter * PART_CHARS for letter in "abc"]

    def stop_at_b(texts: Sequence[str]) -> Iterator[Mapping[str, Vector]]:
        for part in parts(texts):
            if part[0].startswith("b"):
                raise KeyboardInterrupt
            yield encode_part(tiny_encoder, part)

    with VectorStore(IN_MEMORY) as store:
        with pytest.raises(KeyboardInterrupt):
            state_of(database({1: texts}), "computed", Computer(tiny_encoder, store, stop_at_b))
        assert encoded == texts[:1]
        state_of(database({1: texts}), "computed", Computer(tiny_encoder, store))
    assert encoded == texts


def test_vectors_that_no_build_uses_any_more_are_removed(
    tmp_path: Path, tiny_encoder: TorchEncoder, encoded: list[str]
) -> None:
    path, first = tmp_path / "vectors.sqlite", date(2026, 1, 1)
    for days, texts in ((0, ["one", "two"]), (KEPT_FOR.days, ["one"]), (KEPT_FOR.days + 1, ["one"])):
        with VectorStore(path, first + timedelta(days)) as store:
            state_of(database({1: texts}), "computed", Computer(tiny_encoder, store))
    assert sorted(encoded) == ["one", "two"]
    with computer(tiny_encoder, path) as by:
        assert by.get(["one", "two"]).keys() == {"one"}
