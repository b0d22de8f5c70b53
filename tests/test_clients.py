"""The programs in docs that call the API, exactly as they are printed: their answers, tries and pauses."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from failing import failing_first
from pages import CLIENTS, SINGLE_CALL
from processes import PATIENCE_S, Command, node
from serving import Server, serving
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.incidents.state import IncidentState

PROGRAMS: dict[str, Command] = {
    "bash": ["bash", "-euo", "pipefail", "-c"],
    "python": [sys.executable, "-c"],
    "javascript": [node(), "--input-type=module", "--eval"],
}
TEXT = "A chatbot insulted its users"
EVERY_LANGUAGE = pytest.mark.parametrize("language", PROGRAMS)
# A timer may end so much earlier than asked for.
EARLY_S = 0.05


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path, tiny_state_path: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with serving(folder, "--model", tiny_model_dir, "--state", tiny_state_path) as running:
        yield running


@pytest.fixture
def found(tiny_encoder: TorchEncoder, tiny_state: IncidentState) -> list[int]:
    """The incidents by their cosines to the programs' text, the largest first."""
    vector = tiny_encoder.encode(TEXT).vector
    cosines = tiny_state.means @ vector / np.linalg.norm(tiny_state.means, axis=1)
    ids: list[int] = tiny_state.incident_ids[np.argsort(-cosines)].tolist()
    return ids


def run(language: str, url: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAMS[language], code or CLIENTS[language].code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "URL": url},
        timeout=PATIENCE_S,
    )


def require_answer(language: str, done: subprocess.CompletedProcess[str], found: list[int]) -> None:
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)["body"]["best_url"] if language == "bash" else done.stdout.strip()
    assert printed == f"https://incidentdatabase.ai/cite/{found[0]}"


def test_there_is_a_short_program_in_each_language() -> None:
    assert set(CLIENTS) == set(PROGRAMS)
    assert max(len([line for line in block.code.splitlines() if line]) for block in CLIENTS.values()) <= 12


@pytest.mark.slow
@EVERY_LANGUAGE
def test_it_prints_the_answer(language: str, server: Server, found: list[int]) -> None:
    require_answer(language, run(language, server.url), found)


@pytest.mark.slow
def test_the_single_call_prints_the_answer(server: Server, found: list[int], tiny_encoder: TorchEncoder) -> None:
    done = run("javascript", server.url, SINGLE_CALL.code)
    assert done.returncode == 0, done.stderr
    digest = hashlib.sha1(TEXT.encode()).hexdigest()
    assert done.stdout == f"{tiny_encoder.dimension} {digest} [ {found[0]}, {found[1]}, {found[2]} ]\n"


@pytest.mark.slow
@EVERY_LANGUAGE
@pytest.mark.parametrize(
    ("statuses", "retry_after", "pauses_s"),
    [
        ([429, 503], None, [1, 2]),
        ([502], "3", [3]),
        ([504], "Wed, 21 Oct 2037 07:28:00 GMT", [1]),
    ],
    ids=["growing pauses", "seconds that the server asks for", "a date is no number of seconds"],
)
def test_it_tries_again_after_a_pause(
    language: str, statuses: list[int], retry_after: str | None, pauses_s: list[int], server: Server, found: list[int]
) -> None:
    with failing_first(server.url, statuses, retry_after) as failing:
        require_answer(language, run(language, failing.url), found)
    assert len(failing.times) == len(statuses) + 1
    for pause_s, passed_s in zip(pauses_s, np.diff(failing.times), strict=True):
        assert passed_s > pause_s - EARLY_S


@pytest.mark.slow
@EVERY_LANGUAGE
def test_it_gives_up_after_five_tries(language: str, server: Server) -> None:
    with failing_first(server.url, [503] * 6, "0") as failing:
        assert run(language, failing.url).returncode == 1
    assert len(failing.times) == 5


@pytest.mark.slow
@EVERY_LANGUAGE
@pytest.mark.parametrize("status", [400, 404, 500])
def test_it_does_not_try_again_after_another_error(language: str, status: int, server: Server) -> None:
    with failing_first(server.url, [status]) as failing:
        assert run(language, failing.url).returncode == 1
    assert len(failing.times) == 1


@pytest.mark.slow
@EVERY_LANGUAGE
def test_it_does_not_wait_for_ever(language: str) -> None:
    """With a limit of one second instead of its own: the server takes a connection and never answers."""
    code, limits = re.subn(r"(--max-time |timeout=|timeout\()35", r"\g<1>1", CLIENTS[language].code)
    assert limits == 1
    with socket.create_server(("127.0.0.1", 0)) as silent:
        done = run(language, f"http://127.0.0.1:{silent.getsockname()[1]}", code)
    assert done.returncode != 0
    assert "time" in done.stderr
