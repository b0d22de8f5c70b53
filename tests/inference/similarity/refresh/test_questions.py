"""Questions are texts of a state, each with what the state would know of its incident without the text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from databases import IN_MEMORY, SNAPSHOT, computer
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.refresh.build import Built, build_state
from similarity.refresh.compute import Computer, in_this_process
from similarity.refresh.fitting import FEWEST
from similarity.refresh.questions import (
    DEFAULT_WORDS_FROM,
    MOST,
    Documents,
    Known,
    Question,
    ReportQuestions,
    WordsFrom,
    as_queries,
    has_title_to_ask,
    mean_of,
    title_questions,
    words_from_option,
)
from similarity.refresh.vector_store import KEPT_FOR, VectorStore
from similarity.settings import AIID_MAX_TOKENS
from similarity.sources.database import Database, Incident, Report, stand_in
from similarity.vectors import Vector
from tiny import TINY_MAX_TOKENS, edit_config, write_tiny_longformer

DOCUMENTS = Documents(DEFAULT_WORDS_FROM, "unidecode")


def known(incident_id: int, *texts: str, title: str = "", description: str = "", seed: int = 0) -> Known:
    """An incident with these reports and vectors of three numbers."""
    choose = np.random.default_rng([incident_id, seed])
    reports = tuple(Report(1000 * incident_id + number, text, "en") for number, text in enumerate(texts))
    incident = Incident(incident_id, title or f"Incident {incident_id}", "", reports, description)
    vectors = [choose.standard_normal(3, np.float32) for _ in texts]
    return Known(incident, reports, vectors, mean_of(vectors))


def asked_of(every: Sequence[Known], documents: Documents = DOCUMENTS, most: int = MOST) -> list[Question]:
    questions = ReportQuestions(documents, most)
    for each in every:
        questions.offer(each)
    return questions.chosen()


# Reports.


def test_a_report_asks_a_state_that_lacks_it() -> None:
    vectors = [np.array(numbers, dtype=np.float32) for numbers in ([1, 2], [3, 6], [8, 10])]
    reports = (Report(101, "“One”", "de"), Report(102, "two", ""), Report(103, "three"))
    incident = Incident(7, "A title", "", reports, "A description")
    asked = asked_of([Known(incident, reports, vectors, mean_of(vectors))])
    by_number = {each.number: each for each in asked}
    assert by_number.keys() == {101, 102, 103}
    expected = {101: [5.5, 8], 102: [4.5, 6], 103: [2, 4]}
    for number, own in expected.items():
        question = by_number[number]
        assert (question.kind, question.incident_id, question.own.incident_id) == ("report", 7, 7)
        assert question.own.mean.tolist() == own
        assert question.own.mean.dtype == np.float32
        assert question.own.document == "A title\nA description"
        assert question.vector.tolist() == vectors[number - 101].tolist()
    assert [by_number[number].text for number in expected] == ['"One"', "two", "three"]
    assert [by_number[number].language for number in expected] == ["de", "", "en"]


def test_reports_without_a_vector_do_not_ask() -> None:
    whole = known(7, "one", "two", "three")
    some = replace(whole, reports=whole.reports[:2], vectors=whole.vectors[:2], mean=mean_of(whole.vectors[:2]))
    assert {each.text for each in asked_of([some])} == {"one", "two"}


def test_the_only_report_of_an_incident_does_not_ask() -> None:
    assert asked_of([known(1, "one"), known(2, "two")]) == []
    assert {each.incident_id for each in asked_of([known(1, "one"), known(2, "two", "three")])} == {2}


def test_reports_with_the_same_text_ask_once_and_are_left_out_together() -> None:
    documents = Documents(("reports",), "unidecode")
    assert asked_of([known(1, "twin", "twin")]) == []
    every = known(2, "twin", "other", "twin", "third")
    by_text = {each.text: each for each in asked_of([every], documents)}
    assert by_text.keys() == {"twin", "other", "third"}
    twin, other = by_text["twin"].own, by_text["other"].own
    np.testing.assert_allclose(twin.mean, mean_of([every.vectors[1], every.vectors[3]]))
    assert twin.document == "other\nthird"
    np.testing.assert_allclose(other.mean, mean_of([every.vectors[place] for place in (0, 2, 3)]))
    assert other.document == "twin\ntwin\nthird"
    assert by_text["twin"].number == every.reports[0].number


def test_an_incident_asks_a_second_time_only_after_all_have_asked() -> None:
    every = [known(number, *(f"{number} {part}" for part in range(1 + number % 5))) for number in range(1, 41)]
    several = [each for each in every if len(each.reports) > 1]
    sizes = {each.incident.incident_id: len(each.reports) for each in several}
    for most in (1, 10, len(several), len(several) + 5, 70, 1000):
        counts = Counter(each.incident_id for each in asked_of(every, most=most))
        assert counts.total() == min(most, sum(sizes.values()))
        turns = max(counts.values())
        # Before anyone asks for the nth time, each has asked n - 1 times or has no report left.
        assert all(counts[each] >= min(turns - 1, size) for each, size in sizes.items())
        assert all(counts[each] <= size for each, size in sizes.items())


def places(questions: Sequence[Question]) -> list[tuple[int, int | None]]:
    return [(each.incident_id, each.number) for each in questions]


@given(st.permutations(range(1, 13)), st.integers(1, 30))
def test_the_choice_does_not_depend_on_the_order_of_incidents(order: list[int], most: int) -> None:
    every = {number: known(number, *(f"{number} {part}" for part in range(1 + number % 4))) for number in range(1, 13)}
    in_order = places(asked_of([every[number] for number in sorted(order)], most=most))
    assert places(asked_of([every[number] for number in order], most=most)) == in_order
    assert len(in_order) == min(most, sum(len(each.reports) for each in every.values() if len(each.reports) > 1))


def test_few_other_texts_ask_when_incidents_are_added() -> None:
    first = [known(number, f"{number} a", f"{number} b") for number in range(1, 61)]
    more = [known(number, f"{number} a", f"{number} b") for number in range(100, 103)]
    before, after = (set(places(asked_of(each, most=50))) for each in (first, [*first, *more]))
    new = {place for place in after if place[0] >= 100}
    assert after - new <= before, "no other one takes part"
    assert len(before - after) == len(new) <= 3


def test_without_a_limit_given_there_are_at_most_500() -> None:
    assert MOST == 500
    assert len(asked_of([known(number, "a", "b", "c") for number in range(1, 202)])) == 500


# Documents and their parts.


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        (None, ("title", "description")),
        ("", ("title", "description")),
        ("title", ("title",)),
        ("reports,title", ("title", "reports")),
        ("description,title", ("title", "description")),
        ("title,description,reports", ("title", "description", "reports")),
        ("title,title", ("title", "description")),
        ("title,gossip", ("title", "description")),
    ],
)
def test_the_parts_of_an_option_are_in_the_usual_order(option: str | None, expected: tuple[str, ...]) -> None:
    assert words_from_option(option) == expected
    if option is not None and set(option.split(",")) == set(expected):
        assert words_from_option(",".join(words_from_option(option))) == expected


@pytest.mark.parametrize(
    ("parts", "whole", "without_title", "without_report"),
    [
        (("title",), "Uber", "", "Uber"),
        (("description",), "What", "What", "What"),
        (("title", "description"), "Uber\nWhat", "What", "Uber\nWhat"),
        (("reports",), "one\ntwo\none", "one\ntwo\none", "two"),
        (
            ("title", "description", "reports"),
            "Uber\nWhat\none\ntwo\none",
            "What\none\ntwo\none",
            "Uber\nWhat\ntwo",
        ),
    ],
)
def test_a_document_has_the_parts_of_an_incident(
    parts: tuple[WordsFrom, ...], whole: str, without_title: str, without_report: str
) -> None:
    documents = Documents(parts, "unidecode")
    reports = (Report(1, "one"), Report(2, "two"), Report(3, "one"))
    incident = Incident(7, "Über", "", reports, "What")
    assert documents.of(incident) == whole
    assert documents.of(incident, title=False) == without_title
    assert documents.of(incident, without=reports[0].text) == without_report
    assert Documents(parts, "none").of(incident) == whole.replace("Uber", "Über")


def test_a_text_that_stands_in_for_reports_is_not_in_a_document_twice() -> None:
    incident = Incident(7, "A title", "", (Report(None, "A title. What happened."),), "What happened.")
    assert Documents(("title", "description", "reports"), "none").of(incident) == "A title\nWhat happened."
    assert Documents(("reports",), "none").of(incident) == ""


def test_a_report_asks_a_word_index_without_it() -> None:
    documents = Documents(("description", "reports"), "none")
    asked = asked_of([known(7, "one", "two", description="What")], documents)
    assert {each.text: each.own.document for each in asked} == {"one": "What\ntwo", "two": "What\none"}


# Titles.

ONES: Vector = np.ones(32, dtype=np.float32)


def titled(incident_id: int, title: str, description: str = "", *texts: str) -> Incident:
    """An incident with reports, or with a text that stands in for them."""
    reports = tuple(Report(1000 * incident_id + number, text) for number, text in enumerate(texts))
    return Incident(incident_id, title, "", reports or (Report(None, stand_in(title, description)),), description)


def with_means(encoder: TorchEncoder, *incidents: Incident) -> list[tuple[Incident, Vector]]:
    reports = encoder.for_reports()
    return [(each, mean_of([reports.encode(text).vector for text in each.texts])) for each in incidents]


def test_a_title_asks_a_state_whose_reports_have_other_words(tiny_encoder: TorchEncoder, encoded: list[str]) -> None:
    incidents = with_means(tiny_encoder, titled(7, "“A robot”", "It fell.", "one", "two"))
    encoded.clear()
    with computer(tiny_encoder) as by:
        [question] = title_questions(incidents, DOCUMENTS, by)
    assert encoded == ['"A robot"']
    assert (question.kind, question.text, question.number, question.language) == ("title", '"A robot"', None, "en")
    assert question.vector.tobytes() == tiny_encoder.encode('"A robot"').vector.tobytes()
    assert question.own.incident_id == 7
    assert question.own.mean.tobytes() == incidents[0][1].tobytes()
    assert question.own.document == "It fell."


def test_a_title_asks_without_itself_in_the_text_that_stands_in(tiny_encoder: TorchEncoder, encoded: list[str]) -> None:
    incidents = with_means(tiny_encoder, titled(7, "A robot", "It féll"))
    assert incidents[0][0].texts == ("A robot. It féll.",)
    encoded.clear()
    with computer(tiny_encoder) as by:
        [question] = title_questions(incidents, DOCUMENTS, by)
    assert sorted(encoded) == ["A robot", "It fell."]
    assert question.own.mean.tobytes() == tiny_encoder.encode("It fell.").vector.tobytes()
    assert question.own.document == "It fell"


def test_where_the_description_stands_in_a_title_asks_the_state_as_it_is(
    tiny_encoder: TorchEncoder, encoded: list[str]
) -> None:
    incident = Incident(7, "A robot", "", (Report(None, "It fell."),), "It fell")
    incidents = with_means(tiny_encoder, incident)
    encoded.clear()
    with computer(tiny_encoder) as by:
        [question] = title_questions(incidents, Documents(("description",), "unidecode"), by)
    assert encoded == ["A robot"]
    assert question.own.mean.tobytes() == incidents[0][1].tobytes()


NOT_ASKED = {
    "the title alone stands in": Incident(7, "A robot", "", (Report(None, "A robot."),), "It fell."),
    "no description": titled(7, "A robot"),
    "no title": titled(7, "", "It fell."),
    "a blank title": titled(7, "  ", "It fell.", "one"),
    "a title of emoji alone": titled(7, "🤖", "It fell.", "one"),
}


@pytest.mark.parametrize("case", NOT_ASKED)
def test_a_title_without_which_nothing_is_left_does_not_ask(
    case: str, tiny_encoder: TorchEncoder, encoded: list[str]
) -> None:
    incident = NOT_ASKED[case]
    assert not has_title_to_ask(incident, "unidecode")
    with computer(tiny_encoder) as by:
        assert title_questions([(incident, ONES)], DOCUMENTS, by) == []
    assert encoded == []
    assert has_title_to_ask(titled(7, "🤖", "It fell.", "one"), "none")


def test_titles_ask_in_an_order_that_stays(tiny_encoder: TorchEncoder) -> None:
    every = [(titled(number, f"Title {number}", "", "a text"), ONES) for number in range(1, 41)]
    with computer(tiny_encoder) as by:
        few = title_questions(every, DOCUMENTS, by, most=10)
        assert len(few) == 10
        again = title_questions(every[::-1], DOCUMENTS, by, most=10)
        assert [each.incident_id for each in again] == [each.incident_id for each in few]
        of_some = title_questions(every[:39], DOCUMENTS, by, most=10)
        assert len({each.incident_id for each in of_some} & {each.incident_id for each in few}) >= 9
    ids = [each.incident_id for each in few]
    assert ids != sorted(ids), "old incidents don't come first"


# A computer with a limit.


def test_as_many_titles_ask_as_the_computer_may_compute(tiny_encoder: TorchEncoder, encoded: list[str]) -> None:
    every = [(titled(number, f"Title {number}", f"What {number}"), ONES) for number in range(1, 9)]
    with VectorStore(IN_MEMORY) as store:
        by = Computer(tiny_encoder, store, most=8)
        by.compute(["a report", "another"])
        encoded.clear()
        # Each needs two vectors: its own, and that of the text without it.
        first = title_questions(every, DOCUMENTS, by)
        assert (len(first), len(encoded), by.done) == (3, 6, 8)
        encoded.clear()
        by = Computer(tiny_encoder, store, most=3)
        second = title_questions(every, DOCUMENTS, by)
        assert (len(second), len(encoded)) == (4, 2)
        assert [each.incident_id for each in second[:3]] == [each.incident_id for each in first]
        by = Computer(tiny_encoder, store, most=0)
        assert len(title_questions(every, DOCUMENTS, by)) == 4
        assert len(title_questions(every, DOCUMENTS, Computer(tiny_encoder, store))) == 8


@pytest.fixture
def prefixed(tmp_path: Path) -> TorchEncoder:
    """A model that reads queries and reports with other words before them."""
    folder = write_tiny_longformer(tmp_path)
    edit_config(folder, query_prefix="query: ", report_prefix="passage: ")
    return TorchEncoder.load(folder)


@pytest.fixture
def plain(tiny_encoder: TorchEncoder) -> TorchEncoder:
    """The same weights without prefixes."""
    return tiny_encoder


def test_questions_have_the_vectors_of_queries(prefixed: TorchEncoder, plain: TorchEncoder) -> None:
    incident = titled(7, "A robot", "It fell")
    with computer(prefixed) as by:
        [title] = title_questions([(incident, ONES)], DOCUMENTS, by)
        [report] = as_queries(asked_of([known(7, "one", "two")])[:1], by)
        by.compute(["A robot"])
        assert by.computed(["A robot"])["A robot"].tobytes() != title.vector.tobytes(), "other keys in the store"
    np.testing.assert_allclose(title.vector, plain.encode("query: A robot").vector, rtol=0, atol=1e-5)
    np.testing.assert_allclose(title.own.mean, plain.encode("passage: It fell.").vector, rtol=0, atol=1e-5)
    np.testing.assert_allclose(report.vector, plain.encode(f"query: {report.text}").vector, rtol=0, atol=1e-5)
    [before] = [each for each in asked_of([known(7, "one", "two")]) if each.text == report.text]
    assert (report.own.mean.tolist(), report.number) == (before.own.mean.tolist(), before.number)


def test_without_prefixes_a_text_is_computed_once_for_both(plain: TorchEncoder, encoded: list[str]) -> None:
    every = [known(7, "A robot", "two")]
    with computer(plain) as by:
        assert by.for_queries() is by
        by.compute(["A robot"])
        asked = asked_of(every)
        assert as_queries(asked, by) == asked
        title_questions([(titled(7, "A robot", "", "a text"), ONES)], DOCUMENTS, by)
    assert encoded == ["A robot"]


def test_queries_count_where_texts_are_limited(prefixed: TorchEncoder, encoded: list[str]) -> None:
    asked = asked_of([known(number, f"{number} a", f"{number} b") for number in range(1, 9)])
    titles = [(titled(number, f"Title {number}", "", "a"), ONES) for number in range(1, 9)]
    with VectorStore(IN_MEMORY) as store:
        by = Computer(prefixed, store, most=12)
        by.compute(["a report"])
        encoded.clear()
        some = as_queries(asked[:7], by)
        assert (len(some), by.done, len(encoded)) == (7, 8, 7)
        assert len(title_questions(titles, DOCUMENTS, by)) == 4
        assert (by.done, by.room(), len(encoded)) == (12, 0, 11)
        again = as_queries(asked, by)
        assert places(again) == places(some), "nothing more may be computed"
        assert len(title_questions(titles, DOCUMENTS, by)) == 4


def test_queries_do_not_go_to_other_processes(prefixed: TorchEncoder) -> None:
    """A Ray cluster computes reports only."""
    texts: list[str] = []

    def elsewhere(some: Sequence[str]) -> Iterator[Mapping[str, Vector]]:
        texts.extend(some)
        yield from in_this_process(prefixed)(some)

    with VectorStore(IN_MEMORY) as store:
        by = Computer(prefixed, store, elsewhere)
        title_questions([(titled(7, "A robot", "It fell"), ONES)], DOCUMENTS, by)
    assert texts == ["It fell."]


# In a build.


def many(incidents: int = FEWEST, *, reports: bool = True) -> Database:
    """Each incident has two reports, or none but its title and description."""
    every = [
        titled(
            number,
            f"Title {number}",
            f"Description of {number}",
            *([f"one {number}", f"two {number}"] if reports else []),
        )
        for number in range(1, incidents + 1)
    ]
    return Database(tuple(every), {}, frozenset(), SNAPSHOT)


def built(data: Database, by: Computer) -> Built:
    return build_state(data, vectors="computed", responses="include", max_tokens=TINY_MAX_TOKENS, computer=by)


def kinds(found: Built) -> Counter[str]:
    return Counter(each.kind for each in found.questions)


def test_a_build_asks_reports_and_titles(tiny_encoder: TorchEncoder, encoded: list[str]) -> None:
    with computer(tiny_encoder) as by:
        assert kinds(built(many(), by)) == Counter(report=60, title=30)
        assert len(encoded) == len(set(encoded)) == 90
        encoded.clear()
        built(many(), by)
        # A new incident asks too. Nothing else is computed for it.
        built(many(FEWEST + 1), by)
    assert sorted(encoded) == ["Title 31", "one 31", "two 31"]


def test_too_few_questions_cost_no_vectors(tiny_encoder: TorchEncoder, encoded: list[str]) -> None:
    for incidents, titles in ((9, 0), (10, 10)):
        encoded.clear()
        with computer(tiny_encoder) as by:
            found = built(many(incidents), by)
        assert len([text for text in encoded if text.startswith("Title")]) == titles
        assert bool(found.state.fit.calibration) is (3 * incidents >= FEWEST)


def test_a_limit_never_stops_a_build_because_of_titles(tiny_encoder: TorchEncoder) -> None:
    with VectorStore(IN_MEMORY) as store:
        by = Computer(tiny_encoder, store, most=60)
        assert kinds(built(many(), by)) == Counter(report=60)
        by = Computer(tiny_encoder, store, most=7)
        assert kinds(built(many(), by)) == Counter(report=60, title=7)
        # The next update takes up where this one ended.
        by = Computer(tiny_encoder, store, most=30)
        assert kinds(built(many(), by)) == Counter(report=60, title=30)
        assert by.done == 23


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "asked", "computed"),
    [
        # 60 reports, the same as queries, and 30 titles.
        (many(), Counter(report=60, title=30), 150),
        # 30 texts that stand in, the same without their titles, and 30 titles.
        (many(reports=False), Counter(title=30), 90),
    ],
    ids=["reports", "texts that stand in"],
)
def test_the_vectors_of_questions_are_kept_as_long_as_they_are_used(
    data: Database, asked: Counter[str], computed: int, prefixed: TorchEncoder, tmp_path: Path, encoded: list[str]
) -> None:
    path, first = tmp_path / "vectors.sqlite", date(2026, 1, 1)
    for days in (0, KEPT_FOR.days - 1, 2 * KEPT_FOR.days - 2, 3 * KEPT_FOR.days - 3):
        encoded.clear()
        with VectorStore(path, first + timedelta(days)) as store:
            found = built(data, Computer(prefixed, store))
        assert kinds(found) == asked
        assert len(encoded) == (0 if days else computed)


def test_published_vectors_are_asked_without_a_model(tiny_encoder: TorchEncoder) -> None:
    data = many()
    vectors = {text: tiny_encoder.encode(text).vector for each in data.incidents for text in each.texts}
    incidents = [
        replace(each, reports=tuple(replace(report, published=vectors[report.text]) for report in each.reports))
        for each in data.incidents
    ]
    found = build_state(
        replace(data, incidents=tuple(incidents)),
        vectors="published",
        responses="include",
        max_tokens=AIID_MAX_TOKENS,
    )
    assert kinds(found) == Counter(report=60)
    assert found.state.fit.calibration.keys() == {"cosine", "centered", "whitened", "hybrid"}
