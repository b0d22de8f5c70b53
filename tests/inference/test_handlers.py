"""The handlers end to end, on a tiny model and state: events in, envelopes out, broken files in between."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import importlib
import json
import os
import pickle
import subprocess
import sys
from ast import literal_eval
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from unidecode import unidecode

from aiid_site import read_msg
from models.export import export
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.errors import StateError
from similarity.incidents.state import IncidentState
from similarity.service import service
from tiny import (
    ROOT,
    TINY_MAX_TOKENS,
    TINY_TEXTS,
    Deployed,
    RunsCode,
    edit_config,
    roberta_tokenizer,
    write_tiny_longformer,
)

EVENTS = Path(__file__).resolve().parent.parent / "events"
GET, POST = ({"requestContext": {"http": {"method": method}}} for method in ("GET", "POST"))
TEXT = "A robot in a warehouse hurt workers"
NO_TEXT = {"warnings": [], "msg": "Error! Valid input text not provided!", "code": "text_missing"}
HANDLERS = ("similar", "text_to_db_similar", "embed_to_db_similar", "text_to_embed", "health")


def invoke(module: str, event: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Status and body of the answer to an event of any kind."""
    answer = importlib.import_module(module).handler(event, None)
    envelope = json.loads(answer["body"]) if isinstance(answer["body"], str) else answer
    return envelope["statusCode"], envelope["body"]


def reference_ranking(vector: np.ndarray, state: IncidentState) -> list[tuple[float, int]]:
    means, vector = state.means.astype(np.float64), vector.astype(np.float64)
    cosines = means @ vector / np.linalg.norm(means, axis=1) / np.linalg.norm(vector)
    return sorted(zip(cosines.tolist(), state.incident_ids.tolist(), strict=True), reverse=True)


def state_in(deployed: Deployed) -> dict[str, Any]:
    """What answers say of the tiny state."""
    version = hashlib.sha256(deployed.state_path.read_bytes()).hexdigest()[:16]
    facts = {"incidents": 5, "reports": 5, "built_at": None, "source_date": None}
    return facts | {"model": "tiny", "version": version}


@pytest.mark.slow
@pytest.mark.parametrize("name", [path.stem for path in sorted(EVENTS.glob("similar_*.json"))])
@pytest.mark.parametrize("module", ["similar", "text_to_db_similar"])
def test_every_kind_of_event_gets_the_same_answer(
    name: str, module: str, deployed: Deployed, tiny_encoder: TorchEncoder, tiny_state: IncidentState
) -> None:
    status, body = invoke(module, json.loads((EVENTS / f"{name}.json").read_text()))
    if name == "similar_get_nothing_v2":
        assert (status, body) == (400, NO_TEXT)
        return
    expected = reference_ranking(tiny_encoder.encode(TINY_TEXTS[1]).vector, tiny_state)[:2]
    assert status == 200
    assert set(body) == {"warnings", "msg", "match", "best_url", "incidents", "state"}
    assert body["warnings"] == []
    assert body["match"] is None
    assert body["best_url"] == "https://incidentdatabase.ai/cite/1"
    pairs = literal_eval(body["msg"])
    assert [number for _, number in pairs] == [number for _, number in expected]
    assert [cosine for cosine, _ in pairs] == pytest.approx([cosine for cosine, _ in expected], abs=1e-6)
    assert body["incidents"] == [
        {
            "incident_id": number,
            "similarity": similarity,
            "confidence": None,
            "title": TINY_TEXTS[number],
            "date": None,
            "url": f"https://incidentdatabase.ai/cite/{number}",
        }
        for similarity, number in pairs
    ]


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["cosine", "centered"])
@pytest.mark.parametrize("num", [-1, 0, 1, 3, 99])
def test_msg_is_read_by_the_aiid_site_and_by_python(num: int, metric: str, deployed: Deployed) -> None:
    _, body = invoke("similar", {"text": "robots", "num": num, "metric": metric})
    pairs = read_msg(body["msg"])
    assert [tuple(pair) for pair in pairs] == literal_eval(body["msg"])
    assert [pair[1] for pair in pairs] == [incident["incident_id"] for incident in body["incidents"]]
    assert len(pairs) == {-1: 5, 0: 0, 1: 1, 3: 3, 99: 5}[num]


def test_num_0_has_no_best(deployed: Deployed) -> None:
    status, body = invoke("similar", {"text": TEXT, "num": 0})
    assert status == 200
    assert body == {
        "warnings": ['Zero results requested with the "num" value of 0. Use value <0 for maximum possible.'],
        "msg": "[]",
        "match": None,
        "best_url": None,
        "incidents": [],
        "state": state_in(deployed),
    }


def test_a_state_without_titles_gives_none(deployed: Deployed, tiny_state: IncidentState) -> None:
    torch.save([torch.from_numpy(mean[None]) for mean in tiny_state.means], deployed.state_path)
    _, body = invoke("similar", {"text": "robots", "num": 1})
    assert body["incidents"][0]["title"] is None


def test_text_to_embed_and_back(deployed: Deployed, tiny_encoder: TorchEncoder) -> None:
    text = "Résumé robots “hire” without a human"
    status, body = invoke("text_to_embed", {"text": text})
    assert status == 200
    assert set(body) == {"warnings", "embedding"}
    assert body["embedding"]["from_text_hash"] == hashlib.sha1(unidecode(text).encode()).hexdigest()
    assert body["embedding"]["vector"] == pytest.approx(tiny_encoder.encode(text).vector.tolist(), abs=1e-5)
    similar = invoke("similar", {"text": text, "num": -1})
    for embed in (body["embedding"]["vector"], json.dumps(body["embedding"]["vector"])):
        assert invoke("embed_to_db_similar", {"embed": embed, "num": -1}) == similar


def test_a_model_may_read_other_scripts_and_want_a_prefix(deployed: Deployed, tiny_state: IncidentState) -> None:
    edit_config(deployed.model_dir, text_preparation="none", query_prefix="query: ", report_prefix="passage: ")
    export(deployed.model_dir)
    encoder = TorchEncoder.load(deployed.model_dir)
    new = dataclasses.replace(tiny_state, model_fingerprint=encoder.fingerprint, text_preparation="none")
    new.save(deployed.state_path)
    text = "Résumé 車 robots"
    expected = encoder.vectors([roberta_tokenizer().encode(f"query: {text}").ids])[0]
    status, body = invoke("text_to_embed", {"text": text})
    assert status == 200
    assert body["embedding"]["from_text_hash"] == hashlib.sha1(text.encode()).hexdigest()
    assert body["embedding"]["vector"] == pytest.approx(expected.tolist(), abs=1e-5)
    _, body = invoke("similar", {"text": text, "num": -1})
    assert [number for _, number in literal_eval(body["msg"])] == [
        number for _, number in reference_ranking(expected, tiny_state)
    ]
    assert invoke("similar", {"text": " "})[0] == 400


def test_embed_to_db_similar_needs_no_model(deployed: Deployed) -> None:
    for path in deployed.model_dir.iterdir():
        if path != deployed.state_path:
            path.unlink()
    assert invoke("embed_to_db_similar", {"embed": [1.0] * 32})[0] == 200
    assert invoke("similar", {"text": "robots"})[0] == 503


def not_loaded(what: str) -> tuple[int, dict[str, object]]:
    """The answer while there is no usable model or state."""
    name = {"state": "incident state"}.get(what, what)
    msg = f"Error! The {name} could not be loaded on our side; the cause is in our log."
    return 503, {"warnings": [], "msg": msg, "code": f"{what}_unavailable"}


def made_by_another_model(deployed: Deployed, tiny_state: IncidentState) -> None:
    dataclasses.replace(tiny_state, model_fingerprint="0" * 64).save(deployed.state_path)


def of_another_dimension(deployed: Deployed, tiny_state: IncidentState) -> None:
    dataclasses.replace(tiny_state, means=np.ones((len(tiny_state), 5), dtype=np.float32)).save(deployed.state_path)


def of_a_model_with_another_name(deployed: Deployed, tiny_state: IncidentState) -> None:
    dataclasses.replace(tiny_state, model="another/model", model_fingerprint="").save(deployed.state_path)


OTHER_STATES = [made_by_another_model, of_another_dimension, of_a_model_with_another_name]


@pytest.mark.parametrize("replace_state", OTHER_STATES)
def test_no_route_serves_a_state_of_another_model(
    replace_state: Callable[[Deployed, IncidentState], None],
    deployed: Deployed,
    tiny_state: IncidentState,
    loaded_from: list[Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    replace_state(deployed, tiny_state)
    refused = not_loaded("state")
    for embed in ([1.0] * 32, [1.0] * 5, "nonsense"):
        assert invoke("embed_to_db_similar", {"embed": embed}) == refused
    assert loaded_from == []
    assert "StateError: the state " in caplog.text
    with pytest.raises(StateError):
        importlib.import_module("embed_to_db_similar").handler({"warm": True}, None)
    assert invoke("similar", {"text": "robots"}) == refused
    assert invoke("text_to_db_similar", {"text": "robots"}) == refused
    tiny_state.save(deployed.state_path)
    assert invoke("embed_to_db_similar", {"embed": [1.0] * 32})[0] == 200


@pytest.mark.parametrize("replace_state", OTHER_STATES)
def test_a_good_state_serves_vectors_on_while_another_models_is_there(
    replace_state: Callable[[Deployed, IncidentState], None], deployed: Deployed, tiny_state: IncidentState
) -> None:
    event = {"embed": tiny_state.means[2].tolist(), "num": -1}
    before = invoke("embed_to_db_similar", event)
    assert before[0] == 200
    replace_state(deployed, tiny_state)
    assert invoke("embed_to_db_similar", event) == before


def test_a_model_that_comes_later_is_compared_with_the_state(deployed: Deployed) -> None:
    aside = deployed.model_dir.parent / "aside"
    aside.mkdir()
    write_tiny_longformer(aside, seed=1)
    for path in deployed.model_dir.iterdir():
        if path != deployed.state_path:
            path.unlink()
    assert invoke("embed_to_db_similar", {"embed": [1.0] * 32})[0] == 200
    service.cache_clear()
    for path in aside.iterdir():
        path.replace(deployed.model_dir / path.name)
    assert invoke("embed_to_db_similar", {"embed": [1.0] * 32})[0] == 503


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_vectors_are_not_compared_beside_half_a_model(name: str, deployed: Deployed) -> None:
    (deployed.model_dir / name).unlink()
    refused = not_loaded("model")
    assert invoke("embed_to_db_similar", {"embed": [1.0] * 32}) == refused


ASKED = {"num": 2, "metric": "centered", "exclude": [7]}
# Beside a text, an incident may only be missing.
OF_TEXT = {"incident_id": "", "explain": False, "embedding": True}
PARAMETERS: dict[str, dict[str, Any]] = {
    "similar": {"text": TEXT, **ASKED, **OF_TEXT},
    "text_to_db_similar": {"text": TEXT, **ASKED, **OF_TEXT},
    "embed_to_db_similar": {"embed": [1.0] * 32, **ASKED},
    "text_to_embed": {"text": "robots"},
    "health": {},
}


@pytest.mark.parametrize("module", HANDLERS)
def test_a_route_knows_its_own_parameters_and_no_others(module: str, deployed: Deployed) -> None:
    known = PARAMETERS[module]
    assert set(importlib.import_module(module).handler.parameters) == set(known)
    every = {"text": "a", "embed": [1.0], "num": 1, "metric": "cosine", "warm": True, "Num": 1}
    given = known | {name: value for name, value in every.items() if name not in known}
    expected = [f'Unknown parameter "{name}" ignored.' for name in given if name not in known]
    query = {name: value if isinstance(value, str) else json.dumps(value) for name, value in given.items()}
    for event in (given, {**POST, "body": json.dumps(given)}, {**GET, "queryStringParameters": query}):
        status, body = invoke(module, event)
        assert (status, body["warnings"]) == (200, expected)
        without = invoke(module, known)[1]
        assert body == without | {"warnings": expected}


def test_what_a_body_lacks_comes_from_the_query_string(deployed: Deployed) -> None:
    text = TINY_TEXTS[1]
    expected = invoke("similar", {"text": text, "num": 2, "metric": "centered"})
    for query, body in (
        ({"num": "2", "metric": "centered"}, {"text": text}),
        ({"text": text, "num": "5"}, {"num": 2, "metric": "centered"}),
        # Quotes around a text are taken off where it stands in the query string.
        ({"text": f'"{text}"', "metric": "centered"}, {"num": 2}),
        ({"text": "another", "num": "0", "metric": "none"}, {"text": text, "num": 2, "metric": "centered"}),
    ):
        event = {**POST, "queryStringParameters": query, "body": json.dumps(body)}
        assert invoke("similar", event) == expected
    quoted = {**POST, "queryStringParameters": {"num": "2"}, "body": json.dumps({"text": '"quoted"'})}
    assert invoke("similar", quoted) == invoke("similar", {"text": '"quoted"', "num": 2})


def test_null_in_a_body_counts_as_sent(deployed: Deployed) -> None:
    event = {**POST, "queryStringParameters": {"text": TEXT, "num": "1"}}
    status, body = invoke("similar", {**event, "body": '{"num": null}'})
    assert (status, len(body["incidents"])) == (200, 3)
    assert body["warnings"] == ['Provided value for "num" invalid, using default of 3.']
    status, body = invoke("similar", {**event, "body": '{"text": null}'})
    assert (status, body) == (400, NO_TEXT)


def test_an_embed_in_quotes_is_the_list(deployed: Deployed, tiny_state: IncidentState) -> None:
    embed = tiny_state.means[2].tolist()
    expected = invoke("embed_to_db_similar", {"embed": embed})
    assert expected[0] == 200
    event = {**GET, "queryStringParameters": {"embed": f'"{json.dumps(embed)}"'}}
    assert invoke("embed_to_db_similar", event) == expected


@pytest.mark.parametrize("metric", ["cosine", "centered"])
def test_an_embed_below_float32_is_ranked_by_its_direction(
    metric: str, deployed: Deployed, tiny_state: IncidentState
) -> None:
    long, short = tiny_state.means[2].astype(np.float64), tiny_state.means[2].astype(np.float64) * 1e-60
    if metric == "centered":  # beside the center it is nothing
        long = long * 1e-20
    expected = invoke("embed_to_db_similar", {"embed": long.tolist(), "num": -1, "metric": metric})[1]["incidents"]
    status, body = invoke("embed_to_db_similar", {"embed": short.tolist(), "num": -1, "metric": metric})
    assert status == 200
    assert [each["incident_id"] for each in body["incidents"]] == [each["incident_id"] for each in expected]
    assert [each["similarity"] for each in body["incidents"]] == pytest.approx(
        [each["similarity"] for each in expected], abs=1e-6
    )


@pytest.mark.parametrize("warm", [1, 1.0, "true", False])
def test_only_true_warms(warm: object, deployed: Deployed, loaded_from: list[Path]) -> None:
    message = {
        "warnings": ['Unknown parameter "warm" ignored.'],
        "msg": "Error! Valid input text not provided!",
        "code": "text_missing",
    }
    assert invoke("similar", {"warm": warm}) == (400, message)
    assert loaded_from == []


def test_a_text_that_is_cut_is_answered_with_a_warning(deployed: Deployed) -> None:
    text = "robots " * 200
    came = len(roberta_tokenizer().encode(text).ids)
    for module in ("similar", "text_to_embed"):
        status, body = invoke(module, {"text": text})
        assert status == 200
        assert body["warnings"] == [f'Provided value for "text" has {came} tokens, using the first {TINY_MAX_TOKENS}.']


def test_ten_megabytes_are_cut_and_answered(deployed: Deployed) -> None:
    status, body = invoke("similar", {"text": "rövers " * 1_500_000})
    assert status == 200
    assert body["warnings"][0].startswith('Provided value for "text" has more than ')


@pytest.mark.parametrize("text", ["\x00\x01\x1b[31m", "a\ud800b\udfff", "\u202e\ufeff\u0000robots", "]]>'\";--"])
def test_odd_characters_are_answered(text: str, deployed: Deployed) -> None:
    for module in ("similar", "text_to_embed"):
        status, body = invoke(module, {"requestContext": {}, "body": json.dumps({"text": text})})
        assert status == 200, body


@pytest.mark.parametrize("text", ["😀", "\ud800", "\u200b"])
def test_a_text_without_transliteration_is_no_text(text: str, deployed: Deployed) -> None:
    for module in ("similar", "text_to_embed"):
        assert invoke(module, {"text": text}) == (
            400,
            NO_TEXT,
        )


METRICS = '"cosine", "centered", "whitened" or "hybrid"'
BAD_REQUESTS: list[tuple[str, dict[str, Any], str, str]] = [
    ("similar", {}, "text_missing", "Valid input text not provided!"),
    ("similar", {"text": ["a"]}, "text_invalid", '"text" must be a string, not an array of 1.'),
    (
        "similar",
        {"text": "a", "metric": "x"},
        "metric_unknown",
        f'"metric" must be {METRICS}, not a string of 1 characters.',
    ),
    (
        "similar",
        {**POST, "body": "text=a"},
        "request_invalid",
        "The body must be a JSON object; the 6 characters received are not valid JSON: Expecting value "
        "(line 1, column 1).",
    ),
    (
        "similar",
        {**POST, "body": "%", "isBase64Encoded": True},
        "request_invalid",
        "The body must be valid base64, got 1 characters.",
    ),
    ("text_to_embed", {"text": " "}, "text_missing", "Valid input text not provided!"),
    ("embed_to_db_similar", {}, "embed_missing", '"embed" must be a JSON list of 32 numbers, got nothing.'),
    (
        "embed_to_db_similar",
        {"embed": [1.0]},
        "embed_invalid",
        '"embed" must be a JSON list of 32 numbers, got 1 entries.',
    ),
    (
        "embed_to_db_similar",
        {"embed": [1.0] * 31 + [float("nan")]},
        "embed_invalid",
        '"embed" must be a JSON list of 32 finite numbers; the number at index 31 is NaN, infinite or too large for '
        "float32.",
    ),
]


@pytest.mark.parametrize(("module", "event", "code", "message"), BAD_REQUESTS, ids=range(len(BAD_REQUESTS)))
def test_bad_requests(module: str, event: dict[str, Any], code: str, message: str, deployed: Deployed) -> None:
    assert invoke(module, event) == (400, {"warnings": [], "msg": f"Error! {message}", "code": code})


def other_model(deployed: Deployed, **options: Any) -> None:
    folder = deployed.model_dir.parent / "other"
    folder.mkdir()
    write_tiny_longformer(folder, **options)
    for path in folder.iterdir():
        path.replace(deployed.model_dir / path.name)


def cut(path: Path) -> None:
    """As a copy that was broken off: a file of its own, because the one before may still be mapped."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2])


BREAKS: dict[str, tuple[Callable[[Deployed], object], str]] = {
    "state is missing": (lambda d: d.state_path.unlink(), "state"),
    "state is cut": (lambda d: cut(d.state_path), "state"),
    "state runs code": (
        lambda d: d.state_path.write_bytes(pickle.dumps(RunsCode(d.model_dir / "ran"))),
        "state",
    ),
    "state has another dimension": (lambda d: torch.save([torch.ones(1, 5)], d.state_path), "state"),
    "model is another": (lambda d: other_model(d, seed=1), "state"),
    "model has another dimension": (lambda d: other_model(d, hidden_size=64), "state"),
    "weights are missing": (lambda d: (d.model_dir / "model.safetensors").unlink(), "model"),
    "weights are cut": (lambda d: cut(d.model_dir / "model.safetensors"), "model"),
    "config is missing": (lambda d: (d.model_dir / "config.json").unlink(), "model"),
    "tokenizer is cut": (lambda d: cut(d.model_dir / "tokenizer.json"), "model"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BREAKS)
def test_broken_files_are_our_error_until_good_ones_come(
    name: str, deployed: Deployed, caplog: pytest.LogCaptureFixture
) -> None:
    good = {path: path.read_bytes() for path in deployed.model_dir.iterdir()}
    break_it, what = BREAKS[name]
    break_it(deployed)
    for module, event in (("health", GET), ("similar", {"text": "robots"})):
        assert invoke(module, event) == not_loaded(what)
    assert caplog.records
    assert not (deployed.model_dir / "ran").exists()
    for path, content in good.items():
        new = path.with_suffix(".new")
        new.write_bytes(content)
        new.replace(path)
    assert invoke("health", {})[0] == 200
    assert invoke("similar", {"text": "robots"})[0] == 200


def test_a_good_state_serves_on_while_another_models_is_there(deployed: Deployed, tiny_state: IncidentState) -> None:
    before = invoke("similar", {"text": "robots"})
    torch.save([torch.ones(1, 5)], deployed.state_path)
    assert invoke("similar", {"text": "robots"}) == before
    tiny_state.save(deployed.state_path)
    assert invoke("similar", {"text": "robots"}) == before


@pytest.mark.slow
@pytest.mark.parametrize("module", HANDLERS)
def test_importing_a_handler_needs_no_weights_and_no_network(module: str, tmp_path: Path) -> None:
    program = f"""
import socket, sys
def refuse(*args, **kwargs): raise AssertionError("network")
socket.socket.connect = refuse
import {module}
assert callable({module}.handler)
assert not {{"transformers", "boto3", "botocore", "msgspec", "similarity.inbox"}} & set(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT / "inference",
        env={**os.environ, "MODEL_DIR": str(tmp_path / "nowhere"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_base64_body_of_a_handler(deployed: Deployed) -> None:
    body = base64.b64encode(b'{"embed": [' + b"1," * 31 + b"1]}").decode()
    event = {"requestContext": {"http": {"method": "POST"}}, "body": body, "isBase64Encoded": True}
    assert invoke("embed_to_db_similar", event)[0] == 200
