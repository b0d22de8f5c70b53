"""The programs of the AI Incident Database, as Node runs them, against the local server; and the single call beside.

The vectors are compared with those of transformers, the ranking with cosines that numpy computes, and what the server
makes of a cut URL with what Node makes of it.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from unidecode import unidecode

import text_to_embed
from failing import failing_first
from processes import PATIENCE_S, node
from reference import load_longformer, reference_of_text
from serving import Server, serving
from similarity.incidents.state import IncidentState
from tiny import Deployed

PROGRAM = Path(__file__).with_name("aiid_callers.mjs")
TEXT = "A robot — in a wärehouse — hurt “workers”"
ROBOT = "\N{ROBOT FACE}"
ROBOT_CHARACTERS = len("%F0%9F%A4%96")
# As UTF-16 has it.
HALF_ROBOT = chr(0xD83E)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path, tiny_state_path: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with serving(folder, "--model", tiny_model_dir, "--state", tiny_state_path) as running:
        yield running


def run(way: str, url: str, text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [node(), PROGRAM, way, url, text], capture_output=True, encoding="utf-8", check=False, timeout=PATIENCE_S
    )


def found_by(way: str, url: str, text: str) -> Any:
    done = run(way, url, text)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def require_vector_of(text: str, vector: list[float], model_dir: Path) -> None:
    """That of transformers for the text as it is prepared."""
    expected = reference_of_text(load_longformer(model_dir, pooler=True), model_dir, unidecode(text))
    torch.testing.assert_close(torch.tensor(vector), expected, atol=1e-4, rtol=1e-4)


def require_answer_to(text: str, found: Any, model_dir: Path, state: IncidentState) -> None:
    """What the site keeps: vector, hash, and the first three pairs of similarity and incident."""
    require_vector_of(text, found["vector"], model_dir)
    assert found["from_text_hash"] == hashlib.sha1(unidecode(text).encode()).hexdigest()
    means, vector = state.means.astype(np.float64), np.array(found["vector"])
    cosines = means @ vector / np.linalg.norm(means, axis=1) / np.linalg.norm(vector)
    first = np.argsort(-cosines)[:3]
    assert [incident_id for _, incident_id in found["similar"]] == state.incident_ids[first].tolist()
    assert [similarity for similarity, _ in found["similar"]] == pytest.approx(cosines[first], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["two", "one"])
def test_the_site_gets_vector_hash_and_incidents(
    way: str, server: Server, tiny_model_dir: Path, tiny_state: IncidentState
) -> None:
    require_answer_to(TEXT, found_by(way, server.url, TEXT), tiny_model_dir, tiny_state)


@pytest.mark.slow
def test_the_single_call_says_what_the_two_calls_say(server: Server) -> None:
    two, one = (found_by(way, server.url, TEXT) for way in ("two", "one"))
    assert one["from_text_hash"] == two["from_text_hash"]
    assert one["vector"] == pytest.approx(two["vector"], abs=1e-5)
    assert [incident_id for _, incident_id in one["similar"]] == [incident_id for _, incident_id in two["similar"]]
    assert [each for each, _ in one["similar"]] == pytest.approx([each for each, _ in two["similar"]], abs=1e-5)


@pytest.mark.slow
def test_the_sixth_try_of_the_site_is_answered(server: Server, tiny_model_dir: Path, tiny_state: IncidentState) -> None:
    with failing_first(server.url, [503, 500, 502, 429, 504]) as failing:
        found = found_by("two", failing.url, TEXT)
    require_answer_to(TEXT, found, tiny_model_dir, tiny_state)
    assert len(failing.times) == 7  # six for the vector, one for the incidents


@pytest.mark.slow
def test_the_site_gives_up_after_six_tries(server: Server) -> None:
    with failing_first(server.url, [503] * 7) as failing:
        done = run("two", failing.url, TEXT)
    assert done.returncode == 1
    assert "503 after 6 tries" in done.stderr
    assert len(failing.times) == 6


@pytest.fixture(scope="module")
def cut_news(server: Server) -> list[Any]:
    """What the job gets where the cut falls on each character of an escaped robot in turn.

    Robots aren't transliterated, so a text is short, and what is left of the last robot counts.
    """
    return [
        found_by("news", server.url, "x" * shift + " hurt workers " + ROBOT * 200) for shift in range(ROBOT_CHARACTERS)
    ]


@pytest.mark.slow
def test_the_news_job_gets_a_vector_wherever_its_url_is_cut(cut_news: list[Any], tiny_model_dir: Path) -> None:
    for found in cut_news:
        assert (found["status"], len(found["url"])) == (200, 2048)
        assert found["from_text_hash"] == hashlib.sha1(unidecode(found["read"]).encode()).hexdigest()
        require_vector_of(found["read"], found["vector"], tiny_model_dir)


@pytest.mark.slow
def test_the_cuts_of_the_news_job_are_inside_escapes_and_characters(cut_news: list[Any]) -> None:
    # A whole robot; an escape without one or both of its digits; a robot without one to three of its bytes; and both.
    ends = {found["read"].rpartition(ROBOT)[2] for found in cut_news}
    assert ends == {"", "%", "%F", "\ufffd", "\ufffd%", "\ufffd%9", "\ufffd%A"}


@pytest.mark.parametrize("end", ["%", "%F", "\ufffd", "\ufffd%9", HALF_ROBOT])
def test_a_lambda_answers_whatever_a_gateway_makes_of_the_cut(end: str, deployed: Deployed) -> None:
    query = {"text": f"A robot hurt workers{end}"}
    event = {"requestContext": {"http": {"method": "GET"}}, "queryStringParameters": query}
    envelope = json.loads(text_to_embed.handler(event, None)["body"])
    assert (envelope["statusCode"], envelope["body"]["warnings"]) == (200, [])
    # Half a character is dropped.
    prepared = unidecode(query["text"].removesuffix(HALF_ROBOT))
    assert envelope["body"]["embedding"]["from_text_hash"] == hashlib.sha1(prepared.encode()).hexdigest()
