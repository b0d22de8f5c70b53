"""Models are fetched from a hub of the tests' own, which speaks what huggingface_hub asks for, or from a folder.

The script runs as a process of its own, since huggingface_hub reads the hub's address when it is imported.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LongformerConfig, LongformerForMaskedLM, LongformerModel

from fetch_model import main
from similarity.encoder import Encoder
from tiny import ROOT, RunsCode, roberta_tokenizer

SCRIPT = ROOT / "scripts" / "fetch_model.py"
LONGFORMER = "allenai/longformer-base-4096"
# The main branch on the hub, as its page shows it.
LONGFORMER_REVISION = "301e6a42cb0d9976a6d6a26a079fef81c18aa895"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TEXT = "A robot in a warehouse hurt workers"
# huggingface_hub hands on what arrives in pieces of this size: a download that is cut keeps whole ones only.
CHUNK = 10 * 1024 * 1024


@dataclass(frozen=True)
class Repository:
    """A model on the hub: what its revisions are called, and the files of them all."""

    revisions: Mapping[str, str]
    files: Mapping[str, bytes]


@dataclass(frozen=True)
class Asked:
    """A request that the hub has had."""

    method: str
    path: str
    range: str | None


@dataclass
class Hub:
    """The server, and how it is to behave."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    # File name -> bytes of it that get through before the connection is cut, however often it is asked for.
    cut_at: dict[str, int] = field(default_factory=dict)
    # File name -> bytes of it that get through before nothing more comes.
    stall_at: dict[str, int] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    # File name -> the page that a proxy answers with in its place.
    pages: dict[str, bytes] = field(default_factory=dict)
    answer_to_all: bytes | None = None
    url: str = ""
    # Large files come from another host than the hub's, which must not see the user's token.
    cdn: str = ""
    stopped: threading.Event = field(default_factory=threading.Event)

    def gets(self, name: str) -> list[Asked]:
        """The GETs of a file's bytes."""
        return [asked for asked in self.asked if asked.method == "GET" and asked.path.startswith("/cdn/" + name)] or [
            asked for asked in self.asked if asked.method == "GET" and asked.path.endswith("/" + name)
        ]


def is_large(name: str) -> bool:
    """Whether a file is kept in LFS, as the hub's .gitattributes have it."""
    return name.endswith((".safetensors", ".bin"))


def blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """The hub's API and its downloads: small files directly, large ones behind a redirect, as on the real one."""

    protocol_version = "HTTP/1.1"
    server: HubServer

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def log_message(self, *args: object) -> None:
        """Says nothing."""

    def answer(self) -> None:
        hub = self.server.hub
        path = unquote(urlsplit(self.path).path)
        hub.asked.append(Asked(self.command, path, self.headers.get("Range")))
        if hub.answer_to_all is not None:
            self.send(200, {"Content-Type": "text/html"}, hub.answer_to_all)
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path):
            self.send_info(*match.groups())
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.send_resolved(*match.groups())
        elif match := re.fullmatch(r"/cdn/([^/]+)/(.+)", path):
            name, repository = match.groups()
            content = hub.repositories[repository].files[name]
            self.send_file(name, content, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"'})
        else:
            self.send(404, {}, b"{}")

    def send_info(self, repository: str, revision: str) -> None:
        known = self.server.hub.repositories.get(repository)
        if known is None:
            self.send(404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, b"{}")
        elif revision not in known.revisions:
            self.send(404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"}, b"{}")
        else:
            siblings = []
            for name, content in known.files.items():
                sibling: dict[str, object] = {"rfilename": name, "size": len(content), "blobId": blob_id(content)}
                if is_large(name):
                    sha256 = hashlib.sha256(content).hexdigest()
                    # What git holds of a large file is a pointer of some 130 bytes, and that has the blob id.
                    sibling["blobId"] = blob_id(sha256.encode())
                    sibling["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 134}
                siblings.append(sibling)
            info = {"id": repository, "sha": known.revisions[revision], "siblings": siblings}
            self.send(200, {"Content-Type": "application/json"}, json.dumps(info).encode())

    def send_resolved(self, repository: str, revision: str, name: str) -> None:
        known = self.server.hub.repositories[repository]
        commit = known.revisions.get(revision)
        if commit is None or name not in known.files:
            self.send(404, {"X-Error-Code": "EntryNotFound" if commit else "RevisionNotFound"}, b"")
            return
        content = known.files[name]
        headers = {"X-Repo-Commit": commit}
        if is_large(name):
            headers |= {
                "X-Linked-ETag": f'"{hashlib.sha256(content).hexdigest()}"',
                "X-Linked-Size": str(len(content)),
                "Location": f"{self.server.hub.cdn}/cdn/{name}/{repository}",
            }
            self.send(302, headers, b"Found")
        else:
            self.send_file(name, content, {**headers, "ETag": f'"{blob_id(content)}"'})

    def send_file(self, name: str, content: bytes, headers: Mapping[str, str]) -> None:
        hub = self.server.hub
        if name in hub.pages:
            self.send(200, {"Content-Type": "text/html"}, hub.pages[name])
            return
        size = len(content)
        if name in hub.damaged:
            content = content[:-1] + bytes([content[-1] ^ 1])
        start, status, more = 0, 200, {"Accept-Ranges": "bytes"}
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start, status = int(match[1]), 206
            more["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        end = min(hub.cut_at.get(name, size), hub.stall_at.get(name, size))
        self.send(status, {**headers, **more}, content[start : max(start, end)], length=size - start)
        if name in hub.stall_at:
            hub.stopped.wait(30)
        if end < size:
            self.close_connection = True

    def send(self, status: int, headers: Mapping[str, str], body: bytes, length: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command == "GET":
            # A client that was stopped doesn't take it.
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body)


class HubServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: Hub) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub = hub


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    with HubServer(hub) as server:
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        hub.cdn = f"http://localhost:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield hub
        hub.stopped.set()
        server.shutdown()
        thread.join()


@dataclass(frozen=True)
class Ran:
    code: int
    stdout: str
    stderr: str

    @property
    def message(self) -> list[str]:
        """What the script itself says on stderr: its line, and the advice below it if there is some."""
        assert "Traceback" not in self.stderr, self.stderr
        lines = self.stderr.splitlines()
        starts = [number for number, line in enumerate(lines) if line.startswith("fetch_model: ")]
        assert len(starts) == 1, self.stderr
        return lines[starts[0] :]


def environment(url: str, home: Path) -> dict[str, str]:
    """That of the tests without anything about hubs and proxies."""
    ours = {name: value for name, value in os.environ.items() if not name.upper().startswith(("HF_", "HUGGING"))}
    ours = {name: value for name, value in ours.items() if not name.upper().endswith("_PROXY")}
    return ours | {"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONUNBUFFERED": "1"}


def fetch(url: str, out: Path, *arguments: str) -> Ran:
    ran = subprocess.run(
        [sys.executable, str(SCRIPT), "--out", str(out), *arguments],
        env=environment(url, out.parent / "hub-home"),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def tiny_files(tiny_model_dir: Path) -> dict[str, bytes]:
    """The tiny model as the hub has it: without what this project's scripts add."""
    return {
        name: (tiny_model_dir / name).read_bytes() for name in ("config.json", "tokenizer.json", "model.safetensors")
    }


@pytest.fixture(scope="module")
def large_files(
    tiny_files: dict[str, bytes], tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """The same with 24 MB of weights: a head that the encoder does without."""
    weights = load_file(tiny_model_dir / "model.safetensors")
    weights["lm_head.decoder.weight"] = torch.randn(6, 1024, 1024, generator=torch.Generator().manual_seed(0))
    path = tmp_path_factory.mktemp("large") / "model.safetensors"
    save_file(weights, path, metadata={"format": "pt"})
    return {**tiny_files, "model.safetensors": path.read_bytes()}


@dataclass(frozen=True)
class MaskedModel:
    """A Longformer with the head of a masked language model, as allenai published theirs."""

    folder: Path
    encoder: LongformerModel


@pytest.fixture(scope="module")
def masked_model(tmp_path_factory: pytest.TempPathFactory) -> MaskedModel:
    folder = tmp_path_factory.mktemp("masked")
    torch.manual_seed(3)
    config = LongformerConfig(
        vocab_size=600,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        attention_window=16,
        max_position_embeddings=130,
        type_vocab_size=1,
        pad_token_id=1,
        initializer_range=0.2,
    )
    model = LongformerForMaskedLM(config).eval()
    config.save_pretrained(folder)
    roberta_tokenizer().save(str(folder / "tokenizer.json"))
    state = dict(model.state_dict())
    # The published file has the counter that old releases kept, and the head shares the words' tensor.
    state["longformer.embeddings.position_ids"] = torch.arange(130).unsqueeze(0)
    words, decoder = state["longformer.embeddings.word_embeddings.weight"], state["lm_head.decoder.weight"]
    assert words.data_ptr() == decoder.data_ptr()
    torch.save(state, folder / "pytorch_model.bin")
    return MaskedModel(folder, model.longformer)


def expected_vector(masked: MaskedModel) -> torch.Tensor:
    ids = torch.tensor([roberta_tokenizer().encode(TEXT).ids])
    with torch.no_grad():
        vector: torch.Tensor = masked.encoder(ids).last_hidden_state[0, 0]
    return vector


def test_longformer_is_fetched_at_the_pinned_revision(
    hub: Hub, tiny_files: dict[str, bytes], tiny_encoder: Encoder, tmp_path: Path
) -> None:
    # A hub that knows the pinned revision only: asking for any other is a 404.
    hub.repositories[LONGFORMER] = Repository({LONGFORMER_REVISION: LONGFORMER_REVISION}, tiny_files)
    out = tmp_path / "model"
    ran = fetch(hub.url, out)
    assert ran.code == 0, ran.stderr
    assert ran.stdout == f"{out}: {LONGFORMER}, revision {LONGFORMER_REVISION}\n"
    assert hub.asked[0].path == f"/api/models/{LONGFORMER}/revision/{LONGFORMER_REVISION}"
    encoder = Encoder.load(out)
    assert encoder.name == LONGFORMER
    assert np.array_equal(encoder.encode(TEXT).vector, tiny_encoder.encode(TEXT).vector)
    assert json.loads((out / "provenance.json").read_text())["revision"] == LONGFORMER_REVISION
    assert {path.name for path in out.iterdir()} == {*tiny_files, "provenance.json", "encoder.onnx"}, "no leftovers"


def test_another_model_is_fetched_from_main_and_as_safetensors_where_it_has_both(
    hub: Hub, tiny_files: dict[str, bytes], tiny_encoder: Encoder, tmp_path: Path
) -> None:
    files = {**tiny_files, "pytorch_model.bin": b"no weights", "README.md": b"# A model"}
    hub.repositories["some/model"] = Repository({"main": COMMIT, COMMIT: COMMIT}, files)
    ran = fetch(hub.url, tmp_path / "model", "--model", "some/model")
    assert ran.code == 0, ran.stderr
    assert np.array_equal(Encoder.load(tmp_path / "model").encode(TEXT).vector, tiny_encoder.encode(TEXT).vector)
    assert hub.asked[0].path == "/api/models/some/model/revision/main"
    # The branch may move between two files; the commit that it named first does not.
    resolved = [asked.path for asked in hub.asked if "/resolve/" in asked.path]
    assert {path.split("/")[4] for path in resolved} == {COMMIT}
    assert {path.split("/")[5] for path in resolved} == set(tiny_files)


def test_pickled_weights_below_a_head_encode_as_in_transformers(
    hub: Hub, masked_model: MaskedModel, tmp_path: Path
) -> None:
    files = contents(masked_model.folder)
    hub.repositories["some/model"] = Repository({"v1": COMMIT, COMMIT: COMMIT}, files)
    ran = fetch(hub.url, tmp_path / "model", "--model", "some/model", "--revision", "v1")
    assert ran.code == 0, ran.stderr
    found = Encoder.load(tmp_path / "model").encode(TEXT).vector
    assert (torch.from_numpy(found) - expected_vector(masked_model)).abs().max() < 1e-5
    assert not (tmp_path / "model" / "pytorch_model.bin").exists()
    loaded, info = LongformerModel.from_pretrained(
        tmp_path / "model", add_pooling_layer=False, output_loading_info=True
    )
    assert loaded.config.hidden_size == 32
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]


def test_a_download_that_is_cut_says_so_and_the_next_run_asks_for_the_rest(
    hub: Hub, large_files: dict[str, bytes], tiny_encoder: Encoder, tmp_path: Path
) -> None:
    hub.repositories["some/model"] = Repository({"main": COMMIT, COMMIT: COMMIT}, large_files)
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
    assert np.array_equal(Encoder.load(out).encode(TEXT).vector, tiny_encoder.encode(TEXT).vector)


def test_a_download_stopped_by_ctrl_c_resumes(
    hub: Hub, large_files: dict[str, bytes], tiny_encoder: Encoder, tmp_path: Path
) -> None:
    hub.repositories["some/model"] = Repository({"main": COMMIT, COMMIT: COMMIT}, large_files)
    out = tmp_path / "model"
    hub.stall_at["model.safetensors"] = 2 * CHUNK + 1
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), "--model", "some/model", "--out", str(out)],
        env=environment(hub.url, tmp_path / "hub-home"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 30
    while not any(path.stat().st_size >= 2 * CHUNK for path in out.rglob("*") if path.is_file()):
        assert time.monotonic() < deadline, "nothing arrives"
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    ran = Ran(process.returncode, stdout, stderr)
    assert ran.code == 1
    assert ran.message == ["fetch_model: stopped; give the same command again to resume."]

    hub.stall_at.clear()
    hub.stopped.set()
    hub.asked.clear()
    ran = fetch(hub.url, out, "--model", "some/model")
    assert ran.code == 0, ran.stderr
    assert [asked.range for asked in hub.gets("model.safetensors")] == [f"bytes={2 * CHUNK}-"]
    assert np.array_equal(Encoder.load(out).encode(TEXT).vector, tiny_encoder.encode(TEXT).vector)


def test_files_that_arrive_damaged_are_refused_and_fetched_anew(
    hub: Hub, tiny_files: dict[str, bytes], tiny_encoder: Encoder, tmp_path: Path
) -> None:
    hub.repositories["some/model"] = Repository({"main": COMMIT, COMMIT: COMMIT}, tiny_files)
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
    assert ran.message
    hub.pages.clear()
    ran = fetch(hub.url, out, "--model", "some/model")
    assert ran.code == 0, ran.stderr
    assert np.array_equal(Encoder.load(out).encode(TEXT).vector, tiny_encoder.encode(TEXT).vector)


def test_what_the_hub_does_not_have_leaves_the_model_that_was_there(
    hub: Hub, tiny_files: dict[str, bytes], tiny_model_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    shutil.copytree(tiny_model_dir, out)
    before = contents(out)
    without_tokenizer = {name: content for name, content in tiny_files.items() if name != "tokenizer.json"}
    # What BERT's config is to a Longformer: well-formed, and of another kind.
    another_kind = {**tiny_files, "config.json": b'{"model_type": "bert"}'}
    for repository, files in (
        ("without/tokenizer", without_tokenizer),
        ("another/kind", another_kind),
    ):
        hub.repositories[repository] = Repository({"main": COMMIT, COMMIT: COMMIT}, files)
    for arguments, message in (
        (["--model", "nobody/nothing"], "fetch_model: nobody/nothing at main could not be downloaded: 404"),
        (["--model", "without/tokenizer"], "fetch_model: without/tokenizer has no tokenizer.json."),
        (["--model", "another/kind"], "fetch_model: another/kind is no Longformer that can be used here: "),
    ):
        ran = fetch(hub.url, out, *arguments)
        assert ran.code == 1
        assert ran.message[0].startswith(message), ran.message
        assert ran.stdout == ""
        assert contents(out) == before, arguments


def test_a_hub_that_can_not_be_reached_gives_advice_soon(tmp_path: Path) -> None:
    with socket.socket() as closed:
        # A port that is taken and doesn't listen refuses connections.
        closed.bind(("127.0.0.1", 0))
        start = time.monotonic()
        ran = fetch(f"http://127.0.0.1:{closed.getsockname()[1]}", tmp_path / "model")
        assert time.monotonic() - start < 20
    assert ran.code == 1
    line, advice = ran.message
    assert line.startswith(f"fetch_model: {LONGFORMER} at {LONGFORMER_REVISION} could not be downloaded: ")
    for way_out in ("HF_ENDPOINT", "--from", "convert_encoder.py --quick-start"):
        assert way_out in advice


def test_a_web_page_in_place_of_a_hub_gives_advice(hub: Hub, tmp_path: Path) -> None:
    hub.answer_to_all = b"<html>Please log in to this network.</html>"
    ran = fetch(hub.url, tmp_path / "model")
    assert ran.code == 1
    assert "could not be downloaded" in ran.message[0]
    assert "HF_ENDPOINT" in ran.message[1]


# From a folder: no hub, so it runs in this process.


def test_a_folder_on_this_machine_is_taken_over(
    masked_model: MaskedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model"
    assert main(["--from", str(masked_model.folder), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: {LONGFORMER}, revision as in {masked_model.folder}\n"
    encoder = Encoder.load(out)
    assert (torch.from_numpy(encoder.encode(TEXT).vector) - expected_vector(masked_model)).abs().max() < 1e-5
    assert encoder.name == LONGFORMER
    assert json.loads((out / "provenance.json").read_text())["revision"] == ""


def test_a_folder_can_be_taken_over_by_itself(
    tiny_files: dict[str, bytes], tiny_encoder: Encoder, tmp_path: Path
) -> None:
    for name, content in tiny_files.items():
        (tmp_path / name).write_bytes(content)
    assert main(["--from", str(tmp_path), "--out", str(tmp_path), "--model", "my/model"]) == 0
    encoder = Encoder.load(tmp_path)
    assert encoder.name == "my/model"
    assert np.array_equal(encoder.encode(TEXT).vector, tiny_encoder.encode(TEXT).vector)


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_pickle_that_would_run_code_is_refused_and_does_not(
    form: str, tiny_files: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, trace = tmp_path / "source", tmp_path / "trace"
    source.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (source / name).write_bytes(tiny_files[name])
    if form == "zip":
        torch.save({"longformer.embeddings.word_embeddings.weight": RunsCode(trace)}, source / "pytorch_model.bin")
    else:
        (source / "pytorch_model.bin").write_bytes(pickle.dumps(RunsCode(trace)))
    assert main(["--from", str(source), "--out", str(tmp_path / "model")]) == 1
    assert not trace.exists()
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"fetch_model: the weights in {source} can't be read: ")
    assert not list((tmp_path / "model").glob("*"))
    # What makes this a test: without the protection it does run.
    if form == "legacy":
        pickle.loads((source / "pytorch_model.bin").read_bytes())
        assert trace.exists()


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_broken_folder_is_refused_in_one_line(
    name: str,
    damage: str,
    tiny_files: dict[str, bytes],
    tiny_model_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, out = tmp_path / "source", tmp_path / "model"
    source.mkdir()
    shutil.copytree(tiny_model_dir, out)
    before = contents(out)
    for other, content in tiny_files.items():
        (source / other).write_bytes(content)
    if damage == "missing":
        (source / name).unlink()
    else:
        (source / name).write_bytes(tiny_files[name][: len(tiny_files[name]) // 2])
    assert main(["--from", str(source), "--out", str(out)]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("fetch_model: ")
    assert contents(out) == before


@pytest.mark.parametrize("arguments", [["--from", "nothing"], ["--unknown"]], ids=" ".join)
def test_arguments_that_make_no_sense_exit_with_2(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        main([*arguments, "--out", "model"])
    assert exit_.value.code == 2
    assert "error: " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
