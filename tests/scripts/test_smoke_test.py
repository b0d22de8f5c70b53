"""The smoke test passes on the project's own server, and each of its checks fails on a server that breaks its rule.

The broken servers are the real one behind a proxy that changes its replies, so that a check which fails does so for the
one thing that was changed.
"""

from __future__ import annotations

import gzip
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests

import similarity
import smoke_test
from processes import PATIENCE_S, Command
from proxy import Exchange, proxy
from serving import serving
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.incidents.state import IncidentState
from smoke.checks import OTHER_ORIGIN, ROUTES
from tiny import ROOT, TINY_TEXTS, fitted_state, state_of_texts, write_multilingual_longformer

ORIGIN = "http://localhost:3000"


@pytest.fixture(scope="module")
def real_url(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path, tiny_state_path: Path) -> Iterator[str]:
    """URL of the local server with the tiny model and the tiny state."""
    folder = tmp_path_factory.mktemp("server")
    with serving(folder, "--model", tiny_model_dir, "--state", tiny_state_path) as server:
        yield server.url


AIID_SITE = "https://incidentdatabase.ai"


@pytest.fixture(scope="module")
def aviation_url(
    tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path, tiny_encoder: TorchEncoder
) -> Iterator[str]:
    """URL of a server that AIID's site may call, and which has two records on aviation alone."""
    folder = tmp_path_factory.mktemp("aviation")
    state_of_texts(tiny_encoder, {3: "Two planes fell", 9: "A jet missed the runway"}).save(folder / "state.pt")
    arguments = ("--model", tiny_model_dir, "--state", folder / "state.pt", "--allow-origin", AIID_SITE)
    with serving(folder, *arguments) as server:
        yield server.url


@pytest.fixture(scope="module")
def multilingual_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a server whose model gets texts as they are, and with a prefix."""
    folder = tmp_path_factory.mktemp("multilingual")
    model = write_multilingual_longformer(folder / "model", query_prefix="query: ", report_prefix="passage: ")
    state_of_texts(TorchEncoder.load(model), TINY_TEXTS).save(folder / "state.pt")
    with serving(folder, "--model", model, "--state", folder / "state.pt") as server:
        yield server.url


@pytest.fixture(scope="module", params=[2.0, -4.0], ids=["likely", "none"])
def fitted_url(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model_dir: Path,
    tiny_state: IncidentState,
) -> Iterator[str]:
    """URL of a server whose state has the data of all metrics, and is sure of all texts or of none."""
    folder = tmp_path_factory.mktemp("fitted")
    fitted_state(tiny_state, request.param).save(folder / "state.pt")
    with serving(folder, "--model", tiny_model_dir, "--state", folder / "state.pt") as server:
        yield server.url


def outcomes(url: str, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """What --json says, after a look at the exit code."""
    code = smoke_test.main([url, "--repeat", "1", "--json", *arguments])
    captured = capsys.readouterr()
    assert captured.err == ""
    found: dict[str, Any] = json.loads(captured.out)
    assert code == (1 if found["failed"] else 0)
    return found


def failed(url: str, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, str]:
    return {found["check"]: found["problem"] for found in outcomes(url, capsys, *arguments)["failed"]}


def test_everything_passes_on_the_local_server(real_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    started = time.monotonic()
    assert smoke_test.main([real_url, "--repeat", "2"]) == 0
    took_s = time.monotonic() - started
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()
    checked = [line for line in lines if line.startswith("ok    ")]
    assert len(checked) == 35
    assert lines[0] == f"smoke test of version {similarity.__version__}: {real_url}"
    page = f"A page to look at: {real_url}/explore"
    assert lines[-3:] == ["5 incidents are served. Texts are encoded in float32.", page, "35 checks passed, 0 failed."]
    for route in ROUTES:
        assert any(route in line for line in checked)
        (row,) = (line.split() for line in lines if line.startswith(f"{route} "))
        first_s, median_s, slowest_s = (float(value) for value in row[1:])
        assert 0 < first_s < took_s
        assert 0 < median_s <= slowest_s < took_s


@pytest.mark.slow
def test_everything_passes_on_a_multilingual_model(multilingual_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcomes(multilingual_url, capsys)["failed"] == []


@pytest.mark.slow
def test_everything_passes_on_a_state_with_the_data_of_all_metrics(
    fitted_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outcomes(fitted_url, capsys)["failed"] == []


@pytest.mark.slow
def test_a_proxy_that_changes_nothing_fails_nothing(real_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with proxy(real_url, lambda exchange: None) as url:
        found = outcomes(url, capsys)
    assert found["failed"] == []
    assert len(found["passed"]) == 35
    assert set(found["latency_s"]) == set(ROUTES)
    assert found["url"] == url
    assert (found["incidents"], found["precision"]) == (5, "float32")


@pytest.mark.parametrize("suffix", ["/", "/similar", "/text-to-embed/", "/health", "/openapi", "/explore"])
def test_a_url_with_a_route_is_that_of_its_api(suffix: str) -> None:
    assert smoke_test.api_url(f"https://example.org{suffix}") == "https://example.org"
    assert smoke_test.api_url(f"https://example.org/stage{suffix}") == "https://example.org/stage"


@pytest.mark.slow
def test_the_first_reply_is_timed_apart_from_those_that_follow(
    real_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[str] = set()
    clock_s = 0.0
    monkeypatch.setattr("smoke.api_client.time", SimpleNamespace(monotonic=lambda: clock_s))

    def slow_at_first(exchange: Exchange) -> None:
        nonlocal clock_s
        if exchange.method == "POST":
            clock_s += 0.25 if exchange.route in seen else 2
            seen.add(exchange.route)

    with proxy(real_url, slow_at_first) as url:
        latency = outcomes(url, capsys, "--repeat", "3")["latency_s"]
    assert latency["/similar"] == {"first": 2, "median": 0.25, "following": [0.25] * 3}


# What a broken server does, and what the checks that notice it are called and say.
Broken = tuple[str, Callable[[Exchange], None], str, str]


def on(route: str, change: Callable[[Exchange], None], method: str = "") -> Callable[[Exchange], None]:
    """The change for a route alone, and a method if one is named."""
    return lambda exchange: (
        change(exchange) if exchange.route == route and exchange.method in (method or exchange.method) else None
    )


def body(**fields: object) -> Callable[[Exchange], None]:
    """Sets fields of the body of good answers."""
    return lambda exchange: exchange.change_body(lambda found: found.update(fields) if exchange.status == 200 else None)


def with_matches(change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Callable[[Exchange], None]:
    """Replaces the incidents of an answer, and what it says of them elsewhere."""

    def replace(found: dict[str, Any]) -> None:
        if found.get("incidents"):
            found["incidents"] = change(found["incidents"])
            found["msg"] = str([(entry["similarity"], entry["incident_id"]) for entry in found["incidents"]])
            found["best_url"] = found["incidents"][0]["url"]

    return lambda exchange: exchange.change_body(replace)


reversed_matches = with_matches(lambda matches: matches[::-1])


def other_incident(exchange: Exchange) -> None:
    exchange.content = re.sub(rb"\b(1|4|7|10|23)(?=[\])}\",])", b"99", exchange.content)


def message(text: str) -> Callable[[Exchange], None]:
    return lambda exchange: exchange.change_body(
        lambda found: found.update(msg=text) if exchange.status == 400 else None
    )


def status(code: int, was: int = 200) -> Callable[[Exchange], None]:
    def change(exchange: Exchange) -> None:
        if exchange.status == was and exchange.method != "OPTIONS":
            exchange.status = code

    return change


def http_200_for_errors(exchange: Exchange) -> None:
    if exchange.status == 400 and exchange.method != "OPTIONS":
        exchange.status = 200


def headers(**changed: str | None) -> Callable[[Exchange], None]:
    """Sets headers, and takes those off that are None."""

    def change(exchange: Exchange) -> None:
        for name, value in changed.items():
            exchange.headers.pop(name.replace("_", "-"), None)
            if value is not None:
                exchange.headers[name.replace("_", "-")] = value

    return change


def any_origin(exchange: Exchange) -> None:
    if exchange.method == "OPTIONS" and "access-control-allow-origin" not in exchange.headers:
        exchange.headers["access-control-allow-origin"] = OTHER_ORIGIN


def without_warnings(exchange: Exchange) -> None:
    exchange.change_body(lambda found: found.update(warnings=[]))


def without(name: str) -> Callable[[Exchange], None]:
    """Takes a field of the body away."""
    return lambda exchange: exchange.change_body(lambda found: found.pop(name, None))


def sure(verdict: str | None, confidence: float) -> Callable[[Exchange], None]:
    """Sets how sure all incidents are."""

    def change(found: dict[str, Any]) -> None:
        if "match" in found:
            incidents = [{**each, "confidence": confidence} for each in found["incidents"]]
            found.update(match=verdict, incidents=incidents)

    return lambda exchange: exchange.change_body(change)


def content(replacement: bytes) -> Callable[[Exchange], None]:
    def change(exchange: Exchange) -> None:
        if exchange.method != "OPTIONS":
            exchange.content = replacement

    return change


def hash_of(text: str) -> Callable[[Exchange], None]:
    def change(exchange: Exchange) -> None:
        if exchange.status == 200:
            exchange.change_body(lambda found: found["embedding"].update(from_text_hash=text))

    return change


def other_vector(exchange: Exchange) -> None:
    """A vector like the real one, but for its sign."""
    if exchange.status == 200:
        exchange.change_body(lambda found: found["embedding"].update(vector=[-n for n in found["embedding"]["vector"]]))


def another_vector(found: dict[str, Any]) -> None:
    """A vector like the real one, but for its sign, beside matches."""
    if "embedding" in found:
        found["embedding"]["vector"] = [-number for number in found["embedding"]["vector"]]


def without_quotes_taken_off(exchange: Exchange) -> None:
    if "text=%22" in exchange.parameters:
        with_matches(lambda found: [{**match, "similarity": match["similarity"] / 10} for match in found])(exchange)


def found_404(exchange: Exchange) -> None:
    """Any route is there."""
    if exchange.status == 404 and exchange.content.startswith(b'{"message"'):
        exchange.status = 200


def about(words: str, change: Callable[[Exchange], None]) -> Callable[[Exchange], None]:
    """The change for requests with these words alone."""
    return lambda exchange: change(exchange) if words in exchange.parameters else None


def each_incident_twice(exchange: Exchange) -> None:
    if "num=1" in exchange.parameters:
        with_matches(lambda found: [match for match in found for _ in range(2)])(exchange)


def state(**fields: object) -> Callable[[Exchange], None]:
    """Sets fields of the state in good answers."""

    def change(exchange: Exchange) -> None:
        if exchange.status == 200:
            exchange.change_body(lambda found: found["state"].update(fields) if "state" in found else None)

    return change


def page(old: str, new: str) -> Callable[[Exchange], None]:
    """Changes the first place in a page that holds `old`."""

    def change(exchange: Exchange) -> None:
        if exchange.method == "GET":
            assert old.encode() in exchange.content
            exchange.content = exchange.content.replace(old.encode(), new.encode(), 1)

    return change


def if_compressed(change: Callable[[Exchange], None]) -> Callable[[Exchange], None]:
    return lambda exchange: change(exchange) if "content-encoding" in exchange.headers else None


GET_SIMILAR, POST_SIMILAR = "GET /similar finds incidents", "POST /similar finds incidents"
PREFLIGHT, READ = f"pages of {ORIGIN} may call /similar", f"pages of {ORIGIN} may read /similar"
EMBEDDING, REFUSES = "POST /text-to-embed gives a vector", "/similar refuses a missing text"
HEALTH = "GET /health names the state that ranks"
NO_STATE = 'the body has no "state" with incidents'
NUM, METRIC, BAD = "num is obeyed, or answered with a warning", "metric is obeyed, or refused", "errors name bad values"

NO_WORDS = "/embed-to-db-similar refuses a metric that needs words"
LIKE, EXCLUDE = "incident_id is obeyed, or refused", "exclude is obeyed, or refused"
BESIDE, WHY = "embedding gives the vector of /text-to-embed", "explain gives words and a sentence of the text"
DOCUMENT = "GET /openapi describes all routes"
PAGE = "GET /explore is a page with the state's map"

BROKEN: list[Broken] = [
    ("another status", on("/similar", status(502)), POST_SIMILAR, "POST /similar: status 502 instead of 200"),
    ("another status in the envelope", lambda e: e.change_envelope(lambda v: v.update(statusCode=201)), POST_SIMILAR,
     '"statusCode" of the envelope is 201 in a reply of status 200'),
    ("no envelope", content(b'{"warnings": []}'), POST_SIMILAR, "isn't an envelope"),
    ("a string as the body", lambda e: e.change_envelope(lambda v: v.update(body=json.dumps(v["body"]))), POST_SIMILAR,
     'isn\'t an envelope with an object as its "body"'),
    ("a page", content(b"<html>\n<title>Hi</title>"), POST_SIMILAR, 'isn\'t JSON: "<html> <title>Hi</title>"'),
    ("NaN", content(b'{"statusCode": 200, "body": {"warnings": [NaN]}}'), POST_SIMILAR, "isn't JSON"),
    ("another content type", headers(content_type="text/html"), POST_SIMILAR, 'content type is "text/html"'),
    ("no list of warnings", body(warnings=None), POST_SIMILAR, 'no list "warnings"'),
    ("a warning without a reason", body(warnings=["Hm"]), POST_SIMILAR, "the warnings are ['Hm'] instead of []"),
    ("msg that is no string", body(msg=[[0.5, 1]]), POST_SIMILAR, 'the site can\'t parse "msg"'),
    ("msg with NaN", on("/similar", body(msg="[(nan, 1)]")), POST_SIMILAR, 'the site can\'t parse "msg"'),
    ("no msg for a GET", on("/similar", body(msg="None"), "GET"), GET_SIMILAR, 'the site can\'t parse "msg"'),
    ("worst first", on("/similar", reversed_matches), POST_SIMILAR, "most similar incident first"),
    ("no cosine", on("/similar", body(msg="[(7.5, 1)]")), POST_SIMILAR, "isn't a cosine"),
    ("another best_url", body(best_url="https://example.org"), POST_SIMILAR, '"best_url" is https://example.org'),
    ("no incidents", body(incidents=[]), POST_SIMILAR, '"incidents" and "msg" differ'),
    ("another word for a match", body(match="maybe"), POST_SIMILAR, '"match" is maybe instead of likely'),
    ("no match", without("match"), POST_SIMILAR, '"match" is missing instead of likely'),
    ("a match without confidence", body(match="likely"), POST_SIMILAR,
     'the match is likely, but not each incident has a "confidence" that is a number from 0 to 1'),
    ("a confidence above 1", sure("likely", 1.5), POST_SIMILAR, "the match is likely, but not each incident has a"),
    ("a confidence without a match", sure(None, 0.5), POST_SIMILAR,
     'the match is None, but not each incident has a "confidence" that is null'),
    ("no match without a warning", sure("none", 0.01), POST_SIMILAR, "the match is none, but the warnings are []"),
    ("a warning beside a match",
     body(warnings=["No incident in the database is close enough: this text probably belongs to none of them."]),
     POST_SIMILAR, "the match is None, but the warnings are ['No incident"),
    ("no state", on("/similar", body(state=None)), POST_SIMILAR, NO_STATE),
    ("a state without incidents", on("/similar", state(incidents=0)), POST_SIMILAR, '"state" has 0 incidents'),
    ("a state without a version", on("/similar", state(version=None)), POST_SIMILAR, NO_STATE),
    ("another form of version", on("/similar", state(version="v1")), POST_SIMILAR, 'and the version "v1"'),
    ("no health", on("/health", status(503)), HEALTH, "GET /health: status 503 instead of 200"),
    ("another state in health", on("/health", state(version="0" * 16)), HEALTH,
     "GET /health: names the state 0000000000000000, but POST /similar ranks with "),
    ("another number of incidents", state(incidents=7), HEALTH, "names 7 incidents, but POST /similar ranks 5"),
    ("no engine in health", on("/health", body(engine=None)), HEALTH, 'GET /health: the body has no string "engine"'),
    ("health for POST", lambda e: setattr(e, "status", 200 if e.route == "/health" else e.status),
     "other routes and methods are refused", "POST /health: status 200 instead of 404"),
    ("routes that disagree", on("/text-to-db-similar", other_incident),
     "POST /text-to-db-similar finds incidents", "finds incident 99 first"),
    ("quotes that count", on("/similar", without_quotes_taken_off, "GET"), GET_SIMILAR, "GET /similar: finds"),
    ("no embedding", on("/text-to-embed", body(embedding=None)), EMBEDDING, 'no "embedding" with a list "vector"'),
    ("no number in a vector", on("/text-to-embed", body(embedding={"vector": ["a"]})), EMBEDDING, "of finite numbers"),
    ("another hash", on("/text-to-embed", hash_of("0" * 40)), EMBEDDING, "isn't the SHA-1 of the prepared text"),
    ("another vector", on("/text-to-embed", other_vector), "POST /embed-to-db-similar finds what the text finds",
     "POST /embed-to-db-similar: finds"),
    ("another vector, by GET", on("/text-to-embed", other_vector), "GET /embed-to-db-similar finds what the text finds",
     "GET /embed-to-db-similar: finds"),
    ("no word about num", without_warnings, NUM, "the warnings are [] instead of ['Zero results requested"),
    ("num that does not count", on("/similar", each_incident_twice), NUM, "2 incidents instead of 1 for {'num': '1'}"),
    ("any metric", about("manhatt", status(200, was=400)), METRIC, "status 200 instead of 400"),
    ("hybrid for a vector", on("/embed-to-db-similar", status(200, was=400)), NO_WORDS, "status 200 instead of 400"),
    ("another word about the state's metrics", about("hybrid", message("Oh!")), METRIC,
     '"msg" is "Oh!" instead of Error! "metric" can'),
    ("another word about the metric", about("manhatt", message("Error! No.")), METRIC,
     '"msg" is "Error! No." instead of Error! "metric" must'),
    ("200 for errors", http_200_for_errors, REFUSES, "status 200 instead of 400"),
    ("another word about a missing text", on("/similar", message("Oh!")), REFUSES, '"msg" is "Oh!" instead of'),
    ("another word about bad values", on("/embed-to-db-similar", message("Oh!")), BAD, '"msg" is "Oh!" instead of'),
    ("a preflight that is refused", on("/similar", lambda e: setattr(e, "status", 403), "OPTIONS"), PREFLIGHT,
     f"status 403: if {ORIGIN} isn't one of the API's ALLOWED_ORIGINS, give one of those"),
    ("a preflight without an origin", on("/similar", headers(access_control_allow_origin=None), "OPTIONS"), PREFLIGHT,
     "access-control-allow-origin is None"),
    ("a preflight without credentials", on("/similar", headers(access_control_allow_credentials=None), "OPTIONS"),
     PREFLIGHT, "access-control-allow-credentials is None instead of true"),
    ("a preflight without POST", on("/similar", headers(access_control_allow_methods="GET"), "OPTIONS"), PREFLIGHT,
     'allows the methods "GET", but not POST'),
    ("a preflight without content-type", on("/similar", headers(access_control_allow_headers="accept"), "OPTIONS"),
     PREFLIGHT, 'allows the headers "accept", but not content-type'),
    ("any site", on("/similar", any_origin), PREFLIGHT, "allows other sites to call"),
    ("replies that pages can't read", on("/similar", headers(access_control_allow_origin=None)), READ,
     f"access-control-allow-origin is None: if {ORIGIN} isn't one of the API's ALLOWED_ORIGINS, give one of those"),
    ("replies without credentials", on("/similar", headers(access_control_allow_credentials=None)), READ,
     "access-control-allow-credentials is None instead of true"),
    ("any route", found_404, "other routes and methods are refused", "GET /no-such-route: status 200 instead of 404"),
    ("another date", with_matches(lambda found: [{**each, "date": "26 May"} for each in found]), POST_SIMILAR,
     '"incidents" and "msg" differ'),
    ("no date", with_matches(lambda found: [{k: v for k, v in each.items() if k != "date"} for each in found]),
     POST_SIMILAR, '"incidents" and "msg" differ'),
    ("a page that is none", with_matches(lambda found: [{**each, "url": "javascript:1"} for each in found]),
     POST_SIMILAR, '"incidents" and "msg" differ'),
    ("no code", lambda e: e.change_body(lambda found: found.pop("code", None)) if e.status == 400 else None, REFUSES,
     '"code" is null instead of "text_missing"'),
    ("the incident itself", about("incident_id", lambda e: with_matches(lambda found: found[:1] + found)(e)), LIKE,
     "finds 5 incidents instead of the 4 beside incident"),
    ("a match without a text", about("incident_id", sure("likely", 0.9)), LIKE, 'has a "match", but there is no text'),
    ("400 for an unknown incident", on("/similar", status(400, was=404)), LIKE, "status 400 instead of 404"),
    ("an incident and a text", about("incident_id", status(200, was=400)), LIKE, "status 200 instead of 400"),
    ("exclude without effect", about("exclude=", with_matches(lambda found: found[:1] + found)), EXCLUDE,
     "GET /similar: finds 4 incidents instead of the 3 that aren't excluded"),
    ("exclude that changes others", about('"exclude": [', with_matches(
        lambda found: [{**each, "similarity": each["similarity"] / 2} for each in found])), EXCLUDE,
     "finds other similarities than without exclude"),
    ("any exclude", about('["all"]', status(200, was=400)), EXCLUDE, "status 200 instead of 400"),
    ("no embedding beside matches", on("/similar", without("embedding")), BESIDE,
     'no "embedding" with a list "vector"'),
    ("another embedding beside matches", on("/similar", lambda e: e.change_body(another_vector)), BESIDE,
     "gives another vector than /text-to-embed"),
    ("no reasons", with_matches(lambda found: [{k: v for k, v in e.items() if k != "why"} for e in found]), WHY,
     'not each incident has a "why"'),
    ("another document", on("/openapi", content(b'{"swagger": "2.0"}')), DOCUMENT, "and no OpenAPI document"),
    ("a document of another version", on("/openapi", content(b'{"openapi": "3.0.3", "paths": {}}')), DOCUMENT,
     "of OpenAPI 3.0.3 instead of 3.1"),
    ("a document without routes", on("/openapi", content(b'{"openapi": "3.1.0", "paths": {"/similar": {}}}')), DOCUMENT,
     "the document lacks /embed-to-db-similar, /explore, /health, /openapi, /text-to-db-similar, /text-to-embed"),
    ("a document in an error", on("/openapi", status(500)), DOCUMENT, "GET /openapi: status 500 instead of 200"),
    ("a document of another type", on("/openapi", headers(content_type="text/plain")), DOCUMENT,
     'the content type is "text/plain"'),
    ("a page in an error", on("/explore", status(503)), PAGE, "GET /explore: status 503 instead of 200"),
    ("a page of another type", on("/explore", headers(content_type="text/plain")), PAGE, 'type is "text/plain"'),
    ("a page without a policy", on("/explore", headers(content_security_policy=None)), PAGE, "isn't that of its"),
    ("a page that runs any script", on("/explore", headers(content_security_policy="script-src 'unsafe-inline';")),
     PAGE, "isn't that of its script"),
    ("a page with another script", on("/explore", page("<script>", "<script>evil();")), PAGE,
     "isn't that of its script"),
    ("a page with one more script", on("/explore", page("</body>", "<script>evil();</script></body>")), PAGE,
     "isn't that of its script"),
    ("a page without data", on("/explore", page('id="data"', 'id="other"')), PAGE, "has no data with a state"),
    ("a page whose data aren't JSON", on("/explore", page('id="data">', 'id="data">,')), PAGE, "has no data with a"),
    ("a page that says an error", on("/explore", page('"error":null', '"error":"No."')), PAGE, "has no data with a"),
    ("a page of another state", on("/explore", page('"version":"', '"version":"0')), PAGE, "but GET /explore shows an"),
    ("a page of other incidents", on("/explore", page('"total":5', '"total":6')), PAGE,
     "names 5 incidents, but GET /explore has 6"),
    ("a page that differs when compressed", on("/explore", if_compressed(page('"version":"', '"version":"0'))), PAGE,
     "but GET /explore shows an"),
    ("a page that is compressed in secret", on("/explore", lambda e: setattr(e, "content", gzip.compress(e.content))),
     PAGE, "can't be decompressed, or isn't text"),
    ("no reply", on("/similar", lambda e: setattr(e, "close", True), "POST"), POST_SIMILAR, "POST /similar: "),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("change", "check", "problem"), [found[1:] for found in BROKEN], ids=[f[0] for f in BROKEN])
def test_a_broken_server_fails_the_check_of_what_it_breaks(
    change: Callable[[Exchange], None],
    check: str,
    problem: str,
    real_url: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("smoke.checks.SWITCH_S", 0.0)
    with proxy(real_url, change) as url:
        found = failed(url, capsys)
    assert problem in found[check]
    assert "\n" not in found[check]


def test_every_check_can_fail() -> None:
    """Each kind of check notices one at least of the broken servers above."""
    checked = {check for _, _, check, _ in BROKEN}
    assert {GET_SIMILAR, POST_SIMILAR, PREFLIGHT, READ, EMBEDDING, REFUSES, NUM, METRIC, BAD} <= checked
    assert {HEALTH, NO_WORDS, LIKE, EXCLUDE, BESIDE, WHY, DOCUMENT, PAGE} <= checked
    assert {"GET /embed-to-db-similar finds what the text finds", "other routes and methods are refused"} <= checked


def test_a_state_that_changes_between_two_requests_is_asked_for_again(
    real_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smoke.checks.SWITCH_S", 0.0)
    asked: list[str] = []

    def older_at_first(exchange: Exchange) -> None:
        if exchange.route == "/health" and exchange.method == "GET":
            asked.append(exchange.route)
            if len(asked) == 1:
                state(version="0" * 16)(exchange)

    with proxy(real_url, older_at_first) as url:
        assert failed(url, capsys) == {}
    # Twice beside /similar, once beside the page, and once for the precision.
    assert len(asked) == 4


@pytest.mark.slow
def test_a_failure_is_a_line_on_stdout_and_exit_code_1(real_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with proxy(real_url, found_404) as url:
        assert smoke_test.main([url, "--repeat", "1"]) == 1
    captured = capsys.readouterr()
    (line,) = (line for line in captured.out.splitlines() if line.startswith("FAIL"))
    assert line == "FAIL  other routes and methods are refused: GET /no-such-route: status 200 instead of 404"
    assert captured.out.splitlines()[-1] == "34 checks passed, 1 failed."
    assert captured.err == ""


def test_another_origin_can_be_asked_for(real_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = failed(real_url, capsys, "--origin", "https://site.example")
    assert set(found) == {f"pages of https://site.example may {verb} {r}" for r in ROUTES for verb in ("call", "read")}


def test_a_production_api_passes_with_the_origin_that_it_allows(
    aviation_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = outcomes(aviation_url, capsys, "--origin", AIID_SITE)
    assert found["failed"] == []
    assert f"pages of {AIID_SITE} may call /similar" in found["passed"]
    assert set(failed(aviation_url, capsys)) == {
        f"pages of {ORIGIN} may {v} {r}" for r in ROUTES for v in ("call", "read")
    }


def expectations(texts: dict[int, str]) -> list[str]:
    return [argument for id_, text in texts.items() for argument in ("--expect", f"{text}={id_}")]


def test_expected_incidents_are_found_first(real_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = outcomes(real_url, capsys, *expectations(TINY_TEXTS))
    assert found["failed"] == []
    assert len(found["passed"]) == 35 + len(TINY_TEXTS)
    assert f'"{TINY_TEXTS[4]}" finds incident 4 first' in found["passed"]


def test_the_wrong_state_is_known_by_what_it_does_not_find(
    aviation_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--origin", AIID_SITE, *expectations({1: TINY_TEXTS[1], 9: "Two planes fell"})]
    found = outcomes(aviation_url, capsys, *arguments)
    assert {each["check"]: each["problem"] for each in found["failed"]} == {
        f'"{TINY_TEXTS[1]}" finds incident 1 first': "POST /similar: incident 1 isn't among the 2 of the state",
        '"Two planes fell" finds incident 9 first': (
            "POST /similar: finds incident 3 first; incident 9 comes at rank 2 of 2"
        ),
    }
    assert found["incidents"] == 2


def test_a_text_may_be_longer_than_the_model_takes(real_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = TINY_TEXTS[23] + " with a=b" * 200
    answer = requests.post(f"{real_url}/similar", json={"text": text}, timeout=PATIENCE_S).json()["body"]
    assert answer["warnings"] != []
    found = outcomes(real_url, capsys, "--expect", f"{text}={answer['incidents'][0]['incident_id']}")
    assert found["failed"] == []


@pytest.mark.slow
def test_incidents_that_are_as_similar_may_come_in_any_order(real_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As two Lambdas on different CPUs may find them."""

    def tie(exchange: Exchange) -> None:
        def change(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
            first, *rest = found
            for second in rest[:1]:
                second["similarity"] = first["similarity"] - 2e-5
                if exchange.method == "GET":
                    first["similarity"] -= 4e-5
                    return [second, first, *rest[1:]]
            return found

        if "exclude" not in exchange.parameters:
            with_matches(change)(exchange)

    with proxy(real_url, tie) as url:
        assert failed(url, capsys) == {}


@pytest.mark.slow
def test_where_the_incidents_can_not_be_counted_none_are_said_to_be_served(
    real_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with proxy(real_url, on("/similar", status(502))) as url:
        found = outcomes(url, capsys)
        assert (found["incidents"], found["version"]) == (None, similarity.__version__)
        smoke_test.main([url, "--repeat", "1"])
    assert "are served" not in capsys.readouterr().out


@pytest.mark.slow
def test_an_api_that_does_not_tell_its_precision_is_closed_without_it(
    real_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with proxy(real_url, on("/health", status(502))) as url:
        assert outcomes(url, capsys)["precision"] is None
        smoke_test.main([url, "--repeat", "1"])
    assert "5 incidents are served.\n" in capsys.readouterr().out


def one_line_of_stderr(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("smoke_test: ")
    return line


def test_a_url_at_which_nothing_listens_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert smoke_test.main([url]) == 1
    line = one_line_of_stderr(capsys)
    assert f"nothing answers at {url}" in line
    assert "Connection refused" in line


def test_a_host_that_does_not_exist_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert smoke_test.main(["https://no-such-host.invalid"]) == 1
    assert "nothing answers at https://no-such-host.invalid" in one_line_of_stderr(capsys)


@pytest.mark.slow
def test_a_server_that_never_answers_is_given_up(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert smoke_test.main([f"http://127.0.0.1:{silent.getsockname()[1]}", "--timeout", "1"]) == 1
    assert "no complete reply within 1 s" in one_line_of_stderr(capsys)


def drip(server: socket.socket, cut_off: threading.Event) -> None:
    """Answers one request with a byte every tenth of a second, until the other side gives up."""
    connection, _ = server.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        try:
            for _ in range(1000):
                connection.sendall(b" ")
                time.sleep(0.1)
        except OSError:
            cut_off.set()


@pytest.mark.slow
def test_a_server_that_never_ends_its_answer_is_given_up(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        cut_off = threading.Event()
        thread = threading.Thread(target=drip, args=(server, cut_off), daemon=True)
        thread.start()
        assert smoke_test.main([f"http://127.0.0.1:{server.getsockname()[1]}", "--timeout", "1"]) == 1
        thread.join()
    assert cut_off.is_set()
    assert "no complete reply within 1 s" in one_line_of_stderr(capsys)


def test_what_speaks_no_http_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def greet(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=greet, args=(server,), daemon=True)
        thread.start()
        assert smoke_test.main([f"http://127.0.0.1:{server.getsockname()[1]}", "--timeout", "5"]) == 1
        thread.join()
    assert "BadStatusLine: SSH-2.0-OpenSSH_9.2" in one_line_of_stderr(capsys)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["example.org"],
        ["ftp://example.org"],
        ["https://"],
        ["https://example.org:port"],
        ["https://example.org/a b"],
        ["https://example.org/?stage=1"],
        ["https://example.org", "--timeout", "0"],
        ["https://example.org", "--repeat", "many"],
        ["https://example.org", "--origin", "*"],
        ["https://example.org", "--origin", "incidentdatabase.ai"],
        ["https://example.org", "--origin", "https://incidentdatabase.ai/"],
        ["https://example.org", "--origin", "https://ïncidentdatabase.ai"],
        ["https://example.org", "--expect", "A robot"],
        ["https://example.org", "--expect", " =1"],
        ["https://example.org", "--expect", "A robot=first"],
        ["https://example.org", "--expect", "A robot=-1"],
    ],
)
def test_a_command_line_that_is_none_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        smoke_test.main(arguments)
    assert caught.value.code == 2
    assert "usage: " in capsys.readouterr().err


@pytest.mark.slow
def test_it_runs_as_a_program_without_the_packages_of_the_project(real_url: str) -> None:
    # A system Python, or one without site packages, has the standard library only.
    command: Command = [sys.executable, "-S", ROOT / "scripts" / "smoke_test.py", real_url, "--repeat", "1"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.endswith("35 checks passed, 0 failed.\n")
