"""Tables are read as the csv module reads them, or line by line as JSON; what is broken is told with its line."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from asking.tables import Table, TableError


def table(tmp_path: Path, content: str | bytes, column: str = "text") -> Table:
    path = tmp_path / "texts"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Table.of(path, column)


def test_a_csv_has_the_rows_that_the_csv_module_reads(tmp_path: Path) -> None:
    content = (
        '\ufeff"id",text,\r\n1,"a, ""b""\r\nand\nc",\r\n\r\n2,,x\r\n3,\0\u2028é\U0001f916, \r\n4,'
        + 200_000 * "long "
        + ","
    )
    found = table(tmp_path, content)
    header, *rows = [row for row in csv.reader(io.StringIO(content.removeprefix("\ufeff"), newline="")) if row]
    assert (found.form, list(found.columns), found.rows) == ("csv", header, 4)
    assert [(list(row.fields), row.text) for row in found] == [(row, row[1]) for row in rows]


def test_json_lines_stay_as_they_came(tmp_path: Path) -> None:
    lines = [
        '{"id": 1.10, "text": "a\u2028\\n\\ud83d"}',
        '{"more": [1e999], "text": 5}',
        "{}",
        '{"id": 12345678901234567890}',
    ]
    found = table(tmp_path, "\ufeff\n " + "\r\n\n".join(lines))
    assert (found.form, list(found.columns), found.rows) == ("jsonl", ["id", "text", "more"], 4)
    rows = list(found)
    assert [row.source for row in rows] == lines
    assert [row.record for row in rows] == [json.loads(line) for line in lines]
    assert [row.text for row in rows] == ["a\u2028\n\ud83d", 5, None, None]


def test_a_table_without_rows_is_no_error(tmp_path: Path) -> None:
    found = table(tmp_path, "id,text\n")
    assert (found.rows, list(found)) == (0, [])


BROKEN = {
    "": "is empty.",
    " \n\n": "is empty.",
    '[{"text": "a"}]': "begins with a bracket, as a JSON list. Write one object a line instead.",
    "id,txt\n1,a\n": 'has no column "text"; it has "id", "txt".',
    "id, text,\n1,a,\n": 'has no column "text"; it has "id", " text", "".',
    "id;text\n1;a\n": 'has no column "text"; it has "id;text". Commas must separate the columns.',
    "id\ttext\n1\ta\n": 'has no column "text"; it has "id\\ttext". Commas must separate the columns.',
    "text,id,text\na,1,b\n": 'has 2 columns "text".',
    '{"id": 1}\n': 'has no column "text"; it has "id".',
    ",".join(map(str, range(25))): 'has no column "text"; it has '
    + ", ".join(f'"{number}"' for number in range(20))
    + " and 5 more.",
    b"text\ncaf\xc3\xa9\ncaf\xe9\n": "line 3: not valid UTF-8. Save the file as UTF-8.",
    "id,text\n1,a\n".encode("utf-16"): "line 1: not valid UTF-8. Save the file as UTF-8.",
    b'{"text": "a"}\n{"text": "\xe9"}': "line 2: not valid UTF-8. Save the file as UTF-8.",
    'id,text\n1,"a\nb"\n2,a,b\n': "line 4: 3 fields instead of 2.",
    "id,text\n1\n": "line 2: 1 fields instead of 2.",
    'id,text\n1,"a\n2,b\n': "line 3: not valid CSV: unexpected end of data.",
    'id,text\n1,"a"b\n': "line 2: not valid CSV: ',' expected after '\"'.",
    '{"text": "a"}\n{"text": \n': "line 2: not valid JSON: Expecting value: line 1 column 9 (char 8).",
    '{"text": "a"}\n["text"]\n': "line 2: not a JSON object.",
    '{"text": ' + 100_000 * "[" + "\n": "line 1: not valid JSON: it is nested too deeply.",
}


@pytest.mark.parametrize("content", BROKEN, ids=lambda content: repr(content)[:30])
def test_what_is_broken_is_told_with_its_line(content: str | bytes, tmp_path: Path) -> None:
    with pytest.raises(TableError) as raised:
        table(tmp_path, content)
    separator = "," if BROKEN[content].startswith("line") else ""
    assert str(raised.value) == f"{tmp_path / 'texts'}{separator} {BROKEN[content]}"


def test_a_table_that_another_program_writes_meanwhile_is_refused(tmp_path: Path) -> None:
    found = table(tmp_path, "id,text\n1,a\n")
    found.path.write_text("text,id\na,1\n")
    with pytest.raises(TableError, match="has changed meanwhile"):
        list(found)


def test_columns_of_one_name_make_no_object(tmp_path: Path) -> None:
    table(tmp_path, "id,text\n1,a\n").require_different_columns()
    with pytest.raises(TableError, match='has several columns "id", and JSON lines can\'t have them'):
        table(tmp_path, "id,text,id\n1,a,2\n").require_different_columns()
