"""AIID's dumps become incidents with the texts, vectors and labels that count, in whatever order they come."""

from __future__ import annotations

import csv
import io
import random
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import bson
import numpy as np
import pytest

import snapshots
from similarity.sources import archive
from similarity.sources.bson_files import text_hashes
from similarity.sources.database import Database, Incident, Report, Source
from similarity.sources.problems import Problems, SourceError
from similarity.sources.read import read_database
from snapshots import FOLDER, NAME, Snapshot, dump, duplicate, embedding, form_hash, incident, job_hash, pack, report
from tiny import ROOT

FIRST, SECOND = "The car_park's *robot* fell.", "A “chatbot” lied — twice."
SMALL = Snapshot([incident(3, [11]), incident(1, [10, 11])], [report(10, FIRST), report(11, SECOND)], [duplicate(7, 3)])
INCIDENTS = (
    Incident(1, "Incident 1", "2026-04-30", (Report(10, FIRST), Report(11, SECOND)), "About incident 1."),
    Incident(3, "Incident 3", "2026-04-30", (Report(11, SECOND),), "About incident 3."),
)


def read(path: Path, **options: Any) -> Database:
    """What a source without problems has."""
    problems = Problems()
    database = read_database(path, problems, **options)
    assert problems.count == 0
    return database


def read_small(tmp_path: Path, snapshot: Snapshot, **options: Any) -> Database:
    return read(snapshot.write(tmp_path / NAME), **options)


@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.lzma"])
def test_dumps_are_read_whatever_they_are_packed_in(ending: str, tmp_path: Path) -> None:
    database = read(SMALL.write(tmp_path / f"s{ending}"))
    assert database.incidents == INCIDENTS
    assert database.duplicates == {7: 3}


def test_a_bzip2_in_several_parts_is_read_whole(tmp_path: Path) -> None:
    """As pbzip2 packs it."""
    whole = SMALL.write(tmp_path / "s.tar").read_bytes()
    parts = [whole[start : start + 4096] for start in range(0, len(whole), 4096)]
    (tmp_path / NAME).write_bytes(b"".join(map(snapshots._PACKERS[".bz2"], parts)))
    assert read(tmp_path / NAME).incidents == INCIDENTS


def test_dumps_are_read_from_folders_and_zips(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as packed:
        for name, content in SMALL.files().items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
            packed.writestr(f"{FOLDER}/{name}", content)
    assert read(folder).incidents == read(tmp_path / "s.zip").incidents == INCIDENTS


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_files_changes_nothing(seed: int, tmp_path: Path) -> None:
    spanish = report(12, "Un robot cayó.", language="es")
    snapshot = replace(
        SMALL,
        incidents=[*SMALL.incidents, incident(5, [12], flagged_dissimilar_incidents=[7])],
        reports=[*SMALL.reports, spanish],
        translations={"en": [report(12, "A robot fell.")]},
    )
    files = [(f"{FOLDER}/{name}", content) for name, content in snapshot.files().items()]
    random.Random(seed).shuffle(files)
    database = read(pack(tmp_path / NAME, dict(files)))
    fifth = Incident(5, "Incident 5", "2026-04-30", (Report(12, "A robot fell."),), "About incident 5.")
    assert database.incidents == (*INCIDENTS, fifth)
    assert database.dissimilar == {(3, 5)}


def test_a_tar_is_read_once_from_start_to_end(tmp_path: Path) -> None:
    """From a pipe, which can't be read twice, it gives what it gives from a file."""
    path = SMALL.write(tmp_path / "s.tar")
    read_bytes = path.read_bytes()

    class Pipe(io.RawIOBase):
        at = 0

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            assert size > 0
            self.at += size
            return read_bytes[self.at - size : self.at]

    pipe = Pipe()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(archive, "_unpacked", lambda path: pipe)
        assert read(path).incidents == INCIDENTS
    assert pipe.at >= len(read_bytes)


def test_nothing_is_unpacked(tmp_path: Path) -> None:
    path = SMALL.write(tmp_path / NAME)
    read(path)
    assert list(tmp_path.iterdir()) == [path]


def test_the_unreviewed_are_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    members = archive.members

    def watched(path: Path) -> Iterator[archive.Member]:
        for member in members(path):

            def open_it(member: archive.Member = member) -> archive.Content:
                opened.append(member.name)
                return member.open()

            yield replace(member, open=open_it)

    monkeypatch.setattr("similarity.sources.read.members", watched)
    database = read_small(tmp_path, SMALL)
    assert [incident.incident_id for incident in database.incidents] == [1, 3]
    assert {name.removeprefix(f"{FOLDER}/") for name in opened} == {
        "aiidprod/incidents.bson",
        "aiidprod/reports.bson",
        "aiidprod/duplicates.bson",
        "translations/reports_en.bson",
    }


# Which source it is.


@pytest.mark.parametrize(
    ("name", "kind", "date"),
    [
        ("backup-20261123100000.tar.bz2", "aiid-snapshot", "2026-11-23T10:00:00Z"),
        ("backup-20261123100000.tar.xz", "aiid-snapshot", "2026-11-23T10:00:00Z"),
        ("backup-20261399100000.tar.bz2", "records", ""),
        ("backup-20261123100000.tar", "records", ""),
        ("backup-2026112310000.tar.bz2", "records", ""),
        ("my-backup-20261123100000.tar.bz2", "records", ""),
        ("snapshot.tar.bz2", "records", ""),
    ],
)
def test_only_an_archive_named_as_aiid_names_them_is_its_snapshot(
    name: str, kind: Any, date: str, tmp_path: Path
) -> None:
    assert read(SMALL.write(tmp_path / name)).source == Source(kind, name, date)


def test_the_folder_that_one_is_in_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "unpacked"
    folder.mkdir()
    for file, content in SMALL.files(dumps=False).items():
        (folder / file).write_bytes(content)
    monkeypatch.chdir(folder)
    assert read(Path()).source == Source("csv", "unpacked")


def test_tables_and_folders_are_no_snapshots_of_aiids(tmp_path: Path) -> None:
    name = "backup-20261123100000.tar.bz2"
    (tmp_path / name).mkdir()
    for file in ("incidents.csv", "reports.csv"):
        (tmp_path / name / file).write_bytes(SMALL.files()[file])
    assert read(tmp_path / name).source == Source("csv", name)
    assert read(tmp_path / name / "incidents.csv").source == Source("csv", "incidents.csv")
    assert read(SMALL.write(tmp_path / "s.tar", dumps=False)).source == Source("csv", "s.tar")


# Which text counts.


def text_of(tmp_path: Path, **fields: Any) -> str:
    document = {**report(10, "Plain words."), **fields}
    [found] = read_small(tmp_path, Snapshot([incident(1, [10])], [document])).incidents
    return found.reports[0].text


def test_the_plain_text_is_what_counts(tmp_path: Path) -> None:
    assert text_of(tmp_path, plain_text=" As it *is*. \n", text="Another") == " As it *is*. \n"


@pytest.mark.parametrize("empty", ["", " \n", None])
def test_without_a_plain_text_it_is_the_text_less_its_markdown(empty: str | None, tmp_path: Path) -> None:
    assert text_of(tmp_path, plain_text=empty, text="The robot\\_arm *fell* [here](https://x.org).") == (
        "The robot_arm fell here."
    )


def test_a_report_in_another_language_counts_in_english_where_there_is_a_translation(tmp_path: Path) -> None:
    snapshot = Snapshot(
        [incident(1, [10, 11, 12, 13])],
        [
            report(10, "Ein Roboter fiel.", language="de"),
            report(11, "Un robot est tombé.", language="fr"),
            report(12, "In English.", language="en"),
            report(13, "Unknown.", language=None),
        ],
        translations={
            "en": [
                report(10, "A robot fell."),
                report(11, "", text=""),
                report(12, "Not this one."),
                report(13, "Nor this."),
            ],
            "es": [report(10, "Un robot cayó."), report(11, "Un robot cayó.")],
        },
    )
    database = read_small(tmp_path, snapshot)
    assert database.incidents[0].reports == (
        Report(10, "A robot fell.", "en"),
        Report(11, "Un robot est tombé.", "fr"),
        Report(12, "In English.", "en"),
        Report(13, "Unknown.", ""),
    )
    assert database.untranslated == (11,)


def test_a_translation_without_plain_text_loses_its_markdown(tmp_path: Path) -> None:
    snapshot = Snapshot(
        [incident(1, [10])],
        [report(10, "Ein Roboter.", language="de")],
        translations={"en": [report(10, "", text="A \\*robot\\*.")]},
    )
    assert read_small(tmp_path, snapshot).incidents[0].texts == ("A *robot*.",)


# Which reports count.


def counted(tmp_path: Path, *reports: dict[str, Any], **options: Any) -> list[int | None]:
    numbers = [each["report_number"] for each in reports]
    [found] = read_small(tmp_path, Snapshot([incident(1, numbers)], reports), **options).incidents
    return [each.number for each in found.reports]


def test_issue_reports_and_variants_without_text_do_not_count(tmp_path: Path) -> None:
    assert counted(
        tmp_path,
        report(10, "This one."),
        report(11, "An issue.", is_incident_report=False),
        report(12, "", title="", text=""),
        report(13, "", title=None, text=None),
        report(14, "A variant with text.", title=""),
        report(15, "An old one.", is_incident_report=None),
    ) == [10, 14, 15]


@pytest.mark.parametrize(("responses", "expected"), [("include", [10, 11, 12]), ("exclude", [10, 12])])
@pytest.mark.parametrize("dumps", [True, False])
def test_responses_count_unless_they_are_excluded(
    dumps: bool, responses: Any, expected: list[int], tmp_path: Path
) -> None:
    snapshot = Snapshot(
        [incident(1, [10, 11, 12])],
        [
            report(10, "A report."),
            report(11, "An answer.", tags=["x", "response"]),
            report(12, "Another.", tags=["no response", "responses"]),
        ],
    )
    [found] = read(snapshot.write(tmp_path / NAME, dumps=dumps), responses=responses).incidents
    assert [each.number for each in found.reports] == expected


def test_tags_as_mongoexport_writes_them_are_known(tmp_path: Path) -> None:
    (tmp_path / "incidents.csv").write_text('incident_id,title,reports\n1,t,"[10,11]"\n')
    (tmp_path / "reports.csv").write_text(
        'report_number,text,tags\n10,One.,[]\n11,Two.,"[""response""]"\n', encoding="utf-8"
    )
    [found] = read(tmp_path, responses="exclude").incidents
    assert found.texts == ("One.",)


def test_tables_without_tags_can_not_exclude_responses(tmp_path: Path) -> None:
    (tmp_path / "incidents.csv").write_text("incident_id,title,reports\n1,t,[10]\n")
    (tmp_path / "reports.csv").write_text("report_number,text\n10,One.\n")
    with pytest.raises(SourceError, match=r"^reports\.csv has no column tags; "):
        read_database(tmp_path, Problems(), responses="exclude")


def test_a_report_counts_once_an_incident_and_in_every_incident(tmp_path: Path) -> None:
    snapshot = replace(SMALL, incidents=[incident(1, [10, 11, 10]), incident(3, [11])])
    assert read_small(tmp_path, snapshot).incidents == INCIDENTS


def test_numbers_may_be_of_any_bson_type(tmp_path: Path) -> None:
    snapshot = replace(
        SMALL,
        incidents=[
            {**incident(1, [10, 11]), "incident_id": 1.0, "reports": [10.0, bson.Int64(11)]},
            {**incident(3, [11]), "incident_id": bson.Int64(3)},
        ],
        reports=[{**each, "report_number": float(each["report_number"])} for each in SMALL.reports],
    )
    assert read_small(tmp_path, snapshot).incidents == INCIDENTS


@pytest.mark.parametrize("reports", [[], [11], [12]])
def test_an_incident_without_a_report_that_counts_is_reported(
    reports: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    documents = [report(10, "This one."), report(11, "An issue.", is_incident_report=False)]
    path = Snapshot([incident(2, reports), incident(1, [10])], documents).write(tmp_path / NAME)
    problems = Problems()
    assert [each.incident_id for each in read_database(path, problems).incidents] == [1]
    assert problems.count == 1
    reason = {0: " has no reports", 11: " has no report that counts", 12: " has missing or unusable reports: 12"}[
        sum(reports)
    ]
    assert capsys.readouterr().err == f"incidents.bson, document 1: incident 2{reason}; skipped\n"


@pytest.mark.parametrize(
    ("value", "expected"),
    [("2026-04-30", "2026-04-30"), ("2026-04-30T10:00:00.000Z", "2026-04-30"), ("30 April", ""), ("2026-02-30", "")],
)
def test_dates_are_days_or_unknown(value: str, expected: str, tmp_path: Path) -> None:
    [found] = read_small(tmp_path, Snapshot([incident(1, [10], date=value)], [report(10, "Words.")])).incidents
    assert found.date == expected


# Bad documents.

BAD_INCIDENTS: dict[str, tuple[dict[str, Any], str]] = {
    "no id": ({"incident_id": None}, "incident_id isn't a whole number above 0"),
    "an id with a fraction": ({"incident_id": 1.5}, "incident_id isn't a whole number above 0"),
    "an infinite id": ({"incident_id": float("inf")}, "incident_id isn't a whole number above 0"),
    "an id of 0": ({"incident_id": 0}, "incident_id isn't a whole number above 0"),
    "true for an id": ({"incident_id": True}, "incident_id isn't a whole number above 0"),
    "an id twice": ({"incident_id": 3}, "an earlier document has incident 3 too"),
    "reports that are no list": ({"reports": 10}, "reports of incident 9 isn't a list of report numbers"),
    "reports that are texts": ({"reports": ["10", "x"]}, "reports of incident 9 isn't a list of report numbers"),
}
BAD_REPORTS: dict[str, tuple[dict[str, Any], str]] = {
    "no number": ({"report_number": None}, "report_number isn't a whole number above 0"),
    "a number twice": ({"report_number": 10}, "an earlier document has report 10 too"),
    "no text": ({"plain_text": "", "text": " "}, "report 99 is empty"),
    "a list for a text": ({"plain_text": ["x"], "text": 5}, "report 99 is empty"),
}


@pytest.mark.parametrize("case", BAD_INCIDENTS)
def test_a_bad_incident_is_reported_by_its_number_and_skipped(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fields, message = BAD_INCIDENTS[case]
    snapshot = replace(SMALL, incidents=[SMALL.incidents[0], {**incident(9, [10]), **fields}, SMALL.incidents[1]])
    problems = Problems()
    assert read_database(snapshot.write(tmp_path / NAME), problems).incidents == INCIDENTS
    assert capsys.readouterr().err == f"incidents.bson, document 2: {message}; skipped\n"
    assert problems.count == 1


@pytest.mark.parametrize("case", BAD_REPORTS)
def test_a_bad_report_is_reported_by_its_number_and_skipped(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fields, message = BAD_REPORTS[case]
    snapshot = replace(SMALL, reports=[SMALL.reports[0], {**report(99, "Words."), **fields}, SMALL.reports[1]])
    problems = Problems()
    assert read_database(snapshot.write(tmp_path / NAME), problems).incidents == INCIDENTS
    assert capsys.readouterr().err == f"reports.bson, document 2: {message}; skipped\n"
    assert problems.count == 1


def test_a_damaged_document_costs_only_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    documents = [*SMALL.reports, report(12, "After it.")]
    broken = dump(documents).replace("A “chatbot”".encode(), "A “chatbot".encode() + b"\xff\xff\xff")
    snapshot = replace(
        SMALL,
        incidents=[incident(1, [10, 11]), incident(3, [12])],
        changed={"aiidprod/reports.bson": broken},
    )
    database = read_database(snapshot.write(tmp_path / NAME), Problems())
    assert [each.texts for each in database.incidents] == [(FIRST,), ("After it.",)]
    assert [line.split(":")[:2] for line in capsys.readouterr().err.splitlines()] == [
        ["reports.bson, document 2", " not valid BSON"],
        ["incidents.bson, document 1", " incident 1 has missing or unusable reports"],
    ]


def test_tables_say_nothing_where_dumps_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = {"incidents.csv": b"no,table\n", "reports.csv": b'report_number,text\n1,"no end\n', "duplicates.csv": b""}
    files = {f"{FOLDER}/{name}": content for name, content in tables.items()}
    files |= {f"{FOLDER}/{name}": content for name, content in SMALL.files(tables=False).items()}
    assert read(pack(tmp_path / NAME, files)).incidents == INCIDENTS
    assert capsys.readouterr().err == ""


def test_without_dumps_tables_give_the_same_but_for_markdown(tmp_path: Path) -> None:
    database = read(SMALL.write(tmp_path / NAME, dumps=False))
    markdown = {10: "The car\\_park's \\*robot\\* fell.", 11: SECOND}
    assert database.incidents == tuple(
        replace(each, reports=tuple(replace(r, text=markdown[r.number or 0]) for r in each.reports))
        for each in INCIDENTS
    )
    assert database.duplicates == {7: 3}


# Vectors.


def published(tmp_path: Path, **fields: Any) -> list[float] | None:
    snapshot = Snapshot([incident(1, [10])], [report(10, SECOND, **fields)])
    vector = read_small(tmp_path, snapshot).incidents[0].reports[0].published
    assert vector is None or vector.dtype == np.float32
    return None if vector is None else vector.tolist()


@pytest.mark.parametrize("convention", [form_hash(SECOND), job_hash("raw \\_ text “”"), form_hash(SECOND).upper()])
def test_a_published_vector_counts_by_either_hash(convention: str, tmp_path: Path) -> None:
    assert published(tmp_path, text="raw \\_ text “”", embedding=embedding([0.5, -2], convention)) == [0.5, -2.0]


def test_the_hashes_are_of_ascii_and_of_the_text_itself() -> None:
    """As `printf TEXT | sha1sum` gives them."""
    assert text_hashes("Ångström — “robot”", "Ångström — “robot”") == {
        "2750f06f7c9ba5c8277408cb8a1a683c4d301adf",  # Angstrom -- "robot"
        "036deba2ff8b56853e3ffeb550b0ec43e872aee0",
    }


@pytest.mark.parametrize(
    "given",
    [
        None,
        {},
        embedding([0.5, 2], form_hash("An older text.")),
        embedding([0.5, 2], job_hash(SECOND)),  # Of the plain text itself; AIID's form transliterates it first.
        embedding([0.5, 2], ""),
        embedding([], form_hash(SECOND)),
        {"vector": [0.5, 2.0]},
        {"from_text_hash": form_hash(SECOND)},
        [],
    ],
)
def test_a_vector_of_another_text_or_none_does_not_count(given: Any, tmp_path: Path) -> None:
    assert published(tmp_path, text="raw", embedding=given) is None


@pytest.mark.parametrize(
    "vector", [["a"], [None], [[1.0], [2.0, 3.0]], [float("nan")], [1e7], [-(2**63)], {"0": 1.0}, "text"]
)
def test_a_vector_that_can_not_be_used_is_reported_and_the_report_stays(
    vector: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = report(10, SECOND, embedding={"vector": vector, "from_text_hash": form_hash(SECOND)})
    problems = Problems()
    [found] = read_database(Snapshot([incident(1, [10])], [document]).write(tmp_path / NAME), problems).incidents
    assert found.texts == (SECOND,)
    assert found.reports[0].published is None
    assert capsys.readouterr().err == (
        "reports.bson, document 1: the vector of report 10 isn't a list of numbers from -1,000,000 to 1,000,000; "
        "the vector isn't used\n"
    )


def test_vectors_have_one_length(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    documents = [
        report(10, "One.", embedding=embedding([1, 2], form_hash("One."))),
        report(11, "Two.", embedding=embedding([1, 2, 3], form_hash("Two."))),
    ]
    [found] = read_database(Snapshot([incident(1, [10, 11])], documents).write(tmp_path / NAME), Problems()).incidents
    assert [each.published is None for each in found.reports] == [False, True]
    assert "document 2: the vector of report 11 isn't a list of 2 numbers" in capsys.readouterr().err


def test_one_vector_of_another_length_costs_only_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also if it is the first."""
    documents = [
        report(10, "One.", embedding=embedding([1], form_hash("One."))),
        report(11, "Two.", embedding=embedding([1, 2], form_hash("Two."))),
        report(12, "Three.", embedding=embedding([3, 4], form_hash("Three."))),
    ]
    path = Snapshot([incident(1, [10, 11, 12])], documents).write(tmp_path / NAME)
    [found] = read_database(path, Problems()).incidents
    assert [each.published is None for each in found.reports] == [True, False, False]
    assert "document 1: the vector of report 10 isn't a list of 2 numbers" in capsys.readouterr().err


def test_a_translation_does_not_take_the_vector_of_the_original(tmp_path: Path) -> None:
    def snapshot(of: str) -> Snapshot:
        document = report(10, "Ein Roboter.", language="de", embedding=embedding([1.0], form_hash(of)))
        return Snapshot([incident(1, [10])], [document], translations={"en": [report(10, "A robot.")]})

    [original] = read_small(tmp_path, snapshot("Ein Roboter.")).incidents
    assert original.texts == ("A robot.",)
    assert original.reports[0].published is None
    [translated] = read_small(tmp_path, snapshot("A robot.")).incidents
    assert translated.reports[0].published is not None


# Duplicates and labels.


def test_duplicates_lead_to_what_they_became_in_the_end(tmp_path: Path) -> None:
    merged = [duplicate(7, 8), duplicate(8, 9), duplicate(9, 3), duplicate(20, 1), duplicate(21, 99)]
    database = read_small(tmp_path, replace(SMALL, duplicates=merged))
    assert database.duplicates == {7: 3, 8: 3, 9: 3, 20: 1, 21: 99}


@pytest.mark.parametrize("dumps", [True, False])
def test_duplicates_that_lead_nowhere_are_reported(
    dumps: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    merged = [duplicate(7, 8), duplicate(8, 7), duplicate(9, 9), duplicate(6, 3), duplicate(6, 1), duplicate(0, 1)]
    path = replace(SMALL, duplicates=merged).write(tmp_path / NAME, dumps=dumps)
    problems = Problems()
    assert read_database(path, problems).duplicates == {6: 3}
    file, unit = ("duplicates.bson", "document") if dumps else ("duplicates.csv", "line")
    place = 1 if dumps else 2
    told = capsys.readouterr().err.splitlines()
    assert told == [
        f"{file}, {unit} {place + 5}: duplicate_incident_number or true_incident_number isn't a whole number above 0"
        "; skipped",
        f"{file}, {unit} {place + 4}: an earlier {unit} has incident 6 too; skipped",
        f"{file}, {unit} {place}: the duplicates of incident 7 lead in a circle; skipped",
        f"{file}, {unit} {place + 1}: the duplicates of incident 8 lead in a circle; skipped",
        f"{file}, {unit} {place + 2}: the duplicates of incident 9 lead in a circle; skipped",
    ]


def test_labels_of_editors_and_readers_become_pairs(tmp_path: Path) -> None:
    snapshot = replace(
        SMALL,
        incidents=[
            incident(3, [11], editor_dissimilar_incidents=[1, None], flagged_dissimilar_incidents=[None, 20.0, 7]),
            incident(1, [10, 11], editor_dissimilar_incidents=None, flagged_dissimilar_incidents=[30, 3]),
            incident(5, [10], editor_similar_incidents=[1]),
        ],
        duplicates=[duplicate(7, 3), duplicate(30, 5)],
    )
    # 7 became 3, so incident 3 and it are one; 30 became 5.
    assert read_small(tmp_path, snapshot).dissimilar == {(1, 3), (3, 20), (1, 5)}


def test_labels_of_editors_become_similar_pairs(tmp_path: Path) -> None:
    snapshot = replace(
        SMALL,
        incidents=[
            incident(3, [11], editor_similar_incidents=[1, None, 20.0, 7], editor_dissimilar_incidents=[1]),
            incident(1, [10, 11], editor_similar_incidents=[30, 3]),
            incident(5, [10], editor_similar_incidents=None, flagged_dissimilar_incidents=[3]),
        ],
        duplicates=[duplicate(7, 3), duplicate(30, 5)],
    )
    database = read_small(tmp_path, snapshot)
    # Incidents 1 and 3 are marked as both. nlp_similar_incidents has no labels of people.
    assert database.similar == {(1, 3), (3, 20), (1, 5)}
    assert database.dissimilar == {(1, 3), (3, 5)}


def test_tables_have_no_labels(tmp_path: Path) -> None:
    labelled = incident(3, [11], editor_similar_incidents=[1], editor_dissimilar_incidents=[1])
    path = replace(SMALL, incidents=[labelled, SMALL.incidents[1]]).write(tmp_path / NAME, dumps=False)
    database = read(path)
    assert database.similar == database.dissimilar == frozenset()


@pytest.mark.parametrize(
    ("given", "description"),
    [
        ("  A robot fell.\n\n", "A robot fell."),
        ("A *robot*\nfell.", "A *robot*\nfell."),
        (" \n", ""),
        (None, ""),
        (7, ""),
    ],
)
def test_a_description_is_read_without_spaces_at_its_ends(given: Any, description: str, tmp_path: Path) -> None:
    database = read_small(tmp_path, replace(SMALL, incidents=[incident(3, [11], description=given)]))
    assert [each.description for each in database.incidents] == [description]


def test_a_dump_without_descriptions_is_read(tmp_path: Path) -> None:
    incidents = [{key: each[key] for key in each if key != "description"} for each in SMALL.incidents]
    database = read_small(tmp_path, replace(SMALL, incidents=incidents))
    assert database.incidents == tuple(replace(each, description="") for each in INCIDENTS)


@pytest.mark.parametrize("entries", [["x"], [1.5], [-3], "1", {"0": 1}])
@pytest.mark.parametrize("field", ["flagged_dissimilar_incidents", "editor_similar_incidents"])
def test_labels_that_are_no_ids_are_reported(
    field: str, entries: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labelled = incident(3, [11], **{field: entries}, editor_dissimilar_incidents=[1])
    path = replace(SMALL, incidents=[labelled, SMALL.incidents[1]]).write(tmp_path / NAME)
    database = read_database(path, Problems())
    assert database.incidents == INCIDENTS
    assert database.dissimilar == {(1, 3)}
    assert database.similar == frozenset()
    assert capsys.readouterr().err == (
        f"incidents.bson, document 1: {field} of incident 3 has an entry that isn't a whole number above 0; skipped\n"
    )


# Archives that aren't what they should be.


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("file", ["aiidprod/incidents.bson", "aiidprod/reports.bson"])
def test_a_dump_that_is_a_link_is_refused_even_where_tables_are(file: str, kind: bytes, tmp_path: Path) -> None:
    files = {f"{FOLDER}/{name}": content for name, content in SMALL.files().items() if name != file}
    path = pack(tmp_path / NAME, files, [link(f"{FOLDER}/{file}", "/etc/passwd", kind)])
    with pytest.raises(SourceError) as error:
        read_database(path, Problems())
    name = file.rpartition("/")[2]
    assert str(error.value).startswith(f"{path} has no file named {name}; '{FOLDER}/{file}' is a link, and links")


@pytest.mark.parametrize(
    "name",
    ["../../reports.bson", "/etc/reports.bson", f"{FOLDER}/../../reports.bson", "..\\reports.bson", "C:\\reports.bson"],
)
def test_a_dump_that_leads_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    files = {f"{FOLDER}/{file}": c for file, c in SMALL.files().items() if file != "aiidprod/reports.bson"}
    path = pack(tmp_path / NAME, {**files, name: SMALL.files()["aiidprod/reports.bson"]})
    with pytest.raises(SourceError) as error:
        read_database(path, Problems())
    assert str(error.value) == f"{path} has no file named reports.bson; {name!r} leads out of the archive."


@pytest.mark.parametrize("moved", ["incidents.bson", "duplicates.bson"])
def test_dumps_of_two_databases_are_not_mixed(moved: str, tmp_path: Path) -> None:
    files = {f"{FOLDER}/{name}": content for name, content in SMALL.files().items()}
    files[f"{FOLDER}/history/{moved}"] = files.pop(f"{FOLDER}/aiidprod/{moved}")
    with pytest.raises(SourceError) as error:
        read_database(pack(tmp_path / NAME, files), Problems())
    assert str(error.value).endswith("; the dumps of one database must be in one folder.")
    assert f"'{FOLDER}/history/{moved}'" in str(error.value)


def test_two_dumps_of_one_name_are_refused(tmp_path: Path) -> None:
    files = {f"{FOLDER}/{file}": content for file, content in SMALL.files().items()}
    path = pack(tmp_path / NAME, {**files, "other/reports.bson": b""})
    with pytest.raises(SourceError, match=r"has 2 files named reports\.bson, e\.g\. .*; it must have one\.$"):
        read_database(path, Problems())


def test_a_dump_of_the_translations_is_none_of_the_database(tmp_path: Path) -> None:
    changed = {
        "translations/incidents.bson": b"x",
        "translations/reports.bson": b"x",
        "translations/duplicates.bson": b"x",
    }
    assert read_small(tmp_path, replace(SMALL, changed=changed)).incidents == INCIDENTS


@pytest.mark.parametrize("form", ["tar", "zip"])
def test_a_file_beyond_the_size_limit_is_refused(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = max(len(content) for name, content in SMALL.files().items() if name.startswith("aiidprod/"))
    path = SMALL.write(tmp_path / "s.tar")
    if form == "zip":
        path = tmp_path / "s.zip"
        with zipfile.ZipFile(path, "w") as packed:
            for name, content in SMALL.files().items():
                packed.writestr(name, content)
    monkeypatch.setattr(archive, "MAX_FILE_BYTES", size)
    assert read(path).incidents == INCIDENTS
    monkeypatch.setattr(archive, "MAX_FILE_BYTES", size - 1)
    with pytest.raises(SourceError, match=rf"\.bson' of {size:,} bytes; at most {size - 1:,} are read\.$"):
        read_database(path, Problems())


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its files say of their sizes: the bytes count, those of files that aren't read too."""
    files = {f"{FOLDER}/{name}": content for name, content in SMALL.files().items()}
    path = pack(tmp_path / NAME, {"bomb": bytes(10**6), **files})
    monkeypatch.setattr(archive, "MAX_UNPACKED_BYTES", 10**6)
    with pytest.raises(SourceError, match=r"has more than 1,000,000 bytes when it is unpacked\.$"):
        read_database(path, Problems())


def test_a_header_that_announces_too_much_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tarfile would look for the next header until the end of that size, though the file ends long before."""
    huge = tarfile.TarInfo("huge")
    huge.size = 2 * 10**6
    monkeypatch.setattr(archive, "MAX_UNPACKED_BYTES", 10**6)
    (tmp_path / "s.tar").write_bytes(huge.tobuf(tarfile.GNU_FORMAT) + SMALL.write(tmp_path / NAME).read_bytes())
    with pytest.raises(SourceError, match=r"has more than 1,000,000 bytes when it is unpacked\.$"):
        read_database(tmp_path / "s.tar", Problems())


def test_an_archive_of_too_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_MEMBERS", len(SMALL.files()) - 1)
    with pytest.raises(SourceError, match="files; a snapshot has about 60"):
        read_database(SMALL.write(tmp_path / NAME), Problems())


def headers(content: bytes | bytearray) -> list[int]:
    """Where they are in a tar."""
    return [at for at in range(0, len(content), 512) if content[at + 257 : at + 262] == b"ustar"]


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
@pytest.mark.parametrize("first", [True, False])
def test_a_header_that_would_take_much_memory_is_refused(first: bool, kind: bytes, tmp_path: Path) -> None:
    huge = tarfile.TarInfo("name")
    huge.type, huge.size = kind, archive.MAX_HEADER_BYTES + 1
    header = huge.tobuf(tarfile.GNU_FORMAT)
    whole = SMALL.write(tmp_path / "s.tar").read_bytes()
    path = tmp_path / "huge.tar"
    path.write_bytes((b"" if first else whole[: headers(whole)[1]]) + header + whole)
    with pytest.raises(SourceError, match=r"^huge\.tar can't be read: a header has 1,048,577 bytes; at most 1,048,576"):
        read_database(path, Problems())


@pytest.mark.parametrize("at", range(1, 9))
def test_an_archive_with_a_damaged_header_is_refused(at: int, tmp_path: Path) -> None:
    path = SMALL.write(tmp_path / "s.tar")
    content = bytearray(path.read_bytes())
    content[headers(content)[at] + 148] ^= 1  # its checksum
    path.write_bytes(content)
    with pytest.raises(SourceError, match="is damaged: there is no readable header"):
        read_database(path, Problems())


@pytest.mark.parametrize("into_header", [0, 100])
@pytest.mark.parametrize("at", range(1, 9))
def test_an_archive_that_is_cut_between_files_is_refused(at: int, into_header: int, tmp_path: Path) -> None:
    """Else the translations at its end would be missing, and nobody would notice."""
    content = SMALL.write(tmp_path / "s.tar").read_bytes()
    (tmp_path / "s.tar").write_bytes(content[: headers(content)[at] + into_header])
    with pytest.raises(SourceError, match=r"s\.tar is cut off: a tar ends with zeros, "):
        read_database(tmp_path / "s.tar", Problems())


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path: Path) -> None:
    """As with a table of Excel's, which is a zip."""
    table = io.BytesIO()
    with zipfile.ZipFile(table, "w") as packed:
        packed.writestr("xl/workbook.xml", "x")
    files = {f"{FOLDER}/{name}": content for name, content in SMALL.files().items()}
    assert read(pack(tmp_path / "s.tar", {**files, "table.xlsx": table.getvalue()})).incidents == INCIDENTS


def test_fields_of_any_length_are_read_from_tables(tmp_path: Path) -> None:
    long = "robot " * 100_000
    snapshot = replace(SMALL, reports=[report(10, long), report(11, long)])
    limit = csv.field_size_limit(131_072)
    try:
        assert read(snapshot.write(tmp_path / NAME, dumps=False)).incidents[0].texts == (long, long)
    finally:
        csv.field_size_limit(limit)


# Prints how many numbers there are, and the most memory that the process has had, which the kernel counts in KiB.
READ_IT = """
import sys
from pathlib import Path
from similarity.sources.problems import Problems
from similarity.sources.read import read_database
found = read_database(Path(sys.argv[1]), Problems())
print(sum(len(report.published) for incident in found.incidents for report in incident.reports))
[peak] = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
print(int(peak) * 1024)
"""
WRITE_IT = """
import sys
from pathlib import Path
from snapshots import FOLDER, large, pack
files = large().files()
tables_first = sorted(files, key=lambda name: not name.endswith(".csv"))
pack(Path(sys.argv[1]), {f"{FOLDER}/{name}": files[name] for name in tables_first})
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells a process its peak")
def test_a_snapshot_of_aiids_size_takes_less_than_500_mb(tmp_path: Path) -> None:
    """7,000 reports with vectors of 768 numbers; the tables come first, and are read in vain."""
    path = tmp_path / "s.tar"
    environment = {"PYTHONPATH": f"{ROOT / 'inference'}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    for program in (WRITE_IT, READ_IT):
        ran = subprocess.run(
            [sys.executable, "-c", program, str(path)], env=environment, capture_output=True, text=True, check=True
        )
    numbers, peak = ran.stdout.split()
    assert int(numbers) == 7000 * 768
    assert int(peak) < 500 * 10**6
