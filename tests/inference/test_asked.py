"""The parameters of a single call end to end: like an incident, without some, with reasons, with the text's vector."""

from __future__ import annotations

import dataclasses
import importlib
import json
from ast import literal_eval
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args
from urllib.parse import parse_qsl, urlencode

import msgspec
import numpy as np
import pytest

from similarity.encoder.model_folder import GRAPH_FILENAMES
from similarity.errors import Code
from similarity.incidents.metrics import METRICS, VECTOR_METRICS
from similarity.incidents.state import IncidentState
from similarity.incidents.why import explain
from similarity.service import service
from tiny import TINY_TEXTS, Deployed, fitted_state

BY_TEXT = ("similar", "text_to_db_similar")
ROUTES = (*BY_TEXT, "embed_to_db_similar")
TEXT = "A robot hurt WORKERS. “A court is like a mărket”: so said U.S. traders. The chatbot was quiet."

# 5 became 4, and isn't in the state; 23 became 10, and is. 60 became one that isn't.
DUPLICATES = [(5, 4), (23, 10), (60, 1000)]
DATES = ["2026-11-26", "", "2015-01-02", "", "1999-12-31"]
URLS = ["", "https://example.org/other?a=b", "", "", ""]


@pytest.fixture
def state(tiny_state: IncidentState) -> IncidentState:
    return dataclasses.replace(
        fitted_state(tiny_state, 0.0),
        duplicates=np.array(DUPLICATES),
        dates=DATES,
        collection="Records of Things",
        record_url="https://example.org/{id}/page",
        urls=URLS,
    )


@pytest.fixture
def served(deployed: Deployed, state: IncidentState) -> Deployed:
    state.save(deployed.state_path)
    return deployed


# Ways of calling.


def get(parameters: dict[str, Any]) -> dict[str, Any]:
    """As API Gateway sends the query string that a browser makes."""
    given = {name: ",".join(map(str, v)) if isinstance(v, list) else v for name, v in parameters.items()}
    query = dict(parse_qsl(urlencode(given), keep_blank_values=True))
    return {"version": "2.0", "requestContext": {"http": {"method": "GET"}}, "queryStringParameters": query}


def post(parameters: dict[str, Any]) -> dict[str, Any]:
    body = json.dumps(parameters)
    return {"version": "2.0", "requestContext": {"http": {"method": "POST"}}, "body": body, "isBase64Encoded": False}


def direct(parameters: dict[str, Any]) -> dict[str, Any]:
    return parameters


CALLS = [get, post, direct]
Call = Callable[[dict[str, Any]], dict[str, Any]]


def ask(module: str, call: Call = direct, **parameters: Any) -> tuple[int, dict[str, Any]]:
    """Status and body."""
    answer = importlib.import_module(module).handler(call(parameters), None)
    envelope = json.loads(answer["body"]) if isinstance(answer["body"], str) else answer
    assert answer["statusCode"] == envelope["statusCode"]
    return envelope["statusCode"], envelope["body"]


def answered(module: str, call: Call = direct, **parameters: Any) -> dict[str, Any]:
    status, body = ask(module, call, **parameters)
    assert status == 200, body
    return body


def query_of(module: str, state: IncidentState) -> dict[str, Any]:
    return {"embed": str(state.means[0].tolist())} if module == "embed_to_db_similar" else {"text": TEXT}


def ids(body: dict[str, Any]) -> list[int]:
    found = [each["incident_id"] for each in body["incidents"]]
    assert [number for _, number in literal_eval(body["msg"])] == found
    return found


# Like an incident.


def like(state: IncidentState, incident_id: int, metric: str, out: set[int]) -> list[tuple[int, float]]:
    """The incidents that aren't `out`, best first, with their similarities in double precision."""
    means = state.means.astype(np.float64)
    if metric != "cosine":
        means = means - means.mean(axis=0)
    if metric == "whitened":
        assert state.fit.whitening is not None
        means = means @ state.fit.whitening
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    cosines = means @ means[state.incident_ids.tolist().index(incident_id)]
    pairs = zip(state.incident_ids.tolist(), cosines.tolist(), strict=True)
    return sorted((pair for pair in pairs if pair[0] not in out), key=lambda pair: -pair[1])


MERGED = "Incident {} was merged into incident {}, which is answered instead."
LIKE = [(1, 1, {1}), (4, 4, {4}), (7, 7, {7}), (10, 10, {10, 23}), (5, 4, {4}), (23, 10, {10, 23})]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("metric", VECTOR_METRICS)
@pytest.mark.parametrize(("asked", "answer", "out"), LIKE)
def test_an_incident_ranks_the_others(
    asked: int, answer: int, out: set[int], metric: str, call: Call, served: Deployed, state: IncidentState
) -> None:
    expected = like(state, answer, metric, out)
    for num in (-1, 2):
        for incident_id in (asked, str(asked)):
            body = answered("similar", call, incident_id=incident_id, metric=metric, num=num)
            wanted = expected if num < 0 else expected[:num]
            assert ids(body) == [number for number, _ in wanted]
            assert [each["similarity"] for each in body["incidents"]] == pytest.approx(
                [similarity for _, similarity in wanted], abs=1e-5
            )
            assert body["warnings"] == ([MERGED.format(asked, answer)] if asked != answer else [])
            assert body["match"] is None
            assert {each["confidence"] for each in body["incidents"]} == {None}
            assert body["best_url"] == body["incidents"][0]["url"]
            assert set(body) == {"warnings", "msg", "match", "best_url", "incidents", "state"}
    assert answered("text_to_db_similar", call, incident_id=asked, metric=metric, num=2) == body


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("incident_id", [2, 9, 24, 60, 1000, 10**30, "9" * 50])
def test_an_unknown_incident_is_not_found(incident_id: int, call: Call, served: Deployed) -> None:
    for module in BY_TEXT:
        status, body = ask(module, call, incident_id=incident_id, explain=True)
        assert status == 404
        assert body["code"] == "incident_unknown"
        named = min(int(incident_id), 2**63)
        assert body["msg"] == f'Error! No incident in the database has the "incident_id" {named}.'
        assert body["warnings"] == []
        assert set(body) == {"warnings", "msg", "code"}


def test_an_incident_stands_for_itself_if_what_it_became_is_missing(served: Deployed, state: IncidentState) -> None:
    dataclasses.replace(state, duplicates=np.array([(7, 1000)])).save(served.state_path)
    body = answered("similar", incident_id=7, num=-1)
    assert ids(body) == [number for number, _ in like(state, 7, "cosine", {7})]
    assert body["warnings"] == []


def test_an_id_of_19_digits_is_that_incident(deployed: Deployed, state: IncidentState) -> None:
    large = [1, 179500000000000000, 1795000000000000001, 1795000000000000002, 2**63 - 1]
    numbered = dataclasses.replace(state, incident_ids=np.array(large), duplicates=np.empty((0, 2), dtype=np.int64))
    numbered.save(deployed.state_path)
    for call in CALLS:
        for incident_id in large:
            found = ids(answered("similar", call, incident_id=incident_id, num=-1, exclude="1795000000000000002"))
            assert sorted(found) == [each for each in large if each not in (incident_id, large[3])]


def test_the_words_of_an_incident_are_not_compared(served: Deployed) -> None:
    status, body = ask("similar", incident_id=4, metric="hybrid")
    assert (status, body["code"]) == (400, "metric_unavailable")
    assert body["msg"] == (
        'Error! "metric" can\'t be "hybrid" here, because an incident is compared by its vector alone. '
        'Use "cosine", "centered" or "whitened".'
    )


@pytest.mark.parametrize("call", CALLS)
def test_what_is_about_a_text_is_ignored_beside_an_incident(call: Call, served: Deployed) -> None:
    plain = answered("similar", call, incident_id=4)
    ignored = '"{}" is about a text, so it is ignored with "incident_id".'
    for names in (["explain"], ["embedding"], ["explain", "embedding"]):
        body = answered("similar", call, incident_id=4, **dict.fromkeys(names, "true"))
        assert body.pop("warnings") == list(map(ignored.format, names))
        assert body == {name: value for name, value in plain.items() if name != "warnings"}
    assert answered("similar", call, incident_id=4, explain="false", embedding="False", text="") == plain


def test_an_incident_needs_no_model(served: Deployed, loaded_from: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCODER_ENGINE", "onnx")
    service.cache_clear()
    before = answered("similar", incident_id=4, num=-1)
    assert loaded_from == []
    assert ids(answered("similar", text=TEXT))
    assert loaded_from
    (served.model_dir / GRAPH_FILENAMES["float32"]).write_bytes(b"broken")
    service.cache_clear()
    assert answered("similar", incident_id=4, num=-1) == before
    assert ask("similar", text=TEXT)[1]["code"] == "model_unavailable"
    for path in served.model_dir.iterdir():
        if path != served.state_path:
            path.unlink()
    service.cache_clear()
    assert answered("similar", incident_id=4, num=-1) == before
    assert ask("similar", text=TEXT)[1]["code"] == "model_unavailable"


def test_a_state_in_the_original_form_knows_what_is_like_an_incident(
    deployed: Deployed, tiny_state: IncidentState
) -> None:
    import torch

    vectors = [torch.from_numpy(mean[None].copy()) for mean in tiny_state.means]
    torch.save([*vectors[:3], None, *vectors[3:]], deployed.state_path)
    body = answered("similar", incident_id=2, num=-1)
    assert sorted(ids(body)) == [1, 3, 5, 6]
    assert {(each["title"], each["date"], each["confidence"]) for each in body["incidents"]} == {(None, None, None)}
    assert ask("similar", incident_id=4)[0] == 404


# Without some.

EXCLUDED: list[tuple[Any, set[int]]] = [
    ([1], {1}),
    ("1,4", {1, 4}),
    ("[1, 4]", {1, 4}),
    (["1", 4, 99], {1, 4}),
    ([5], {4}),
    ("10", {10, 23}),
    ([23], {10, 23}),
    ([2, 60, 10**30], set()),
    ("", set()),
    ([], set()),
    (list(range(1, 60)), {1, 4, 7, 10, 23}),
]


@pytest.mark.parametrize("module", ROUTES)
@pytest.mark.parametrize(("exclude", "out"), EXCLUDED, ids=range(len(EXCLUDED)))
def test_every_ranking_route_leaves_incidents_out(
    exclude: Any, out: set[int], module: str, served: Deployed, state: IncidentState
) -> None:
    for metric in METRICS if module in BY_TEXT else VECTOR_METRICS:
        given = {**query_of(module, state), "metric": metric}
        whole = answered(module, num=-1, **given)
        left = [each for each in whole["incidents"] if each["incident_id"] not in out]
        for call in CALLS:
            for num in (-1, 2):
                body = answered(module, call, num=num, exclude=exclude, **given)
                assert body["warnings"] == whole["warnings"]
                assert ids(body) == [each["incident_id"] for each in left][: num if num > 0 else None]
                found = {each["incident_id"]: each["similarity"] for each in body["incidents"]}
                assert found.items() <= {each["incident_id"]: each["similarity"] for each in left}.items()
                # The first has an even chance, as in `fitted_state`; without one there is nothing to be sure of.
                assert [each["confidence"] for each in body["incidents"]][:1] == ([0.5] if left else [])
                assert body["match"] == ("likely" if left else None)
                assert body["best_url"] == (left[0]["url"] if left else None)
                assert body["state"] == whole["state"], "the state still has them"


@pytest.mark.parametrize("call", CALLS)
def test_an_incident_may_leave_out_others(call: Call, served: Deployed, state: IncidentState) -> None:
    expected = [number for number, _ in like(state, 7, "cosine", {7, 10, 23, 4})]
    assert ids(answered("similar", call, incident_id=7, exclude="23,5", num=-1)) == expected == [1]
    body = answered("similar", call, incident_id=7, exclude="1,4,10", num=-1)
    assert (body["incidents"], body["msg"], body["best_url"]) == ([], "[]", None)


def test_the_match_is_that_of_what_is_left(deployed: Deployed, tiny_state: IncidentState) -> None:
    # Whichever is first has a confidence of 0.27.
    fitted_state(tiny_state, -1.0, none_below=0.3).save(deployed.state_path)
    for module in ROUTES:
        body = answered(module, **query_of(module, tiny_state), exclude=[1, 4, 7], num=0)
        assert body["match"] == "none"
        assert "No incident in the database is close enough" in body["warnings"][-1]
        body = answered(module, **query_of(module, tiny_state), exclude=[1, 4, 7, 10, 23], num=0)
        assert body["match"] is None
        assert not any("close enough" in warning for warning in body["warnings"])


# With reasons.


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("module", BY_TEXT)
def test_each_incident_says_why(module: str, metric: str, call: Call, served: Deployed, state: IncidentState) -> None:
    plain = answered(module, call, text=TEXT, metric=metric, num=-1)
    body = answered(module, call, text=TEXT, metric=metric, num=-1, explain="true")
    assert state.fit.words is not None
    # unidecode makes market of mărket.
    reasons = explain(state.fit.words, np.arange(5), TEXT, lambda text: text.replace("ă", "a"))
    by_id = dict(zip(state.incident_ids.tolist(), reasons, strict=True))
    for each in body["incidents"]:
        why = by_id[each["incident_id"]]
        assert each.pop("why") == {"words": list(why.words), "sentence": why.sentence}
    assert body == plain
    assert "mărket" in by_id[10].words
    assert by_id[10].sentence == "“A court is like a mărket”: so said U.S. traders."


def test_reasons_by_hand(served: Deployed) -> None:
    body = answered("similar", get, text=f'"{TEXT}"', num=-1, explain="TRUE", metric="hybrid")
    whys = {each["incident_id"]: each["why"] for each in body["incidents"]}
    assert whys[23] == {"words": ["robot", "hurt", "WORKERS"], "sentence": "A robot hurt WORKERS."}
    assert whys[4] == {"words": ["chatbot"], "sentence": "The chatbot was quiet."}
    assert whys[1] == {"words": [], "sentence": None}
    for text in ("zzz", "🤖 robot"):
        body = answered("similar", post, text=text, num=-1, explain=True)
        found = {each["why"]["sentence"] for each in body["incidents"]}
        assert found == ({None} if text == "zzz" else {None, text})


@pytest.mark.parametrize("call", [post, direct])
def test_any_reader_of_json_takes_a_quoted_text(call: Call, served: Deployed) -> None:
    for text in ("\ud800 robot", "robot \udfff\ud800", "ro\udfffbot"):
        answer = importlib.import_module("similar").handler(call({"text": text, "num": -1, "explain": True}), None)
        content = answer["body"] if call is post else json.dumps(answer)
        # Unlike json, it refuses lone surrogates.
        body = msgspec.json.decode(content.encode())["body"]
        assert {each["why"]["sentence"] for each in body["incidents"]} == {None, "robot"}


def test_reasons_are_given_only_if_they_are_asked_for(served: Deployed) -> None:
    for value in ("false", False):
        assert all("why" not in each for each in answered("similar", text=TEXT, explain=value)["incidents"])
    body = answered("similar", post, text=TEXT, explain="yes", embedding=1)
    assert body["warnings"] == [
        f'Provided value for "{name}" invalid, using default of false.' for name in ("explain", "embedding")
    ]
    assert "embedding" not in body
    assert all("why" not in each for each in body["incidents"])
    assert answered("similar", text=TEXT, explain=True, num=0)["incidents"] == []
    assert answered("similar", text=TEXT, explain=True, exclude=[1, 4, 7, 10])["incidents"] == []


def test_a_state_without_words_gives_no_reasons(deployed: Deployed) -> None:
    body = answered("similar", text=TEXT, explain=True)
    assert [each["why"] for each in body["incidents"]] == [None] * 3
    assert body["warnings"] == ["The state has no word index, so it can't explain its matches."]


def test_a_vector_has_no_reasons(served: Deployed, state: IncidentState) -> None:
    body = answered("embed_to_db_similar", **query_of("embed_to_db_similar", state), explain=True, embedding=True)
    assert body["warnings"] == [f'Unknown parameter "{name}" ignored.' for name in ("explain", "embedding")]


# With the vector.


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("text", [TEXT, "Résumé “车”", "robot " * 300, "robot " + "x" * 5000, "Робот"])
def test_the_vector_is_that_of_text_to_embed(text: str, call: Call, served: Deployed) -> None:
    two = answered("text_to_embed", call, text=text)
    plain = answered("similar", call, text=text, num=-1)
    one = answered("similar", call, text=text, num=-1, embedding="true")
    assert one.pop("embedding") == two["embedding"]
    assert one == plain
    assert two["warnings"] == [each for each in plain["warnings"] if each in two["warnings"]]
    # The second of the two calls finds the same.
    again = answered("embed_to_db_similar", post, embed=json.dumps(two["embedding"]["vector"]), num="-1")
    assert (again["msg"], again["incidents"], again["match"]) == (plain["msg"], plain["incidents"], plain["match"])


def test_all_that_can_be_asked_at_once(served: Deployed) -> None:
    asked = {"num": "2", "metric": "hybrid", "exclude": "4", "explain": "true", "embedding": "true"}
    bodies = [answered(module, call, text=TEXT, **asked) for module in BY_TEXT for call in CALLS]
    assert all(body == bodies[0] for body in bodies)
    assert set(bodies[0]) == {"warnings", "msg", "match", "best_url", "incidents", "embedding", "state"}
    assert [list(each) for each in bodies[0]["incidents"]] == [
        ["incident_id", "similarity", "confidence", "title", "date", "url", "why"]
    ] * 2


# Dates and pages.


@pytest.mark.parametrize("module", ROUTES)
def test_an_incident_has_its_date_and_its_page(module: str, served: Deployed, state: IncidentState) -> None:
    body = answered(module, **query_of(module, state), num=-1)
    for each in body["incidents"]:
        row = list(TINY_TEXTS).index(each["incident_id"])
        assert each["date"] == (DATES[row] or None)
        assert each["url"] == (URLS[row] or f"https://example.org/{each['incident_id']}/page")
    assert body["best_url"] == body["incidents"][0]["url"]
    bare = dataclasses.replace(state, dates=[], record_url="", urls=[])
    bare.save(served.state_path)
    service.cache_clear()
    body = answered(module, **query_of(module, state), num=-1)
    assert {(each["date"], each["url"]) for each in body["incidents"]} == {(None, None)}
    assert body["best_url"] is None


# Errors.

NO_VECTORS: list[Any] = ["", "x", [1], [0.0] * 32, ["a"] * 32, [float("nan")] * 32]
NO_IDS: list[Any] = [0, -1, "x", True, [4], {}]
NO_LISTS: list[Any] = ["x", [0], {}, True, 1.5, [[1]]]
ERRORS: dict[Code, list[tuple[int, str, dict[str, Any]]]] = {
    "text_missing": [
        (400, "similar", {}),
        (400, "text_to_db_similar", {"text": " ", "incident_id": ""}),
        (400, "text_to_embed", {"text": "🤖"}),
        (400, "similar", {"text": "🤖", "explain": True}),
    ],
    "text_invalid": [(400, "similar", {"text": 3}), (400, "text_to_embed", {"text": ["a"]})],
    "embed_missing": [(400, "embed_to_db_similar", {}), (400, "embed_to_db_similar", {"embed": None})],
    "embed_invalid": [(400, "embed_to_db_similar", {"embed": value}) for value in NO_VECTORS],
    "metric_unknown": [
        (400, "similar", {"text": "a", "metric": "x"}),
        (400, "similar", {"incident_id": 4, "metric": 1}),
    ],
    "metric_unavailable": [
        (400, "similar", {"incident_id": 4, "metric": "hybrid"}),
        (400, "similar", {"incident_id": 2, "metric": "hybrid"}),
        (400, "embed_to_db_similar", {"embed": [1.0] * 32, "metric": "hybrid"}),
    ],
    "incident_id_invalid": [(400, "similar", {"incident_id": value}) for value in NO_IDS],
    "incident_unknown": [(404, "similar", {"incident_id": value}) for value in (2, "60", 10**30)],
    "exclude_invalid": [
        *((400, "similar", {"text": "a", "exclude": value}) for value in NO_LISTS),
        (400, "similar", {"incident_id": 4, "exclude": "-1"}),
        (400, "embed_to_db_similar", {"embed": [1.0] * 32, "exclude": [None]}),
    ],
    "parameters_conflict": [
        (400, "similar", {"text": "a", "incident_id": 4}),
        (400, "similar", {"text": 1, "incident_id": "x"}),
    ],
}


@pytest.mark.parametrize("code", ERRORS)
def test_an_error_has_a_code(code: Code, served: Deployed) -> None:
    for status, module, parameters in ERRORS[code]:
        for call in (post, direct):
            found, body = ask(module, call, **parameters)
            assert (found, body["code"]) == (status, code), (parameters, body)
            assert set(body) == {"warnings", "msg", "code"}
            assert body["msg"].startswith("Error! ")


def test_a_request_that_cannot_be_read_has_a_code(served: Deployed) -> None:
    for body in ("[]", "{", '"text"', "\ud800"):
        for module in (*ROUTES, "text_to_embed"):
            answer = importlib.import_module(module).handler({**post({}), "body": body}, None)
            told = json.loads(answer["body"])["body"]
            assert (answer["statusCode"], told["code"]) == (400, "request_invalid")
    answer = importlib.import_module("similar").handler([], None)
    assert (answer["statusCode"], answer["body"]["code"]) == (400, "request_invalid")


def test_a_fault_of_ours_has_a_code(served: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("similarity.service.answer_to_incident", lambda *_: 1 / 0)
    status, body = ask("similar", post, incident_id=4)
    assert (status, body["code"]) == (500, "internal_error")


def test_what_cannot_be_loaded_has_a_code(served: Deployed) -> None:
    served.state_path.write_bytes(b"broken")
    for module, parameters in (
        ("similar", {"text": TEXT}),
        ("similar", {"incident_id": 4}),
        ("embed_to_db_similar", {"embed": [1.0] * 32}),
        ("health", {}),
    ):
        status, body = ask(module, get, **parameters)
        assert (status, body["code"]) == (503, "state_unavailable")
    (served.model_dir / "config.json").unlink()
    service.cache_clear()
    for module in ("text_to_embed", "health"):
        status, body = ask(module, get, **({"text": TEXT} if module == "text_to_embed" else {}))
        assert (status, body["code"]) == (503, "model_unavailable")


def test_these_tests_know_every_code() -> None:
    elsewhere: set[Code] = {"request_invalid", "internal_error", "state_unavailable", "model_unavailable"}
    assert {*ERRORS, *elsewhere} == set(get_args(Code))
