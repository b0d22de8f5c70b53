"""The examples in README and docs run, and the API answers, warns and refuses as they say.

Every block of code is dealt with by its language, every command by its program. A block or command for which there is
no rule fails. The rules (`_rule`):

- executed: what works offline, in a copy of the project with a tiny model; a deployed or local URL becomes that of a
  local server. The output that a page shows is compared, with numbers left out of account.
- parsed: this project's commands that download, measure for minutes, or need a CPU that multiplies int8. Their
  arguments have to be those that the command takes; what it does has tests of its own.
- left out: what sets the machine up or talks to AWS or GitHub: pip, venv, npx, sudo; and the tests themselves. The
  runbook's blocks that ask AWS run in `test_operations.py`, and the API's clients in `test_clients.py`.

That their tables, names and links are right is left to `test_docs_tables.py` and `test_docs_api.py`.
"""

from __future__ import annotations

import base64
import gzip
import importlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import requests

from arguments import require_parsed
from example_project import COMMAND_S, Server, copy_project, example, execute, load, put_into_hub_cache, serving
from pages import (
    API,
    BLOCKS,
    CLIENTS,
    DRAWINGS,
    JSON,
    PUBLISHING,
    PYTHON,
    README,
    SHELF,
    SHELL,
    SINGLE_CALL,
    WRITES_NEIGHBOURS,
    Block,
    Command,
    asks_aws,
    documented_json,
    literal,
    masked,
    require_printed,
    require_same_shape,
    spans,
    table,
)
from similarity.api.routes import find_handlers
from similarity.encoder.text_encoder import TextEncoder
from similarity.encoder.tokens import Tokens
from similarity.incidents.state import IncidentState
from similarity.service import service
from similarity.sources.problems import Problems
from similarity.sources.read import read_database
from tiny import ROOT, SAMPLE_DIR, Deployed, fitted_state

Rule = Literal["executed", "parsed", "left out"]
RUN_HERE = [block for block in SHELL if not asks_aws(block)]
# This project's commands that reach the network, or run for minutes.
PROGRAMS = {
    "scripts/serve": "local.server",
    "scripts/deploy": "deployment.deploy",
    "scripts/destroy": "deployment.destroy",
}
PARSED_SCRIPTS = ("fetch_model", "convert_encoder", "benchmark", "lock", "publish_state")


def _rule(words: list[str]) -> Rule:
    """What is done with a program and its arguments. Fails for one that nobody has thought of."""
    match words:
        case []:  # sets a variable
            return "executed"
        case ["cd", _] | ["python", "-c", *_]:
            return "executed"
        case ["curl" | "echo" | "cp", *_] | ["python3", "-c", *_] | ["python3", "-m", "json.tool"]:
            return "executed"
        case ["python", "scripts/build_state.py", *options] if {"--latest", "ray"}.intersection(options):
            return "parsed"  # downloads, or needs a cluster
        case ["python", script, *_, "--precision", "int8"] if script.startswith("scripts/"):
            return "parsed"
        case ["python", script, *_] if script.startswith("scripts/"):
            return "parsed" if Path(script).stem in PARSED_SCRIPTS else "executed"
        case ["scripts/serve" | "scripts/deploy" | "scripts/destroy", *_]:
            return "parsed"
        case ["npx" | "pip" | ".venv/bin/pip" | "sudo" | "source" | "scripts/test", *_] | ["python3", "-m", "venv", *_]:
            return "left out"
        case ["mongosh" | "ray" | "aws" | "hf" | "git" | "gh" | "docker" | ".cache/peers/bin/pip", *_]:
            return "left out"
    raise AssertionError(f"no rule says what to do with: {' '.join(words)}")


def _rule_of(command: Command) -> Rule:
    """A pipe is dealt with as a whole."""
    [rule] = {_rule(words) for words in command.words()}
    return rule


def executed(block: Block) -> list[Command]:
    return [command for command in block.commands() if _rule_of(command) == "executed"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path, tiny_encoder: TextEncoder) -> Path:
    folder = tmp_path_factory.mktemp("project")
    copy_project(folder, tiny_model_dir, tiny_encoder)
    return folder


@pytest.fixture(scope="module")
def server(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(project, tmp_path_factory.mktemp("server")) as found:
        yield found


def fields_by_route() -> dict[str, set[str]]:
    rows = table(API, "| route | parameters | fields of `body` in the answer |")
    return {literal(route): set(spans(fields)) for route, _, fields in rows}


def is_slow(block: Block) -> bool:
    """Imports torch or transformers in a process of its own."""
    return bool(re.search(r"python scripts/|/sentiment", block.code))


def named(found: list[Block]) -> list[Any]:
    return [pytest.param(block, id=block.name, marks=[pytest.mark.slow] if is_slow(block) else []) for block in found]


def test_every_block_is_dealt_with() -> None:
    dealt_with = [*PYTHON, *JSON, *SHELL, *DRAWINGS, *CLIENTS.values(), SINGLE_CALL, WRITES_NEIGHBOURS]
    rest = [block.name for block in BLOCKS if block not in dealt_with]
    assert rest == []
    rules = {_rule_of(command) for block in RUN_HERE for command in block.commands()}
    assert rules == {"executed", "parsed", "left out"}


@pytest.mark.parametrize("block", named([block for block in RUN_HERE if executed(block)]))
def test_commands_run_and_print_what_is_shown(block: Block, project: Path, server: Server, tmp_path: Path) -> None:
    commands = executed(block)
    printed, replies = execute(commands, project, server, tmp_path)
    assert len(replies) == sum(words[:1] == ["curl"] for command in commands for words in command.words())
    for reply in replies:
        assert reply.status == 200
        if reply.route == "/openapi":  # without an envelope
            assert set(reply.body["paths"]) >= set(fields_by_route())
            continue
        assert reply.body["statusCode"] == 200
        if reply.route in fields_by_route():
            fields = fields_by_route()[reply.route]
            optional = {"embedding"} if "incidents" in fields else set()
            assert fields - optional <= set(reply.body["body"]) <= fields
            assert reply.body["body"]["warnings"] == []
    for command, found in zip(commands, printed, strict=True):
        if command.output and "curl" in command.line:
            require_same_shape(documented_json("\n".join(command.output)), json.loads(found))
        elif command.output:
            require_printed(command.output, found, block.name)


def shown_answers() -> list[tuple[Block, Block]]:
    """Blocks of JSON that follow a block with curl: the answer to its last command."""
    pairs = []
    for answer in JSON:
        *_, above = [None, *(block for block in BLOCKS if block.page == answer.page and block.line < answer.line)]
        if above and above.language == "bash" and "curl" in above.code:
            pairs.append((answer, above))
    return pairs


@pytest.mark.parametrize(
    ("answer", "request_"),
    [pytest.param(*pair, id=pair[0].name, marks=named([pair[1]])[0].marks) for pair in shown_answers()],
)
def test_answers_have_the_shape_that_is_shown(
    answer: Block, request_: Block, project: Path, server: Server, tmp_path: Path
) -> None:
    _, replies = execute(executed(request_), project, server, tmp_path)
    require_same_shape(documented_json(answer.code), replies[-1].body)


def answers_of_jobs() -> list[Block]:
    """All other blocks of JSON: the answer of the job named above.

    `scripts/test_publish_state.py` reads those about publishing, `test_workflows.py` the policies.
    """
    known = [answer for answer, _ in shown_answers()]
    others = [block for block in JSON if '"Statement"' not in block.code and block.page != PUBLISHING]
    return [block for block in others if block not in known]


@pytest.mark.parametrize("block", named(answers_of_jobs()))
def test_jobs_answer_what_is_shown(
    block: Block, deployed: Deployed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELF_DIR", str(tmp_path / "shelf"))
    module = importlib.import_module(block.path.removeprefix("inference/").removesuffix(".py").replace("/", "."))
    answer = module.handler({}, None)
    require_same_shape(documented_json(block.code), answer)
    assert [literal(field) for field, _ in table(SHELF, "| field | meaning |")] == list(answer)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(command, id=f"{block.name} {command.line[:40]}")
        for block in RUN_HERE
        for command in block.commands()
        if _rule_of(command) == "parsed"
    ],
)
def test_arguments_are_those_of_the_command(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [words] = command.words()
    script, arguments = (PROGRAMS[words[0]], words[1:]) if words[0] in PROGRAMS else (Path(words[1]).stem, words[2:])
    require_parsed(script, arguments, monkeypatch, capsys)


def test_what_commands_that_are_left_out_name_is_there() -> None:
    left_out = [c for block in RUN_HERE for c in block.commands() if _rule_of(c) == "left out"]
    # What `hf` and `docker` name is on their hubs, and what `gh` names is on GitHub.
    words = [words for c in left_out for words in c.words() if words[0] not in ("hf", "docker", "gh")]
    named_files = {word for each in words for word in each if re.search(r"\w/\w|\.txt$", word)}
    made = {".venv/bin/activate", ".venv/bin/pip", ".venv/bin/python", ".cache/peers", ".cache/peers/bin/pip"}
    files = {name for name in named_files - made if not re.match(r"https?:|aws:", name)}
    assert files
    assert sorted(name for name in files if not (ROOT / name).exists()) == []


def test_the_local_server_says_what_is_shown(server: Server) -> None:
    [output] = [c.output for block in RUN_HERE for c in block.commands() if c.line == "scripts/serve"]
    assert [masked(line) for line in output[-3:]] == [masked(line) for line in server.said]


def test_the_answer_in_readme_is_about_incidents_of_the_sample() -> None:
    [command] = [c for block in RUN_HERE if block.page == README for c in block.commands() if "json.tool" in c.line]
    body = documented_json("\n".join(command.output))["body"]
    sample = {each.incident_id: each.title for each in read_database(SAMPLE_DIR, Problems()).incidents}
    assert [incident["title"] for incident in body["incidents"]] == [
        sample[incident["incident_id"]] for incident in body["incidents"]
    ]
    assert body["msg"] == str([(found["similarity"], found["incident_id"]) for found in body["incidents"]])
    assert body["best_url"] == body["incidents"][0]["url"]


def test_the_example_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sentiment = load(example("inference/sentiment.py"), tmp_path)
    put_into_hub_cache(tmp_path / "hub", sentiment.MODEL, sentiment.REVISION)
    # transformers read these variables when it was imported.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    event = {"requestContext": {"http": {"method": "GET"}}, "queryStringParameters": {"text": '"what a lovely day"'}}
    envelope = json.loads(sentiment.handler(event, None)["body"])
    assert envelope["statusCode"] == 200, envelope
    assert envelope["body"]["warnings"] == []
    assert envelope["body"]["sentiment"]["label"] == "POSITIVE"
    assert 0.5 < envelope["body"]["sentiment"]["score"] <= 1


def test_the_example_of_a_page_counts_and_says_what_is_wrong(deployed: Deployed, tmp_path: Path) -> None:
    page = load(example("inference/count.py"), tmp_path)
    [stated] = find_handlers(tmp_path)
    assert (stated.route, stated.methods, stated.page) == ("/count", ("GET",), True)
    get = {"version": "2.0", "requestContext": {"http": {"method": "GET"}}, "headers": {"accept-encoding": "gzip"}}
    found = page.handler(get, None)
    assert (found["statusCode"], found["headers"]["Content-Type"]) == (200, "text/html; charset=utf-8")
    written = gzip.decompress(base64.b64decode(found["body"])).decode()
    assert written == "<!DOCTYPE html><title>Incidents</title>There are 5 incidents."
    deployed.state_path.write_bytes(b"broken")
    service.cache_clear()
    found = page.handler({**get, "headers": {}}, None)
    assert found["statusCode"] == 503
    assert found["body"].startswith("<!DOCTYPE html><title>Error</title>Error! The incident state could not be loaded")
    assert found["headers"]["Content-Security-Policy"] == "default-src 'none'"


def test_the_example_of_a_job_counts(deployed: Deployed, tmp_path: Path) -> None:
    job = load(example("inference/jobs/count_incidents.py"), tmp_path)
    assert job.handler({}, None) == {"incidents": 5}


ERRORS = table(API, "| status | route | request | `code` | `msg` |")
OUR_ERRORS = table(API, "| status | route | cause | `code` | `msg` |")
WARNINGS = table(API, "| route | request | warning |")


# Requests that a page says in words. The tiny model has 32 dimensions, the quick-start model 384.
SAID = {
    "384 zeros": {"embed": [0] * 32},
    "the metric `hybrid`": {"embed": [1] * 32, "metric": "hybrid"},
    "the metric `hybrid`, and a state of an earlier version": {"text": "a", "metric": "hybrid"},
    "the metric `whitened`, and a state of an earlier version": {"text": "a", "metric": "whitened"},
    "incident 5, which was merged into incident 4": {"incident_id": 5},
    "`explain`, and a state of an earlier version": {"text": "A chatbot insulted its users", "explain": True},
    "a text that belongs to no incident": {"text": "A chatbot insulted its users"},
    "a vector that belongs to no incident": {"embed": [1] * 32},
}


def body_of(request_: str) -> bytes:
    """A request as the page gives it, or says it in words."""
    return json.dumps(SAID[request_]).encode() if request_ in SAID else literal(request_).encode()


def asked(route: str, request_: str) -> Any:
    """The answer of a handler in this process, which serves a state of the test's own."""
    module = importlib.import_module(literal(route)[1:].replace("-", "_"))
    return module.handler(SAID[request_], None)


def post(route: str, body: bytes, server: Server) -> Any:
    headers = {"Content-Type": "application/json"}
    reply = requests.post(server.url + literal(route), data=body, headers=headers, timeout=COMMAND_S)
    envelope = reply.json()
    assert envelope["statusCode"] == reply.status_code
    return envelope


@pytest.mark.parametrize(("status", "route", "request_", "code", "message"), ERRORS, ids=lambda value: str(value)[:30])
def test_the_error_replies_are_those_of_the_table(
    status: str, route: str, request_: str, code: str, message: str, server: Server, deployed: Deployed
) -> None:
    has_older_state = request_.endswith("a state of an earlier version")
    envelope = asked(route, request_) if has_older_state else post(route, body_of(request_), server)
    assert envelope["statusCode"] == int(status)
    assert envelope["body"]["code"] == literal(code)
    assert envelope["body"]["msg"] == literal(message).replace("384", "32")


def break_what_is_named(cause: str, deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    match cause:
        case "no usable state":
            deployed.state_path.write_bytes(b"broken")
        case "no usable model":
            (deployed.model_dir / "config.json").write_bytes(b"broken")
        case "anything else":
            monkeypatch.setattr("similar.service", lambda: None)
        case _:
            raise AssertionError(f"nothing is known of {cause}")


@pytest.mark.parametrize(("status", "route", "cause", "code", "message"), OUR_ERRORS, ids=lambda value: str(value)[:30])
def test_our_own_errors_are_those_of_the_table(
    status: str, route: str, cause: str, code: str, message: str, deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = importlib.import_module(literal(route)[1:].replace("-", "_")).handler
    break_what_is_named(cause, deployed, monkeypatch)
    envelope = json.loads(handler({"body": '{"text": "a", "embed": "[1, 2]"}'}, None)["body"])
    assert envelope["statusCode"] == int(status)
    assert envelope["body"]["code"] == literal(code)
    assert envelope["body"]["msg"] == literal(message)


def test_the_fields_of_the_state_are_those_of_the_table(server: Server) -> None:
    fields = [literal(field) for field, _ in table(API, "| field of `state` | meaning |")]
    for answer in (
        requests.get(f"{server.url}/health", timeout=COMMAND_S).json(),
        post("`/similar`", b'{"text": "a", "num": 0}', server),
    ):
        assert list(answer["body"]["state"]) == fields


@pytest.mark.parametrize(("route", "request_", "warning"), WARNINGS, ids=lambda value: str(value)[:30])
def test_the_warnings_are_those_of_the_table(
    route: str, request_: str, warning: str, server: Server, deployed: Deployed, tiny_state: IncidentState
) -> None:
    # Those of a full-size model's tokens are asked of the module that makes them.
    in_words = {
        "a text of 5,000 tokens": Tokens([0] * 4096, 5000, True, False, False),
        "a long text of few words, one of them longer than 1,024 characters": Tokens([0], 1, True, False, True),
    }
    if request_ in in_words:
        found = in_words[request_].warnings()
    elif request_.endswith("a state of an earlier version"):
        found = asked(route, request_)["body"]["warnings"]
    elif request_.startswith("incident 5, which was merged"):
        replace(tiny_state, duplicates=np.array([[5, 4]])).save(deployed.state_path)
        found = asked(route, request_)["body"]["warnings"]
    elif request_.endswith("that belongs to no incident"):
        fitted_state(tiny_state, -4.0).save(deployed.state_path)
        found = asked(route, request_)["body"]["warnings"]
    else:
        envelope = post(route, literal(request_).encode(), server)
        assert envelope["statusCode"] == 200
        found = envelope["body"]["warnings"]
    assert found == [literal(warning)]


def test_the_tables_of_errors_and_warnings_were_found() -> None:
    assert len(ERRORS) + len(OUR_ERRORS) >= 6
    assert len(WARNINGS) >= 4


def test_what_the_gateway_answers_has_no_envelope(server: Server) -> None:
    codes = {code for row in table(API, "| status | cause |") for code in row[0].split(", ")}
    for method, route in (("GET", "/nothing"), ("PUT", "/similar")):
        reply = requests.request(method, server.url + route, timeout=COMMAND_S)
        assert str(reply.status_code) in codes
        assert list(reply.json()) == ["message"]
