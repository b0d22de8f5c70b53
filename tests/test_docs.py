"""README and docs are true: their examples run, their tables are the code's, what they name and link to is there.

Every block of code is dealt with by its language, every command by its program. A block or command for which there is
no rule fails. The rules (`_rule`):

- executed: what works offline, in a copy of the project with a tiny model; a deployed or local URL becomes that of a
  local server. The output that a page shows is compared, with numbers left out of account.
- parsed: this project's commands that download or measure for minutes. Their arguments have to be those that the
  command takes; what it does has tests of its own.
- left out: what sets the machine up or talks to AWS: pip, venv, npx, sudo; and the tests themselves.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import aws_cdk as cdk
import pytest
import requests
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import DistilBertConfig, DistilBertForSequenceClassification, PreTrainedTokenizerFast

import build_state
from app import Config, ConfigError, build_app, env_file
from models.export import export
from pages import (
    DOCS,
    DOTS,
    PAGES,
    README,
    Block,
    Command,
    anchors,
    blocks,
    links,
    literal,
    prose_of,
    spans,
    table,
    text_of,
)
from similarity.api.events import Endpoint
from similarity.api.routes import ALLOWED_HEADERS, METHODS, find_handlers
from similarity.encoder.text_encoder import TextEncoder
from similarity.encoder.tokens import Tokens
from similarity.shelf import models, served, writer
from similarity.sources.snapshot import read_incidents
from similarity.sources.tables import Problems
from tiny import ROOT, SAMPLE_DIR, Deployed, state_of_texts

ACCOUNT = {"AWS_ACCOUNT_ID": "123456789012", "AWS_REGION": "eu-west-1"}
API = DOCS / "api.md"
DEPLOYING = DOCS / "deploying.md"
OPERATIONS = DOCS / "operations.md"
DEVELOPMENT = DOCS / "development.md"

# What the pages' own model, state and queries are called and find.
QUICK_START_NAME = "sentence-transformers/all-MiniLM-L6-v2 as Longformer"
SERVED_TEXTS = {
    1: "YouTube Kids shows violent videos to children",
    4: "A car without a driver hit a pedestrian",
    6: "A chatbot learned to insult people",
    71: "A car without a driver scraped a bus",
    106: "A chatbot was withdrawn",
}
LOCAL_URL = "http://127.0.0.1:3001"
DEPLOYED_URL = re.compile(r"https://[\w…]+\.execute-api\.[\w-]+\.amazonaws\.com")
START_S, COMMAND_S = 120.0, 300.0

BLOCKS = list(blocks())
PYTHON = [block for block in BLOCKS if block.language == "python"]
JSON = [block for block in BLOCKS if block.language == "json"]
SHELL = [block for block in BLOCKS if block.language in ("bash", "console")]
DRAWINGS = [block for block in BLOCKS if block.language == "mermaid"]

Rule = Literal["executed", "parsed", "left out"]
# This project's commands that reach the network, or run for minutes.
PARSED_SCRIPTS = ("fetch_model", "convert_encoder", "benchmark")


def _rule(words: list[str]) -> Rule:
    """What is done with a program and its arguments. Fails for one that nobody has thought of."""
    match words:
        case ["curl" | "echo" | "cp", *_] | ["python3", "-c", *_] | ["python3", "-m", "json.tool"]:
            return "executed"
        case ["python", script, *_] if script.startswith("scripts/"):
            return "parsed" if Path(script).stem in PARSED_SCRIPTS else "executed"
        case ["scripts/serve", *_]:
            return "parsed"
        case ["npx" | "pip" | ".venv/bin/pip" | "sudo" | "source" | "scripts/test", *_] | ["python3", "-m", "venv", *_]:
            return "left out"
    raise AssertionError(f"no rule says what to do with: {' '.join(words)}")


def _rule_of(command: Command) -> Rule:
    """A pipe is dealt with as a whole."""
    [rule] = {_rule(words) for words in command.words()}
    return rule


def put_into_hub_cache(cache: Path, model: str, revision: str) -> None:
    """A tiny classifier that finds everything positive, where a download would have put it."""
    folder = cache / f"models--{model.replace('/', '--')}" / "snapshots" / revision
    folder.mkdir(parents=True)
    words = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "what", "a", "lovely", "day"])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=16
    ).save_pretrained(folder)
    config = DistilBertConfig(
        vocab_size=len(words), dim=8, n_layers=1, n_heads=2, hidden_dim=8, max_position_embeddings=16,
        id2label={0: "NEGATIVE", 1: "POSITIVE"}, label2id={"NEGATIVE": 0, "POSITIVE": 1},
    )  # fmt: skip
    classifier = DistilBertForSequenceClassification(config)
    torch.nn.init.zeros_(classifier.classifier.weight)
    classifier.classifier.bias.data = torch.tensor([-1.0, 1.0])
    classifier.save_pretrained(folder)


def example(path: str) -> Block:
    [block] = [block for block in PYTHON if block.path == path]
    return block


def load(block: Block, folder: Path) -> ModuleType:
    """The module that a page's block of Python makes."""
    path = folder / Path(block.path).name
    path.write_text(block.code, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_examples(inference: Path) -> None:
    """Every block of Python into the file that its page names."""
    for block in PYTHON:
        (inference.parent / block.path).write_text(block.code, encoding="utf-8")


def copy_inference(folder: Path) -> Path:
    shutil.copytree(ROOT / "inference", folder, ignore=shutil.ignore_patterns("model", "__pycache__"))
    write_examples(folder)
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path, tiny_encoder: TextEncoder) -> Path:
    """A copy of the project with the pages' own handlers, and with all files that their commands take."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "scripts", folder / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    copy_inference(folder / "inference")
    shutil.copy(ROOT / ".env.example", folder)
    state = state_of_texts(tiny_encoder, SERVED_TEXTS)
    for model in (folder / "inference" / "model", folder / ".quickstart" / "model"):
        shutil.copytree(tiny_model_dir, model)
        state.save(model / "incident_cls.pt")
    (folder / ".quickstart" / "model" / "provenance.json").write_text(json.dumps({"model": QUICK_START_NAME}))
    export(folder / ".quickstart" / "model", "int8")
    with tarfile.open(folder / "backup.tar.bz2", "w:bz2") as snapshot:
        for path in SAMPLE_DIR.glob("*.csv"):
            snapshot.add(path, f"mongodump_full_snapshot/{path.name}")
    # One description repeats the title.
    incidents = (SAMPLE_DIR / "incidents.csv").read_text(encoding="utf-8")
    repeated = f'1,2015-05-19,"[1]","[]","[]","[]",{SERVED_TEXTS[1]},{SERVED_TEXTS[1]}\n'
    first, *others = incidents.splitlines(keepends=True)
    (folder / "incidents.csv").write_text(first + repeated + "".join(others[1:]), encoding="utf-8")
    quick_start = folder / ".quickstart" / "model"
    build_state.build(folder / "incidents.csv", quick_start, folder / "descriptions.pt", Problems(), "description")
    return folder


@dataclass(frozen=True)
class Server:
    """The local server of the project's copy, and what it said when it was up."""

    url: str
    said: list[str]


def shell_environment(**ours: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MODEL_", "HF_", "INCIDENTS_"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**kept, "PATH": path, "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", **ours}


@pytest.fixture(scope="module")
def server(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serves the handlers of the project's copy, the pages' own among them, with the tiny model."""
    cache = tmp_path_factory.mktemp("hub")
    sentiment = load(example("inference/sentiment.py"), tmp_path_factory.mktemp("sentiment"))
    put_into_hub_cache(cache, sentiment.MODEL, sentiment.REVISION)
    errors = tmp_path_factory.mktemp("server") / "stderr"
    command = [sys.executable, "scripts/local/server.py", "--model", ".quickstart/model", "--port", "0"]
    with errors.open("wb") as stderr:
        process = subprocess.Popen(
            command, cwd=project, env=shell_environment(HF_HUB_CACHE=str(cache)),
            stdout=subprocess.PIPE, stderr=stderr, text=True,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline().rstrip("\n")
        found = re.search(r"http://[\d.:]+", line)
        assert found, errors.read_text(encoding="utf-8")
        said = errors.read_text(encoding="utf-8").splitlines()[:1]
        yield Server(found[0], [*said, line])
    finally:
        process.terminate()
        process.communicate(timeout=START_S)


@dataclass(frozen=True)
class Reply:
    """What curl got: from which route, with which status and body."""

    route: str
    status: int
    body: Any


# In the place of curl: does what curl does, and keeps a copy of each answer and its status.
CURL = """#!/usr/bin/env bash
set -euo pipefail
number=$(find "$REPLIES" -name '*.body' | wc -l)
{curl} "$@" --max-time {seconds} --output "$REPLIES/$number.body" --write-out '%{{http_code}} %{{url_effective}}' \\
    > "$REPLIES/$number.status"
cat "$REPLIES/$number.body"
"""


def at_the_server(line: str, server: Server) -> str:
    return DEPLOYED_URL.sub(server.url, line.replace(LOCAL_URL, server.url))


def execute(block: Block, project: Path, server: Server, folder: Path) -> tuple[list[tuple[Command, str]], list[Reply]]:
    """The commands of a block that are executed, one after the other in one shell, each with what it printed."""
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl isn't installed")
    shutil.copytree(project, folder / "project")
    for name in ("bin", "replies", "printed"):
        (folder / name).mkdir()
    shim = folder / "bin" / "curl"
    shim.write_text(CURL.format(curl=curl, seconds=int(COMMAND_S)))
    shim.chmod(0o755)
    executed = [command for command in block.commands() if _rule_of(command) == "executed"]
    script = "\n".join(
        f"{{ {at_the_server(command.line, server)}\n}} > {folder}/printed/{number}"
        for number, command in enumerate(executed)
    )
    environment = shell_environment(URL=server.url, REPLIES=str(folder / "replies"))
    environment["PATH"] = f"{folder / 'bin'}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder / "project", env=environment, capture_output=True, text=True, timeout=COMMAND_S,
    )  # fmt: skip
    printed = [path.read_text(encoding="utf-8") for path in sorted((folder / "printed").iterdir(), key=number_of)]
    assert done.returncode == 0, f"{block.name}: {done.stderr}{printed[-1:]}"
    replies = []
    for path in sorted((folder / "replies").glob("*.status"), key=number_of):
        status, url = path.read_text().split()
        route = url.removeprefix(server.url).partition("?")[0]
        replies.append(Reply(route, int(status), json.loads(path.with_suffix(".body").read_bytes())))
    return list(zip(executed, printed, strict=True)), replies


def number_of(path: Path) -> int:
    return int(path.stem)


def documented_json(text: str) -> Any:
    """JSON of a page, in which dots may stand for any value, and at the end of a list for more of the same."""
    return json.loads(re.sub(rf"(?<=[\s\[,:]){DOTS}(?=[\s,\]}}])", f'"{DOTS}"', text))


def require_same_shape(documented: Any, real: Any, where: str = "answer") -> None:
    """The same keys everywhere, and values of the same kind."""
    if documented == DOTS:
        return
    assert type(documented) is type(real), f"{where}: {documented!r} is documented, {real!r} is real"
    if isinstance(documented, dict):
        assert list(documented) == list(real), where
        for key, value in documented.items():
            require_same_shape(value, real[key], f"{where}.{key}")
    elif isinstance(documented, list) and documented:
        if documented[-1] == DOTS:
            documented, real = documented[:-1], real[: len(documented) - 1]
        assert len(documented) == len(real), where
        for index, (value, real_value) in enumerate(zip(documented, real, strict=True)):
            require_same_shape(value, real_value, f"{where}[{index}]")


def masked(line: str) -> str:
    """A line without its numbers, whose count of spaces depends on them."""
    return re.sub(r"\s+", " ", re.sub(r"\d[\d,.]*(?<=\d)", "0", line)).strip()


def require_printed(documented: list[str], printed: str, where: str) -> None:
    """The lines of a page stand in what was printed, in their order; dots stand for any lines."""
    real = iter([masked(line) for line in printed.splitlines()])
    for line in documented:
        if line != DOTS:
            assert masked(line) in real, f"{where}: {line!r} isn't in, or not at its place in:\n{printed}"


def fields_by_route() -> dict[str, set[str]]:
    rows = table(API, "| route | parameters | fields of `body` in the answer |")
    return {literal(route): set(spans(fields)) for route, _, fields in rows}


def is_slow(block: Block) -> bool:
    """Imports torch or transformers in a process of its own."""
    return bool(re.search(r"python scripts/|/sentiment", block.code))


def named(found: list[Block]) -> list[Any]:
    return [pytest.param(block, id=block.name, marks=[pytest.mark.slow] if is_slow(block) else []) for block in found]


def test_every_block_is_dealt_with() -> None:
    rest = [block.name for block in BLOCKS if block not in (*PYTHON, *JSON, *SHELL, *DRAWINGS)]
    assert rest == []
    rules = {_rule_of(command) for block in SHELL for command in block.commands()}
    assert rules == {"executed", "parsed", "left out"}


@pytest.mark.parametrize("block", named([b for b in SHELL if any(_rule_of(c) == "executed" for c in b.commands())]))
def test_commands_run_and_print_what_is_shown(block: Block, project: Path, server: Server, tmp_path: Path) -> None:
    ran, replies = execute(block, project, server, tmp_path)
    assert len(replies) == sum(words[0] == "curl" for command, _ in ran for words in command.words())
    for reply in replies:
        assert reply.status == 200
        assert reply.body["statusCode"] == 200
        if reply.route in fields_by_route():
            assert set(reply.body["body"]) == fields_by_route()[reply.route]
            assert reply.body["body"]["warnings"] == []
    for command, printed in ran:
        if command.output and "curl" in command.line:
            require_same_shape(documented_json("\n".join(command.output)), json.loads(printed))
        elif command.output:
            require_printed(command.output, printed, block.name)


def shown_answers() -> list[tuple[Block, Block]]:
    """Blocks of JSON that follow a block with curl: the answer to its last command."""
    pairs = []
    for answer in JSON:
        above = [block for block in BLOCKS if block.page == answer.page and block.line < answer.line][-1]
        if above.language == "bash" and "curl" in above.code:
            pairs.append((answer, above))
    return pairs


@pytest.mark.parametrize(
    ("answer", "request_"),
    [pytest.param(*pair, id=pair[0].name, marks=named([pair[1]])[0].marks) for pair in shown_answers()],
)
def test_answers_have_the_shape_that_is_shown(
    answer: Block, request_: Block, project: Path, server: Server, tmp_path: Path
) -> None:
    _, replies = execute(request_, project, server, tmp_path)
    require_same_shape(documented_json(answer.code), replies[-1].body)


def answers_of_jobs() -> list[Block]:
    """All other blocks of JSON: what the job answers that is named above."""
    return [block for block in JSON if block not in [answer for answer, _ in shown_answers()]]


@pytest.mark.parametrize("block", named(answers_of_jobs()))
def test_jobs_answer_what_is_shown(
    block: Block, deployed: Deployed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELF_DIR", str(tmp_path / "shelf"))
    module = importlib.import_module(block.path.removeprefix("inference/").removesuffix(".py").replace("/", "."))
    answer = module.handler({}, None)
    require_same_shape(documented_json(block.code), answer)
    assert [literal(field) for field, _ in table(OPERATIONS, "| field | meaning |")] == list(answer)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(command, id=f"{block.name} {command.line[:40]}")
        for block in SHELL
        for command in block.commands()
        if _rule_of(command) == "parsed"
    ],
)
def test_arguments_are_those_of_the_command(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class ParsedError(Exception):
        pass

    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser: argparse.ArgumentParser, arguments: list[str]) -> None:
        parse(parser, arguments)
        raise ParsedError

    [words] = command.words()
    script, arguments = ("local.server", words[1:]) if words[0] == "scripts/serve" else (Path(words[1]).stem, words[2:])
    main = importlib.import_module(script).main
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    try:
        with pytest.raises(ParsedError):
            main(arguments)
    except SystemExit:
        pytest.fail(capsys.readouterr().err)


def test_what_commands_that_are_left_out_name_is_there() -> None:
    left_out = [c for block in SHELL for c in block.commands() if _rule_of(c) == "left out"]
    named_files = {word for c in left_out for words in c.words() for word in words if re.search(r"\w/\w|\.txt$", word)}
    made = {".venv/bin/activate", ".venv/bin/pip", ".venv/bin/python"}
    files = {name for name in named_files - made if not re.match(r"https?:|aws:", name)}
    assert files
    assert sorted(name for name in files if not (ROOT / name).exists()) == []


def test_the_local_server_says_what_is_shown(server: Server) -> None:
    [output] = [c.output for block in SHELL for c in block.commands() if c.line == "scripts/serve"]
    assert [masked(line) for line in output[-2:]] == [masked(line) for line in server.said]


def test_the_answer_in_readme_is_about_incidents_of_the_sample() -> None:
    [command] = [c for block in SHELL if block.page == README for c in block.commands() if "json.tool" in c.line]
    body = documented_json("\n".join(command.output))["body"]
    sample = {each.incident_id: each.title for each in read_incidents(SAMPLE_DIR, Problems(), "title")}
    assert [incident["title"] for incident in body["incidents"]] == [
        sample[incident["incident_id"]] for incident in body["incidents"]
    ]
    assert body["msg"] == str([(found["similarity"], found["incident_id"]) for found in body["incidents"]])
    assert body["best_url"] == body["incidents"][0]["url"]


def stack_of(config: Config, handlers_dir: Path = ROOT / "inference") -> cdk.Stack:
    app = build_app(config, handlers_dir=handlers_dir)
    [stack] = [child for child in app.node.children if isinstance(child, cdk.Stack)]
    return stack


@pytest.fixture(scope="module")
def stack() -> cdk.Stack:
    return stack_of(Config.from_environment(ACCOUNT))


@pytest.mark.slow
def test_the_examples_get_functions_and_routes(tmp_path: Path) -> None:
    config = Config(account="123456789012", region="eu-west-1")
    stack = stack_of(config, copy_inference(tmp_path / "inference"))
    resources = cdk.assertions.Template.from_stack(stack).to_json()["Resources"].values()
    functions = [r["Properties"] for r in resources if r["Type"] == "AWS::Lambda::Function"]
    commands = [properties["ImageConfig"]["Command"] for properties in functions if "ImageConfig" in properties]
    routes = {r["Properties"]["RouteKey"] for r in resources if r["Type"] == "AWS::ApiGatewayV2::Route"}
    assert ["sentiment.handler"] in commands
    assert len([command for [command] in commands if not command.startswith("jobs.")]) == 5
    assert {"GET /sentiment", "POST /sentiment"} <= routes
    assert ["jobs.count_incidents.handler"] in commands


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


def test_the_example_of_a_job_counts(deployed: Deployed, tmp_path: Path) -> None:
    job = load(example("inference/jobs/count_incidents.py"), tmp_path)
    assert job.handler({}, None) == {"incidents": 5}


ERRORS = table(API, "| route | request | `msg` |")
OUR_ERRORS = table(API, "| route | cause | `msg` |")
WARNINGS = table(API, "| route | request | warning |")


def body_of(request_: str, server: Server) -> bytes:
    """A request as the page gives it, or says it in words."""
    # The tiny model has 32 dimensions, the quick-start model 384.
    in_words = {"384 zeros": json.dumps({"embed": [0] * 32})}
    return (in_words[request_] if request_ in in_words else literal(request_)).encode()


def post(route: str, body: bytes, server: Server) -> Any:
    headers = {"Content-Type": "application/json"}
    reply = requests.post(server.url + literal(route), data=body, headers=headers, timeout=COMMAND_S)
    envelope = reply.json()
    assert envelope["statusCode"] == reply.status_code
    return envelope


@pytest.mark.parametrize(("route", "request_", "message"), ERRORS, ids=lambda value: str(value)[:30])
def test_the_error_replies_are_those_of_the_table(route: str, request_: str, message: str, server: Server) -> None:
    envelope = post(route, body_of(request_, server), server)
    assert envelope["statusCode"] == 400
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


@pytest.mark.parametrize(("route", "cause", "message"), OUR_ERRORS, ids=lambda value: str(value)[:30])
def test_our_own_errors_are_those_of_the_table(
    route: str, cause: str, message: str, deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = importlib.import_module(literal(route)[1:].replace("-", "_")).handler
    break_what_is_named(cause, deployed, monkeypatch)
    envelope = json.loads(handler({"body": '{"text": "a", "embed": "[1, 2]"}'}, None)["body"])
    assert envelope["statusCode"] == 500
    assert envelope["body"]["msg"] == literal(message)


@pytest.mark.parametrize(("route", "request_", "warning"), WARNINGS, ids=lambda value: str(value)[:30])
def test_the_warnings_are_those_of_the_table(route: str, request_: str, warning: str, server: Server) -> None:
    # Those of a full-size model's tokens are asked of the module that makes them.
    in_words = {
        "a text of 5,000 tokens": Tokens([0] * 4096, 5000, True, False, False),
        "a long text of few words, one of them longer than 1,024 characters": Tokens([0], 1, True, False, True),
    }
    if request_ in in_words:
        found = in_words[request_].warnings()
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


@pytest.mark.parametrize("page", [README, API], ids=lambda page: page.name)
def test_routes_and_parameters_are_those_of_the_handlers(page: Path) -> None:
    rows = table(page, "| route | parameters | fields of `body` in the answer |")
    assert {literal(route) for route, *_ in rows} == {found.route for found in find_handlers(ROOT / "inference")}
    for route, parameters, _ in rows:
        handler = importlib.import_module(literal(route)[1:].replace("-", "_")).handler
        assert isinstance(handler, Endpoint)
        if not parameters.startswith("the same"):
            assert tuple(spans(parameters)) == handler.parameters


def test_browsers_may_send_what_the_page_says() -> None:
    _, _, section = text_of(API).partition("## Calling from a browser")
    assert set(spans(section)) == {"ALLOWED_ORIGINS", *METHODS, *ALLOWED_HEADERS}


class Asked(Mapping[str, str]):
    """An environment that notes which variables are read."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.names.add(name)
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


VARIABLES = {
    literal(name): (default, allowed)
    for name, default, allowed, _ in table(DEPLOYING, "| name | default | allowed values | meaning |")
}


def config(**variables: str) -> Config:
    return Config.from_environment({**ACCOUNT, **variables})


def is_accepted(name: str, value: str) -> bool:
    """By one of the engines at least: each has precisions of its own."""
    for engine in ("onnx", "torch"):
        try:
            config(**{"ENCODER_ENGINE": engine, name: value})
        except ConfigError:
            continue
        return True
    return False


def test_the_variables_are_those_that_the_app_reads() -> None:
    asked = Asked(ACCOUNT)
    Config.from_environment(asked)
    assert set(VARIABLES) == asked.names
    assert set(VARIABLES) == set(env_file(ROOT / ".env.example"))


@pytest.mark.parametrize("name", VARIABLES)
def test_the_default_of_a_variable_is_the_apps_own(name: str) -> None:
    default, _ = VARIABLES[name]
    in_example = env_file(ROOT / ".env.example")[name]
    if default == "required":
        assert in_example == ""
        with pytest.raises(ConfigError, match=name):
            config(**{name: ""})
    else:
        assert in_example == literal(default)
        assert config(**{name: literal(default)}) == config()


@pytest.mark.parametrize("name", VARIABLES)
def test_the_values_of_a_variable_are_those_that_the_app_allows(name: str) -> None:
    _, allowed = VARIABLES[name]
    for value in spans(allowed):
        assert is_accepted(name, value), value
    if limits := re.fullmatch(r"`(\d+)` to `(\d+)`", allowed):
        assert not is_accepted(name, str(int(limits[1]) - 1))
        assert not is_accepted(name, str(int(limits[2]) + 1))
    else:
        assert not is_accepted(name, "*nonsense*")


@pytest.mark.parametrize("name", VARIABLES)
def test_another_value_than_the_default_makes_a_difference(name: str) -> None:
    default, allowed = VARIABLES[name]
    for value in spans(allowed):
        if default not in ("required", f"`{value}`"):
            engine = "torch" if value == "bfloat16" else "onnx"
            assert config(**{"ENCODER_ENGINE": engine, name: value}) != config(), value


def test_settings_within_the_text_are_accepted() -> None:
    settings = [span for page in PAGES for span in spans(prose_of(page)) if re.match("[A-Z_]+=", span)]
    found = {(name, value) for name, _, value in (span.partition("=") for span in settings)}
    assert {name for name, _ in found} & set(VARIABLES)
    for name, value in found:
        if name in VARIABLES:
            assert is_accepted(name, value), f"{name}={value}"
        else:
            assert name in code_of("scripts", "tests", ".ci"), name


def code_of(*folders: str) -> str:
    """All code in these folders but this module and the pages'."""
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*")) if path.is_file()]
    return "\n".join(
        path.read_text(encoding="utf-8", errors="replace")
        for path in paths
        if path.name != Path(__file__).name and path.suffix in (".py", ".sh", "")
    )


@pytest.mark.slow
def test_the_variables_of_the_lambdas_are_those_of_the_stack(stack: cdk.Stack) -> None:
    functions = [
        resource["Properties"]["Environment"]["Variables"]
        for resource in cdk.assertions.Template.from_stack(stack).to_json()["Resources"].values()
        if resource["Type"] == "AWS::Lambda::Function" and "ImageConfig" in resource["Properties"]
    ]
    documented = {literal(name): spans(value) for name, value in table(OPERATIONS, "| name | value |")}
    for variables in functions:
        assert set(variables) == set(documented)
        for name, values in documented.items():
            assert [variables[name]] == values or not values


@pytest.mark.slow
def test_the_rehearsal_shows_parts_of_the_stack(stack: cdk.Stack) -> None:
    resources = {
        (found.cfn_resource_type, found.node.path.partition("/")[2].removesuffix("/Resource"))
        for found in stack.node.find_all()
        if isinstance(found, cdk.CfnResource)
    }
    shown = {tuple(line.split()[1:]) for block in SHELL for line in block.code.splitlines() if line.startswith("[+]")}
    assert shown
    assert shown <= resources


def literal_keys(node: ast.expr) -> set[str] | None:
    if not isinstance(node, ast.Dict) or not all(isinstance(key, ast.Constant) for key in node.keys):
        return None
    return {str(key.value) for key in node.keys if isinstance(key, ast.Constant)}


def logged() -> dict[tuple[str, str], set[str] | None]:
    """Each line that the Lambdas log: level and message, and the fields, None where they aren't written out there.

    Calls of `log.error` and the like, and of a module's own `_log`, whose level is INFO unless it is named.
    """
    found: dict[tuple[str, str], set[str] | None] = {}
    for path in (ROOT / "inference").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="log"), attr=level), args=[ast.Constant(m), *_]):
                    level = {"exception": "error"}.get(level, level)
                case ast.Call(func=ast.Name(id="_log"), args=[ast.Constant(m), *_]):
                    values = [*node.args, *(keyword.value for keyword in node.keywords)]
                    named_levels = [each.attr for each in values if isinstance(each, ast.Attribute)]
                    level = named_levels[0] if named_levels else "info"
                case _:
                    continue
            fields = [keyword.value for keyword in node.keywords if keyword.arg == "extra"] or node.args[1:2]
            found[level.upper(), str(m)] = literal_keys(fields[0]) if fields else set()
    return found


def test_the_log_is_the_one_of_the_table() -> None:
    rows = table(OPERATIONS, "| level | message | fields | meaning |")
    documented = {(level, literal(message)): set(spans(fields)) for level, message, fields, _ in rows}
    real = logged()
    assert set(documented) == set(real)
    for key, fields in real.items():
        assert fields is None or documented[key] == fields, key


def test_the_fields_of_an_answer_are_those_of_the_table(deployed: Deployed, caplog: pytest.LogCaptureFixture) -> None:
    documented = {literal(field) for field, _ in table(OPERATIONS, "| field of the line | meaning |")}
    usual = {*vars(logging.makeLogRecord({})), "message"}
    with caplog.at_level(logging.INFO, logger="similarity"):
        importlib.import_module("similar").handler({"text": "a"}, None)
    [line] = [record for record in caplog.records if record.getMessage() == "answered"]
    assert set(vars(line)) - usual == documented


@pytest.mark.parametrize(
    ("sentence", "real", "written"),
    [
        ("waits for the shelf for one second at most", served.WAIT_S, 1),
        ("If its last look at the shelf is more than a minute old", served.STALE_S, 60),
        ("looks in the background, every 10 s", served.LOOK_S, 10),
        ("after pauses that grow from 10 s to an hour", (served.FIRST_PAUSE_S, served.LONGEST_PAUSE_S), (10, 3600)),
        ("the newest three states", writer.KEPT_STATES, 3),
        ("on the shelf for less than a day", writer.KEPT_S, 86_400),
        ("dated more than five minutes ahead", writer.MAX_AHEAD_S, 300),
        ("or takes more than 5 s", models.START_S, 5),
    ],
)
def test_the_shelf_takes_the_time_that_is_written(sentence: str, real: object, written: object) -> None:
    assert sentence in " ".join(text_of(OPERATIONS).split())
    assert real == written


def test_readme_is_short_and_names_both_commands() -> None:
    assert 150 <= len(text_of(README).splitlines()) <= 200
    assert {"scripts/test", "scripts/test --quick"} <= set(spans(text_of(README)))
    assert "\n$ scripts/serve\n" in text_of(README)


def files_named(page: Path) -> set[str]:
    folders = r"scripts|inference|infrastructure|tests|docs|\.github|\.ci"
    found = re.findall(rf"(?<![\w./-])((?:{folders})/[\w./-]*\w)", text_of(page))
    # What an example makes, and what git ignores.
    made = {block.path for block in PYTHON} | {"inference/model"}
    return {name for name in found if not name.startswith("inference/model/")} - made


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_is_named_is_there(page: Path) -> None:
    assert sorted(name for name in files_named(page) if not (ROOT / name).exists()) == []


def test_files_are_named() -> None:
    assert len({name for page in PAGES for name in files_named(page)}) > 20


def test_every_page_is_reached_from_readme() -> None:
    assert {ROOT / link.partition("#")[0] for link in links(README)} >= set(DOCS.glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_a_pages_list_of_contents_has_all_of_its_sections(page: Path) -> None:
    sections = re.findall(r"^## (.+)$", prose_of(page), re.MULTILINE)
    assert re.findall(r"^- \[(.+)\]\(#[\w-]+\)$", prose_of(page), re.MULTILINE) == sections


def test_every_room_is_in_the_table() -> None:
    rooms = {literal(room).rstrip("/") for room, _ in table(DEVELOPMENT, "| room | what belongs there |")}
    packages = {
        str(path.parent.relative_to(ROOT))
        for folder in ("inference", "infrastructure", "scripts")
        for path in (ROOT / folder).rglob("__init__.py")
        if "model" not in path.relative_to(ROOT).parts
    }
    assert packages <= rooms
