"""Texts to ask with are read as they stand, and put into prose in the same way each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evaluation.texts import Place, Query, Surroundings, Unrelated, read_incidents, read_own, read_unrelated, spread
from similarity.sources.problems import Problems, SourceError

PIECES = ["one two three", "four five", "six"]


def queries(count: int) -> list[Query]:
    return [Query(number, f"Q{number}", vector=np.ones(2, dtype=np.float32)) for number in range(1, count + 1)]


@pytest.mark.parametrize(
    ("place", "number", "expected"),
    [
        ("start", 0, "Q one two three four"),
        ("middle", 0, "one two Q three four"),
        ("end", 0, "one two three four Q"),
        ("start", 1, "Q four five six one"),
        ("end", 5, "six one two three Q"),
    ],
)
def test_a_text_stands_at_its_place_in_the_words(place: Place, number: int, expected: str) -> None:
    assert Surroundings(PIECES, 4, place).around("Q", number) == expected


def test_short_prose_begins_again() -> None:
    assert Surroundings(PIECES, 8, "end").around("Q", 0) == "one two three four five six one two Q"


def test_the_prose_around_a_query_depends_on_its_incident_alone() -> None:
    around = Surroundings(PIECES, 4, "start")
    every, last = around.around_each(queries(3)), around.around_each(queries(3)[2:])
    assert [each.text for each in every] == ["Q1 four five six one", "Q2 six one two three", "Q3 one two three four"]
    assert [each.text for each in last] == [every[2].text]
    # The vector was that of another text.
    assert [each.vector for each in every] == [None, None, None]


def test_prose_is_news_and_unrelated_texts_get_it_too() -> None:
    texts = [Unrelated("news", "en", piece) for piece in PIECES] + [Unrelated("short", "", ".")]
    around = Surroundings.of(texts, 2, "end")
    assert around.pieces == PIECES
    assert [each.text for each in around.around_unrelated(texts)] == [
        *("four five one two three", "six one four five", "one two six", "four five ."),
    ]
    assert [each.kind for each in around.around_unrelated(texts)] == ["news", "news", "news", "short"]


def test_some_queries_are_taken_in_even_steps() -> None:
    assert [each.incident_id for each in spread(queries(10), 4)] == [1, 3, 6, 8]
    three = queries(3)
    assert spread(three, 3) == spread(three, 5) == spread(three, None) == three


def test_texts_are_taken_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "incidents.csv"
    path.write_text(
        "incident_id,title,description\n2,A car,It hit. \n1, A robot ,...\n1,Again,It fell\n3,A bank!,It lied.\n"
    )
    built = read_incidents(path, "description")
    assert [each.texts for each in built] == [("It fell.",), ("It hit.",), ("It lied.",)]
    assert [each.description for each in built] == ["It fell", "It hit.", "It lied."]
    titles = read_incidents(path, "title", quiet=True)
    assert [each.title for each in titles] == ["A robot", "A car", "A bank!"]


def test_a_users_own_texts_have_an_incident_or_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "own.csv"
    path.write_text('text,incident_id,language\n A car ,7,\n"Ein Kuchen, süß",,de\nA robot,x,\n ,3,\nA plane,3,en\n')
    found, unrelated = read_own(path, Problems())
    assert [(each.incident_id, each.text, each.language) for each in found] == [(7, "A car", ""), (3, "A plane", "en")]
    assert unrelated == [Unrelated("yours", "de", "Ein Kuchen, süß")]
    assert capsys.readouterr().err.splitlines() == [
        "own.csv, line 4: incident_id isn't a whole number above 0; skipped",
        "own.csv, line 5: text is blank; skipped",
    ]


def test_a_users_own_table_needs_both_columns(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("text,language\nA car,en\n")
    with pytest.raises(SourceError, match="incident_id"):
        read_own(path, Problems())


def test_the_sample_has_texts_of_each_kind() -> None:
    assert {each.kind for each in read_unrelated()} == {"news", "household", "short", "language"}


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"kind,language,text\n",
        b"kind,language,text\nshort,,A text\n",
        b"kind,language,text\nnews,, \n",
        b"kind,text\nnews,A text\n",
        b"kind,language,text,more\nnews,,A text,x\n",
        b"kind,language,text\nnews,,\xff\n",
    ],
)
def test_another_file_than_the_projects_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "unrelated.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=r"unrelated\.csv .*take the file of this project again\.$"):
        read_unrelated(path)
