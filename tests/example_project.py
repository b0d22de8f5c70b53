"""The project that examples of README and docs run in: a copy with a tiny model, its local server, and a shell."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import DistilBertConfig, DistilBertForSequenceClassification, PreTrainedTokenizerFast

from pages import PYTHON, Block, Command
from processes import running
from similarity.encoder.text_encoder import TextEncoder
from similarity.sources.problems import Problems
from states.building import Options, build
from tiny import ROOT, SAMPLE_DIR, copy_inference, fitted_state, state_of_texts

# What the pages' own model, state and queries are called and find.
QUICK_START_NAME = "sentence-transformers/all-MiniLM-L6-v2 as Longformer"
SERVED_TEXTS = {
    1: "YouTube Kids shows violent videos to children",
    4: "A car without a driver hit a pedestrian",
    6: "A chatbot learned to insult people",
    71: "A car without a driver scraped a bus",
    106: "A chatbot was withdrawn",
}
LOCAL_URL = "http://127.0.0.1:3001"
DEPLOYED_URL = re.compile(r"https://[\w…]+\.execute-api\.[\w-]+\.amazonaws\.com")
COMMAND_S = 300.0


def put_into_hub_cache(cache: Path, model: str, revision: str) -> None:
    """A tiny classifier that finds everything positive, where a download would have put it."""
    folder = cache / f"models--{model.replace('/', '--')}" / "snapshots" / revision
    folder.mkdir(parents=True)
    words = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "what", "a", "lovely", "day"])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=16
    ).save_pretrained(folder)
    config = DistilBertConfig(
        vocab_size=len(words), dim=8, n_layers=1, n_heads=2, hidden_dim=8, max_position_embeddings=16,
        id2label={0: "NEGATIVE", 1: "POSITIVE"}, label2id={"NEGATIVE": 0, "POSITIVE": 1},
    )  # fmt: skip
    classifier = DistilBertForSequenceClassification(config)
    torch.nn.init.zeros_(classifier.classifier.weight)
    classifier.classifier.bias.data = torch.tensor([-1.0, 1.0])
    classifier.save_pretrained(folder)


def example(path: str) -> Block:
    """The block of Python that belongs into the file `path`."""
    [block] = [block for block in PYTHON if block.path == path]
    return block


def load(block: Block, folder: Path) -> ModuleType:
    """The module that a page's block of Python makes."""
    path = folder / Path(block.path).name
    path.write_text(block.code, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_examples(inference: Path) -> None:
    """Every block of Python into the file that its page names."""
    for block in PYTHON:
        (inference.parent / block.path).write_text(block.code, encoding="utf-8")


def copy_inference_with_examples(folder: Path) -> Path:
    write_examples(copy_inference(folder))
    return folder


def copy_project(folder: Path, model_dir: Path, encoder: TextEncoder) -> None:
    """A copy of the project with the pages' own handlers, and with all files that their commands take.

    model_dir: a tiny model, which `encoder` has loaded.
    """
    shutil.copytree(ROOT / "scripts", folder / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "infrastructure", folder / "infrastructure", ignore=shutil.ignore_patterns("__pycache__"))
    copy_inference_with_examples(folder / "inference")
    shutil.copy(ROOT / ".env.example", folder)
    state = fitted_state(state_of_texts(encoder, SERVED_TEXTS), 2.0)
    dates = [f"2020-01-{1 + row:02}" for row in range(len(SERVED_TEXTS))]
    state = replace(state, built_at="2026-11-26T07:04:05Z", dates=dates)
    for model in (folder / "inference" / "model", folder / ".quickstart" / "model"):
        shutil.copytree(model_dir, model)
        state.save(model / "incident_cls.pt")
    (folder / ".quickstart" / "model" / "provenance.json").write_text(json.dumps({"model": QUICK_START_NAME}))
    with tarfile.open(folder / "backup.tar.bz2", "w:bz2") as snapshot:
        for table in ("incidents.csv", "reports.csv"):
            snapshot.add(SAMPLE_DIR / table, f"mongodump_full_snapshot/{table}")
    # One description repeats the title.
    incidents = (SAMPLE_DIR / "incidents.csv").read_text(encoding="utf-8")
    repeated = f'1,2015-05-19,"[1]","[]","[]","[]",{SERVED_TEXTS[1]},{SERVED_TEXTS[1]}\n'
    first, *others = incidents.splitlines(keepends=True)
    (folder / "incidents.csv").write_text(first + repeated + "".join(others[1:]), encoding="utf-8")
    vector = [0.5] * encoder.dimension
    (folder / "state.csv").write_text(f'incident_id,count,mean\n1,2,"{vector}"\n', encoding="utf-8")
    quick_start = folder / ".quickstart" / "model"
    options = Options(quick_start, folder / "descriptions.pt", folder / "other cache", text="description")
    build(folder / "incidents.csv", options, Problems())
    shutil.copy(folder / "descriptions.pt", folder / "weaknesses.pt")


@dataclass(frozen=True)
class Server:
    """The local server of the project's copy, and what it said when it was up."""

    url: str
    said: list[str]


def shell_environment(**ours: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MODEL_", "HF_", "INCIDENTS_"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**kept, "PATH": path, "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", **ours}


@contextmanager
def serving(project: Path, folder: Path) -> Iterator[Server]:
    """Serves the handlers of the project's copy, the pages' own among them, with the tiny model.

    folder: empty; gets the tiny classifier, and what the server says.
    """
    sentiment = load(example("inference/sentiment.py"), folder)
    put_into_hub_cache(folder / "hub", sentiment.MODEL, sentiment.REVISION)
    errors = folder / "stderr"
    command = [sys.executable, "scripts/local/server.py", "--model", ".quickstart/model", "--port", "0"]
    environment = shell_environment(HF_HUB_CACHE=str(folder / "hub"))
    with (
        errors.open("wb") as stderr,
        running(command, cwd=project, env=environment, stdout=subprocess.PIPE, stderr=stderr) as process,
    ):
        assert process.stdout is not None
        lines = [process.stdout.readline().rstrip("\n") for _ in range(2)]
        found = re.search(r"http://[\d.:]+", lines[0])
        assert found, errors.read_text(encoding="utf-8")
        said = errors.read_text(encoding="utf-8").splitlines()[:1]
        yield Server(found[0], [*said, *lines])


@dataclass(frozen=True)
class Reply:
    """What curl got: from which route, with which status and body."""

    route: str
    status: int
    body: Any


# In the place of curl: does what curl does, and keeps a copy of each answer and its status.
CURL = """#!/usr/bin/env bash
set -euo pipefail
number=$(find "$REPLIES" -name '*.body' | wc -l)
{curl} "$@" --max-time {seconds} --output "$REPLIES/$number.body" --write-out '%{{http_code}} %{{url_effective}}' \\
    > "$REPLIES/$number.status"
cat "$REPLIES/$number.body"
"""


def at_the_server(line: str, server: Server) -> str:
    return DEPLOYED_URL.sub(server.url, line.replace(LOCAL_URL, server.url))


def execute(commands: list[Command], project: Path, server: Server, folder: Path) -> tuple[list[str], list[Reply]]:
    """Executes commands one after the other in one shell, in a copy of the project. What each printed, and curl got."""
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl isn't installed")
    shutil.copytree(project, folder / "project")
    for name in ("bin", "replies", "printed"):
        (folder / name).mkdir()
    shim = folder / "bin" / "curl"
    shim.write_text(CURL.format(curl=curl, seconds=int(COMMAND_S)))
    shim.chmod(0o755)
    script = "\n".join(
        f"{{ {at_the_server(command.line, server)}\n}} > {folder}/printed/{number}"
        for number, command in enumerate(commands)
    )
    environment = shell_environment(URL=server.url, REPLIES=str(folder / "replies"))
    environment["PATH"] = f"{folder / 'bin'}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder / "project", env=environment, capture_output=True, text=True, timeout=COMMAND_S,
    )  # fmt: skip
    printed = [path.read_text(encoding="utf-8") for path in sorted((folder / "printed").iterdir(), key=number_of)]
    assert done.returncode == 0, f"{done.stderr}{printed[-1:]}"
    replies = []
    for path in sorted((folder / "replies").glob("*.status"), key=number_of):
        status, url = path.read_text().split()
        route = url.removeprefix(server.url).partition("?")[0]
        replies.append(Reply(route, int(status), json.loads(path.with_suffix(".body").read_bytes())))
    return printed, replies


def number_of(path: Path) -> int:
    return int(path.stem)
