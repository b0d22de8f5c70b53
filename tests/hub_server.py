"""A Hugging Face hub of the tests' own: it speaks what huggingface_hub asks for, and misbehaves as it is told."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from processes import PATIENCE_S
from tiny import ROOT

SCRIPT = ROOT / "scripts" / "fetch_model.py"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


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
    # What the API says to a caller with such a token (None: without one): status and headers. Not there: all is well.
    refusals: dict[str | None, tuple[int, dict[str, str]]] = field(default_factory=dict)
    # The same for the bytes of files.
    file_refusals: dict[str | None, tuple[int, dict[str, str]]] = field(default_factory=dict)
    # Some mirrors list the names of files and nothing else.
    names_checksums: bool = True
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
        token = self.headers["Authorization"].removeprefix("Bearer ") if "Authorization" in self.headers else None
        refusals = hub.refusals if path.startswith("/api/") else hub.file_refusals
        if hub.answer_to_all is not None:
            self.send(200, {"Content-Type": "text/html"}, hub.answer_to_all)
        elif token in refusals:
            status, headers = refusals[token]
            self.send(status, headers, b"{}")
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
                sibling: dict[str, object] = {"rfilename": name}
                siblings.append(sibling)
                if not self.server.hub.names_checksums:
                    continue
                sibling |= {"size": len(content), "blobId": blob_id(content)}
                if is_large(name):
                    sha256 = hashlib.sha256(content).hexdigest()
                    # What git holds of a large file is a pointer of some 130 bytes, and that has the blob id.
                    sibling["blobId"] = blob_id(sha256.encode())
                    sibling["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 134}
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
            hub.stopped.wait()
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


@contextlib.contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()
    with HubServer(hub) as server:
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        hub.cdn = f"http://localhost:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield hub
        finally:
            hub.stopped.set()
            server.shutdown()
            thread.join()


@dataclass(frozen=True)
class Ran:
    """How a run of fetch_model.py ended."""

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
    """That of the tests without anything about hubs, proxies and certificates."""
    ours = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(("HF_", "HUGGING", "SSL_")) and not name.upper().endswith("_PROXY")
    }
    # A file that stalls is to stall until the test goes on.
    ours |= {"HF_HUB_DOWNLOAD_TIMEOUT": f"{PATIENCE_S:.0f}", "PYTHONUNBUFFERED": "1"}
    return ours | {"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}


def fetch(url: str, out: Path, *arguments: str, **variables: str) -> Ran:
    """Runs fetch_model.py in a process of its own: huggingface_hub reads the hub's address when it is imported."""
    ran = subprocess.run(
        [sys.executable, str(SCRIPT), "--out", str(out), *arguments],
        env=environment(url, out.parent / "hub-home") | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr)
