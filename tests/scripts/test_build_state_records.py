"""A state of another database has its records, its name and its pages; the arguments are checked before work starts."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import similar
from build_state import main
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.incidents.collection import DEFAULT_COLLECTION, DEFAULT_LICENCE, DEFAULT_RECORD_URL
from similarity.incidents.state import IncidentState
from similarity.service import service
from tiny import SAMPLE_DIR, Deployed

pytestmark = pytest.mark.usefixtures("cache_dir", "one_thread")

COLUMNS = "id=event_id,title=headline,text=narrative,url=link,date=day"
HEADER = ("event_id", "headline", "narrative", "link", "day")
ROWS: list[tuple[object, ...]] = [
    (7, "Bird strike", "A goose hit an engine.", "https://example.org/geese", "2024-05-06"),
    (2, "Icing", "Ice on the wings.\0", "javascript:alert(1)", ""),
    (7, "", "The pilot saw geese.", "", ""),
    (30, "", "A drone flew over the runway.", "", "2023-01-02T03:04:05Z"),
]
TEMPLATE = "https://records.example/{id}.html"

Build = Callable[..., IncidentState]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "aviation events.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([HEADER, *ROWS])
    return path


@pytest.fixture
def build(out: Path, tiny_model_dir: Path) -> Build:
    """Builds with the tiny model. Returns the new state."""

    def run(source: Path, *options: str) -> IncidentState:
        assert main([str(source), "--model", str(tiny_model_dir), "--out", str(out), *options]) == 0
        return IncidentState.load(out)

    return run


def urls(state: IncidentState) -> list[str | None]:
    return [state.url_of(row) for row in range(len(state))]


def test_a_state_of_another_database(
    table: Path, build: Build, tiny_encoder: TorchEncoder, capsys: pytest.CaptureFixture[str], out: Path
) -> None:
    state = build(table, "--columns", COLUMNS)
    assert state.incident_ids.tolist() == [2, 7, 30]
    assert state.report_counts.tolist() == [1, 2, 1]
    first, second = (tiny_encoder.encode(str(ROWS[row][2])).vector.astype(np.float64) for row in (0, 2))
    assert np.allclose(state.means[1], (first + second) / 2, atol=1e-6)
    assert list(state.titles) == ["Icing", "Bird strike", ""]
    assert list(state.dates) == ["", "2024-05-06", "2023-01-02"]
    assert list(state.urls) == ["", "https://example.org/geese", ""]
    assert state.source == {"kind": "other", "name": "aviation events.csv", "date": ""}
    assert (state.collection, state.record_url, state.licence) == ("aviation events", "", "")
    assert urls(state) == [None, "https://example.org/geese", None]
    output = capsys.readouterr()
    assert output.out.splitlines() == [
        f"{out}: 3 incidents, 4 reports, 32 dimensions, model tiny",
        "Fitted: whitening power 0.125, word index of 14 words, no confidence, because there are too few reports and "
        "titles that could be asked",
        "Collection: aviation events; pages: 1 URLs of their own",
        "Vectors: 0 from earlier builds, 4 computed now",
    ]
    assert "aviation events.csv, line 3: the URL must be" in output.err
    assert output.err.endswith("build_state: skipped: 1; the lines above say why.\n")


@pytest.mark.parametrize("by", ["options", "variables"])
def test_name_pages_and_licence_are_those_that_are_given(
    by: str, table: Path, build: Build, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"RECORD_URL": TEMPLATE, "COLLECTION_NAME": "Événements d'aviation", "LICENCE": "Licence Ouverte 2.0"}
    options = []
    if by == "options":
        options = ["--record-url", TEMPLATE, "--collection-name", given["COLLECTION_NAME"]]
        options += ["--licence", given["LICENCE"]]
    for name, value in given.items():
        # An option is stronger than its variable, and isn't checked together with it.
        monkeypatch.setenv(name, value if by == "variables" else "javascript:\n")
    if by == "options":
        monkeypatch.setenv("RECORD_URL", "https://elsewhere.example/{id}")
    state = build(table, "--columns", COLUMNS, *options)
    assert (state.collection, state.record_url) == ("Événements d'aviation", TEMPLATE)
    assert state.licence == "Licence Ouverte 2.0"
    assert "Collection: Événements d'aviation; pages: " in (printed := capsys.readouterr().out)
    assert "; licence: Licence Ouverte 2.0\n" in printed
    assert urls(state) == [
        "https://records.example/2.html",
        "https://example.org/geese",
        "https://records.example/30.html",
    ]


@pytest.mark.slow
def test_an_empty_variable_is_an_unset_one_and_an_empty_option_means_no_pages(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECORD_URL", "")
    monkeypatch.setenv("COLLECTION_NAME", "")
    monkeypatch.setenv("LICENCE", "")
    incidents = SAMPLE_DIR / "incidents.csv"
    state = build(incidents)
    assert (state.url_of(0), state.licence) == ("https://incidentdatabase.ai/cite/1", DEFAULT_LICENCE)
    monkeypatch.setenv("RECORD_URL", TEMPLATE)
    assert build(incidents, "--record-url", "").url_of(0) is None


@pytest.mark.slow
def test_aiids_sources_have_aiids_name_pages_and_licence_unless_others_are_given(
    build: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    state = build(SAMPLE_DIR / "incidents.csv")
    assert (state.collection, state.record_url, state.urls) == (DEFAULT_COLLECTION, DEFAULT_RECORD_URL, [])
    assert state.licence == "CC BY-SA 4.0"
    assert "Collection" not in capsys.readouterr().out
    state = build(SAMPLE_DIR / "incidents.csv", "--record-url", TEMPLATE, "--collection-name", "A copy")
    assert (state.collection, state.url_of(0)) == ("A copy", "https://records.example/1.html")
    assert state.licence == "CC BY-SA 4.0", "a copy has the licence too"
    assert f"Collection: A copy; pages: {TEMPLATE}; licence: CC BY-SA 4.0\n" in capsys.readouterr().out
    build(SAMPLE_DIR / "incidents.csv", "--licence", "CC0 1.0")
    line = f"Collection: {DEFAULT_COLLECTION}; pages: {DEFAULT_RECORD_URL}; licence: CC0 1.0\n"
    assert line in capsys.readouterr().out


def test_the_pages_of_a_state_can_move_without_a_model(
    table: Path, build: Build, out: Path, tmp_path: Path, encoded: list[str]
) -> None:
    before = build(table, "--columns", COLUMNS, "--record-url", TEMPLATE, "--licence", "CC0 1.0")
    state_path = tmp_path / "before.pt"
    before.save(state_path)
    encoded.clear()
    assert main([str(state_path), "--model", str(tmp_path / "no model"), "--out", str(out)]) == 0
    assert replace(IncidentState.load(out), built_at="").facts() == replace(before, built_at="").facts()
    moved = ["--record-url", "http://new.example/?no={id}", "--collection-name", "Moved"]
    assert main([str(state_path), "--model", str(tmp_path / "no model"), "--out", str(out), *moved]) == 0
    state = IncidentState.load(out)
    assert urls(state) == ["http://new.example/?no=2", "https://example.org/geese", "http://new.example/?no=30"]
    assert (state.collection, state.licence) == ("Moved", "CC0 1.0")
    assert np.array_equal(state.means, before.means)
    assert main([str(state_path), "--model", str(tmp_path / "no model"), "--out", str(out), "--licence", "MIT"]) == 0
    assert IncidentState.load(out).licence == "MIT"
    assert encoded == []


def test_a_state_csv_takes_name_and_pages_too(tmp_path: Path, build: Build) -> None:
    path = tmp_path / "state.csv"
    path.write_text('incident_id,count,mean\n5,1,"[1, 2]"\n')
    assert build(path).url_of(0) == "https://incidentdatabase.ai/cite/5"
    assert build(path, "--record-url", TEMPLATE).url_of(0) == "https://records.example/5.html"


WORDS = {
    "title,reports": [COLUMNS],
    "title,description": [f"{COLUMNS},description=summary"],
    "reports": [COLUMNS, "--words", "reports"],
    "title,description,reports": [f"{COLUMNS},description=summary", "--words", "reports,title,description"],
}


@pytest.mark.parametrize("words", WORDS)
def test_records_without_descriptions_are_found_by_the_words_of_their_texts(
    words: str, tmp_path: Path, build: Build
) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(
        "".join(json.dumps(dict(zip((*HEADER, "summary"), (*row, "Summary."), strict=True))) + "\n" for row in ROWS)
    )
    state = build(path, "--columns", *WORDS[words])
    assert state.options["words"] == words
    assert state.fit.words is not None
    assert ("goos" in state.fit.words.words) is ("reports" in words)  # the stem of goose
    assert ("strike" in state.fit.words.words) is ("title" in words)
    assert ("summari" in state.fit.words.words) is ("description" in words)


def test_a_title_that_is_the_text_does_not_ask(tmp_path: Path, build: Build, encoded: list[str]) -> None:
    # Its confidence would say that every text finds its record.
    path = tmp_path / "events.csv"
    with path.open("w", newline="") as file:
        rows = [(each, f"Event {each}", f" Event {each}") for each in range(1, 40)]
        csv.writer(file).writerows([("i", "t", "n"), *rows])
    assert not build(path, "--columns", "id=i,text=n,title=t").fit.calibration
    assert len(encoded) == 39


@pytest.mark.parametrize("strict", [[], ["--strict"]])
def test_a_row_that_is_left_out_fails_a_strict_build(
    strict: list[str], table: Path, out: Path, tiny_model_dir: Path
) -> None:
    arguments = [str(table), "--columns", COLUMNS, "--model", str(tiny_model_dir), "--out", str(out), *strict]
    assert main(arguments) == (1 if strict else 0)
    assert len(IncidentState.load(out)) == 3


def test_a_file_that_can_not_be_read_leaves_the_state_as_it_is(
    table: Path, out: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out.write_bytes(b"an old state")
    arguments = [str(table), "--columns", "id=event_id,text=story", "--model", str(tiny_model_dir), "--out", str(out)]
    assert main(arguments) == 1
    assert capsys.readouterr().err == (
        "build_state: aviation events.csv has no column story; its first line must name them, separated by commas. "
        "It names: event_id, headline, narrative, link, day.\n"
    )
    assert out.read_bytes() == b"an old state"


REFUSED: dict[str, tuple[list[str], str]] = {
    "an unknown part": (["--columns", "id=a,text=b,name=c"], "argument --columns: must be a list such as id=…,text=…"),
    "a part that lacks": (["--columns", "id=a"], "argument --columns: must say which column is the text: text=…"),
    "a template without {id}": (
        ["--record-url", "https://example.org/"],
        "argument --record-url: or RECORD_URL must have {id} where the id of an incident belongs, not "
        "'https://example.org/'",
    ),
    "a script": (
        ["--record-url", "javascript:alert({id})"],
        "argument --record-url: or RECORD_URL must be an http or https URL of at most 2,000 characters, without "
        "spaces and <>\"\\^`{|}, not 'javascript:alert({id})'",
    ),
    "an empty name": (["--collection-name", " "], "--collection-name: or COLLECTION_NAME must be a name of 1 to 100"),
    "a long name": (["--collection-name", "a" * 101], "must be a name of 1 to 100 characters on one line"),
    "a name of two lines": (["--collection-name", "a\nb"], "must be a name of 1 to 100 characters on one line"),
    "an empty licence": (["--licence", " "], "--licence: or LICENCE must be a name of 1 to 100"),
    "a long licence": (["--licence", "a" * 101], "must be a name of 1 to 100 characters on one line"),
    "titles": (["--columns", COLUMNS, "--titles", str(SAMPLE_DIR / "incidents.csv")], "--titles is for AIID's data"),
    "text": (["--columns", COLUMNS, "--text", "title"], "--text is for AIID's data, not for --columns"),
    "responses": (["--columns", COLUMNS, "--responses", "exclude"], "--responses is for AIID's data"),
    "published vectors": (["--columns", COLUMNS, "--vectors", "published"], "--vectors published is for AIID's data"),
    "no model": (["--columns", COLUMNS, "--model", "no model"], "there is no model folder no model"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_arguments_that_can_not_be_used_exit_with_2_before_work_starts(
    case: str, table: Path, out: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options, message = REFUSED[case]
    with pytest.raises(SystemExit) as exit_:
        main([str(table), "--model", str(tiny_model_dir), "--out", str(out), *options])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not list(out.parent.iterdir())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (["--latest"], "--columns is for the table of another database, not for --latest"),
        ([str(SAMPLE_DIR)], "is a folder; with --columns, the source is a file"),
    ],
)
def test_columns_are_for_a_file(
    source: list[str], message: str, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([*source, "--columns", COLUMNS, "--model", str(tiny_model_dir)])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("variable", ["RECORD_URL", "COLLECTION_NAME", "LICENCE"])
def test_variables_are_checked_like_options(
    variable: str, table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, "\n")
    with pytest.raises(SystemExit) as exit_:
        main([str(table)])
    assert exit_.value.code == 2
    assert f"or {variable} must " in capsys.readouterr().err.splitlines()[-1]


def test_a_files_name_that_is_no_title_asks_for_another(
    table: Path, build: Build, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = table.rename(table.with_name("a" * 101 + ".csv"))
    with pytest.raises(SystemExit) as exit_:
        main([str(long), "--columns", COLUMNS, "--model", str(tiny_model_dir)])
    assert exit_.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("; give --collection-name")
    assert build(long, "--columns", COLUMNS, "--collection-name", "Events").collection == "Events"


@pytest.mark.parametrize(
    ("options", "url"), [([], None), (["--record-url", TEMPLATE], "https://records.example/30.html")]
)
def test_answers_lead_to_the_records_pages(
    options: list[str], url: str | None, table: Path, build: Build, deployed: Deployed
) -> None:
    build(table, "--columns", COLUMNS, *options).save(deployed.state_path)
    service.cache_clear()

    def first(text: object) -> dict[str, Any]:
        body = similar.handler({"text": text, "num": 1}, None)["body"]
        assert body["best_url"] == body["incidents"][0]["url"]
        found: dict[str, Any] = body["incidents"][0]
        return found

    drone = first(ROWS[3][2])
    assert (drone["incident_id"], drone["date"], drone["url"]) == (30, "2023-01-02", url)
    goose = similar.handler({"incident_id": 30, "num": -1}, None)["body"]["incidents"]
    assert {each["incident_id"]: each["url"] for each in goose}[7] == "https://example.org/geese"
