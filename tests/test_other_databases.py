"""docs/other-databases.md leads from nothing to answers about the records of another database, with their pages."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import requests

from example_project import COMMAND_S, QUICK_START_NAME, Server, copy_project, execute
from pages import DOCS, SHELL, Command, documented_json, require_printed, text_of
from processes import running
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.incidents.state import IncidentState
from tiny import ROOT

PAGE = DOCS / "other-databases.md"
COMMANDS = [command for block in SHELL if block.page == PAGE for command in block.commands()]
URL = "https://cwe.mitre.org/data/definitions/{}.html"
# The CWE's own CSV of all weaknesses: another file of the package than that of which the table is made.
CWE_CSV = "database_v49/navigate_cwe/1000.csv"


def starting_with(start: str) -> Command:
    [command] = [command for command in COMMANDS if command.line.startswith(start)]
    return command


def descriptions() -> dict[int, tuple[str, str]]:
    """Name and description of each weakness, by its number."""
    rows = csv.reader(files("cwe2").joinpath(CWE_CSV).read_text(encoding="utf-8").splitlines(keepends=True))
    assert next(rows)[:2] == ["CWE-ID", "Name"]
    return {int(row[0]): (row[1], row[4]) for row in rows}


def in_words(text: str) -> list[str]:
    """The CSV lacks the quotes and backslashes of the XML."""
    return re.sub(r'["\\]', "", text).split()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path, tiny_encoder: TorchEncoder) -> Path:
    """A copy of the project in which the page's commands have made table and state, with the tiny model."""
    folder = tmp_path_factory.mktemp("project")
    copy_project(folder, tiny_model_dir, tiny_encoder)
    made = tmp_path_factory.mktemp("made")
    starts = ("python scripts/sample/weaknesses.py", "python scripts/build_state.py weaknesses.jsonl")
    commands = [starting_with(start) for start in starts]
    printed, _ = execute(commands, folder, Server("", []), made)
    require_printed(commands[1].output, printed[1].replace("model tiny", f"model {QUICK_START_NAME}"), PAGE.name)
    return made / "project"


@pytest.fixture(scope="module")
def url(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of the local server, started as the page says."""
    _, *arguments = starting_with("scripts/serve --model").words()[0]
    command = [sys.executable, "scripts/local/server.py", *arguments, "--port", "0"]
    errors = tmp_path_factory.mktemp("server") / "stderr"
    with (
        errors.open("wb") as stderr,
        running(command, cwd=project, stdout=subprocess.PIPE, stderr=stderr) as process,
    ):
        assert process.stdout is not None
        found = re.search(r"http://[\d.:]+", process.stdout.readline())
        assert found, errors.read_text(encoding="utf-8")
        yield found[0]


@pytest.mark.slow
def test_the_table_has_the_texts_of_the_weaknesses(project: Path) -> None:
    lines = [json.loads(line) for line in (project / "weaknesses.jsonl").read_text(encoding="utf-8").splitlines()]
    first: dict[int, str] = {}
    count: dict[int, int] = defaultdict(int)
    for line in lines:
        first.setdefault(line["number"], line["text"])
        count[line["number"]] += 1
    expected = descriptions()
    assert {number: in_words(text) for number, (_, text) in expected.items()} == {
        number: in_words(text) for number, text in first.items()
    }
    assert {line["number"]: in_words(line["name"]) for line in lines} == {
        number: in_words(name) for number, (name, _) in expected.items()
    }
    assert set(count.values()) == {1, 2, 3, 4, 5}
    assert len(first) >= 200


@pytest.mark.slow
def test_the_state_has_a_record_for_each_number(project: Path) -> None:
    state = IncidentState.load(project / "weaknesses.pt")
    assert state.incident_ids.tolist() == sorted(descriptions())
    assert state.collection == "Common Weakness Enumeration"
    assert all(re.fullmatch(r"20\d\d-\d\d-\d\d", date) for date in state.dates)
    assert set(state.fit.calibration) == {"cosine", "centered", "whitened", "hybrid"}


@pytest.mark.slow
def test_a_text_finds_its_record_and_the_url_is_the_records(project: Path, url: str) -> None:
    lines = [json.loads(line) for line in (project / "weaknesses.jsonl").read_text(encoding="utf-8").splitlines()]
    texts: dict[int, list[str]] = defaultdict(list)
    for line in lines:
        texts[line["number"]].append(line["text"])
    # The mean of one text is its vector, whatever the model is.
    alone = [number for number, own in texts.items() if len(own) == 1][:5]
    assert len(alone) == 5
    for number in alone:
        for request in ({"text": texts[number][0]}, {"text": texts[number][0], "metric": "hybrid"}):
            body = requests.post(f"{url}/similar", json=request, timeout=COMMAND_S).json()["body"]
            assert body["incidents"][0]["incident_id"] == number
            assert in_words(body["incidents"][0]["title"]) == in_words(descriptions()[number][0])
            assert body["incidents"][0]["url"] == body["best_url"] == URL.format(number)
            assert all(each["url"] == URL.format(each["incident_id"]) for each in body["incidents"])
            assert body["state"]["incidents"] == len(texts)


def test_the_answer_that_is_shown_is_about_a_weakness() -> None:
    shown = documented_json("\n".join(starting_with("curl -sG").output))
    name, _ = descriptions()[shown["incident_id"]]
    # A similarity of the vectors is a number of float32; a calculated or mistyped one mostly isn't.
    assert shown["similarity"] == float(np.float32(shown["similarity"]))
    assert shown["title"] == name
    assert shown["url"] == URL.format(shown["incident_id"])


def test_one_version_of_the_package_is_named() -> None:
    named = {
        text
        for path in (PAGE, ROOT / "scripts" / "sample" / "weaknesses.py", ROOT / "requirements-dev.txt")
        for text in re.findall(r"cwe2==([\d.]*\d)", text_of(path))
    }
    assert named == {version("cwe2")}
