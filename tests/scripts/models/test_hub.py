"""What a hub, the way to it and the machine do to a download: each end is one helpful sentence, and nothing is lost."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from hub_server import COMMIT, SCRIPT, Hub, Ran, Repository, environment, fetch
from processes import PATIENCE_S, Command, running, wait_until
from similarity.encoder.torch_encoder import TorchEncoder
from tiny import contents

TEXT = "A robot in a warehouse hurt workers"
# huggingface_hub hands on what arrives in pieces of this size: a download that is cut keeps whole ones only.
CHUNK = 10 * 1024 * 1024


@pytest.fixture(scope="module")
def large_files(
    tiny_files: dict[str, bytes], tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """The tiny model with 24 MB of weights: a head that the encoder does without."""
    weights = load_file(tiny_model_dir / "model.safetensors")
    weights["lm_head.decoder.weight"] = torch.randn(6, 1024, 1024, generator=torch.Generator().manual_seed(0))
    path = tmp_path_factory.mktemp("large") / "model.safetensors"
    save_file(weights, path, metadata={"format": "pt"})
    return {**tiny_files, "model.safetensors": path.read_bytes()}


def has(hub: Hub, files: dict[str, bytes], name: str = "some/model") -> None:
    hub.repositories[name] = Repository({"main": COMMIT, COMMIT: COMMIT}, files)


def encodes_alike(out: Path, encoder: TorchEncoder) -> bool:
    return np.array_equal(TorchEncoder.load(out).encode(TEXT).vector, encoder.encode(TEXT).vector)


def test_a_download_that_is_cut_says_so_and_the_next_run_asks_for_the_rest(
    hub: Hub, large_files: dict[str, bytes], tiny_encoder: TorchEncoder, tmp_path: Path
) -> None:
    has(hub, large_files)
    out = tmp_path / "model"
    hub.cut_at["model.safetensors"] = CHUNK + CHUNK // 2
    ran = fetch(hub.url, out, "--model", "some/model")
    assert ran.code == 1
    assert ran.message[0].startswith("fetch_model: some/model at main could not be downloaded: ")
    assert "--from" in ran.message[1]
    assert len(ran.message) == 2
    assert not (out / "model.safetensors").exists()

    hub.cut_at.clear()
    hub.asked.clear()
    ran = fetch(hub.url, out, "--model", "some/model")
    assert ran.code == 0, ran.stderr
    assert [asked.range for asked in hub.gets("model.safetensors")] == [f"bytes={CHUNK}-"]
    assert hub.gets("tokenizer.json") == []
    assert encodes_alike(out, tiny_encoder)


def test_a_download_stopped_by_ctrl_c_resumes(
    hub: Hub, large_files: dict[str, bytes], tiny_encoder: TorchEncoder, tmp_path: Path
) -> None:
    has(hub, large_files)
    out = tmp_path / "model"
    hub.stall_at["model.safetensors"] = 2 * CHUNK + 1
    command: Command = [sys.executable, SCRIPT, "--model", "some/model", "--out", out]
    home = environment(hub.url, tmp_path / "hub-home")
    with running(command, env=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:

        def has_all_that_comes() -> bool:
            assert process.poll() is None, process.communicate()
            return any(part.stat().st_size >= 2 * CHUNK for part in out.glob(".download/model.safetensors.*"))

        # Nothing more comes, so once it has these bytes it does nothing but wait.
        wait_until(has_all_that_comes, "the first two pieces")
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
    ran = Ran(process.returncode, stdout, stderr)
    assert ran.code == 1
    assert ran.message == ["fetch_model: stopped; give the same command again to resume."]

    hub.stall_at.clear()
    hub.stopped.set()
    hub.asked.clear()
    ran = fetch(hub.url, out, "--model", "some/model")
    assert ran.code == 0, ran.stderr
    assert [asked.range for asked in hub.gets("model.safetensors")] == [f"bytes={2 * CHUNK}-"]
    assert encodes_alike(out, tiny_encoder)


def test_files_that_arrive_damaged_are_refused_and_fetched_anew(
    hub: Hub, tiny_files: dict[str, bytes], tiny_encoder: TorchEncoder, tmp_path: Path
) -> None:
    has(hub, tiny_files)
    out = tmp_path / "model"
    for name in ("tokenizer.json", "model.safetensors"):
        hub.damaged = {name}
        ran = fetch(hub.url, out, "--model", "some/model")
        assert ran.code == 1
        [line] = ran.message
        assert line.startswith(f"fetch_model: {name} arrived damaged")
        assert not list(out.rglob(f"{name}*"))
    hub.damaged.clear()
    hub.pages["model.safetensors"] = b"<html>Please log in to this network.</html>" * 10000
    assert len(hub.pages["model.safetensors"]) > len(tiny_files["model.safetensors"])
    ran = fetch(hub.url, out, "--model", "some/model")
    assert ran.code == 1
    assert "file should be of size" in ran.message[0]
    assert "HF_ENDPOINT" in ran.message[1]
    assert "force_download" not in ran.stderr, "an option that this script doesn't have"
    hub.pages.clear()
    ran = fetch(hub.url, out, "--model", "some/model")
    assert ran.code == 0, ran.stderr
    assert encodes_alike(out, tiny_encoder)


def test_what_an_earlier_download_of_another_model_left_is_not_mixed_in(
    hub: Hub, tiny_files: dict[str, bytes], tiny_model_dir: Path, tiny_encoder: TorchEncoder, tmp_path: Path
) -> None:
    # The weights of the first arrive, and then it is refused; the second has pickled ones.
    other = load_file(tiny_model_dir / "model.safetensors")
    del other["encoder.layer.1.output.dense.bias"]
    save_file(other, tmp_path / "other")
    has(hub, {**tiny_files, "model.safetensors": (tmp_path / "other").read_bytes()}, "an/other")
    torch.save(load_file(tiny_model_dir / "model.safetensors"), tmp_path / "pickled")
    files = {**tiny_files, "pytorch_model.bin": (tmp_path / "pickled").read_bytes()}
    del files["model.safetensors"]
    has(hub, files)
    out = tmp_path / "model"
    assert fetch(hub.url, out, "--model", "an/other").code == 1
    assert list(out.rglob("model.safetensors"))
    ran = fetch(hub.url, out, "--model", "some/model")
    assert ran.code == 0, ran.stderr
    assert encodes_alike(out, tiny_encoder)


def test_a_mirror_without_checksums_is_taken_at_its_word_and_that_is_said(
    hub: Hub, tiny_files: dict[str, bytes], tiny_encoder: TorchEncoder, tmp_path: Path
) -> None:
    has(hub, tiny_files)
    hub.names_checksums = False
    out = tmp_path / "model"
    # Another revision's, for all that can be known.
    staging = out / ".download"
    staging.mkdir(parents=True)
    (staging / "config.json").write_text("{}")
    (staging / "model.safetensors.None.part").write_bytes(b"other weights")
    ran = fetch(hub.url, out, "--model", "some/model")
    assert ran.code == 0, ran.stderr
    assert ran.message == [
        "fetch_model: the hub has no checksums for these files, so they weren't verified: "
        "config.json, tokenizer.json, model.safetensors"
    ]
    assert [asked.range for asked in hub.gets("model.safetensors")] == [None]
    assert encodes_alike(out, tiny_encoder)


def test_what_the_hub_does_not_have_leaves_the_model_that_was_there(
    hub: Hub, tiny_files: dict[str, bytes], tiny_model_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    out.mkdir()
    for path in tiny_model_dir.iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    before = contents(out)
    has(hub, {name: content for name, content in tiny_files.items() if name != "tokenizer.json"}, "without/tokenizer")
    only_tensorflow = {name: content for name, content in tiny_files.items() if name != "model.safetensors"}
    has(hub, {**only_tensorflow, "tf_model.h5": b"\x89HDF"}, "only/tensorflow")
    has(hub, {**tiny_files, "config.json": b'{"model_type": "bert"}'}, "an/encoder")
    has(hub, {**tiny_files, "config.json": b'{"model_type": "gpt2"}'}, "another/kind")
    for name, message in (
        ("nobody/nothing", "the hub has no public model nobody/nothing (404); check the name"),
        ("without/tokenizer", "without/tokenizer on the hub has no tokenizer.json."),
        ("only/tensorflow", "only/tensorflow has no weights for torch, only tf_model.h5; convert them with"),
        ("an/encoder", "an/encoder isn't a usable Longformer: "),
        ("another/kind", "another/kind isn't a usable Longformer: "),
    ):
        hub.asked.clear()
        ran = fetch(hub.url, out, "--model", name)
        assert ran.code == 1
        [line] = ran.message
        assert line.startswith(f"fetch_model: {message}"), line
        assert ("convert_encoder.py" in line) == (name == "an/encoder")
        assert ran.stdout == ""
        # The folder has what can be used again.
        assert {name: content for name, content in contents(out).items() if name != ".download"} == before, name
        assert not hub.gets("model.safetensors"), "what can't be used is not downloaded first"
    ran = fetch(hub.url, out, "--model", "an/encoder", "--revision", "v2")
    assert ran.message == ["fetch_model: an/encoder has no revision v2 on the hub; check --revision."]


# Tokens: what the real hub answers is in huggingface_hub's hf_raise_for_status.

NO_SUCH_TOKEN = (401, {"X-Error-Message": "Invalid credentials in Authorization header"})
EXPIRED = (401, {"X-Error-Message": 'User Access Token "laptop" is expired'})
NOT_ALLOWED = (403, {"X-Error-Message": "Your token lacks the permission"})
GATED = (403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model some/model is restricted"})
GATED_TO_ALL = (401, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model some/model is restricted"})
NOT_FOUND = (404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
NOT_LOGGED_IN = (401, {"X-Error-Message": "Invalid username or password."})


@pytest.mark.parametrize("source", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "file"])
def test_a_token_that_the_hub_rejects_is_named_by_where_it_comes_from(
    source: str, hub: Hub, tiny_files: dict[str, bytes], tmp_path: Path
) -> None:
    has(hub, tiny_files)
    hub.refusals["stale"] = {"HF_TOKEN": NO_SUCH_TOKEN, "HUGGING_FACE_HUB_TOKEN": EXPIRED, "file": NOT_ALLOWED}[source]
    variables = {} if source == "file" else {source: "stale"}
    if source == "file":
        (tmp_path / "hub-home").mkdir()
        (tmp_path / "hub-home" / "token").write_text("stale\n")
    ran = fetch(hub.url, tmp_path / "model", "--model", "some/model", **variables)
    assert ran.code == 1
    [line] = ran.message
    name = f"the file {tmp_path / 'hub-home' / 'token'}" if source == "file" else f"the variable {source}"
    assert line.startswith(f"fetch_model: the hub refuses some/model with the token from {name} (40")
    assert "public models need no token" in line
    assert "stale" not in ran.stderr, "tokens are secret"


@pytest.mark.parametrize(
    ("of_files", "token", "refusal", "expected"),
    [
        (False, "mine", GATED, "some/model is gated (403): ask for access on {url}/some/model with the account of the"),
        (True, None, GATED_TO_ALL, "some/model is gated (401): ask for access on {url}/some/model with an account"),
        (False, "mine", NOT_FOUND, "the hub refuses some/model with the token from the variable HF_TOKEN (404)"),
        (False, None, NOT_LOGGED_IN, "the hub has no public model some/model (401); check the name. For a private"),
    ],
    ids=["gated to this account", "gated, its files alone", "private to this account", "private"],
)
def test_a_model_that_is_not_for_everyone_says_what_it_takes(
    of_files: bool,
    token: str | None,
    refusal: tuple[int, dict[str, str]],
    expected: str,
    hub: Hub,
    tiny_files: dict[str, bytes],
    tmp_path: Path,
) -> None:
    has(hub, tiny_files)
    (hub.file_refusals if of_files else hub.refusals)[token] = refusal
    variables = {} if token is None else {"HF_TOKEN": token}
    ran = fetch(hub.url, tmp_path / "model", "--model", "some/model", **variables)
    assert ran.code == 1
    [line] = ran.message
    assert line.startswith("fetch_model: " + expected.format(url=hub.url)), line


# The way there.


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"ALL_PROXY": "socks5://me:secret@127.0.0.1:9"}, "ALL_PROXY names a SOCKS proxy, but the package"),
        ({"https_proxy": "socks5h://127.0.0.1:9"}, "https_proxy names a SOCKS proxy, but the package"),
        ({"SSL_CERT_FILE": "/nonexistent"}, "SSL_CERT_FILE is /nonexistent, but no certificates can be read from it ("),
        ({"SSL_CERT_FILE": __file__}, f"SSL_CERT_FILE is {__file__}, but no certificates can be read from it ("),
        ({"HF_TOKEN": "ä"}, "the token from the variable HF_TOKEN has characters that a token can't have"),
    ],
    ids=["all", "https", "no certificates", "no PEM", "token"],
)
def test_variables_that_can_not_work_are_named(
    variables: dict[str, str], expected: str, hub: Hub, tiny_files: dict[str, bytes], tmp_path: Path
) -> None:
    has(hub, tiny_files)
    # Where the package is installed, it can't be imported.
    (tmp_path / "socksio.py").write_text("raise ImportError")
    ran = fetch(hub.url, tmp_path / "model", "--model", "some/model", PYTHONPATH=str(tmp_path), **variables)
    assert ran.code == 1
    [line] = ran.message
    assert line.startswith(f"fetch_model: {expected}"), line
    assert "secret" not in ran.stderr
    assert hub.asked == []


def test_offline_mode_says_so(tmp_path: Path) -> None:
    ran = fetch("http://127.0.0.1:9", tmp_path / "model", HF_HUB_OFFLINE="1")
    assert ran.code == 1
    line, advice = ran.message
    assert "HF_HUB_OFFLINE" in line
    assert "--from" in advice


def test_a_hub_that_can_not_be_reached_gives_advice(tmp_path: Path) -> None:
    with socket.socket() as closed:
        # A port that is taken and doesn't listen refuses connections.
        closed.bind(("127.0.0.1", 0))
        ran = fetch(f"http://127.0.0.1:{closed.getsockname()[1]}", tmp_path / "model", "--model", "some/model")
    assert ran.code == 1
    line, advice = ran.message
    assert line.startswith("fetch_model: some/model at main could not be downloaded: ")
    for way_out in ("HF_ENDPOINT", "--from", "convert_encoder.py --quick-start"):
        assert way_out in advice


@pytest.mark.parametrize(
    "answer",
    [b"<html>Please log in to this network.</html>", b"{}", b'{"id": "some/model", "siblings": 7}'],
    ids=["a web page", "an object", "an object of other kinds"],
)
def test_an_answer_that_is_not_a_hubs_gives_advice(answer: bytes, hub: Hub, tmp_path: Path) -> None:
    hub.answer_to_all = answer
    ran = fetch(hub.url, tmp_path / "model")
    assert ran.code == 1
    assert "could not be downloaded" in ran.message[0]
    assert "HF_ENDPOINT" in ran.message[1]
