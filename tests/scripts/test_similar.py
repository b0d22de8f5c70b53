"""scripts/similar.py answers as /similar does: a text, an incident, or each row of a table, which none is lost of."""

from __future__ import annotations

import csv
import importlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import local.server
from asking.similar import main
from full_disk import full_stdout
from processes import PATIENCE_S, Command, run_where_files_stay_small, running
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.incidents.state import IncidentState
from similarity.service import service
from tiny import (
    ROOT,
    TINY_TEXTS,
    Deployed,
    contents,
    fitted_state,
    state_of_texts,
    write_multilingual_longformer,
)

pytestmark = pytest.mark.usefixtures("one_thread")

SCRIPT = ROOT / "scripts" / "similar.py"
TEXT = "A robot in a warehouse hurt workers. Nobody knows why."
NO_TEXT = "Error! Valid input text not provided!"


@pytest.fixture
def served(deployed: Deployed, tiny_state: IncidentState) -> Deployed:
    """What the handlers serve: a state with all that can be fitted, and with a merged incident."""
    merged = replace(fitted_state(tiny_state, 2.0), duplicates=np.array([[5, 4]]), dates=["2020-02-29"] * 5)
    merged.save(deployed.state_path)
    return deployed


Ask = Callable[..., int]


@pytest.fixture
def ask(served: Deployed, tmp_path: Path) -> Ask:
    """The exit code of the command, with the model and the state that the handlers serve."""

    def ask(*arguments: str | Path) -> int:
        return main([*map(str, arguments), "--model", str(served.model_dir), "--cache", str(tmp_path / "cache")])

    return ask


def answered(**event: Any) -> dict[str, Any]:
    """The body that /similar answers."""
    body: dict[str, Any] = importlib.import_module("similar").handler(event, None)["body"]
    return body


def require_nearly_equal(ours: Any, expected: Any) -> None:
    """The two engines differ by rounding. `msg` has the numbers of `incidents`."""
    if isinstance(expected, dict):
        assert list(ours) == list(expected)
        for name in expected:
            if name != "msg" or "incidents" not in expected:
                require_nearly_equal(ours[name], expected[name])
    elif isinstance(expected, list):
        assert len(ours) == len(expected)
        for each, other in zip(ours, expected, strict=True):
            require_nearly_equal(each, other)
    else:
        assert ours == (pytest.approx(expected, abs=1e-4) if isinstance(expected, float) else expected)


ASKED: dict[str, tuple[list[str], dict[str, Any]]] = {
    "defaults": ([], {}),
    "num": (["--num", "-1"], {"num": -1}),
    "none": (["--num", "0"], {"num": 0}),
    "exclude": (["--exclude", "23,5", "--metric", "centered"], {"exclude": [23, 5], "metric": "centered"}),
    "explain": (["--explain", "--metric", "hybrid"], {"explain": True, "metric": "hybrid"}),
    "whitened": (["--metric", "whitened"], {"metric": "whitened"}),
    "embedding": (["--embedding"], {"embedding": True}),
}


@pytest.mark.slow
@pytest.mark.parametrize("text", [TEXT, "robots", "word " * 200, "\U0001f916", " "], ids=lambda text: text[:8])
@pytest.mark.parametrize("options", ASKED)
def test_a_text_is_answered_as_by_the_api(
    options: str, text: str, ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    given, event = ASKED[options]
    expected = answered(text=text, **event)
    capsys.readouterr()
    assert ask(text, *given, "--json") == ("code" in expected)
    output = capsys.readouterr()
    assert json.loads(output.out) == expected
    error = [expected["msg"]] if "code" in expected else []
    assert output.err.splitlines() == [f"similar: {sentence}" for sentence in [*expected["warnings"], *error]]


@pytest.mark.parametrize(
    ("given", "event"),
    [
        (["--incident", "23"], {"incident_id": 23}),
        (["--incident", " 5 ", "--num=-1", "--exclude", "1"], {"incident_id": 5, "num": -1, "exclude": "1"}),
        (["--incident", "23", "--explain", "--embedding"], {"incident_id": 23, "explain": True, "embedding": True}),
        (["--incident", "99"], {"incident_id": 99}),
        (["--incident", "23", "--metric", "hybrid"], {"incident_id": 23, "metric": "hybrid"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_incident_is_answered_as_by_the_api_without_a_model(
    given: list[str], event: dict[str, Any], served: Deployed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = answered(**event)
    capsys.readouterr()
    where = ["--state", str(served.state_path), "--model", str(tmp_path / "no model")]
    assert main([*given, *where, "--json"]) == ("code" in expected)
    output = capsys.readouterr()
    assert json.loads(output.out) == expected
    error = [expected["msg"]] if "code" in expected else []
    assert output.err.splitlines() == [f"similar: {sentence}" for sentence in [*expected["warnings"], *error]]


def test_a_person_reads_lines(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(TINY_TEXTS[23], "--num", "1", "--explain") == 0
    assert capsys.readouterr().out.splitlines() == [
        "A likely match:",
        "",
        f"1. {TINY_TEXTS[23]}",
        "   incident 23, 2020-02-29: similarity 1.0000, confidence 88%",
        "   https://incidentdatabase.ai/cite/23",
        "   words: robot, warehouse, hurt",
        f"   sentence: {TINY_TEXTS[23]}",
    ]


def test_a_person_reads_an_error_on_stderr(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask("--incident", "99") == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == 'similar: Error! No incident in the database has the "incident_id" 99.\n'


class Stdin(io.TextIOWrapper):
    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content))


def test_a_text_comes_from_standard_input(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "\ufeffA robot\nhurt wörkers today.\n"
    expected = answered(text=text.removeprefix("\ufeff"))
    capsys.readouterr()
    monkeypatch.setattr("sys.stdin", Stdin(text.encode()))
    assert ask("-", "--json") == 0
    assert json.loads(capsys.readouterr().out) == expected


@pytest.mark.parametrize(
    ("stdin", "said"),
    [
        (None, "standard input is closed."),
        (Stdin(b"A caf\xe9"), "standard input isn't valid UTF-8: see byte 6."),
        (Stdin(b""), NO_TEXT),
    ],
)
def test_standard_input_without_a_text_is_told_in_one_line(
    stdin: object, said: str, ask: Ask, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", stdin)
    assert ask("-") == 1
    assert capsys.readouterr() == ("", f"similar: {said}\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give a text, - or a table, or --incident"),
        (["text", "--incident", "3"], "not both"),
        (["TABLE"], "is a file. --column NAME asks with each row of a table, and `- < "),
        (["nothing.csv"], "there is no file nothing.csv"),
        (["Report.TXT"], "there is no file Report.TXT"),
        (["nothing.csv", "--column", "text"], "there is no file nothing.csv"),
        (["FOLDER", "--column", "text"], "isn't a file"),
        (["-", "--column", "text"], "--column is for a file with a table"),
        (["--incident", "3", "--column", "text"], "--column is for a file with a table"),
        (["text", "--out", "matches.csv"], "--out is for a table, which needs --column"),
        (["text", "--embedding"], "--embedding is for JSON: give --json too"),
        (["TABLE", "--column", "text", "--embedding"], "--embedding is for JSON lines: give --json too"),
        (["TABLE", "--column", "text", "--out", "FOLDER"], "--out must be a file, and"),
        (["TABLE", "--column", "text", "--out", "/dev/null"], "--out must be a file, and /dev/null isn't one"),
        (["TABLE", "--column", "text", "--out", "FOLDER/no/matches.csv"], "there is no folder"),
        (["TABLE", "--column", "text", "--out", "TABLE"], "--out is the table itself"),
        (
            ["TABLE", "--column", "text", "--out", "x.json"],
            "must end in .csv or .jsonl, and x.json doesn't; or give --json",
        ),
        (["TABLE", "--column", "text", "--out", "x.CSV", "--json"], "--json is JSON lines, and x.CSV is a CSV"),
        (["text", "--quick-start", "--model", "FOLDER"], "--quick-start is instead of --model and --state"),
        (["text", "--num", "many"], "argument --num: invalid int value: 'many'"),
        (["text", "--metric", "euclidean"], "argument --metric: invalid choice: 'euclidean'"),
        (["text", "--exclude", "1,x"], '"exclude" must be a list of incident ids, each a whole number above 0'),
        (["--incident", "0"], '"incident_id" must be a whole number above 0'),
        (["--incident", " "], "--incident needs an id"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_arguments_that_do_not_fit_exit_with_2(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "texts.csv"
    table.write_text("id,text\n1,a\n")
    places = {"TABLE": str(table), "FOLDER": str(tmp_path)}
    given = [re.sub("^(TABLE|FOLDER)", lambda found: places[found[0]], argument) for argument in arguments]
    with pytest.raises(SystemExit) as exit_:
        main(given)
    assert exit_.value.code == 2
    assert said in capsys.readouterr().err
    assert contents(tmp_path) == {"texts.csv": table.read_bytes()}


@pytest.mark.parametrize("text", ["A clerk opened data.csv", "x" * 5000, "tmp", "-1 is a number that nobody wants"])
def test_texts_that_only_look_like_something_else_are_texts(
    text: str, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tmp").mkdir()
    expected = answered(text=text)
    capsys.readouterr()
    assert ask(text, "--json") == 0
    assert json.loads(capsys.readouterr().out) == expected


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (
            "state",
            r"similar: there is no state \S+incident_cls.pt: scripts/build_state.py builds one, and --quick-start .*",
        ),
        ("model", r"similar: there is no model in \S+model: scripts/fetch_model.py fetches one, and .*"),
        ("other", r"similar: the state was made with another model .*"),
    ],
)
@pytest.mark.parametrize("table", [False, True])
@pytest.mark.slow
def test_a_model_or_a_state_that_can_not_be_used_is_told_with_its_cause(
    broken: str, said: str, table: bool, ask: Ask, served: Deployed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "texts.csv"
    path.write_text("text\na robot\n")
    if broken == "state":
        served.state_path.unlink()
    elif broken == "model":
        for name in ("config.json", "tokenizer.json", "model.safetensors"):
            (served.model_dir / name).unlink()
    else:
        for file in write_multilingual_longformer(tmp_path / "other").iterdir():
            if file.name != "incident_cls.pt":
                shutil.copy(file, served.model_dir)
    assert ask(*([path, "--column", "text"] if table else [TEXT])) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert re.fullmatch(said, output.err.splitlines()[-1]), output.err


def test_the_api_sees_no_cause(ask: Ask, served: Deployed, capsys: pytest.CaptureFixture[str]) -> None:
    served.state_path.write_bytes(b"broken")
    expected = answered(text=TEXT)
    capsys.readouterr()
    assert ask(TEXT, "--json") == 1
    assert json.loads(capsys.readouterr().out) == expected


@pytest.mark.slow
def test_the_quick_start_is_that_of_the_local_server(
    served: Deployed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(local.server, "QUICK_START_DIR", tmp_path / "quick")
    (tmp_path / "quick").mkdir()
    shutil.copytree(served.model_dir, tmp_path / "quick" / "model")
    assert main(["--incident", "23", "--quick-start", "--json"]) == 0
    [state] = (tmp_path / "quick").glob("sample-*.pt")
    body = json.loads(capsys.readouterr().out)
    assert body["state"]["incidents"] == len(IncidentState.load(state)) == 52


ROWS = [
    ["1", TEXT],
    ["2", "A chatbot läarned to insult people"],
    ["3", ""],
    ["4", "\U0001f916"],
    ["5", "word " * 200],
    ["6", TEXT],
    ["7", ' "quoted" '],
    ["8", "\0\r\n\u2028 robots"],
]


def write_csv(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "texts.csv", [["title", "text"], *ROWS])


@pytest.mark.slow
@pytest.mark.parametrize("options", ASKED)
def test_each_row_of_a_table_is_answered_as_by_the_api(
    options: str, ask: Ask, table: Path, encoded: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    given, event = ASKED[options]
    out = table.parent / "matches.jsonl"
    assert ask(table, "--column", "text", *given, "--out", out) == 0
    assert sorted(encoded) == sorted(set(encoded)), "each text once"
    said = capsys.readouterr()
    assert said.out == ""
    assert "similar: 2 of 8 rows have no answer; their lines say why." in said.err.splitlines()
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [[line["title"], line["text"]] for line in lines] == ROWS
    for line in lines:
        require_nearly_equal(line["similar"], answered(text=line["text"], **event))


@pytest.mark.slow
def test_a_csv_of_answers_has_their_fields(ask: Ask, table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(table, "--column", "text", "--num", "2", "--explain") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out, newline="")))
    expected: list[dict[str, Any]] = []
    for title, text in ROWS:
        body = answered(text=text, num=2, explain=True)
        row = {"title": title, "text": text, "warnings": " ".join(body["warnings"])}
        if "code" in body:
            expected.append({**row, "error": body["msg"]})
        for rank, found in enumerate(body.get("incidents", []), start=1):
            why = found.pop("why")
            more = {"similar_title": found.pop("title"), "words": " ".join(why["words"]), "sentence": why["sentence"]}
            expected.append({**row, **found, **more, "rank": rank, "match": body["match"]})
    assert len(rows) == len(expected) == 14
    for row, wanted in zip(rows, expected, strict=True):
        for name in ("similarity", "confidence"):
            assert float(row.pop(name) or 0) == pytest.approx(wanted.pop(name, 0), abs=1e-4)
        assert row == {name: "" if wanted.get(name) is None else str(wanted[name]) for name in row}


@pytest.mark.slow
def test_json_lines_come_from_json_lines(ask: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ['{"id": 1.10, "text": "A robot hurt \\ud83d workers"}', '{"text": ["a"], "similar": 1}', '{"id": 2}']
    table = tmp_path / "texts"
    table.write_text("\n".join(lines))
    assert ask(table, "--column", "text") == 0
    found = capsys.readouterr().out.splitlines()
    assert [line[: len(given) - 1] + "}" for line, given in zip(found, lines, strict=True)] == lines
    for line, text in zip(found, ["A robot hurt \ud83d workers", ["a"], None], strict=True):
        require_nearly_equal(json.loads(line)["similar_similar"], answered(text=text))


@pytest.mark.slow
def test_the_texts_are_queries_of_the_states_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model has prefixes, and the state cuts texts where the model doesn't."""
    folder = write_multilingual_longformer(tmp_path / "model", query_prefix="query: ", report_prefix="passage: ")
    encoder = TorchEncoder.load(folder).cut_at(20)
    replace(state_of_texts(encoder, TINY_TEXTS), max_tokens=20).save(folder / "incident_cls.pt")
    table = write_csv(tmp_path / "texts.csv", [["text"], *([text * 3] for text in TINY_TEXTS.values())])
    out, cache = tmp_path / "out.jsonl", tmp_path / "cache"
    for _ in range(2):
        given = [str(table), "--column", "text", "--embedding", "--model", str(folder), "--cache", str(cache)]
        assert main([*given, "--out", str(out)]) == 0
    monkeypatch.setenv("MODEL_DIR", str(folder))
    service.cache_clear()
    for line in map(json.loads, out.read_text().splitlines()):
        require_nearly_equal(line["similar"], answered(text=line["text"], embedding=True))
        assert re.search("has [0-9]+ tokens, using the first 20", line["similar"]["warnings"][0])
    service.cache_clear()


def test_a_table_with_a_header_alone_gets_one(ask: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "texts.csv").write_text("id,text\n")
    assert ask(tmp_path / "texts.csv", "--column", "text") == 0
    header = "id,text,rank,incident_id,similarity,confidence,match,title,date,url,warnings,error\n"
    assert capsys.readouterr().out == header


@pytest.mark.parametrize(
    ("content", "given", "said"),
    [
        ("id,text\n1,a\n2\n", [], "texts.csv, line 3: 1 fields instead of 2."),
        ("id,txt\n1,a\n", [], 'texts.csv has no column "text"; it has "id", "txt".'),
        ("", [], "texts.csv is empty."),
        ("id,id,text\n1,2,a\n", ["--json"], 'texts.csv has several columns "id", and JSON lines can\'t have them.'),
    ],
)
def test_nothing_is_computed_of_a_table_that_can_not_be_used(
    content: str, given: list[str], said: str, ask: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts.csv").write_text(content)
    assert ask(tmp_path / "texts.csv", "--column", "text", *given) == 1
    assert capsys.readouterr() == ("", f"similar: {tmp_path / said}\n")
    assert not (tmp_path / "cache").exists()


def test_a_metric_that_the_state_lacks_is_told_before_anything_is_computed(
    ask: Ask, table: Path, served: Deployed, tiny_state: IncidentState, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_state.save(served.state_path)
    assert ask(table, "--column", "text", "--metric", "hybrid") == 1
    expected = answered(text=TEXT, metric="hybrid")["msg"]
    assert capsys.readouterr() == ("", f"similar: {expected}\n")
    assert not (table.parent / "cache").exists()


# Runs the script, but stays where it has kept vectors for the second time, until a signal comes.
HELD_IN_THE_MIDDLE = """
import runpy, sys

sys.argv = sys.argv[1:]
sys.path[0] = sys.argv[0].rpartition("/")[0]
from shared import command
from similarity.refresh.vector_store import VectorStore

put, calls = VectorStore.put, []

def put_and_wait(store, vectors, made_with):
    put(store, vectors, made_with)
    calls.append(len(vectors))
    if len(calls) == 2:
        print("held", sum(calls), flush=True)
        sys.stdin.readline()

VectorStore.put = put_and_wait
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize("with_signal", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_was_stopped_or_killed_resumes_and_ends_as_if_it_had_not_been(
    with_signal: signal.Signals, ask: Ask, served: Deployed, tmp_path: Path, encoded: list[str]
) -> None:
    texts = [f"{number} {number * 'robot '}" for number in range(1, 150)]
    table = write_csv(tmp_path / "texts.csv", [["text"], *([text] for text in texts)])
    (tmp_path / "out").mkdir()
    out = tmp_path / "out" / "matches.csv"
    out.write_text("old")
    given: Command = [SCRIPT, table, "--column", "text", "--out", out, "--model", served.model_dir]
    command = [sys.executable, "-c", HELD_IN_THE_MIDDLE, *given, "--cache", tmp_path / "cache"]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with running(command, **pipes) as process:
        assert process.stdout is not None
        word, kept = process.stdout.readline().split()
        assert word == "held"
        process.send_signal(with_signal)
        _, stderr = process.communicate(timeout=PATIENCE_S)
    assert out.read_text() == "old"
    if with_signal == signal.SIGINT:
        assert process.returncode == 1
        assert stderr.splitlines()[-1] == "similar: stopped; give the same command again to resume."
        assert list(out.parent.iterdir()) == [out]
    else:
        assert process.returncode == -signal.SIGKILL

    assert ask(*given[1:-2]) == 0
    assert 0 < int(kept) < len(texts)
    assert len(encoded) == len(texts) - int(kept)

    whole = tmp_path / "whole.csv"
    assert main([*map(str, [table, "--column", "text", "--out", whole, *given[-2:], "--cache", tmp_path / "new"])]) == 0
    assert out.read_bytes() == whole.read_bytes()
    assert len(out.read_text().splitlines()) == 1 + 3 * len(texts)


@pytest.mark.slow
def test_no_more_than_a_batch_is_in_memory(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoded: list[str]
) -> None:
    """Rows are answered batch by batch, and the same text of a later batch isn't computed again."""
    sizes: list[int] = []
    computed = importlib.import_module("similarity.refresh.compute").Computer.computed

    def noting(computer: Any, texts: Sequence[str]) -> Any:
        sizes.append(len(texts))
        return computed(computer, texts)

    monkeypatch.setattr("similarity.refresh.compute.Computer.computed", noting)
    monkeypatch.setattr("asking.answers._MOST_ROWS", 10)
    monkeypatch.setattr("asking.answers._MOST_CHARS", 300)
    texts = [f"robot {number % 20}" for number in range(45)] + [100 * "long " for _ in range(3)]
    table = write_csv(tmp_path / "texts.csv", [["text"], *([text] for text in texts)])
    out = tmp_path / "out.csv"
    assert ask(table, "--column", "text", "--num", "1", "--out", out) == 0
    assert sizes == [10, 10, 10, 10, 6, 1, 1]
    assert len(encoded) == 21
    with out.open(newline="", encoding="utf-8") as file:
        assert [row["text"] for row in csv.DictReader(file)] == texts


@pytest.mark.slow
def test_a_full_disk_leaves_the_old_file_and_what_was_computed(
    served: Deployed, tmp_path: Path, table: Path, encoded: list[str]
) -> None:
    out = tmp_path / "matches.csv"
    out.write_text("old")
    texts = [[f"robot {number}"] for number in range(40)]
    write_csv(table, [["text"], *texts])
    given: list[str | Path] = [table, "--column", "text", "--num=-1", "--out", out, "--model", served.model_dir]
    ended = run_where_files_stay_small(64, [SCRIPT, *given, "--cache", tmp_path / "cache"])
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert re.fullmatch(
        rf"similar: {out}: File too large|similar: the store of vectors \S+ can't be used: .*",
        ended.stderr.splitlines()[-1],
    )
    assert out.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tmp"] == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("is_table", [False, True])
def test_a_stdout_that_is_full_is_told_in_one_line(
    is_table: bool, ask: Ask, table: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with full_stdout(monkeypatch), pytest.raises(SystemExit) as exit_:
        ask(*([table, "--column", "text"] if is_table else [TEXT]))
    assert exit_.value.code == 1
    assert capfd.readouterr().err.splitlines()[-1] == "similar: stdout can't be written: No space left on device"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "lines"),
    [
        ('set -o pipefail; "$0" "$@" | head -n 1', 1),
        ('exec "$0" "$@" >&-', 0),
        ('exec "$0" "$@" 2>&-', 11),
        ('exec "$0" "$@" | cat', 11),
    ],
    ids=["head", "closed", "stderr closed", "whole"],
)
def test_stdout_is_utf8_and_may_end_early(line: str, lines: int, served: Deployed, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "texts.csv", [["text"], ["Ein Röboter"], ["A robot"]])
    command = [sys.executable, SCRIPT, table, "--column", "text", "--num=-1", "--model", served.model_dir]
    ended = subprocess.run(
        ["bash", "-c", line, *map(str, [*command, "--cache", tmp_path / "cache"])],
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
        check=False,
    )
    printed = ended.stdout.decode().splitlines()
    assert len(printed) == lines
    assert [line for line in printed if not line.startswith(("text,rank,", "Ein Röboter,", "A robot,"))] == []
    assert b"Traceback" not in ended.stderr
    assert b"Exception" not in ended.stderr
    # What `head` leaves unread may be in the pipe already.
    assert ended.returncode in ((0, 1) if lines == 1 else (0,))


@pytest.mark.slow
def test_rows_do_not_stand_behind_the_bar_on_a_terminal(served: Deployed, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "texts.csv", [["text"], ["A robot"], ["A chatbot"]])
    command: Command = [sys.executable, SCRIPT, table, "--column", "text", "--num", "1", "--model", served.model_dir]
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 100))  # of 0 by 0 at first, where no bar fits
    with running([*command, "--cache", tmp_path / "cache"], stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        printed = b""
        # Linux reports the end of a terminal as an error.
        with suppress(OSError):
            while piece := os.read(ours, 4096):
                printed += piece
        os.close(ours)
        assert process.wait(PATIENCE_S) == 0
    ends = [line.rsplit("\r", 1)[-1] for line in printed.decode().replace("\r\n", "\n").splitlines()]
    rows = [line for line in ends if "incidentdatabase.ai/cite" in line]
    assert [row.split(",")[0] for row in rows] == ["A robot", "A chatbot"]
    assert b"texts/s" in printed
