"""The sample snapshot is what its README says: well-formed, of the sizes that matter, and in words of its own."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from similarity.sources.problems import Problems
from similarity.sources.read import read_database
from tiny import AIID_DIR, SAMPLE_DIR


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


INCIDENTS = rows(SAMPLE_DIR / "incidents.csv")
REPORTS = rows(SAMPLE_DIR / "reports.csv")
UNRELATED = rows(SAMPLE_DIR / "unrelated.csv")


def plain(text: str) -> str:
    """Words only, so that other punctuation makes no other text."""
    return " ".join(re.findall(r"\w+", text.lower()))


def test_there_are_at_least_40_incidents_with_2_or_3_reports_each() -> None:
    assert len(INCIDENTS) >= 40
    assert {len(json.loads(row["reports"])) for row in INCIDENTS} <= {2, 3}


def test_every_report_belongs_to_exactly_one_incident() -> None:
    named = Counter(number for row in INCIDENTS for number in json.loads(row["reports"]))
    assert named == Counter({int(row["report_number"]): 1 for row in REPORTS})
    assert len(REPORTS) == len({row["report_number"] for row in REPORTS})


def test_ids_and_numbers_ascend() -> None:
    ids = [int(row["incident_id"]) for row in INCIDENTS]
    assert ids == sorted(set(ids))
    numbers = [int(row["report_number"]) for row in REPORTS]
    assert numbers == sorted(numbers)


def test_most_reports_are_short_and_some_are_long() -> None:
    words = [len(row["text"].split()) for row in REPORTS]
    assert sum(60 <= count <= 150 for count in words) > 0.8 * len(words)
    assert sum(700 <= count <= 900 for count in words) >= 6
    assert min(words) >= 50


def test_no_text_stands_there_twice() -> None:
    for column, table in (("text", REPORTS), ("title", REPORTS), ("title", INCIDENTS), ("description", INCIDENTS)):
        texts = [plain(row[column]) for row in table]
        assert all(texts)
        assert len(texts) == len(set(texts)), column


def test_every_report_leads_to_the_page_of_its_incident() -> None:
    urls = {int(row["report_number"]): row["url"] for row in REPORTS}
    for row in INCIDENTS:
        expected = f"https://incidentdatabase.ai/cite/{row['incident_id']}"
        assert {urls[number] for number in json.loads(row["reports"])} == {expected}


def test_the_tables_have_the_columns_of_the_snapshot() -> None:
    # Those that AIID's own incidents.csv has, see below where it is here.
    assert list(INCIDENTS[0]) == [
        "incident_id",
        "date",
        "reports",
        "Alleged deployer of AI system",
        "Alleged developer of AI system",
        "Alleged harmed or nearly harmed parties",
        "description",
        "title",
    ]
    for row in INCIDENTS:
        assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", row["date"])
        for column in list(row)[3:6]:
            assert all(isinstance(entity, str) for entity in json.loads(row[column]))


def test_the_sample_is_read_without_a_problem() -> None:
    problems = Problems()
    incidents = read_database(SAMPLE_DIR, problems).incidents
    assert problems.count == 0
    assert [incident.incident_id for incident in incidents] == [int(row["incident_id"]) for row in INCIDENTS]
    assert sum(len(incident.texts) for incident in incidents) == len(REPORTS)


def test_the_readme_counts_right() -> None:
    readme = (SAMPLE_DIR / "README.md").read_text(encoding="utf-8")
    assert f"{len(INCIDENTS)} well-known AI incidents with {len(REPORTS)} short reports" in readme


def test_the_unrelated_texts_are_of_all_kinds() -> None:
    assert list(UNRELATED[0]) == ["kind", "language", "text"]
    kinds = Counter(row["kind"] for row in UNRELATED)
    assert set(kinds) == {"news", "household", "short", "language"}
    assert len(UNRELATED) >= 70
    assert kinds["news"] >= 40
    assert min(kinds["household"], kinds["short"]) >= 8
    languages = [row["language"] for row in UNRELATED if row["kind"] == "language"]
    assert len(set(languages)) == len(languages) >= 14
    assert "en" not in languages
    assert {row["language"] for row in UNRELATED if row["kind"] in ("news", "household")} == {"en"}
    texts = [row["text"] for row in UNRELATED]
    assert len(texts) == len(set(texts))
    assert {".", "?", "hello"} < set(texts)
    assert all(text == text.strip() and text for text in texts)


def test_the_unrelated_texts_are_about_nothing_that_an_incident_is_about() -> None:
    words = "artificial|algorithm|robot|software|computer|chatbot|self-driving|autonomous|facial|deepfake|drone|online"
    for row in UNRELATED:
        assert not re.search(rf"\bAI\b|\b(?i:{words})", row["text"]), row["text"]


def test_the_readme_counts_the_unrelated_texts() -> None:
    readme = (SAMPLE_DIR / "README.md").read_text(encoding="utf-8")
    assert f"{len(UNRELATED)} texts" in readme


@pytest.fixture(scope="module")
def aiid() -> dict[int, dict[str, str]]:
    if not AIID_DIR.is_dir():
        pytest.skip("the AI Incident Database's data is not here")
    return {int(row["incident_id"]): row for row in rows(AIID_DIR / "incidents.csv")}


def test_ids_dates_and_columns_are_those_of_the_database(aiid: dict[int, dict[str, str]]) -> None:
    for row in INCIDENTS:
        assert row["date"] == aiid[int(row["incident_id"])]["date"], row["incident_id"]
    assert set(INCIDENTS[0]) <= set(aiid[1])


def test_titles_and_descriptions_are_not_those_of_the_database(aiid: dict[int, dict[str, str]]) -> None:
    theirs = {plain(row[column]) for row in aiid.values() for column in ("title", "description")}
    ours = {plain(row[column]) for row in INCIDENTS for column in ("title", "description")}
    ours |= {plain(row[column]) for row in REPORTS for column in ("title", "text")}
    assert not ours & theirs


def test_no_run_of_eight_words_is_taken_from_the_description_in_the_database(aiid: dict[int, dict[str, str]]) -> None:
    def runs(text: str) -> set[tuple[str, ...]]:
        words = plain(text).split()
        return {tuple(words[start : start + 8]) for start in range(len(words) - 7)}

    texts = {int(row["report_number"]): row["text"] for row in REPORTS}
    for row in INCIDENTS:
        theirs = runs(aiid[int(row["incident_id"])]["description"])
        ours = runs(row["description"]).union(*(runs(texts[number]) for number in json.loads(row["reports"])))
        assert not ours & theirs, row["incident_id"]
