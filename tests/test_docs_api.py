"""README and docs/api.md say of the API what its document says: routes, parameters, fields, codes of errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pages import API, README, literal, spans, table
from similarity.api.openapi import document
from similarity.api.routes import find_handlers
from tiny import ROOT

Object = dict[str, Any]
DOCUMENT: Object = json.loads(json.dumps(document(find_handlers(ROOT / "inference"), None)))
SCHEMAS: Object = DOCUMENT["components"]["schemas"]
both_pages = pytest.mark.parametrize("page", [README, API], ids=lambda page: page.name)


def parameters_of(route: str) -> dict[str, Object]:
    """The parameters of a route by name, as its GET has them."""
    return {each["name"]: each for each in DOCUMENT["paths"][route]["get"].get("parameters", [])}


def fields_of(route: str) -> set[str]:
    """The fields of the body in the answer of a route; none if it has no envelope."""
    content = DOCUMENT["paths"][route]["get"]["responses"]["200"]["content"]
    schema = content.get("application/json", {}).get("schema", {})
    if "body" not in schema.get("properties", {}):
        return set()
    return set(SCHEMAS[schema["properties"]["body"]["$ref"].rpartition("/")[2]]["properties"])


@both_pages
def test_the_routes_are_those_of_the_document(page: Path) -> None:
    rows = table(page, "| route | parameters | fields of `body` in the answer |")
    assert [literal(route) for route, _, _ in rows].count("/similar") == 1
    assert {literal(route) for route, _, _ in rows} == set(DOCUMENT["paths"])
    above = ""
    for route, parameters, fields in rows:
        same = above if parameters.startswith("the same") else literal(route)
        if not parameters.startswith("the same"):
            assert spans(parameters) == list(parameters_of(literal(route)))
            above = literal(route)
        # "the same" is said of the route above.
        assert list(parameters_of(literal(route))) == list(parameters_of(same))
        if fields != "the same":
            fields_above = set(spans(fields))
        assert fields_above == fields_of(literal(route)), route


def default_of(parameter: Object) -> str:
    """How the pages write it."""
    if parameter["name"] == "text":
        return "required, or `incident_id`"
    if parameter["required"]:
        return "required"
    match parameter["schema"].get("default"):
        case None:
            return "none"
        case bool() | str() as value:
            return f"`{value if isinstance(value, str) else str(value).lower()}`"
        case value:
            return str(value)


@both_pages
def test_the_parameters_are_those_of_the_document(page: Path) -> None:
    documented = {literal(name): default for name, _, default in table(page, "| parameter | meaning | default |")}
    every = {name: found for route in DOCUMENT["paths"] for name, found in parameters_of(route).items()}
    assert documented == {name: default_of(found) for name, found in every.items()}


def test_the_metrics_are_those_of_the_document() -> None:
    for page in (README, API):
        [meaning] = [row[1] for row in table(page, "| parameter | meaning | default |") if row[0] == "`metric`"]
        assert spans(meaning) == parameters_of("/similar")["metric"]["schema"]["enum"]


def test_the_methods_are_those_of_the_document() -> None:
    get_alone = {route for route, methods in DOCUMENT["paths"].items() if set(methods) == {"get"}}
    assert get_alone == {"/health", "/openapi", "/explore"}
    assert all(set(DOCUMENT["paths"][route]) == {"get", "post"} for route in set(DOCUMENT["paths"]) - get_alone)
    assert "`/health`, `/openapi` and `/explore` take GET alone" in " ".join(README.read_text(encoding="utf-8").split())


@pytest.mark.parametrize(
    ("header", "schema"),
    [
        ("| field of `body` | meaning |", "RankedBody"),
        ("| field of `incidents` | meaning |", "IncidentFields"),
        ("| field of `state` | meaning |", "StateFields"),
    ],
)
def test_the_fields_are_those_of_the_document(header: str, schema: str) -> None:
    assert {literal(field) for field, _ in table(API, header)} == set(SCHEMAS[schema]["properties"])


def test_the_codes_are_those_of_the_document() -> None:
    rows = [
        *table(API, "| status | route | request | `code` | `msg` |"),
        *table(API, "| status | route | cause | `code` | `msg` |"),
    ]
    assert {literal(code) for _, _, _, code, _ in rows} == set(SCHEMAS["ErrorBody"]["properties"]["code"]["enum"])
    statuses = {status for status, *_ in rows}
    gateway = {each for row in table(API, "| status | cause |") for each in row[0].split(", ")}
    described = {name.removeprefix("Status"): found for name, found in DOCUMENT["components"]["responses"].items()}
    assert statuses | gateway == set(described)
    for status, found in described.items():
        text = json.dumps(found)
        assert ("ErrorBody" in text, "Refusal" in text) == (status in statuses, status in gateway)
