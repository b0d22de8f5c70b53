"""The API's document in OpenAPI 3.1, which programs read.

It is made of the handler files, of `parameters.PARAMETERS` and of the types of `answers`. A handler that isn't an
`Endpoint` says its route and its methods alone. Answers may get further fields, so their objects stay open.

The format: https://spec.openapis.org/oas/v3.1.0
"""

from __future__ import annotations

import importlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, is_typeddict

import msgspec

from similarity import __version__
from similarity.api.answers import HEADERS, ErrorFields, envelope
from similarity.api.events import Endpoint
from similarity.api.parameters import PARAMETERS
from similarity.api.routes import HandlerFile
from similarity.incidents.facts import StateFacts
from similarity.incidents.metrics import VECTOR_METRICS

log = logging.getLogger(__name__)

Schema = dict[str, Any]

_REF = "#/components/schemas/{name}"
# A number in a list that is a string.
_NUMBER = r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?"
# The methods whose parameters stand in a body.
_WITH_BODY = ("POST", "PUT", "PATCH")

_DESCRIPTION = """\
GET takes parameters from the query string. POST takes them from a JSON object, and those that it lacks from the query \
string. Unknown parameters are ignored with a warning.

The answer is the object `body` in an envelope. API Gateway answers some requests itself: such an answer has no \
envelope, but one field, `message`.

API Gateway allows 10 KB for a URL with its headers. Lambda allows 6 MB for a body. A request above the limit of \
requests in a second is answered with 429, and one that takes longer than 30 s with 503. Requests may have to be \
signed with AWS's Signature Version 4; then others are answered with 403."""

_PAGE = "For browsers. An API whose requests have to be signed lacks this route, because a browser doesn't sign."

# Statuses beside 200: the cause, and whether the answer may have our envelope, or be API Gateway's own.
_ERRORS = {
    400: ("The request can't be answered. The answer says why.", True, True),
    403: ("The request isn't signed, but it must be; or it is refused.", False, True),
    404: ("There is no such incident; or there is no such route.", True, True),
    413: ("The request is too large.", False, True),
    429: ("Too many requests come.", False, True),
    500: ("Something went wrong on the server's side.", True, True),
    503: ("There is no state or no model to answer with; or the answer took longer than 30 s.", True, True),
}


@dataclass(frozen=True)
class _Route:
    """A handler file as far as it is known. about: a sentence, or "". endpoint: None where it has another handler."""

    file: HandlerFile
    about: str = ""
    endpoint: Endpoint | None = None


def document(handlers: Iterable[HandlerFile], facts: StateFacts | None) -> dict[str, Any]:
    """The document of the API with these handlers, which are imported by their modules' names.

    facts: of the state that is served; None if none can be loaded, so that its name and dimension aren't known.
    """
    routes = [_read(each) for each in handlers]
    of_answers = {route.endpoint.fields for route in routes if route.endpoint and _is_describable(route.endpoint)}
    fields = sorted((each for each in of_answers if each), key=lambda each: (each.__name__, each.__module__))
    roots, schemas = msgspec.json.schema_components([ErrorFields, *fields], ref_template=_REF)
    # The body in an envelope, by the type of its fields.
    bodies: dict[type, Schema] = {}
    for each, root in zip([ErrorFields, *fields], roots, strict=True):
        name = root["$ref"].rpartition("/")[2]
        body = f"{name.removesuffix('Fields')}Body"
        schemas[body] = _with_warnings(schemas[name], schemas[ErrorFields.__name__]["properties"]["warnings"], body)
        bodies[each] = {"$ref": _REF.format(name=body)}
    paths = {
        route.file.route: {method.lower(): _operation(route, method, facts, bodies) for method in route.file.methods}
        for route in routes
    }
    responses = {f"Status{status}": _error(status, bodies[ErrorFields]) for status in _ERRORS}
    used = json.dumps([paths, responses, schemas])
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Similar incidents: {facts.collection}" if facts else "Similar incidents",
            "summary": "Names the recorded incidents that are most like a text.",
            "description": _DESCRIPTION,
            "license": {"name": "MIT No Attribution", "identifier": "MIT-0"},
            "version": __version__,
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": {
                "Refusal": {
                    "description": "An answer of API Gateway itself.",
                    "type": "object",
                    "properties": {"message": {"type": "string"}},
                    "required": ["message"],
                },
                **{name: schema for name, schema in schemas.items() if json.dumps(_REF.format(name=name)) in used},
            },
            "responses": responses,
        },
    }


def _read(file: HandlerFile) -> _Route:
    """Imports a handler file. One that can't be imported is no reason to withhold the others."""
    try:
        module = importlib.import_module(file.module)
    except Exception as error:
        log.warning("handler not described", extra={"route": file.route, "reason": type(error).__name__})
        return _Route(file)
    handler = getattr(module, "handler", None)
    return _Route(file, _about(module.__doc__, file.route), handler if isinstance(handler, Endpoint) else None)


def _about(docstring: str | None, route: str) -> str:
    """The first paragraph of a module's docstring, without the methods and the route in front of it."""
    paragraph = " ".join((docstring or "").strip().partition("\n\n")[0].split())
    about = paragraph.partition(f" {route}: ")[2] or paragraph
    return about[:1].upper() + about[1:]


def _is_describable(endpoint: Endpoint) -> bool:
    """Whether the fields of the answer have a JSON Schema."""
    if not is_typeddict(endpoint.fields):
        return False
    try:
        msgspec.json.schema(endpoint.fields)
    except Exception:  # TypeError or RuntimeError for types that JSON doesn't know, NameError for a name that isn't one
        return False
    return True


def _with_warnings(schema: Schema, warnings: Schema, title: str) -> Schema:
    """The fields of a type, and the warnings that `Endpoint` adds to them."""
    return {
        **schema,
        "title": title,
        "properties": {"warnings": warnings, **schema["properties"]},
        "required": sorted({"warnings", *schema.get("required", [])}),
    }


def _operation(route: _Route, method: str, facts: StateFacts | None, bodies: Mapping[type, Schema]) -> dict[str, Any]:
    found: dict[str, Any] = {"operationId": f"{method.lower()}_{route.file.module}"}
    if route.about:
        found["summary"] = route.about
    if route.file.page:
        found["description"] = _PAGE
    endpoint = route.endpoint
    if endpoint is None:
        return found | {"responses": {"default": {"description": "The handler doesn't describe its answers."}}}
    if method in _WITH_BODY:
        found["requestBody"] = _request_body(endpoint, facts)
    elif endpoint.parameters:
        found["parameters"] = [_query_parameter(name, endpoint, facts) for name in endpoint.parameters]
    errors = {
        str(status): _error_page(status, endpoint.media_type)
        if endpoint.error_page
        else {"$ref": f"#/components/responses/Status{status}"}
        for status in _ERRORS
    }
    return found | {"responses": {"200": _answer(endpoint, bodies), **errors}}


def _query_parameter(name: str, endpoint: Endpoint, facts: StateFacts | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": name,
        "in": "query",
        "required": _is_required(name, endpoint),
        "schema": _schema(name, endpoint, facts, in_query=True),
    }
    if found["schema"].get("type") == "array":
        found |= {"style": "form", "explode": False}  # with commas
    if (known := PARAMETERS.get(name)) is None:
        return found
    found["description"] = known.meaning
    # A page that fills in examples must not send two parameters that exclude each other.
    if known.example is not None and known.instead_of not in _names(endpoint):
        found["example"] = known.example
    return found


def _request_body(endpoint: Endpoint, facts: StateFacts | None) -> dict[str, Any]:
    properties = {}
    for name in _names(endpoint):
        known = PARAMETERS.get(name)
        described = {"description": known.meaning} if known else {}
        properties[name] = described | _schema(name, endpoint, facts, in_query=False)
    schema: Schema = {"type": "object", "properties": properties}
    required = [name for name in properties if _is_required(name, endpoint)]
    if required:
        schema["required"] = required
    choices = [[name, *others] for name in properties if (others := _instead_of(name, endpoint))]
    if choices:
        schema["allOf"] = [{"oneOf": [{"required": [name]} for name in choice]} for choice in choices]
    examples = {
        name: {"value": {name: PARAMETERS[name].example}}
        for name in (*required, *(name for choice in choices for name in choice))
        if name in PARAMETERS and PARAMETERS[name].example is not None
    }
    content: dict[str, Any] = {"schema": schema} | ({"examples": examples} if examples else {})
    return {"required": bool(required or choices), "content": {HEADERS["Content-Type"]: content}}


def _names(endpoint: Endpoint) -> Sequence[str]:
    return endpoint.parameters or ()


def _instead_of(name: str, endpoint: Endpoint) -> list[str]:
    """The parameters of a route that may come instead of one that it needs."""
    if name not in PARAMETERS or not PARAMETERS[name].required:
        return []
    return [other for other in _names(endpoint) if other in PARAMETERS and PARAMETERS[other].instead_of == name]


def _is_required(name: str, endpoint: Endpoint) -> bool:
    return name in PARAMETERS and PARAMETERS[name].required and not _instead_of(name, endpoint)


def _schema(name: str, endpoint: Endpoint, facts: StateFacts | None, *, in_query: bool) -> Schema:
    """The values of a parameter of a route. A parameter that is the handler's own may have any."""
    known = PARAMETERS.get(name)
    if known is None:
        return {}
    schema = dict(known.in_query if in_query and known.in_query is not None else known.schema)
    if name == "metric" and "text" not in _names(endpoint):
        schema["enum"] = list(VECTOR_METRICS)
    return _with_dimension(schema, facts.dimension) if name == "embed" and facts else schema


def _with_dimension(schema: Schema, dimension: int) -> Schema:
    """The values of a vector, with as many numbers as those of the state."""
    if schema.get("type") == "array":
        return schema | {"minItems": dimension, "maxItems": dimension}
    if schema.get("type") == "string":
        return schema | {"pattern": rf"^\[{_NUMBER}(, ?{_NUMBER}){{{dimension - 1}}}\]$"}
    return schema | {"oneOf": [_with_dimension(each, dimension) for each in schema["oneOf"]]}


def _answer(endpoint: Endpoint, bodies: Mapping[type, Schema]) -> dict[str, Any]:
    if endpoint.media_type:
        kind = "object" if endpoint.media_type == HEADERS["Content-Type"] else "string"
        return {"description": "The document.", "content": {endpoint.media_type: {"schema": {"type": kind}}}}
    # Fields that the handler doesn't describe may be any.
    unknown: Schema = {"type": "object", "required": ["warnings"]}
    body = bodies.get(endpoint.fields, unknown) if endpoint.fields else unknown
    return {"description": "The answer.", "content": _json(_envelope(200, body))}


def _error_page(status: int, media_type: str) -> dict[str, Any]:
    """Our own answer is a page, and has no envelope."""
    description, is_ours, is_gateways = _ERRORS[status]
    content = {media_type: {"schema": {"type": "string"}}} if is_ours else {}
    content |= _json({"$ref": _REF.format(name="Refusal")}) if is_gateways else {}
    return {"description": description, "content": content}


def _error(status: int, body: Schema) -> dict[str, Any]:
    description, is_ours, is_gateways = _ERRORS[status]
    schemas = [_envelope(status, body)] if is_ours else []
    schemas += [{"$ref": _REF.format(name="Refusal")}] if is_gateways else []
    return {"description": description, "content": _json({"oneOf": schemas} if len(schemas) > 1 else schemas[0])}


def _json(schema: Schema) -> dict[str, Any]:
    return {HEADERS["Content-Type"]: {"schema": schema}}


def _envelope(status: int, body: Schema) -> Schema:
    """The schema of `answers.envelope`, in which nothing but the body varies."""
    return _constant(envelope(status, {}), body=body)


def _constant(value: Any, **varying: Schema) -> Schema:
    """The schema of a value. Of an object, the fields are constant: openapi-python-client takes no constant object."""
    if not isinstance(value, Mapping):
        return {"const": value}
    fields = {name: _constant(entry) for name, entry in value.items()} | varying
    required = {"required": list(fields)} if fields else {}
    return {"type": "object", "properties": fields, **required}
