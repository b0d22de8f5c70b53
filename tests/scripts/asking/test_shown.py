"""Answers as lines for a person, as CSV and as JSON lines; and files that appear whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest

from asking.shown import MATCHES, NOTES, REASONS, CsvWriter, JsonLinesWriter, lines_of, written_whole
from asking.tables import Row, Table
from pages import DOCS, spans, text_of
from pages import table as table_of
from tiny import contents

INCIDENTS: list[dict[str, Any]] = [
    {
        "incident_id": 4,
        "similarity": 0.625481903553009,
        "confidence": 0.68,
        "title": "A car,\nhit",
        "date": "2018-03-18",
        "url": "https://example.org/4",
        "why": {"words": ["car", "hit"], "sentence": "A car hit a woman."},
    },
    {
        "incident_id": 8, "similarity": -1.0, "confidence": None, "title": None, "date": None, "url": None,
        "why": {"words": [], "sentence": None},
    },
]  # fmt: skip
BODY: dict[str, Any] = {"warnings": ["One.", "Two."], "msg": "[]", "match": "likely", "incidents": INCIDENTS}
ERROR: dict[str, Any] = {"warnings": [], "msg": "Error! No text.", "code": "text_missing"}


def test_a_person_reads_all_that_is_known() -> None:
    assert list(lines_of(BODY)) == [
        "A likely match:",
        "",
        "1. A car,\\nhit",
        "   incident 4, 2018-03-18: similarity 0.6255, confidence 68%",
        "   https://example.org/4",
        "   words: car, hit",
        "   sentence: A car hit a woman.",
        "",
        "2. untitled",
        "   incident 8: similarity -1.0000",
    ]


def test_the_page_shows_lines_and_columns_as_they_are() -> None:
    page = DOCS / "similar.md"
    title, date = "Self-driving Uber test car strikes and kills woman in Tempe", "2018-03-18"
    found = {**INCIDENTS[0], "title": title, "date": date, "url": "https://incidentdatabase.ai/cite/4", "why": None}
    assert indent("\n".join(lines_of({**BODY, "incidents": [found]})), "    ") + "\n" in text_of(page)
    rows = table_of(page, "| column | meaning |")
    assert {name for cell, _ in rows for name in spans(cell)} == {*MATCHES, *REASONS, *NOTES}


@pytest.mark.parametrize(
    ("verdict", "first"),
    [
        ("possible", "A possible match:"),
        ("none", "Probably no match. The nearest incidents:"),
        (None, "The most similar incidents:"),
    ],
)
def test_the_first_line_says_how_sure_the_answer_is(verdict: str | None, first: str) -> None:
    assert next(lines_of({**BODY, "match": verdict})) == first


def test_no_incidents_are_told() -> None:
    assert list(lines_of({**BODY, "incidents": []})) == ["No incidents."]


def table(form: Any, columns: list[str]) -> Table:
    return Table(Path("texts"), form, "text", columns, 2)


def test_a_csv_has_a_line_for_each_match_and_for_each_row_without_one() -> None:
    file = io.StringIO()
    writer = CsvWriter(file, table("csv", ["title", "text", "title"]), explain=True)
    writer.write(Row("a", ["x", "a", "y\r\n"]), BODY)
    writer.write(Row("", ["", "", ""]), ERROR)
    writer.write(Row("b", ["", "b", ""]), {**BODY, "incidents": [], "match": "none"})
    header, *lines = csv.reader(io.StringIO(file.getvalue(), newline=""))
    assert ",".join(header) == (
        "title,text,title,rank,incident_id,similarity,confidence,match,similar_title,date,url,words,sentence,warnings,"
        "error"
    )
    assert lines == [
        ["x", "a", "y\r\n", "1", "4", "0.625481903553009", "0.68", "likely", "A car,\nhit", "2018-03-18",
         "https://example.org/4", "car hit", "A car hit a woman.", "One. Two.", ""],
        ["x", "a", "y\r\n", "2", "8", "-1.0", "", "likely", "", "", "", "", "", "One. Two.", ""],
        [*[""] * 14, "Error! No text."],
        ["", "b", "", "", "", "", "", "none", "", "", "", "", "", "One. Two.", ""],
    ]  # fmt: skip


def test_objects_become_lines_of_a_csv() -> None:
    file = io.StringIO()
    writer = CsvWriter(file, table("jsonl", ["id", "text", "rank", "similar_rank"]), explain=False)
    writer.write(Row("a", source="…", record={"id": 1.5, "text": None, "rank": [1, "é"]}), ERROR)
    header, line = csv.reader(io.StringIO(file.getvalue(), newline=""))
    assert header[:6] == ["id", "text", "rank", "similar_rank", "similar_similar_rank", "incident_id"]
    assert line == ["1.5", "", '[1, "\\u00e9"]', "", *[""] * 9, "Error! No text."]


@pytest.mark.parametrize("source", ['{"id": 1.10, "id": 2}', "{}", '{"text": "}"}'])
def test_an_object_gets_its_answer_and_stays_as_it_came(source: str) -> None:
    file = io.StringIO()
    writer = JsonLinesWriter(file, table("jsonl", ["id", "text"]))
    writer.write(Row(None, source=source, record=json.loads(source)), BODY)
    assert file.getvalue().startswith(source[:-1])
    assert json.loads(file.getvalue()) == {**json.loads(source), "similar": BODY}


def test_a_row_of_a_csv_becomes_an_object() -> None:
    file = io.StringIO()
    JsonLinesWriter(file, table("csv", ["similar", "text"])).write(Row("é", ["1", "é"]), ERROR)
    assert json.loads(file.getvalue()) == {"similar": "1", "text": "é", "similar_similar": ERROR}


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old")

    def write(text: str, error: BaseException | None = None) -> None:
        with written_whole(path) as file:
            file.write(text)
            file.flush()
            assert path.read_text() == "old"
            if error:
                raise error

    with pytest.raises(KeyboardInterrupt):
        write("half", KeyboardInterrupt())
    assert contents(tmp_path) == {"out.csv": b"old"}
    umask = os.umask(0o027)
    try:
        write("é\ud83d\r\n")
    finally:
        os.umask(umask)
    assert contents(tmp_path) == {"out.csv": "é\\ud83d\r\n".encode()}
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("old", [None, "old"])
def test_a_file_is_written_where_a_link_leads_to(old: str | None, tmp_path: Path) -> None:
    link, path = tmp_path / "link.csv", tmp_path / "elsewhere" / "out.csv"
    path.parent.mkdir()
    link.symlink_to(path)
    if old:
        path.write_text(old)
    with written_whole(link) as file:
        file.write("new")
    assert path.read_text() == "new"
    assert link.is_symlink()
