"""Tables of other databases become records, whatever their columns are called and whatever stands in them."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from similarity.sources.database import Database, Incident, Report, Source
from similarity.sources.problems import Problems, SourceError
from similarity.sources.records import columns_option, read_records

COLUMNS = "id=event_id,title=headline,text=narrative,url=link,date=day,description=summary"
# Two records, with their rows mixed. The columns aren't in the order of the option, and one isn't named there.
ROWS: list[dict[str, Any]] = [
    {"narrative": "A goose hit an engine.", "event_id": 12, "headline": "", "day": "", "link": "", "summary": ""},
    {"narrative": "Ice on the wings.", "event_id": 3, "headline": "Ice", "day": "2024-02-29", "link": "", "x": 2},
    {
        "narrative": "The pilot saw geese.", "event_id": 12, "headline": " Bird\n strike ", "summary": " Geese. ",
        "day": "2023-05-06T07:08:09.5+02:00", "link": "https://example.org/bird?no=12", "x": 3,
    },
    {"narrative": "A goose hit an engine.", "event_id": 12, "headline": "Later", "day": "2022-01-01", "link": ""},
]  # fmt: skip


def write_csv(path: Path, rows: Sequence[dict[str, Any]] = ROWS, **options: Any) -> Path:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, **options)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path: Path, rows: Sequence[Any] = ROWS) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path, columns: str = COLUMNS, problems: Problems | None = None) -> Database:
    return read_records(path, columns_option(columns), problems or Problems(), collection="Events")


def read_lines(tmp_path: Path, *lines: bytes, columns: str = "id=i,text=t") -> Database:
    path = tmp_path / "records.txt"
    path.write_bytes(b"\n".join(lines))
    return read(path, columns)


def texts(database: Database) -> dict[int, tuple[str, ...]]:
    return {each.incident_id: each.texts for each in database.incidents}


@pytest.mark.parametrize("write", [write_csv, write_jsonl])
def test_rows_of_an_id_are_the_reports_of_one_record(write: Any, tmp_path: Path) -> None:
    problems = Problems()
    database = read(write(tmp_path / "events"), problems=problems)
    # In a CSV the header is the first line, and the third row's title has a line break.
    first, second, third = (2, 3, 5) if write is write_csv else (1, 2, 3)
    assert database == Database(
        (
            Incident(3, "Ice", "2024-02-29", (Report(second, "Ice on the wings.", ""),)),
            Incident(
                12,
                "Bird strike",
                "2023-05-06",
                (Report(first, "A goose hit an engine.", ""), Report(third, "The pilot saw geese.", "")),
                "Geese.",
                "https://example.org/bird?no=12",
            ),
        ),
        {},
        frozenset(),
        Source("other", "events"),
        collection="Events",
        record_url="",
        licence="",
    )
    assert problems.count == 0
    assert database.untranslated == ()


@pytest.mark.parametrize("name", ["events.csv", "events.json", "events"])
def test_the_content_tells_a_csv_from_json_lines(name: str, tmp_path: Path) -> None:
    assert texts(read(write_csv(tmp_path / name))) == texts(read(write_jsonl(tmp_path / name)))


def test_only_id_and_text_are_needed(tmp_path: Path) -> None:
    database = read(write_csv(tmp_path / "events.csv"), "text=narrative,id=event_id")
    assert [(each.title, each.date, each.description, each.url) for each in database.incidents] == [("",) * 4] * 2


OPTIONS = {
    "": "must say which column is the id",
    "id=i": "must say which column is the text: text=…",
    "text=t": "must say which column is the id: id=…",
    "id=i,text": "not 'text'",
    "id=i,text=": "not 'text='",
    "id=i,text=t,name=n": "must be a list such as id=…,text=… of id, text, title, description, url, date, not 'name=n'",
    "id=i,text=t,id=j": "must have id once",
    "id=i,text=t,title=t": "must use the column 't' once",
    "id=i,text=t,": "not ''",
    "id=i,text=t\ntitle=n": r"must stand on one line, not 'id=i,text=t\ntitle=n'",
}


@pytest.mark.parametrize("option", OPTIONS)
def test_columns_that_can_not_be_understood_are_refused(option: str) -> None:
    with pytest.raises(ValueError, match=r"^must ") as caught:
        columns_option(option)
    assert OPTIONS[option] in str(caught.value)


def test_a_name_may_have_spaces_commas_and_equals_signs() -> None:
    option = '"id=No., short", text=Full text,title=a=b'
    assert columns_option(option) == {"id": "No., short", "text": "Full text", "title": "a=b"}


NAMES = "its first line must name them, separated by commas. It names: "
LACKING = {
    "a CSV": (b"i,x\n1,a", f"records.txt has no column t; {NAMES}i, x."),
    "an empty file": (b"", f"records.txt has no column i, t; {NAMES}none."),
    "a CSV with another delimiter": (b"i;t\n1;a", f"{NAMES}i;t."),
    "two columns of the name": (b"i,t,t\n1,a,b", "records.txt has several columns named t; it must have one."),
    "JSON lines": (b'{"i": 1, "x": 2}', "no object of records.txt has the key t; the keys of its first objects: i, x."),
    "JSON lines without an object": (b'{"i": 1,\n', "no object of records.txt has the key i, t"),
    "a JSON list": (b'[{"i": 1, "t": "a"}]', "records.txt is one JSON list; write each of its objects on a line"),
    "an indented JSON list": (b'[\n{"i": 1, "t": "a"}]', "records.txt is one JSON list"),
    "UTF-16": ("i,t\n1,a".encode("utf-16"), "records.txt isn't text in UTF-8"),
    "an archive": (b"PK\x03\x04\x14\0\0\0", "records.txt isn't text in UTF-8: unpack an archive"),
    "no row": (b"i,t\n", "records.txt has no usable record."),
    "no usable row": (b"i,t\n,a\n1,\n", "records.txt has no usable record."),
    "a number alone": (b'{"i": 1, "t": null}', "records.txt has no usable record."),
}  # fmt: skip


@pytest.mark.parametrize("case", LACKING)
def test_a_file_that_can_not_be_used_is_refused_in_a_sentence(case: str, tmp_path: Path) -> None:
    content, message = LACKING[case]
    with pytest.raises(SourceError) as caught:
        read_lines(tmp_path, content)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"events\.csv can't be read"):
        read(tmp_path / "events.csv")


@pytest.mark.parametrize("rows", [1, 5, 1000])
def test_another_kind_of_id_is_told_in_one_sentence(
    rows: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"CVE-2024-{number},A text" for number in range(rows)]
    with pytest.raises(SourceError) as caught:
        read_lines(tmp_path, b"i,t", *(line.encode() for line in lines))
    assert str(caught.value) == (
        "the ids in the column 'i' of records.txt aren't whole numbers above 0 of up to 18 digits, e.g. 'CVE-2024-0': "
        "number the records, and put their own ids into the column of their URLs."
    )
    assert capsys.readouterr().err == ""


def test_ids_of_another_kind_among_numbers_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    others = [b"-1,a", b"0,a", b"1.5,a", b"9999999999999999999,a", b"n/a,a", "\uff11,a".encode(), b"1e3,a"]
    database = read_lines(tmp_path, b"i,t", b" 7 ,a", b"8.0,b", b"009,c", *others)
    assert texts(database) == {7: ("a",), 8: ("b",), 9: ("c",)}
    assert capsys.readouterr().err == (
        "records.txt, lines 5, 6, 7, 8, 9 and 2 more: the id isn't a whole number above 0 of up to 18 digits, e.g. "
        "'-1'; skipped\n"
    )


JSON_IDS: dict[str, tuple[Any, bool]] = {
    "a number": (5, True),
    "the text of a number": ("5", True),
    "a whole number with a fraction": (5.0, True),
    "a fraction": (5.5, False),
    "true": (True, False),
    "a number beyond 64 bits": (2**70, False),
    "a list": ([5], False),
    "an object": ({"$numberLong": "5"}, False),
    "null": (None, False),
    "nothing": ("", False),
    "NaN": (float("nan"), False),
    "infinity": (float("inf"), False),
}


@pytest.mark.parametrize("case", JSON_IDS)
def test_ids_of_json_lines(case: str, tmp_path: Path) -> None:
    given, usable = JSON_IDS[case]
    problems = Problems()
    path = write_jsonl(tmp_path / "a.jsonl", [{"i": 1, "t": "a"}, {"i": given, "t": "b"}])
    found = texts(read(path, "id=i,text=t", problems))
    assert found == ({1: ("a",), 5: ("b",)} if usable else {1: ("a",)})
    assert problems.count == (0 if usable else 1)


JSON_TEXTS: dict[str, tuple[Any, str, str]] = {
    "a number": (2024, "2024", ""),
    "true": (True, "true", ""),
    "null": (None, "", "there is no text"),
    "blanks": (" \n\t", "", "there is no text"),
    "a list": (["a"], "", "the text is a list"),
    "an object": ({"en": "a"}, "", "the text is an object"),
    "half a surrogate pair": ("a\ud800", "", "the text isn't valid Unicode"),
    "a zero byte": ("a\0b", "a\0b", ""),
}


@pytest.mark.parametrize("case", JSON_TEXTS)
def test_texts_of_json_lines(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given, text, reason = JSON_TEXTS[case]
    path = write_jsonl(tmp_path / "a.jsonl", [{"i": 1, "t": "a"}, {"i": 2, "t": given}])
    assert texts(read(path, "id=i,text=t")) == {1: ("a",), **({2: (text,)} if text else {})}
    assert capsys.readouterr().err == (f"a.jsonl, line 2: {reason}; skipped\n" if reason else "")


def test_a_row_counts_without_optional_parts_that_can_not_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = "id=i,text=t,title=n,url=u,date=d,description=s"
    bad = {"n": ["a"], "u": {"href": "a"}, "d": [2024], "s": {"en": "a"}}
    path = write_jsonl(tmp_path / "a.jsonl", [{"i": 1, "t": "a", **bad}, {"i": 2, "t": "b"}])
    assert read(path, columns).incidents[0] == Incident(1, "", "", (Report(1, "a", ""),))
    assert capsys.readouterr().err.splitlines() == [
        "a.jsonl, line 1: the title is a list; the row counts without its title",
        "a.jsonl, line 1: the description is an object; the row counts without its description",
        "a.jsonl, line 1: the url is an object; the row counts without its url",
        "a.jsonl, line 1: the date is a list; the row counts without its date",
    ]


URLS = [
    "javascript:alert(1)",
    "JavaScript:alert(1)//https://example.org",
    "data:text/html,<script>",
    "//example.org/1",
    "/cite/1",
    "example.org/1",
    "ftp://example.org/1",
    "https://",
    "https://example.org/a b",
    'https://example.org/"onmouseover=',
    "https://example.org:99999/",
    "https://example.org/" + "a" * 2000,
    "https://example.org/\x01",
]


@pytest.mark.parametrize("url", URLS)
def test_a_url_that_no_page_can_have_is_left_out(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"i": 1, "t": "a", "u": url}, {"i": 1, "t": "b", "u": " http://example.org/1 "}, {"i": 2, "t": "c"}]
    database = read(write_csv(tmp_path / "a.csv", rows), "id=i,text=t,url=u")
    assert [each.url for each in database.incidents] == ["http://example.org/1", ""]
    assert texts(database)[1] == ("a", "b")
    assert capsys.readouterr().err == (
        "a.csv, line 2: the URL must be an http or https URL of at most 2,000 characters, without spaces and "
        '<>"\\^`{|}; the row counts without its url\n'
    )


DATES = {
    "2024-02-29": "2024-02-29",
    " 2024-02-29 ": "2024-02-29",
    "2024-02-29T23:59:59Z": "2024-02-29",
    "2024-02-29 23:59:59.123456+14:00": "2024-02-29",
    "0999-01-02": "0999-01-02",
    "": "",
}


@pytest.mark.parametrize("given", DATES)
def test_dates_and_times_in_iso_8601_are_read(given: str, tmp_path: Path) -> None:
    problems = Problems()
    path = write_csv(tmp_path / "a.csv", [{"i": 1, "t": "a", "d": given}])
    assert read(path, "id=i,text=t,date=d", problems).incidents[0].date == DATES[given]
    assert problems.count == 0


def test_a_form_of_dates_that_is_not_known_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["3/12/2024", "2024-02-30", "12/3/2024", "March 4, 2024", "May 15, 2023", 20240304, 1.7e9, "0000-00-00"]
    rows = [{"i": number, "t": "a", "d": date} for number, date in enumerate(given, start=1)]
    problems = Problems()
    database = read(write_jsonl(tmp_path / "a.jsonl", rows), "id=i,text=t,date=d", problems)
    assert {each.date for each in database.incidents} == {""}
    reason = "the date isn't YYYY-MM-DD or an ISO date-time, but like"
    assert capsys.readouterr().err.splitlines() == [
        f"a.jsonl, lines 1, 3: {reason} '3/12/2024'; the row counts without its date",
        f"a.jsonl, lines 2, 8: {reason} '2024-02-30'; the row counts without its date",
        f"a.jsonl, lines 4, 5: {reason} 'a 4, 2024'; the row counts without its date",
        f"a.jsonl, line 6: {reason} '20240304'; the row counts without its date",
        f"a.jsonl, line 7: {reason} '1700000000.0'; the row counts without its date",
    ]
    assert problems.count == 8


BAD_CSV = {
    "a field too few": (b"2", "1 fields instead of 2"),
    "a field too many": (b"2,b,c", "3 fields instead of 2"),
    "a quote within quotes": (b'2,"b"c', "not valid CSV: ',' expected after '\"'"),
    "Latin-1": ("2,é".encode("latin-1"), "not valid UTF-8"),
    "no id": (b",b", "there is no id"),
    "no text": (b"2,  ", "there is no text"),
}
BAD_JSON = {
    "cut off": (b'{"i": 2, "t": "b', "not valid JSON: Unterminated string starting at, character 15"),
    "two objects": (b'{"i": 2, "t": "b"} {}', "not valid JSON: Extra data, character 20"),
    "a list": (b'[2, "b"]', "a list instead of an object"),
    "a text": (b'"b"', "a text instead of an object"),
    "null": (b"null", "null instead of an object"),
    "a number": (b"2", "a number instead of an object"),
    "Latin-1": ('{"i": 2, "t": "é"}'.encode("latin-1"), "not valid UTF-8"),
    "a number of 5,000 digits": (b'{"i": 2, "t": %s}' % (b"9" * 5000), "not usable JSON: Exceeds the limit"),
    "deep nesting": (b'{"i": 2, "t": %s}' % (b"[" * 100_000), "not usable JSON: "),
    "a text of 10 MB that isn't closed": (b'{"i": 2, "t": "%s' % (b"a" * 10_000_000), "not valid JSON: "),
}  # fmt: skip
BAD_ROWS = {
    **{f"CSV: {case}": (b"i,t", b"1,a", b"3,c", *found) for case, found in BAD_CSV.items()},
    **{f"JSON: {c}": (b"", b'{"i": 1, "t": "a"}', b'{"i": 3, "t": "c"}', *f) for c, f in BAD_JSON.items()},
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_bad_row_is_reported_by_its_line_and_left_out(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header, first, last, bad, reason = BAD_ROWS[case]
    assert texts(read_lines(tmp_path, header, first, bad, last)) == {1: ("a",), 3: ("c",)}
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"records.txt, line 3: {reason}")
    assert line.endswith("; skipped")
    assert len(line) < 500


def test_a_thousand_bad_rows_of_a_kind_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problems = Problems()
    path = write_csv(
        tmp_path / "a.csv", [{"i": number, "t": "a" if number == 500 else ""} for number in range(1, 1001)]
    )
    read(path, "id=i,text=t", problems)
    assert capsys.readouterr().err == "a.csv, lines 2, 3, 4, 5, 6 and 994 more: there is no text; skipped\n"
    assert problems.count == 999


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("lines", [[b"i,t", b"1,a", b"", b"2,b"], [b'{"i":1,"t":"a"}', b" ", b'{"i":2,"t":"b"}']])
def test_line_ends_blank_lines_and_a_byte_order_mark_do_not_matter(
    lines: list[bytes], bom: bytes, end: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "records"
    path.write_bytes(bom + end.join(lines) + end)
    problems = Problems()
    assert texts(read(path, "id=i,text=t", problems)) == {1: ("a",), 2: ("b",)}
    assert problems.count == 0


def test_quotes_line_breaks_and_empty_fields_at_the_end(tmp_path: Path) -> None:
    # MITRE's CSVs end each row with a comma, but not the header.
    database = read_lines(tmp_path, b"i,t", b'1,"He said ""no"".\r\nThen, nothing.",', b"2,b,,")
    assert texts(database) == {1: ('He said "no".\r\nThen, nothing.',), 2: ("b",)}


def test_backslashes_of_a_table_in_which_all_is_quoted_stay(tmp_path: Path) -> None:
    # In AIID's table of this form, doubled backslashes stand for single ones.
    path = write_csv(tmp_path / "a.csv", [{"i": 1, "t": r"\\server\\share"}], quoting=csv.QUOTE_ALL)
    assert texts(read(path, "id=i,text=t")) == {1: (r"\\server\\share",)}


@pytest.mark.slow
def test_a_text_of_ten_megabytes_is_read_whole(tmp_path: Path) -> None:
    text = "word " * 2_000_000
    for write in (write_csv, write_jsonl):
        assert texts(read(write(tmp_path / "a", [{"i": 1, "t": text}]), "id=i,text=t")) == {1: (text,)}


@pytest.mark.slow
def test_many_reports_of_one_record_take_time_in_proportion(tmp_path: Path) -> None:
    rows = [{"i": 1, "t": f"Report {number % 50_000}"} for number in range(60_000)]
    assert len(texts(read(write_csv(tmp_path / "a.csv", rows), "id=i,text=t"))[1]) == 50_000


def test_reasons_of_any_number_are_told_in_few_sentences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"i": n, "t": "a", "d": "/" * n} for n in range(1, 30)] + [
        {"i": n, "t": "a", "d": "." * n} for n in range(1, 30)
    ]
    read(write_csv(tmp_path / "a.csv", rows), "id=i,text=t,date=d")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 51
    assert lines[-1] == "a.csv, lines 52, 53, 54, 55, 56 and 3 more: other reasons; the row counts without its date"
