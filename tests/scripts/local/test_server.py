"""The local server as a user meets it: a process of its own, asked over HTTP.

Most tests share one server; those that end it or change its state start their own.
"""

from __future__ import annotations

import ast
import asyncio
import hashlib
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import requests
import torch

from aiid_site import read_msg
from local import server as local_server
from processes import PATIENCE_S, Command, wait_until
from reference import load_longformer, reference_of_text
from serving import SCRIPT, Server, environment, serving
from similarity.api.routes import HandlerFile
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.errors import ModelError
from similarity.incidents.fit import Fit
from similarity.incidents.points import no_points
from similarity.incidents.state import IncidentState
from tiny import ROOT, TINY_TEXTS, Deployed, state_of_texts, write_tiny_longformer

# Runs the server with the quick-start folder named first, and notes in the file named second what it has imported.
NOTING_IMPORTS = """
import atexit, sys
from pathlib import Path

folder, notes = map(Path, sys.argv[1:3])
atexit.register(lambda: notes.write_text("\\n".join(sys.modules)))
sys.path[0] = SCRIPTS
from local import server as local_server

local_server.QUICK_START_DIR = folder
sys.exit(local_server.main(sys.argv[3:]))
""".replace("SCRIPTS", repr(str(SCRIPT.parent.parent)))


def run_to_its_end(*arguments: str | Path, program: Command = (SCRIPT,)) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *program, *arguments], capture_output=True, text=True, env=environment(), timeout=PATIENCE_S
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path, tiny_state_path: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with serving(folder, "--model", tiny_model_dir, "--state", tiny_state_path) as running:
        yield running


def best(response: requests.Response) -> tuple[int, float]:
    """Incident and similarity of the first match, as the AIID site reads them, and as `incidents` has them."""
    assert response.status_code == 200, response.text
    envelope = response.json()
    assert envelope["statusCode"] == 200
    matches = read_msg(envelope["body"]["msg"])
    first = envelope["body"]["incidents"][0]
    assert matches[0] == [first["similarity"], first["incident_id"]]
    return first["incident_id"], first["similarity"]


@pytest.mark.parametrize("route", ["/similar", "/text-to-db-similar"])
@pytest.mark.parametrize("method", ["get", "post"])
def test_a_text_finds_the_incident_with_the_same_text(route: str, method: str, server: Server) -> None:
    ask = getattr(server, method)
    for incident_id, text in TINY_TEXTS.items():
        found, similarity = best(ask(route, text=text))
        assert found == incident_id
        assert similarity == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("method", ["get", "post"])
def test_the_embedding_is_that_of_transformers_and_finds_its_incident(
    method: str, server: Server, tiny_model_dir: Path
) -> None:
    ask = getattr(server, method)
    embedding = ask("/text-to-embed", text=TINY_TEXTS[7]).json()["body"]["embedding"]
    expected = reference_of_text(load_longformer(tiny_model_dir, pooler=True), tiny_model_dir, TINY_TEXTS[7])
    torch.testing.assert_close(torch.tensor(embedding["vector"]), expected, atol=1e-4, rtol=1e-4)
    assert embedding["from_text_hash"] == hashlib.sha1(TINY_TEXTS[7].encode()).hexdigest()
    vector: Any = embedding["vector"] if method == "post" else json.dumps(embedding["vector"])
    assert best(ask("/embed-to-db-similar", embed=vector))[0] == 7


def test_the_number_of_incidents_can_be_asked_for(server: Server) -> None:
    for num, expected in (("-1", 5), ("2", 2), ("100", 5)):
        answer = server.get("/similar", text="A car", num=num).json()["body"]
        pairs = ast.literal_eval(answer["msg"])
        assert len(pairs) == len(answer["incidents"]) == expected
        assert pairs == sorted(pairs, reverse=True)


def test_health_is_a_get_that_names_the_state_that_ranks(server: Server, tiny_state_path: Path) -> None:
    health = server.get("/health").json()["body"]
    assert health["state"]["version"] == hashlib.sha256(tiny_state_path.read_bytes()).hexdigest()[:16]
    assert server.get("/similar", text="A car", num="0").json()["body"]["state"] == health["state"]
    assert (health["engine"], health["precision"]) == ("onnx", "float32")
    assert server.post("/health").status_code == 404
    preflight = requests.options(
        server.url + "/health",
        headers={"Origin": "http://localhost:3000", "Access-Control-Request-Method": "GET"},
        timeout=PATIENCE_S,
    )
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-methods"] == "GET, POST"


def test_what_the_caller_did_wrong_is_a_400_with_the_envelope(server: Server) -> None:
    response = server.get("/similar")
    assert response.status_code == response.json()["statusCode"] == 400
    assert response.json()["body"]["msg"] == "Error! Valid input text not provided!"
    assert server.get("/nowhere", text="car").status_code == 404


def test_parallel_requests_get_their_own_answers(server: Server) -> None:
    wanted = [*TINY_TEXTS, *TINY_TEXTS][:8]
    with ThreadPoolExecutor(len(wanted)) as pool:
        found = list(pool.map(lambda incident_id: best(server.post("/similar", text=TINY_TEXTS[incident_id])), wanted))
    assert [incident_id for incident_id, _ in found] == wanted


@pytest.mark.slow
def test_the_page_is_at_two_addresses_and_named_at_the_start(server: Server) -> None:
    assert f"Serving on {server.url}/similar (Ctrl-C ends it)\nA page to look at: {server.url}/\n" in server.output
    pages = [server.get(path) for path in ("/", "/explore")]
    for page in pages:
        # requests asks for gzip and decompresses it.
        assert (page.status_code, page.headers["content-encoding"]) == (200, "gzip")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert page.text.startswith("<!DOCTYPE html>")
        assert server.get("/health").json()["body"]["state"]["version"] in page.text
    assert pages[0].text == pages[1].text
    plain = requests.get(f"{server.url}/", headers={"Accept-Encoding": "identity"}, timeout=PATIENCE_S)
    assert "content-encoding" not in plain.headers
    assert plain.text == pages[0].text


def test_without_a_page_none_is_named(tmp_path: Path) -> None:
    similar, page = HandlerFile(tmp_path / "similar.py"), HandlerFile(tmp_path / "map.py", page=True)
    first = "Serving on http://127.0.0.1:3001/similar (Ctrl-C ends it)"
    assert local_server.addresses("http://127.0.0.1:3001", [similar]) == first
    named = local_server.addresses("http://127.0.0.1:3001", [similar, page])
    assert named == f"{first}\nA page to look at: http://127.0.0.1:3001/"


def test_every_request_is_a_line_in_the_log(server: Server) -> None:
    server.get("/similar", text="car", marker="first")
    server.get("/similar", marker="second")
    requests.post(f"{server.url}/text-to-embed?marker=third", json={"text": "car"}, timeout=PATIENCE_S)
    wait_until(lambda: "marker=third" in server.output, "the last line")
    first, second, third = (line for line in server.output.splitlines() if "marker=" in line)
    assert re.search(r'"GET /similar\?text=car&marker=first HTTP/1.1" 200', first)
    assert re.search(r'"GET /similar\?marker=second HTTP/1.1" 400', second)
    assert re.search(r'"POST /text-to-embed\?marker=third HTTP/1.1" 200', third)


@pytest.mark.slow
def test_verbose_shows_what_a_lambda_logs_of_each_answer(
    server: Server, tmp_path: Path, tiny_model_dir: Path, tiny_state_path: Path
) -> None:
    arguments = ("--model", tiny_model_dir, "--state", tiny_state_path, "--verbose")
    with serving(tmp_path, *arguments) as verbose:
        verbose.post("/text-to-db-similar", text="car")
        verbose.get("/text-to-embed")
        wait_until(lambda: "status=400" in verbose.output, "the last line")
        first, second = re.findall("^INFO: answered (.*)$", verbose.output, flags=re.MULTILINE)
    number = r"\d+\.\d+"
    assert re.fullmatch(
        rf"route=/text-to-db-similar status=200 tokens=\d+ tokenising_ms={number} encoding_ms={number} "
        rf"ranking_ms={number} state=[0-9a-f]{{16}} cold_start=True version=\S+",
        first,
    )
    assert re.fullmatch(r"route=/text-to-embed status=400 error=RequestError cold_start=False version=\S+", second)
    server.get("/similar", text="car", number="fourth")
    wait_until(lambda: "number=fourth" in server.output, "the line of uvicorn")
    assert "answered" not in server.output


@pytest.mark.parametrize("method", ["get", "post"])
def test_a_text_that_is_not_ascii_is_compared_as_its_transliteration(method: str, server: Server) -> None:
    accented = "Á chatbot learned to insult péople"
    found, similarity = best(getattr(server, method)("/similar", text=accented))
    assert found == 4
    assert similarity == pytest.approx(1, abs=1e-5)
    assert server.post("/similar", text="一辆汽车撞了行人 🚗").status_code == 200


def test_a_text_of_10_mb_is_answered_with_a_warning(server: Server) -> None:
    response = server.post("/similar", text="A car without a driver hit a pedestrian. " * 250_000)
    assert len(response.request.body or b"") > 10_000_000
    assert response.status_code == 200
    assert len(response.json()["body"]["incidents"]) == 3
    assert len(response.json()["body"]["warnings"]) == 1


def test_pages_of_localhost_3000_may_call_by_default(server: Server) -> None:
    for origin, granted in (("http://localhost:3000", "http://localhost:3000"), ("https://site.example", None)):
        response = requests.options(
            f"{server.url}/similar",
            headers={"Origin": origin, "Access-Control-Request-Method": "POST"},
            timeout=PATIENCE_S,
        )
        assert response.headers.get("access-control-allow-origin") == granted


def test_a_port_in_use_is_one_line_and_exit_code_1(server: Server, tiny_model_dir: Path, tiny_state_path: Path) -> None:
    second = run_to_its_end("--port", str(server.port), "--model", tiny_model_dir, "--state", tiny_state_path)
    assert (second.returncode, second.stdout) == (1, "")
    (line,) = second.stderr.splitlines()
    assert str(server.port) in line
    assert best(server.get("/similar", text=TINY_TEXTS[1]))[0] == 1


@pytest.mark.slow
def test_ctrl_c_ends_it_in_seconds_with_exit_code_0(
    tmp_path: Path, tiny_model_dir: Path, tiny_state_path: Path
) -> None:
    # Browsers keep their connections open; that must not keep the server.
    arguments = ("--model", tiny_model_dir, "--state", tiny_state_path, "--allow-origin", "https://site.example")
    with serving(tmp_path, *arguments) as server, requests.Session() as browser:
        response = browser.get(
            f"{server.url}/similar?text=car", headers={"Origin": "https://site.example"}, timeout=PATIENCE_S
        )
        assert response.headers["access-control-allow-origin"] == "https://site.example"
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(PATIENCE_S) == 0
        assert "Traceback" not in server.output


@pytest.mark.slow
def test_ctrl_c_is_quiet_also_before_the_first_request(
    tmp_path: Path, tiny_model_dir: Path, tiny_state_path: Path
) -> None:
    with serving(tmp_path, "--model", tiny_model_dir, "--state", tiny_state_path) as server:
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(PATIENCE_S) == 0
        assert "Traceback" not in server.output


# Runs the server, and presses Ctrl-C at the moment when asyncio makes its loop.
STOPPED_BEFORE_ITS_START = """
import asyncio, os, signal, sys

make = asyncio.SelectorEventLoop.__init__

def press_ctrl_c_and_make(loop, *arguments):
    print("Ctrl-C", flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    make(loop, *arguments)

sys.path[0] = SCRIPTS
from local import server as local_server

asyncio.SelectorEventLoop.__init__ = press_ctrl_c_and_make
sys.exit(local_server.main(sys.argv[1:]))
""".replace("SCRIPTS", repr(str(SCRIPT.parent.parent)))


@pytest.mark.slow
def test_ctrl_c_is_quiet_also_between_the_line_that_names_the_url_and_the_start(
    tiny_model_dir: Path, tiny_state_path: Path
) -> None:
    arguments = ("--port", "0", "--model", tiny_model_dir, "--state", tiny_state_path)
    ended = run_to_its_end(*arguments, program=["-c", STOPPED_BEFORE_ITS_START])
    assert ended.stdout.startswith("Serving on")
    assert ended.stdout.endswith("Ctrl-C\n")
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.fixture(scope="module")
def quick_start(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Path:
    """The folder as a first start leaves it, but for the kind of model. Shared: don't write to it."""
    folder = tmp_path_factory.mktemp("quick-start")
    shutil.copytree(tiny_model_dir, folder / "model")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(local_server, "QUICK_START_DIR", folder)
        local_server.sample_state(folder / "model")
    return folder


def heavy(notes: Path) -> set[str]:
    """Those of the packages that take a second or more to import that were imported, and the room that needs one."""
    modules = notes.read_text().splitlines()
    imported = {name.partition(".")[0] for name in modules}
    assert "starlette" in imported
    inbox = {name for name in modules if name.startswith("similarity.inbox")}
    return {"torch", "onnx", "transformers", "boto3", "botocore"} & imported | inbox


def test_help_is_shown_without_what_makes_models_and_states(tmp_path: Path) -> None:
    notes = tmp_path / "imported.txt"
    shown = run_to_its_end("--help", program=["-c", NOTING_IMPORTS, tmp_path, notes])
    assert shown.returncode == 0, shown.stderr
    assert "--allow-origin" in shown.stdout
    assert heavy(notes) == set()
    assert "onnxruntime" not in notes.read_text().splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("own", [True, False])
def test_serving_does_without_what_makes_models_and_states(
    own: bool, tmp_path: Path, quick_start: Path, tiny_model_dir: Path, tiny_state_path: Path
) -> None:
    notes = tmp_path / "imported.txt"
    arguments: list[str | Path] = ["--model", tiny_model_dir, "--state", tiny_state_path] if own else []
    with serving(tmp_path, *arguments, program=["-c", NOTING_IMPORTS, quick_start, notes]) as server:
        vector = server.post("/text-to-embed", text="A car").json()["body"]["embedding"]["vector"]
        rankings = [server.post("/similar", text="A car"), server.post("/embed-to-db-similar", embed=vector)]
        for answer in (*rankings, server.get("/health")):
            assert answer.status_code == 200
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(PATIENCE_S) == 0
    assert heavy(notes) == set()


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--model", "--state"])
def test_a_path_that_is_not_there_is_a_usage_error(option: str, tmp_path: Path) -> None:
    ended = run_to_its_end("--port", "0", option, tmp_path / "nowhere")
    assert (ended.returncode, ended.stdout) == (2, "")
    last = ended.stderr.splitlines()[-1]
    assert str(tmp_path / "nowhere") in last
    assert ("scripts/fetch_model.py fetches one" in last) == (option == "--model")
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
def test_a_state_of_another_model_is_one_line_and_exit_code_1(tmp_path: Path, tiny_model_dir: Path) -> None:
    other = write_tiny_longformer(tmp_path / "other", seed=1)
    (other / "provenance.json").write_text('{"model": "other/model"}')
    state_of_texts(TorchEncoder.load(other), TINY_TEXTS).save(tmp_path / "s.pt")
    ended = run_to_its_end("--port", "0", "--model", tiny_model_dir, "--state", tmp_path / "s.pt")
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    assert "made with another model" in line
    assert "other/model" in line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "said"),
    [
        (None, "scripts/fetch_model.py fetches one"),
        ('{"model_type": "bert"}', "convert it with scripts/convert_encoder.py"),
    ],
)
def test_a_folder_that_is_no_longformer_is_one_line_that_names_what_helps(
    config: str | None, said: str, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    if config is not None:
        (folder / "config.json").write_text(config)
    ended = run_to_its_end("--port", "0", "--model", folder)
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    assert said in line


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"<html>404</html>", b""])
def test_a_file_that_is_no_state_is_one_line_and_exit_code_1(
    content: bytes, tmp_path: Path, tiny_model_dir: Path
) -> None:
    (tmp_path / "s.pt").write_bytes(content)
    ended = run_to_its_end("--port", "0", "--model", tiny_model_dir, "--state", tmp_path / "s.pt")
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    assert str(tmp_path / "s.pt") in line


@pytest.mark.slow
def test_a_store_of_vectors_that_can_not_be_used_is_one_line_and_exit_code_1(
    tmp_path: Path, tiny_model_dir: Path
) -> None:
    (tmp_path / "vectors.sqlite").write_bytes(b"my notes" * 1000)
    arguments = [str(tmp_path), str(tmp_path / "notes"), "--port", "0", "--model", str(tiny_model_dir)]
    ended = run_to_its_end(*arguments, program=("-c", NOTING_IMPORTS))
    assert (ended.returncode, ended.stdout) == (1, "")
    line = ended.stderr.splitlines()[-1]
    assert line.startswith(f"scripts/serve: the store of vectors {tmp_path / 'vectors.sqlite'} can't be used: ")
    assert "Traceback" not in ended.stderr


def renumbered(state: IncidentState, by: int) -> IncidentState:
    return replace(state, incident_ids=state.incident_ids + by)


def put(state: IncidentState, path: Path) -> None:
    """Moves the file of a state over another, as a deployment would."""
    state.save(path.with_name("next.pt"))
    path.with_name("next.pt").replace(path)


@pytest.mark.slow
def test_a_new_state_is_taken_up_while_requests_run_and_a_broken_one_is_not(
    tmp_path: Path, tiny_model_dir: Path, tiny_state: IncidentState
) -> None:
    path = tmp_path / "s.pt"
    tiny_state.save(path)
    done = Event()
    seen: list[list[int]] = [[], [], []]

    def ask_again_and_again(url: str, found: list[int]) -> None:
        with requests.Session() as session:
            while not done.is_set():
                response = session.post(f"{url}/similar", json={"text": TINY_TEXTS[7]}, timeout=PATIENCE_S)
                found.append(best(response)[0])

    def all_get(incident_id: int) -> bool:
        return all(found and found[-1] == incident_id for found in seen)

    with serving(tmp_path, "--model", tiny_model_dir, "--state", path) as server, ThreadPoolExecutor(3) as pool:
        clients = [pool.submit(ask_again_and_again, server.url, found) for found in seen]
        try:
            wait_until(lambda: all_get(7), "the first state")
            put(renumbered(tiny_state, 100), path)
            wait_until(lambda: all_get(107), "the new state")
            path.with_name("next.pt").write_bytes(path.read_bytes()[:100])
            path.with_name("next.pt").replace(path)
            wait_until(lambda: str(path) in server.stderr_path.read_text(), "a word about the broken state")
            answered = [len(found) for found in seen]
            wait_until(lambda: all(len(found) > n for found, n in zip(seen, answered, strict=True)), "more answers")
            put(renumbered(tiny_state, 200), path)
            wait_until(lambda: all_get(207), "the state after the broken one")
        finally:
            done.set()
            for client in clients:
                client.result(PATIENCE_S)  # raises what went wrong with one of its requests
    for found in seen:
        assert set(found) == {7, 107, 207}
        assert found == sorted(found)  # no client went back to a state that had been replaced


@pytest.mark.slow
def test_the_command_passes_its_arguments_on_from_any_folder(tmp_path: Path) -> None:
    # A copy with a venv whose pip installs nothing: what the command itself does is all real.
    project = tmp_path / "a project"
    for folder in ("scripts", "inference"):
        shutil.copytree(ROOT / folder, project / folder, ignore=shutil.ignore_patterns("model", "__pycache__"))
    shutil.copy(ROOT / "requirements.txt", project)
    python = project / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\n[ "$1 $2" = "-m pip" ] && exit 0\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)

    def start() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [project / "scripts" / "serve", "--port", "0", "--model", "no such folder"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment(),
            timeout=PATIENCE_S,
        )

    first, second = start(), start()
    assert first.returncode == second.returncode == 2
    assert "there is no no such folder" in second.stderr
    # The first run sets up the venv and says so; from then on there is nothing to do.
    assert "Setting up .venv" in first.stderr
    assert "Setting up .venv" not in second.stderr


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"ENCODER_PRECISION": "int8"}, "--precision int8"),
        ({"ENCODER_PRECISION": "int4"}, "ENCODER_PRECISION must be one of"),
        ({"ENCODER_PRECISION": "int8", "ENCODER_ENGINE": "torch"}, "for the engine torch must be one of"),
    ],
)
def test_an_engine_that_can_not_serve_is_named_at_the_start(
    variables: dict[str, str], reason: str, deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ModelError) as caught:
        local_server.prepare(deployed.model_dir, deployed.state_path)
    assert reason in caught.value.detail


def test_the_precision_that_serves_is_said_with_its_reason(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("similarity.encoder.loading.lack_of", lambda precision: None)
    local_server.prepare(deployed.model_dir, deployed.state_path)
    assert "precision" not in capsys.readouterr().err.lower()
    monkeypatch.setenv("ENCODER_PRECISION", "auto")
    local_server.prepare(deployed.model_dir, deployed.state_path)
    assert capsys.readouterr().err.splitlines()[-1] == (
        "ENCODER_PRECISION=auto: float32 serves, because int8 wasn't exported"
    )
    monkeypatch.setenv("ENCODER_ENGINE", "torch")
    monkeypatch.setenv("ENCODER_PRECISION", "bfloat16")
    local_server.prepare(deployed.model_dir, deployed.state_path)
    assert capsys.readouterr().err.splitlines()[-1] == "ENCODER_PRECISION=bfloat16: bfloat16 serves"


def test_a_quick_start_model_of_an_earlier_version_is_made_again(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_server, "QUICK_START_DIR", tmp_path)
    folder = Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))
    made: list[Path] = []
    monkeypatch.setattr("models.quick_start.make_quick_start_model", made.append)
    for made_by in (None, "convert_encoder.py, window 512, mean pooling, its window 512"):
        (folder / "provenance.json").write_text(json.dumps({"made_by": made_by}))
        local_server.quick_start_model()
    assert made == []
    (folder / "provenance.json").write_text(json.dumps({"made_by": "convert_encoder.py, window 512"}))
    local_server.quick_start_model()
    assert made == [folder]


def test_a_quick_start_model_that_was_stopped_in_its_last_step_is_used(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_server, "QUICK_START_DIR", tmp_path)
    shutil.copytree(tiny_model_dir, tmp_path / "model")
    # All files are in their places, and what is left to do is to remove this.
    (tmp_path / "model" / ".installing").mkdir()
    assert TorchEncoder.load(local_server.quick_start_model()).name == "tiny"


@pytest.mark.slow
def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def of_an_earlier_version(path: Path) -> None:
    replace(IncidentState.load(path), fit=Fit()).save(path)


def without_a_map(path: Path) -> None:
    replace(IncidentState.load(path), points=no_points()).save(path)


@pytest.mark.slow
@pytest.mark.parametrize("change", [cut, of_an_earlier_version, without_a_map])
def test_a_broken_or_old_state_of_the_sample_is_built_again(
    change: Callable[[Path], None], quick_start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(quick_start, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(local_server, "QUICK_START_DIR", tmp_path)
    [path] = tmp_path.glob("*.pt")
    built = IncidentState.load(path)
    assert len(built) > 40
    change(path)
    assert local_server.sample_state(tmp_path / "model") == path
    assert np.array_equal(IncidentState.load(path).means, built.means)
    assert IncidentState.load(path).fit.calibration == built.fit.calibration != {}
    assert len(IncidentState.load(path).points) == len(built)
    before = path.stat().st_mtime_ns
    local_server.sample_state(tmp_path / "model")
    assert path.stat().st_mtime_ns == before


def test_a_connection_does_not_hold_back_the_second_half_of_an_answer() -> None:
    """Each later request of a connection would else wait 40 ms for it: https://www.rfc-editor.org/rfc/rfc896."""

    async def nodelay() -> int:
        with local_server.listen("127.0.0.1", 0) as listener:
            connected: asyncio.Future[int] = asyncio.get_running_loop().create_future()

            def note(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                sock: socket.socket = writer.get_extra_info("socket")
                connected.set_result(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
                writer.close()

            async with await asyncio.start_server(note, sock=listener):
                _, writer = await asyncio.open_connection(*listener.getsockname())
                found = await connected
                writer.close()
            return found

    assert asyncio.run(nodelay()) != 0
