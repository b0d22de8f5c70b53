"""The API's document: valid by OpenAPI's own schema, true of the handlers, and of handlers that somebody adds."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

import similarity
from openapi_documents import answers_closed
from pages import PYTHON
from similarity.api.openapi import document
from similarity.api.parameters import PARAMETERS
from similarity.api.routes import find_handlers
from similarity.incidents.facts import StateFacts
from similarity.incidents.state import IncidentState
from tiny import ROOT, Deployed, fitted_state

Object = dict[str, Any]
FACTS = StateFacts("0123456789abcdef", incidents=5, reports=5, dimension=32, collection="Book of Storms")
TEXT = "A robot in a warehouse"
GET_OPENAPI = {"requestContext": {"http": {"method": "GET"}}, "rawPath": "/openapi"}


def checked(found: Object) -> Object:
    """A document that is valid OpenAPI 3.1, and is JSON."""
    again: Object = json.loads(json.dumps(found, allow_nan=False))
    OpenAPIV31SpecValidator(again).validate()
    return again


@pytest.fixture(scope="module")
def ours() -> Object:
    return checked(answers_closed(document(find_handlers(ROOT / "inference"), FACTS)))


def problems(found: Object, pointer: str, value: object) -> list[str]:
    """How a value breaks a schema of the document."""
    # To a validator of JSON Schema the document's own fields say nothing, but references lead into them.
    validator = OAS31Validator({**found, "$ref": f"#{pointer}"})
    return [error.message for error in validator.iter_errors(value)]


def of_answer(route: str, method: str, status: int) -> str:
    escaped = route.replace("/", "~1")
    if status != 200:
        return f"/components/responses/Status{status}/content/application~1json/schema"
    return f"/paths/{escaped}/{method}/responses/200/content/application~1json/schema"


def test_every_route_and_method_is_there_once(ours: Object) -> None:
    files = find_handlers(ROOT / "inference")
    assert {route: set(methods) for route, methods in ours["paths"].items()} == {
        file.route: {method.lower() for method in file.methods} for file in files
    }
    operations = [operation for methods in ours["paths"].values() for operation in methods.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations) >= 10
    assert all(operation["summary"][0].isupper() or operation["summary"][0] == "`" for operation in operations)
    assert not any("GET and POST" in operation["summary"] for operation in operations)


def test_it_says_whose_it_is(ours: Object) -> None:
    assert ours["openapi"] == "3.1.0"
    assert ours["info"]["title"] == "Similar incidents: Book of Storms"
    assert ours["info"]["version"] == similarity.__version__
    assert ours["info"]["license"]["identifier"] == "MIT-0"
    assert ours["servers"] == [{"url": "/"}]


def test_the_parameters_are_those_of_the_handlers(ours: Object) -> None:
    for file in find_handlers(ROOT / "inference"):
        names = list(importlib.import_module(file.module).handler.parameters)
        for method, operation in ours["paths"][file.route].items():
            if method == "post":
                schema = operation["requestBody"]["content"]["application/json"]["schema"]
                assert list(schema["properties"]) == names
            else:
                assert [each["name"] for each in operation.get("parameters", [])] == names


def test_a_text_or_an_incident_is_needed_but_not_both(ours: Object) -> None:
    pointer = "/paths/~1similar/post/requestBody/content/application~1json/schema"
    for good in ({"text": "a"}, {"incident_id": 7}, {"text": "a", "num": "-1", "exclude": [1, 2], "explain": True}):
        assert problems(ours, pointer, good) == []
    for bad in ({}, {"num": 3}, {"text": "a", "incident_id": 7}, {"text": ""}, {"text": "a", "metric": "manhattan"}):
        assert problems(ours, pointer, bad)
    for exclude, is_good in (("7", True), ("7,10", True), ("0", False), ("7,0", False), ([7, 0], False), ("", False)):
        assert bool(problems(ours, pointer, {"incident_id": 7, "exclude": exclude})) is not is_good
    required = {each["name"]: each["required"] for each in ours["paths"]["/similar"]["get"]["parameters"]}
    assert not any(required.values())
    [text] = ours["paths"]["/text-to-embed"]["get"]["parameters"]
    assert text["required"]


@pytest.mark.parametrize("embed", [[0.5] * 32, str([0.5] * 32), json.dumps([1] * 32), str([-1e-30] * 32)])
def test_a_vector_has_as_many_numbers_as_those_of_the_state(ours: Object, embed: list[float] | str) -> None:
    body = "/paths/~1embed-to-db-similar/post/requestBody/content/application~1json/schema"
    query = "/paths/~1embed-to-db-similar/get/parameters/0/schema"
    shorter = embed[:-1] if isinstance(embed, list) else str([0.5] * 31)
    assert problems(ours, body, {"embed": embed}) == []
    assert problems(ours, body, {"embed": shorter})
    if isinstance(embed, str):
        assert problems(ours, query, embed) == []
        assert problems(ours, query, shorter)
    unknown = checked(document(find_handlers(ROOT / "inference"), None))
    assert problems(unknown, body, {"embed": shorter}) == []


def test_a_vector_has_no_metric_of_words(ours: Object) -> None:
    pointer = "/paths/~1embed-to-db-similar/post/requestBody/content/application~1json/schema/properties/metric"
    assert problems(ours, pointer, "whitened") == []
    assert problems(ours, pointer, "hybrid")


def test_examples_are_values_of_their_schemas(ours: Object) -> None:
    found = 0
    for route, methods in ours["paths"].items():
        for method, operation in methods.items():
            pointer = f"/paths/{route.replace('/', '~1')}/{method}"
            for index, each in enumerate(operation.get("parameters", [])):
                if "example" in each:
                    assert problems(ours, f"{pointer}/parameters/{index}/schema", each["example"]) == []
                    found += 1
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            for example in content.get("examples", {}).values():
                body = f"{pointer}/requestBody/content/application~1json/schema"
                assert problems(ours, body, example["value"]) == []
                found += 1
    assert found >= 10


# A route, a method, the parameters, and the status of the answer.
REQUESTS: list[tuple[str, str, Object, int]] = [
    ("/similar", "post", {"text": TEXT}, 200),
    ("/similar", "post", {"text": TEXT, "num": 0}, 200),
    ("/similar", "post", {"text": TEXT, "explain": True, "embedding": True}, 200),
    ("/similar", "post", {"incident_id": 4, "exclude": "1,7"}, 200),
    ("/similar", "post", {"incident_id": 999}, 404),
    ("/similar", "post", {}, 400),
    ("/text-to-db-similar", "post", {"text": TEXT}, 200),
    ("/embed-to-db-similar", "post", {"embed": [0.5] * 32}, 200),
    ("/embed-to-db-similar", "post", {"embed": "[1]"}, 400),
    ("/text-to-embed", "post", {"text": TEXT}, 200),
    ("/health", "get", {}, 200),
]


@pytest.fixture
def answering(deployed: Deployed, tiny_state: IncidentState) -> Deployed:
    fitted_state(tiny_state, 0.0).save(deployed.state_path)
    return deployed


def answer_of(route: str, method: str, parameters: Object) -> tuple[int, Object]:
    event: Object = {"requestContext": {"http": {"method": method.upper()}}, "rawPath": route}
    if method == "post":
        event["body"] = json.dumps(parameters)
    answer = importlib.import_module(route[1:].replace("-", "_")).handler(event, None)
    return answer["statusCode"], json.loads(answer["body"])


@pytest.mark.parametrize(("route", "method", "parameters", "status"), REQUESTS)
def test_answers_have_the_described_form_and_no_other_does(
    ours: Object, answering: Deployed, route: str, method: str, parameters: Object, status: int
) -> None:
    found, envelope = answer_of(route, method, parameters)
    pointer = of_answer(route, method, status)
    assert found == status
    assert problems(ours, pointer, envelope) == []
    for place in (envelope, envelope["body"], *objects_in(envelope["body"])):
        place["undescribed"] = 1
        assert problems(ours, pointer, envelope)
        del place["undescribed"]
    for name in ("warnings", "msg", "state", "code"):
        if name in envelope["body"]:
            kept = envelope["body"].pop(name)
            assert problems(ours, pointer, envelope), name
            envelope["body"][name] = kept
    assert problems(ours, pointer, envelope) == []
    envelope["statusCode"] = 418
    assert problems(ours, pointer, envelope)


def objects_in(value: object) -> Iterator[Object]:
    """The objects inside a value of JSON, at any depth."""
    inside = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    for each in inside:
        if isinstance(each, dict):
            yield each
        yield from objects_in(each)


def test_constants_are_no_objects(ours: Object) -> None:
    # openapi-python-client, a generator of clients, takes no others.
    constants = [each["const"] for each in objects_in(ours) if "const" in each]
    assert len(constants) > 10
    assert not [each for each in constants if isinstance(each, dict | list)]
    pointer = f"{of_answer('/health', 'get', 200)}/properties"
    for name, good in (("headers", {"Content-Type": "application/json"}), ("multiValueHeaders", {})):
        assert problems(ours, f"{pointer}/{name}", good) == []
        assert problems(ours, f"{pointer}/{name}", {"Content-Type": "text/html"})
    assert problems(ours, f"{pointer}/headers", {})


def test_the_gateways_own_answers_are_described(ours: Object) -> None:
    for status in (400, 403, 404, 413, 429, 500, 503):
        pointer = of_answer("/similar", "get", status)
        assert problems(ours, pointer, {"message": "Not Found"}) == []
        assert problems(ours, pointer, {"message": "Not Found", "more": 1})
        assert problems(ours, pointer, {})


def with_files(folder: Path, monkeypatch: pytest.MonkeyPatch, **sources: str) -> Object:
    """The document of handler files of a test's own. Their names must be those of no other module."""
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source, encoding="utf-8")
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(folder))
    found = checked(document(find_handlers(folder), FACTS))
    for name in sources:
        sys.modules.pop(name, None)
    return found


HEAD = "from similarity.api.events import Request, endpoint\n"


def test_the_example_of_the_page_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [block] = [block for block in PYTHON if block.path == "inference/sentiment.py"]
    found = with_files(tmp_path, monkeypatch, sentiment=block.code)["paths"]["/sentiment"]
    assert set(found) == {"get", "post"}
    assert found["get"]["summary"] == "Whether a text sounds positive or negative, and how surely."
    [text] = found["get"]["parameters"]
    assert (text["name"], text["required"], text["description"]) == ("text", True, PARAMETERS["text"].meaning)
    described = {"paths": {"/sentiment": found}}
    envelope = {"isBase64Encoded": False, "statusCode": 200, "headers": {"Content-Type": "application/json"},
                "multiValueHeaders": {}, "body": {"warnings": [], "sentiment": {"label": "POSITIVE"}}}  # fmt: skip
    assert problems(described, of_answer("/sentiment", "get", 200), envelope) == []
    del envelope["body"]["warnings"]  # type: ignore[attr-defined]
    assert problems(described, of_answer("/sentiment", "get", 200), envelope)


def test_a_plain_function_has_its_route_and_methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = 'METHODS = ("GET", "DELETE")\ndef handler(event, context):\n    return {"statusCode": 204}\n'
    found = with_files(tmp_path, monkeypatch, plain_one=plain)["paths"]
    assert {name: set(each["responses"]) for name, each in found["/plain-one"].items()} == {
        "get": {"default"},
        "delete": {"default"},
    }


def test_a_file_that_cannot_be_imported_is_described_as_far_as_it_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = 'import nothing_of_this_name\nMETHODS = ("POST",)\ndef handler(event, context): ...\n'
    good = f"{HEAD}@endpoint(parameters=('text',))\ndef handler(request): ...\n"
    found = with_files(tmp_path, monkeypatch, broken_one=broken, good_one=good)["paths"]
    assert set(found["/broken-one"]) == {"post"}
    assert [each["name"] for each in found["/good-one"]["get"]["parameters"]] == ["text"]
    [record] = caplog.records
    assert (record.getMessage(), vars(record)["reason"]) == ("handler not described", "ModuleNotFoundError")


def test_parameters_and_fields_of_a_handlers_own_are_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = f"""{HEAD}
from typing import TypedDict
class Counted(TypedDict):
    words: int
@endpoint(parameters=("text", "language"), fields=Counted)
def handler(request): ...
"""
    found = with_files(tmp_path, monkeypatch, count_words=source)
    assert [(each["name"], each["required"]) for each in found["paths"]["/count-words"]["get"]["parameters"]] == [
        ("text", True),
        ("language", False),
    ]
    assert set(found["components"]["schemas"]["CountedBody"]["properties"]) == {"warnings", "words"}


@pytest.mark.parametrize(
    "fields",
    ["int", "dict[str, object]", "list", "TypedDict('Odd', {'of': Exception})", "TypedDict('Odd', {'of': 'nothing'})"],
)
def test_fields_that_have_no_schema_may_be_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: str) -> None:
    source = f"{HEAD}from typing import TypedDict\n@endpoint(fields={fields})\ndef handler(request): ...\n"
    found = with_files(tmp_path, monkeypatch, odd_one=source)
    [schema] = found["paths"]["/odd-one"]["get"]["responses"]["200"]["content"].values()
    assert schema["schema"]["properties"]["body"] == {"type": "object", "required": ["warnings"]}


def test_types_of_one_name_stay_apart_and_a_part_of_other_answers_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = "from typing import TypedDict\nclass RankedFields(TypedDict):\n    other: int\n"
    part = f"{HEAD}from similarity.api import answers\n@endpoint(fields=answers.StateFields)\ndef handler(r): ...\n"
    whole = f"{HEAD}from similarity.api import answers\n@endpoint(fields=answers.RankedFields)\ndef handler(r): ...\n"
    same = f"{HEAD}{made}@endpoint(fields=RankedFields)\ndef handler(r): ...\n"
    found = with_files(tmp_path, monkeypatch, of_part=part, of_whole=whole, of_same=same)
    state = found["components"]["schemas"]["StateFields"]
    assert "warnings" not in state["properties"]
    bodies = {}
    for route in ("/of-part", "/of-whole", "/of-same"):
        [content] = found["paths"][route]["get"]["responses"]["200"]["content"].values()
        name = content["schema"]["properties"]["body"]["$ref"].rpartition("/")[2]
        bodies[route] = set(found["components"]["schemas"][name]["properties"])
    assert bodies["/of-part"] == {*state["properties"], "warnings"}
    assert bodies["/of-same"] == {"other", "warnings"}
    assert {"incidents", "msg", "warnings"} <= bodies["/of-whole"]


def test_a_document_has_its_own_media_type(ours: Object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = f"{HEAD}@endpoint(parameters=(), media_type='text/html')\ndef handler(request): ...\n"
    found = with_files(tmp_path, monkeypatch, page_one=page)["paths"]["/page-one"]["get"]["responses"]
    assert found["200"]["content"] == {"text/html": {"schema": {"type": "string"}}}
    [(media_type, content)] = ours["paths"]["/openapi"]["get"]["responses"]["200"]["content"].items()
    assert (media_type, content["schema"]) == ("application/json", {"type": "object"})


def test_the_page_and_its_errors_are_html_and_the_gateway_s_own_are_json(ours: Object) -> None:
    operation = ours["paths"]["/explore"]["get"]
    assert set(ours["paths"]["/explore"]) == {"get"}
    # Its sentence is about the page. Whether it is there depends on the deployment.
    assert operation["summary"] == "A page for people, with matches and a map of all incidents."
    assert operation["description"] == (
        "For browsers. An API whose requests have to be signed lacks this route, because a browser doesn't sign."
    )
    html = {"text/html; charset=utf-8": {"schema": {"type": "string"}}}
    assert operation["responses"]["200"]["content"] == html
    for status in (400, 403, 404, 413, 429, 500, 503):
        content = operation["responses"][str(status)]["content"]
        assert set(content) == {"application/json"} | (set() if status in (403, 413, 429) else set(html))
        assert {name: content[name] for name in html if name in content} in ({}, html)
        pointer = f"/paths/~1explore/get/responses/{status}/content/application~1json/schema"
        assert problems(ours, pointer, {"message": "Not Found"}) == []
        assert problems(ours, pointer, answer_of_health(status))
    others = [each for route, methods in ours["paths"].items() for each in methods.values() if route != "/explore"]
    assert not any("description" in each for each in others)


def answer_of_health(status: int) -> Object:
    """An error in the envelope."""
    body = {"warnings": [], "msg": "Error! No.", "code": "internal_error"}
    headers = {"Content-Type": "application/json"}
    return {"isBase64Encoded": False, "statusCode": status, "headers": headers, "multiValueHeaders": {}, "body": body}


def test_a_document_without_error_pages_has_the_errors_of_all(ours: Object) -> None:
    errors = [answer for status, answer in ours["paths"]["/openapi"]["get"]["responses"].items() if status != "200"]
    assert errors == [
        {"$ref": f"#/components/responses/Status{status}"} for status in (400, 403, 404, 413, 429, 500, 503)
    ]


def served(deployed: Deployed) -> Object:
    answer = importlib.import_module("openapi").handler(GET_OPENAPI, None)
    headers = {"Content-Type": "application/json", "Vary": "Accept-Encoding"}
    assert (answer["statusCode"], answer["headers"]) == (200, headers)
    return checked(json.loads(answer["body"]))


def test_the_handler_serves_the_document_of_all_handlers(deployed: Deployed, ours: Object) -> None:
    found = served(deployed)
    assert found["info"]["title"] == "Similar incidents: AI Incident Database"
    # The tiny state has 32 dimensions, too.
    assert answers_closed(found) | {"info": ours["info"]} == ours


def test_without_a_state_it_is_served_all_the_same(deployed: Deployed) -> None:
    deployed.state_path.write_bytes(b"broken")
    found = served(deployed)
    assert found["info"]["title"] == "Similar incidents"
    assert "/similar" in found["paths"]


def test_a_deployment_that_primes_it_needs_no_state(deployed: Deployed) -> None:
    deployed.state_path.unlink()
    handler = importlib.import_module("openapi").handler
    assert handler({"warm": True}, None)["statusCode"] == 200
    assert json.loads(handler({}, None)["body"])["openapi"] == "3.1.0"


def test_unknown_parameters_do_no_harm(deployed: Deployed) -> None:
    event = {**GET_OPENAPI, "queryStringParameters": {"format": "yaml"}}
    assert importlib.import_module("openapi").handler(event, None)["statusCode"] == 200
