"""What README and docs say of the code is so: tables of variables and logs, names of files, links, sizes.

That their examples run is left to `test_docs.py`, the API's routes, parameters and fields to `test_docs_api.py`.
"""

from __future__ import annotations

import ast
import importlib
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import aws_cdk as cdk
import pytest

import publishing.api
from deployment.account.checks import CHECKS
from example_project import copy_inference_with_examples
from infrastructure.config import Config, ConfigError, env_file
from infrastructure.stack import build_app
from jobs import inbox_steps, refresh
from pages import (
    API,
    DEPLOYING,
    DEVELOPMENT,
    DOCS,
    OPERATIONS,
    PAGES,
    PUBLISHING,
    PYTHON,
    README,
    REFRESH,
    SHELF,
    SHELL,
    anchors,
    links,
    literal,
    prose_of,
    spans,
    table,
    text_of,
)
from similarity.api.routes import ALLOWED_HEADERS, METHODS
from similarity.inbox import checks, publications
from similarity.refresh import refresher
from similarity.shelf import models, served, writer
from tiny import ROOT, Deployed

ACCOUNT = {"AWS_ACCOUNT_ID": "123456789012", "AWS_REGION": "eu-west-1"}


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
    stack = stack_of(config, copy_inference_with_examples(tmp_path / "inference"))
    resources = cdk.assertions.Template.from_stack(stack).to_json()["Resources"].values()
    functions = [r["Properties"] for r in resources if r["Type"] == "AWS::Lambda::Function"]
    commands = [properties["ImageConfig"]["Command"] for properties in functions if "ImageConfig" in properties]
    routes = {r["Properties"]["RouteKey"] for r in resources if r["Type"] == "AWS::ApiGatewayV2::Route"}
    assert ["sentiment.handler"] in commands
    assert len([command for [command] in commands if not command.startswith("jobs.")]) == 9
    assert {"GET /sentiment", "POST /sentiment", "GET /count"} <= routes
    assert "POST /count" not in routes
    assert ["jobs.count_incidents.handler"] in commands


def test_browsers_may_send_what_the_page_says() -> None:
    [section] = re.findall(r"^## Calling from a browser$(.*?)^## ", text_of(API), re.MULTILINE | re.DOTALL)
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


# A variable that another one needs.
PARTNERS = {
    "DOMAIN_NAME": {"CERTIFICATE_ARN": "arn:aws:acm:eu-west-1:123456789012:certificate/0123"},
    "CERTIFICATE_ARN": {"DOMAIN_NAME": "similar.example.org"},
}


def is_accepted(name: str, value: str) -> bool:
    """By one of the engines at least: each has precisions of its own."""
    for engine in ("onnx", "torch"):
        try:
            config(**{"ENCODER_ENGINE": engine, **PARTNERS.get(name, {}), name: value})
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
    elif default == "none":
        assert in_example == ""
        assert config(**{name: ""}) == config()
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
            found = config(**{"ENCODER_ENGINE": engine, **PARTNERS.get(name, {}), name: value})
            assert found != config(), value


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
    assert set().union(*functions) == set(documented)
    for variables in functions:
        for name, value in variables.items():
            assert [value] == documented[name] or not documented[name]


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
                case ast.Call(func=ast.Attribute(value=ast.Name(id="log"), attr="log"), args=[_, ast.Constant() as m]):
                    level = "INFO or WARNING"
                case ast.Call(func=ast.Attribute(value=ast.Name(id="log"), attr=level), args=[ast.Constant() as m, *_]):
                    level = {"exception": "error"}.get(level, level).upper()
                case ast.Call(func=ast.Name(id="_log"), args=[ast.Constant() | ast.IfExp() as m, *_]):
                    values = [*node.args, *(keyword.value for keyword in node.keywords)]
                    named_levels = [each.attr for each in values if isinstance(each, ast.Attribute)]
                    level = named_levels[0].upper() if named_levels else "INFO"
                case _:
                    continue
            fields = [keyword.value for keyword in node.keywords if keyword.arg == "extra"] or node.args[1:2]
            for message in (each.value for each in ast.walk(m) if isinstance(each, ast.Constant)):
                found[level, str(message)] = literal_keys(fields[0]) if fields else set()
    return found


def test_the_log_is_the_one_of_the_table() -> None:
    rows = [row for page in (OPERATIONS, REFRESH) for row in table(page, "| level | message | fields | meaning |")]
    documented = {(level, literal(message)): set(spans(fields)) for level, message, fields, _ in rows}
    real = logged()
    assert set(documented) == set(real)
    for key, fields in real.items():
        assert fields is None or documented[key] == fields, key


def test_the_fields_of_an_answer_are_those_of_the_table(deployed: Deployed, caplog: pytest.LogCaptureFixture) -> None:
    documented = {literal(field) for field, _ in table(OPERATIONS, "| field of the line | meaning |")}
    # A formatter adds the last two.
    usual = {*vars(logging.makeLogRecord({})), "message", "asctime"}
    with caplog.at_level(logging.INFO, logger="similarity"):
        importlib.import_module("similar").handler({"text": "a"}, None)
    [line] = [record for record in caplog.records if record.getMessage() == "answered"]
    assert set(vars(line)) - usual == documented


@pytest.mark.parametrize(
    ("page", "sentence", "real", "written"),
    [
        (SHELF, "waits for the shelf for one second at most", served.WAIT_S, 1),
        (SHELF, "If its last look at the shelf is more than a minute old", served.STALE_S, 60),
        (SHELF, "looks in the background, every 10 s", served.LOOK_S, 10),
        (
            SHELF,
            "after pauses that grow from 10 s to an hour",
            (served.FIRST_PAUSE_S, served.LONGEST_PAUSE_S),
            (10, 3600),
        ),
        (SHELF, "the newest three states", writer.KEPT_STATES, 3),
        (SHELF, "on the shelf for less than a day", writer.KEPT_S, 86_400),
        (SHELF, "dated more than five minutes ahead", writer.MAX_AHEAD_S, 300),
        (SHELF, "or takes more than 5 s", models.START_S, 5),
        (SHELF, "tries the four versions before it", inbox_steps.TRIED_VERSIONS, 5),
        (SHELF, "or larger than 100 MB", publications.LARGEST_STATE_BYTES, 100_000_000),
        (PUBLISHING, "waits up to two minutes", publishing.api.WAIT_S, 120),
        (PUBLISHING, "or has more than 100 MB", publications.LARGEST_STATE_BYTES, 100_000_000),
        (PUBLISHING, "lacks more than 10 % of the served incidents", checks.MOST_LOST, 0.1),
        (REFRESH, "| 300 texts to compute,", refresher.MOST_COMPUTED, 300),
        (REFRESH, "| 10 % of the incidents lost |", checks.MOST_LOST, 0.1),
        (
            REFRESH,
            "| 15 minutes, Lambda's longest run | 60 s earlier,",
            (refresh.TIMEOUT_S, refresher.RESERVE_S),
            (900, 60),
        ),
    ],
)
def test_the_code_has_the_numbers_that_are_written(page: Path, sentence: str, real: object, written: object) -> None:
    assert sentence in " ".join(text_of(page).split())
    assert real == written


def test_the_checks_are_those_of_the_table() -> None:
    """Those whose names stand in the code as words."""
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "scripts" / "deployment").rglob("*.py"))
    literal_names = r'\b(?:ok|note|problem|not_checked)\(\s*"([^"]+)"'
    named = r'^    name(?:, \w+)* = "([^"]+)"(?:, "([^"]+)")?'
    found = re.findall(f"{literal_names}|{named}", code, re.MULTILINE)
    names = {name for each in found for name in each if name} | set(CHECKS)
    rows = table(DEPLOYING, "| check | it passes if |")
    assert names == {name for cell, _ in rows for name in spans(cell)}


def test_readme_is_short_and_names_both_commands() -> None:
    assert 150 <= len(text_of(README).splitlines()) < 200
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
