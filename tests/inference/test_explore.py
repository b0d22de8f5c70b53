"""GET /explore behind the local API Gateway: the page, its compression, its errors, and its routes."""

from __future__ import annotations

import dataclasses
import gzip
import importlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from lambdas import Image, days_ago, start_again, with_titles
from local.gateway import gateway
from similarity.api.routes import find_handlers
from similarity.errors import StateError
from similarity.incidents.state import IncidentState
from tiny import ROOT, Deployed, fitted_state

STATE_GONE = "The service can't load its incidents at the moment."
POINTS = np.linspace(-1, 1, 10, dtype=np.float32).reshape(5, 2)


@pytest.fixture
def client(deployed: Deployed) -> TestClient:
    return TestClient(gateway(find_handlers(ROOT / "inference"), []))


def data_in(html: str) -> dict[str, Any]:
    [written] = re.findall('<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    data: dict[str, Any] = json.loads(written)
    return data


@pytest.mark.parametrize("path", ["/explore", "/"])
def test_the_page_shows_the_state_that_is_served(
    path: str, client: TestClient, deployed: Deployed, tiny_state: IncidentState
) -> None:
    dataclasses.replace(tiny_state, points=POINTS).save(deployed.state_path)
    reply = client.get(path)
    assert (reply.status_code, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert reply.headers["cache-control"] == "public, max-age=300"
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    data = data_in(reply.text)
    assert data["map"]["titles"] == list(tiny_state.titles)
    assert data["map"]["x"] == [-1000, -556, -111, 333, 778]
    # What /health says of the state is in the page too.
    assert data["state"] == client.get("/health").json()["body"]["state"]


def test_the_page_arrives_compressed_where_that_is_wanted(client: TestClient) -> None:
    plain = client.get("/explore", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    with client.stream("GET", "/explore", headers={"Accept-Encoding": "gzip, deflate, br"}) as reply:
        packed = b"".join(reply.iter_raw())
    assert reply.headers["content-encoding"] == "gzip"
    assert "accept-encoding" in reply.headers["vary"].lower()
    assert gzip.decompress(packed) == plain.content
    assert len(packed) < 0.5 * len(plain.content)


def test_the_metrics_that_the_page_asks_by_are_answered(
    client: TestClient, deployed: Deployed, tiny_state: IncidentState
) -> None:
    for state in (tiny_state, fitted_state(tiny_state, 2.0)):
        state.save(deployed.state_path)
        metrics = data_in(client.get("/explore").text)["metrics"]
        text = {"text": "a robot in a warehouse", "num": 10, "metric": metrics["text"], "explain": True}
        incident = {"incident_id": 4, "num": 10, "metric": metrics["incident"]}
        for body in (text, incident):
            reply = client.post("/similar", json=body)
            assert reply.status_code == 200
            assert reply.json()["body"]["incidents"]


def test_a_page_without_a_state_says_so_in_a_page(client: TestClient, deployed: Deployed) -> None:
    deployed.state_path.write_bytes(b"broken")
    reply = client.get("/explore")
    assert (reply.status_code, reply.headers["content-type"]) == (503, "text/html; charset=utf-8")
    assert reply.headers["cache-control"] == "no-store"
    assert data_in(reply.text) == {"error": STATE_GONE}


def test_an_error_that_nobody_thought_of_is_a_page_too(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("explore.service", lambda: None)
    reply = client.get("/explore")
    assert (reply.status_code, reply.headers["content-type"]) == (500, "text/html; charset=utf-8")
    assert data_in(reply.text) == {"error": "Error! Something went wrong on our side; the cause is in our log."}


def test_the_page_takes_get_alone(client: TestClient) -> None:
    for method, path in (("POST", "/explore"), ("HEAD", "/explore"), ("GET", "/explore/"), ("POST", "/")):
        assert client.request(method, path).status_code == 404


def test_a_deployment_is_told_if_there_is_nothing_to_show(deployed: Deployed) -> None:
    handler = importlib.import_module("explore").handler
    assert handler({}, None)["statusCode"] == 200
    assert handler({"warm": True}, None)["body"] == {"warnings": [], "warm": True}
    start_again()
    deployed.state_path.write_bytes(b"broken")
    for event in ({}, {"warm": True}):
        with pytest.raises(StateError):
            handler(event, None)


def test_a_newer_state_on_the_shelf_is_shown(image: Image, tiny_state: IncidentState) -> None:
    image.shelve(with_titles(tiny_state, "image", days_ago(2)))
    image.put(with_titles(tiny_state, "newer", days_ago(1)))
    start_again()
    event = {"requestContext": {"http": {"method": "GET"}}, "rawPath": "/explore"}
    answer = importlib.import_module("explore").handler(event, None)
    assert set(data_in(answer["body"])["map"]["titles"]) == {"newer"}


def test_the_page_loads_no_model(client: TestClient, loaded_from: list[Path]) -> None:
    assert client.get("/explore").status_code == 200
    assert loaded_from == []
