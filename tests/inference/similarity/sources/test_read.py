"""Snapshots and tables are read whatever they are packed in; bad rows are reported by their line and left out."""

from __future__ import annotations

import csv
import io
import os
import random
import stat
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from similarity.sources.database import Incident, Report, TextMode
from similarity.sources.problems import Problems, SourceError
from similarity.sources.read import read_database

INCIDENTS = """\
incident_id,date,reports,description,title
1,2015-05-19,"[10,11]",Clips for adults.,An app for children
3,2018-10-27,[12],"Down, and down again.",Two planes lost
"""
REPORTS = """\
report_number,title,text,language
10,A,The first report.,en
11,B,"The second, which has
two lines and ""quotes"".",en
12,C,The third report.,en
"""
EXPECTED = [
    Incident(
        1,
        "An app for children",
        "2015-05-19",
        (Report(10, "The first report.", "en"), Report(11, 'The second, which has\ntwo lines and "quotes".', "en")),
        "Clips for adults.",
    ),
    Incident(3, "Two planes lost", "2018-10-27", (Report(12, "The third report.", "en"),), "Down, and down again."),
]


def read_incidents(path: Path, problems: Problems, text: TextMode) -> list[Incident]:
    return list(read_database(path, problems, text=text).incidents)


def write_snapshot(folder: Path, incidents: str | bytes = INCIDENTS, reports: str | bytes = REPORTS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("incidents.csv", incidents), ("reports.csv", reports)):
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def read(path: Path) -> list[Incident]:
    """The incidents of a source in which no row is bad."""
    problems = Problems()
    incidents = read_incidents(path, problems, "title-and-description")
    assert problems.count == 0
    return incidents


def pack(tmp_path: Path, form: str, incidents: str = INCIDENTS, reports: str = REPORTS) -> Path:
    """The snapshot in an archive, below the folder that AIID puts it in and beside other files."""
    folder = write_snapshot(tmp_path / "mongodump_full_snapshot", incidents, reports)
    (folder / "classifications.csv").write_text("a,b\n1,2\n")
    (folder / "my_incidents.csv").write_text("not,this\n")
    path = tmp_path / f"snapshot.{form}"
    if form == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(folder.iterdir()):
                archive.write(file, f"{folder.name}/{file.name}")
    else:
        with tarfile.open(path, f"w:{form.partition('.')[2]}") as archive:  # type: ignore[call-overload]
            archive.add(folder, folder.name)
    return path


ARCHIVES = ("zip", "tar", "tar.gz", "tar.bz2", "tar.xz")


@pytest.mark.parametrize("form", ARCHIVES)
def test_an_archive_is_read_as_the_folder_it_was_made_of(form: str, tmp_path: Path) -> None:
    assert read(pack(tmp_path, form)) == EXPECTED


def test_a_folder_is_read_at_any_depth(tmp_path: Path) -> None:
    write_snapshot(tmp_path / "backup" / "mongodump_full_snapshot")
    assert read(tmp_path) == EXPECTED


def test_incidents_come_by_id_and_reports_in_the_order_given(tmp_path: Path) -> None:
    header, first, second = INCIDENTS.splitlines()
    incidents = "\n".join([header, second, first.replace("[10,11]", "[11, 10]")])
    found = read(write_snapshot(tmp_path, incidents))
    assert [incident.incident_id for incident in found] == [1, 3]
    assert found[0].texts == EXPECTED[0].texts[::-1]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_byte_order_mark_and_other_line_ends_change_nothing(encoding: str, newline: str, tmp_path: Path) -> None:
    # The line break within a report is part of it and stays as it is.
    reports = REPORTS.replace("\n", newline).replace(f"has{newline}two", "has\ntwo").encode(encoding)
    folder = write_snapshot(tmp_path, INCIDENTS.replace("\n", newline).encode(encoding), reports)
    assert read(folder) == EXPECTED


def test_a_text_of_200_kb_is_read_whole(tmp_path: Path) -> None:
    text = "robot " * 33_334
    assert len(text) > 200_000
    folder = write_snapshot(tmp_path, reports=REPORTS.replace("The third report.", text))
    assert read(folder)[1].texts == (text,)


def test_text_beyond_ascii_is_read_as_it_is(tmp_path: Path) -> None:
    folder = write_snapshot(tmp_path, reports=REPORTS.replace("The third report.", "Żółć; 事故 und 🤖."))
    assert read(folder)[1].texts == ("Żółć; 事故 und 🤖.",)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("title-and-description", ("An app for children. Clips for adults.",)),
        ("title", ("An app for children.",)),
        ("description", ("Clips for adults.",)),
    ],
)
def test_an_incidents_table_alone_stands_in_for_reports(mode: str, expected: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "incidents.csv"
    path.write_text(INCIDENTS)
    problems = Problems()
    found = read_incidents(path, problems, mode)  # type: ignore[arg-type]
    reports = (Report(None, expected[0]),)
    assert found[0] == Incident(1, "An app for children", "2015-05-19", reports, "Clips for adults.")
    assert [incident.incident_id for incident in found] == [1, 3]
    assert problems.count == 0


def test_an_incident_with_a_title_only_is_skipped_where_descriptions_are_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "incidents.csv"
    path.write_text(INCIDENTS.replace("Clips for adults.", " "))
    problems = Problems()
    assert [incident.incident_id for incident in read_incidents(path, problems, "description")] == [3]
    assert capsys.readouterr().err == "incidents.csv, line 2: incident 1 has no description; skipped\n"
    modes: tuple[TextMode, ...] = ("title-and-description", "title")
    for mode in modes:
        found = read_incidents(path, Problems(), mode)[0]
        assert (found.texts, found.description) == (("An app for children.",), "")


def test_a_table_beside_reports_needs_no_descriptions(tmp_path: Path) -> None:
    incidents = INCIDENTS.replace("description", "about", 1)
    assert read(write_snapshot(tmp_path, incidents)) == [replace(each, description="") for each in EXPECTED]


@pytest.mark.parametrize("alone", [True, False])
def test_a_description_has_no_spaces_at_its_ends(alone: bool, tmp_path: Path) -> None:
    folder = write_snapshot(tmp_path, INCIDENTS.replace('"Down, and down again."', '" Down,\nand down again. \n"'))
    found = read(folder / "incidents.csv" if alone else folder)
    assert [incident.description for incident in found] == ["Clips for adults.", "Down,\nand down again."]


# Bad rows. Each is the second line of incidents.csv or reports.csv, before good ones.
BAD_INCIDENTS: dict[str, tuple[str | bytes, str]] = {
    "an id that is no number": ("one,2015,[10],d,t", "incident_id isn't a whole number above 0"),
    "an id with a fraction": ("1.0,2015,[10],d,t", "incident_id isn't a whole number above 0"),
    "no id": (",2015,[10],d,t", "incident_id isn't a whole number above 0"),
    "an id of 0": ("0,2015,[10],d,t", "incident_id isn't a whole number above 0"),
    "an id of 30 digits": ("9" * 30 + ",2015,[10],d,t", "incident_id isn't a whole number above 0"),
    "reports that are no JSON": ("7,2015,[10,d,t", "reports of incident 7 isn't a JSON list of report numbers"),
    "reports that are no list": ("7,2015,10,d,t", "reports of incident 7 isn't a JSON list of report numbers"),
    "reports that are no numbers": (
        '7,2015,"[""10""]",d,t',
        "reports of incident 7 isn't a JSON list of report numbers",
    ),
    "reports that are no integers": ("7,2015,[true],d,t", "reports of incident 7 isn't a JSON list of report numbers"),
    "reports nested too deeply": ("7,2015," + "[" * 100_000 + ",d,t", "reports of incident 7 isn't a JSON list"),
    "no reports": ("7,2015,[],d,t", "incident 7 has no reports"),
    "a report that is not there": ("7,2015,[99],d,t", "incident 7 has missing or unusable reports: 99"),
    "a field too few": ("7,2015,[10],d", "4 fields instead of 5"),
    "a field too many": ("7,2015,[10],d,t,more", "6 fields instead of 5"),
    "quotes where none may be": ('7,2015,"[10]"x,d,t', "not valid CSV: "),
    "a byte that is no UTF-8": (b"7,2015,[10],d,caf\xe9", "not valid UTF-8"),
}
BAD_REPORTS: dict[str, tuple[str | bytes, str]] = {
    "a number that is none": ("ten,A,text,en", "report_number isn't a whole number above 0"),
    "an empty text": ('9,A," \t ",en', "report 9 is empty"),
    "a byte that is no UTF-8": (b"9,A,caf\xe9,en", "not valid UTF-8"),
    "a field too few": ("9,A,text", "3 fields instead of 4"),
}


def insert_line(table: str, line: str | bytes) -> bytes:
    header, _, rest = table.encode().partition(b"\n")
    return b"\n".join([header, line.encode() if isinstance(line, str) else line, rest])


@pytest.mark.parametrize("case", BAD_INCIDENTS)
def test_a_bad_incident_is_reported_by_its_line_and_skipped(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line, message = BAD_INCIDENTS[case]
    folder = write_snapshot(tmp_path, insert_line(INCIDENTS, line))
    problems = Problems()
    assert read_incidents(folder, problems, "title") == EXPECTED
    assert problems.count == 1
    [said] = capsys.readouterr().err.splitlines()
    assert said.startswith(f"incidents.csv, line 2: {message}")
    assert said.endswith("; skipped")


@pytest.mark.parametrize("case", BAD_REPORTS)
def test_a_bad_report_is_reported_by_its_line_and_skipped(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line, message = BAD_REPORTS[case]
    folder = write_snapshot(tmp_path, reports=insert_line(REPORTS, line))
    problems = Problems()
    assert read_incidents(folder, problems, "title") == EXPECTED
    assert problems.count == 1
    assert capsys.readouterr().err == f"reports.csv, line 2: {message}; skipped\n"


def test_of_two_incidents_with_one_id_the_first_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_snapshot(tmp_path, INCIDENTS + "1,2020,[12],d,Another\n")
    problems = Problems()
    assert read_incidents(folder, problems, "title") == EXPECTED
    assert capsys.readouterr().err == "incidents.csv, line 4: an earlier line has incident 1 too; skipped\n"


def test_of_two_reports_with_one_number_the_first_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_snapshot(tmp_path, reports=REPORTS + REPORTS.splitlines(keepends=True)[1])
    problems = Problems()
    assert read_incidents(folder, problems, "title") == EXPECTED
    assert "an earlier line has report 10 too; skipped" in capsys.readouterr().err
    assert problems.count == 1


@pytest.mark.parametrize("numbers", ["[10,10,11]", "[10,11,10]", "[10,11,11,11]"])
def test_a_report_that_an_incident_names_twice_counts_once(numbers: str, tmp_path: Path) -> None:
    assert read(write_snapshot(tmp_path, INCIDENTS.replace("[10,11]", numbers))) == EXPECTED


def test_a_report_that_is_not_there_is_named_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read_incidents(write_snapshot(tmp_path, INCIDENTS.replace("[10,11]", "[99,10,99]")), Problems(), "title")
    assert (
        capsys.readouterr().err
        == "incidents.csv, line 2: incident 1 has missing or unusable reports: 99; its other reports count\n"
    )


def test_an_incident_keeps_the_reports_that_are_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_snapshot(tmp_path, INCIDENTS.replace("[10,11]", "[98,10,99]"))
    problems = Problems()
    assert read_incidents(folder, problems, "title")[0].texts == ("The first report.",)
    assert (
        capsys.readouterr().err
        == "incidents.csv, line 2: incident 1 has missing or unusable reports: 98, 99; its other reports count\n"
    )
    assert problems.count == 1


def test_a_quote_that_is_never_closed_costs_only_what_follows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_snapshot(tmp_path, reports=REPORTS + '13,D,"no end\n14,E,swallowed,en\n')
    assert read_incidents(folder, Problems(), "title") == EXPECTED
    [said] = capsys.readouterr().err.splitlines()
    assert said.startswith("reports.csv, line 7: not valid CSV: ")


def test_empty_lines_and_further_columns_are_no_problem(tmp_path: Path) -> None:
    incidents = "\n".join(line + ",more" for line in INCIDENTS.splitlines()).replace("title,more", "title,further")
    assert read(write_snapshot(tmp_path, incidents.replace("\n", "\n\n"))) == EXPECTED


# Backslashes. AIID's job doubles them, other programs don't.
AIID_WRITER: dict[str, Any] = {"quoting": csv.QUOTE_ALL, "escapechar": "\\"}


def table_of(rows: list[list[object]], **options: Any) -> str:
    file = io.StringIO(newline="")
    csv.writer(file, **options).writerows(rows)
    return file.getvalue()


def incidents_of(texts: list[str]) -> str:
    """A table in which every incident has one report: incident 1 has report 1, and so on."""
    return table_of(
        [["_id", "incident_id", "reports", "title"], *([f"ObjectId({n})", n, f"[{n}]", "t"] for n in numbers(texts))]
    )


def reports_of(texts: list[str], **options: Any) -> str:
    rows: list[list[object]] = [["_id", "language", "report_number", "text", "title"]]
    rows += [[f"{n:024x}", "en", n, text, f"Report {n}"] for n, text in zip(numbers(texts), texts, strict=True)]
    return table_of(rows, **options)


def numbers(texts: list[str]) -> range:
    return range(1, len(texts) + 1)


def texts_of(path: Path) -> list[str]:
    return [text for incident in read(path) for text in incident.texts]


def random_texts(count: int) -> list[str]:
    """Texts full of what a CSV has to quote or escape."""
    parts = [
        "\\",
        "\\\\",
        "\\_",
        "\\*",
        "\\[",
        '"',
        '""',
        '\\"',
        "\\n",
        ",",
        "\n",
        "\r",
        "\r\n",
        "'",
        " ",
        "word",
        "é",
        "事故",
        "🤖",
    ]
    chosen = random.Random(0)
    texts = ["x" + "".join(chosen.choices(parts, k=chosen.randrange(12))) for _ in range(count)]
    for kind in ('"', ",", "\n", "\r", "é", "事故", "🤖"):
        assert any(kind in text for text in texts)
    assert any(text.endswith("\\") for text in texts)
    return texts


@pytest.mark.slow
@pytest.mark.parametrize("form", ["folder", "zip", "tar.bz2"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_texts_as_aiid_writes_them_are_those_of_its_database(form: str, line_end: str, tmp_path: Path) -> None:
    texts = random_texts(2_000)
    incidents, reports = incidents_of(texts), reports_of(texts, lineterminator=line_end, **AIID_WRITER)
    if form == "folder":
        path = write_snapshot(tmp_path / "aiid", incidents, reports)
    else:
        path = pack(tmp_path, form, incidents, reports)
    assert texts_of(path) == texts
    assert read(path) == read(write_snapshot(tmp_path / "plain", incidents, reports_of(texts)))


MARKDOWN = [r"The robot\_arm \*fell\*.", r"A path: \\server\share", "Plain words."]
DOUBLED = [text.replace("\\", "\\\\") for text in MARKDOWN]


@pytest.mark.parametrize(
    ("texts", "options"),
    [
        (MARKDOWN, {}),
        # As mongoexport writes them: without a quoted header it doesn't count that all runs are even.
        (DOUBLED, {}),
        # As pandas writes them when told to quote all.
        (MARKDOWN, {"quoting": csv.QUOTE_ALL}),
        ([*DOUBLED, r"One single \_ at the end."], {"quoting": csv.QUOTE_ALL}),
        ([r"One single \_ at the start.", *DOUBLED], {"quoting": csv.QUOTE_ALL}),
        # As LibreOffice writes them when told to quote text.
        (MARKDOWN, {"quoting": csv.QUOTE_NONNUMERIC}),
    ],
)
def test_texts_as_other_programs_write_them_stay_as_they_are(
    texts: list[str], options: dict[str, Any], tmp_path: Path
) -> None:
    assert texts_of(write_snapshot(tmp_path, incidents_of(texts), reports_of(texts, **options))) == texts


def test_a_single_backslash_in_another_column_shows_that_none_is_doubled(tmp_path: Path) -> None:
    reports = reports_of(DOUBLED, quoting=csv.QUOTE_ALL).replace('"Report 3"', r'"Report\_3"')
    assert texts_of(write_snapshot(tmp_path, incidents_of(DOUBLED), reports)) == DOUBLED


def test_a_bad_row_does_not_hide_that_backslashes_are_doubled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = reports_of(MARKDOWN, **AIID_WRITER) + '"a \\ field too few"\r\n'
    folder = write_snapshot(tmp_path, incidents_of(MARKDOWN), reports)
    assert [incident.texts for incident in read_incidents(folder, Problems(), "title")] == [(t,) for t in MARKDOWN]
    assert capsys.readouterr().err == "reports.csv, line 5: 1 fields instead of 5; skipped\n"


# Links, and names as other programs write them.


def test_a_link_to_a_snapshot_is_followed(tmp_path: Path) -> None:
    write_snapshot(tmp_path / "backup")
    (tmp_path / "latest").symlink_to("backup")
    assert read(tmp_path / "latest") == EXPECTED
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "snapshot").symlink_to("../latest")
    assert read(tmp_path / "here") == EXPECTED


def test_links_to_the_files_are_followed(tmp_path: Path) -> None:
    write_snapshot(tmp_path / "blobs")
    folder = tmp_path / "snapshot"
    folder.mkdir()
    for name in ("incidents.csv", "reports.csv"):
        (tmp_path / "blobs" / name).rename(tmp_path / "blobs" / f"0{name}0")
        (folder / name).symlink_to(f"../blobs/0{name}0")
    assert read(folder) == EXPECTED


def test_two_links_to_one_file_are_one_file(tmp_path: Path) -> None:
    write_snapshot(tmp_path / "backup")
    (tmp_path / "latest").symlink_to("backup")
    (tmp_path / "incidents.csv").symlink_to("backup/incidents.csv")
    assert read(tmp_path) == EXPECTED


def test_links_that_lead_back_are_followed_once(tmp_path: Path) -> None:
    write_snapshot(tmp_path / "snapshot")
    (tmp_path / "snapshot" / "again").symlink_to("..")
    (tmp_path / "itself").symlink_to("itself")
    assert read(tmp_path) == EXPECTED


@pytest.mark.parametrize("target", ["gone.csv", "incidents.csv"])
def test_a_link_that_leads_nowhere_is_named(target: str, tmp_path: Path) -> None:
    write_snapshot(tmp_path)
    (tmp_path / "incidents.csv").unlink()
    (tmp_path / "another").symlink_to("nowhere")
    (tmp_path / "incidents.csv").symlink_to(target)
    with pytest.raises(SourceError) as error:
        read_incidents(tmp_path, Problems(), "title")
    assert str(error.value) == (
        f"{tmp_path} has no file named incidents.csv; 'incidents.csv' is a symbolic link that leads nowhere."
    )


def test_a_folder_or_a_pipe_of_that_name_is_no_file(tmp_path: Path) -> None:
    write_snapshot(tmp_path / "incidents.csv")
    write_snapshot(tmp_path / "other")
    (tmp_path / "other" / "incidents.csv").unlink()
    (tmp_path / "other" / "reports.csv").unlink()
    os.mkfifo(tmp_path / "other" / "incidents.csv")
    assert read(tmp_path) == EXPECTED


CONTENTS = {"incidents.csv": INCIDENTS.encode(), "reports.csv": REPORTS.encode()}


def write_archive(path: Path, files: dict[str, bytes], links: dict[str, str], kind: bytes = tarfile.SYMTYPE) -> Path:
    """A zip or tar of files by their names in it, and of links by their names."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
            for name, target in links.items():
                # As `zip --symlinks` writes them: mode and type of the file in the upper half, its target as content.
                member = zipfile.ZipInfo(name)
                member.create_system, member.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
                archive.writestr(member, target)
    else:
        with tarfile.open(path, "w") as archive:
            for name, content in files.items():
                member_ = tarfile.TarInfo(name)
                member_.size = len(content)
                archive.addfile(member_, io.BytesIO(content))
            for name, target in links.items():
                member_ = tarfile.TarInfo(name)
                member_.type, member_.linkname = kind, target
                archive.addfile(member_)
    return path


@pytest.mark.parametrize("form", ["zip", "tar"])
@pytest.mark.parametrize(
    "folder", ["", "snap/", "./", "snap\\", "C:\\old\\snap\\", "/srv/snap/", "../../snap/", "..\\..\\snap\\"]
)
def test_archived_names_may_be_of_any_system_and_nothing_is_unpacked(folder: str, form: str, tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    path = write_archive(tmp_path / "a" / "b" / f"s.{form}", {folder + n: c for n, c in CONTENTS.items()}, {})
    assert read(path) == EXPECTED
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]


@pytest.mark.parametrize(
    ("form", "kind"),
    [("zip", b""), ("tar", tarfile.SYMTYPE), ("tar", tarfile.LNKTYPE)],
    ids=["zip", "symbolic", "hard"],
)
@pytest.mark.parametrize(
    ("link", "target"),
    [("snap/incidents.csv", "/etc/passwd"), ("snap/incidents.csv", "data.csv"), ("latest", "../backup")],
)
def test_a_link_in_an_archive_is_refused_by_its_name(
    form: str, kind: bytes, link: str, target: str, tmp_path: Path
) -> None:
    files = {"snap/reports.csv": CONTENTS["reports.csv"], "snap/data.csv": CONTENTS["incidents.csv"]}
    path = write_archive(tmp_path / f"s.{form}", files, {link: target, "snap/another": "elsewhere"}, kind)
    with pytest.raises(SourceError) as error:
        read_incidents(path, Problems(), "title")
    assert str(error.value) == (
        f"{path} has no file named incidents.csv; {link!r} is a link, and links in an archive aren't followed: "
        "pack the files themselves (tar --dereference --hard-dereference, zip without --symlinks)."
    )


@pytest.mark.parametrize("form", ["zip", "tar"])
def test_a_link_beside_the_file_itself_is_left_out(form: str, tmp_path: Path) -> None:
    path = write_archive(tmp_path / f"s.{form}", CONTENTS, {"latest/incidents.csv": "../incidents.csv"})
    assert read(path) == EXPECTED


@pytest.mark.parametrize("form", ["zip", "tar"])
def test_a_name_with_line_breaks_makes_no_second_line(form: str, tmp_path: Path) -> None:
    path = write_archive(tmp_path / f"s.{form}", {}, {"a\nb/incidents.csv": "x"})
    with pytest.raises(SourceError) as error:
        read_incidents(path, Problems(), "title")
    assert "\n" not in str(error.value)


def test_a_zip_with_an_empty_name_is_read(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "s.zip", {"another": b"x", **CONTENTS}, {})
    path.write_bytes(path.read_bytes().replace(b"another", b"\0nother"))  # zipfile ends a name at a zero byte
    assert read(path) == EXPECTED


@pytest.mark.parametrize("form", ["zip", "tar"])
def test_two_files_in_an_archive_are_named(form: str, tmp_path: Path) -> None:
    path = write_archive(tmp_path / f"s.{form}", {**CONTENTS, "old\\incidents.csv": b""}, {})
    with pytest.raises(SourceError) as error:
        read_incidents(path, Problems(), "title")
    assert str(error.value).endswith(
        "2 files named incidents.csv, e.g. 'incidents.csv' and 'old\\\\incidents.csv'; it must have one."
    )


UNUSABLE = {
    "none of the files": (
        {"notes.txt": "mine", "backup.tar.bz2": ""},
        "has neither AIID's dumps (incidents.bson, reports.bson) nor its tables (incidents.csv, reports.csv).",
    ),
    "no file": ({"reports.csv": REPORTS}, "has no file named incidents.csv."),
    "two files": (
        {"incidents.csv": INCIDENTS, "reports.csv": REPORTS, "old/incidents.csv": INCIDENTS},
        "has 2 files named incidents.csv, e.g. 'incidents.csv' and 'old/incidents.csv'; it must have one.",
    ),
    "a column missing": (
        {"incidents.csv": INCIDENTS.replace("reports", "x", 1), "reports.csv": REPORTS},
        "incidents.csv has no column reports; its first line must name them, separated by commas.",
    ),
    "an empty file": (
        {"incidents.csv": "", "reports.csv": REPORTS},
        "incidents.csv has no column incident_id, title, reports; its first line must name them, separated by commas.",
    ),
    "a header alone": (
        {"incidents.csv": INCIDENTS.splitlines()[0], "reports.csv": REPORTS},
        "incidents.csv has no usable incident.",
    ),
    "a header with broken quotes": (
        {"incidents.csv": '"incident_id"x,' + INCIDENTS, "reports.csv": REPORTS},
        "incidents.csv can't be read: ",
    ),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_a_snapshot_that_can_not_be_used_is_refused_in_one_sentence(case: str, tmp_path: Path) -> None:
    files, message = UNUSABLE[case]
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    with pytest.raises(SourceError) as error:
        read_incidents(tmp_path, Problems(), "title")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("form", ARCHIVES)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_an_archive_cut_short_is_refused_in_one_sentence(form: str, share: float, tmp_path: Path) -> None:
    # Text that hardly compresses, so that the cut falls into it.
    path = pack(tmp_path, form, reports=REPORTS + f"99,D,{random.Random(0).randbytes(50_000).hex()},en\n")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(SourceError) as error:
        read_incidents(path, Problems(), "title")
    assert "\n" not in str(error.value)
    assert path.name in str(error.value) or "reports.csv" in str(error.value)


# A bare tar has no checksum over what it holds.
@pytest.mark.parametrize("form", [form for form in ARCHIVES if form != "tar"])
def test_an_archive_with_flipped_bytes_is_refused_in_one_sentence(form: str, tmp_path: Path) -> None:
    path = pack(tmp_path, form, reports=REPORTS + f"99,D,{random.Random(0).randbytes(50_000).hex()},en\n")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    for index in range(middle, middle + 200):
        content[index] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(SourceError) as error:
        read_incidents(path, Problems(), "title")
    assert "\n" not in str(error.value)


def test_a_zip_with_a_password_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = pack(tmp_path, "zip")
    content = bytearray(path.read_bytes())
    # Bit 0 of the flags, at 6 bytes into each member's header and 8 into its entry in the directory (APPNOTE 4.4.4).
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = content.find(signature)
        while at >= 0:
            content[at + offset] |= 1
            at = content.find(signature, at + 1)
    path.write_bytes(content)
    with pytest.raises(SourceError, match="password"):
        read_incidents(path, Problems(), "title")


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "ünïcode".encode("utf-16")])
def test_a_file_that_is_no_source_is_refused_in_one_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "snapshot.bin"
    path.write_bytes(content)
    with pytest.raises(SourceError) as error:
        read_incidents(path, Problems(), "title")
    if b"\0" in content:
        assert str(error.value) == f"{path} isn't a folder, zip, tar or CSV file (in UTF-8), or it is cut off."
    else:
        assert str(error.value).startswith("snapshot.bin has no column ")


def test_a_source_that_is_not_there_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"/gone doesn't exist\.$"):
        read_incidents(tmp_path / "gone", Problems(), "title")


@pytest.mark.parametrize("name", ["incidents", "INCIDENTS.CSV", "incidents.csv.txt", "incidents.zip"])
def test_a_table_is_known_by_its_content(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text("incident_id,title,description\n3,A title,d\n")
    assert [incident.texts for incident in read_incidents(path, Problems(), "title")] == [("A title.",)]


@pytest.mark.parametrize("name", ["snapshot", "snapshot.csv", "snapshot.pt"])
@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_is_known_by_its_content(kind: str, name: str, tmp_path: Path) -> None:
    path = pack(tmp_path, kind)
    expected = read_incidents(path, Problems(), "title")
    assert read_incidents(path.rename(tmp_path / name), Problems(), "title") == expected
