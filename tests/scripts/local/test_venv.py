"""The set-up that scripts/serve and scripts/test share: real venvs and a real pip, with small packages of our own.

A server on this machine stands in for the package index. It is named in pip's settings, as a mirror would be.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from processes import PATIENCE_S
from tiny import ROOT

PINS = {
    "requirements.txt": "-r inference/requirements-torch.txt\nlarge_thing==1.0\n",
    "inference/requirements-torch.txt": "-r requirements.txt\ntorch==0.1\n",
    "inference/requirements.txt": "small_thing==1.0\n",
}
LOCKED = ("small_thing", "large_thing")
WHEELS = {"torch": "0.1", "small_thing": "1.0", "large_thing": "1.0"}
# In place of the server: what it would have been started with.
PROGRAM = """
import json, os, sys
import torch, small_thing, large_thing
found = {"prefix": sys.prefix, "argv": sys.argv[1:], "cwd": os.getcwd(), "torch": torch.__file__}
print(json.dumps(found))
"""


def write_wheel(folder: Path, name: str, version: str, requires: str | None = None, code: bytes = b"") -> None:
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    if requires:
        metadata += f"Requires-Dist: {requires}\n"
    files = {
        f"{name}.py": code,
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if name == "large_thing":
        files[f"{name}.bin"] = os.urandom(1_500_000)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, content in files.items():
            wheel.writestr(path, content)
        wheel.writestr(f"{info}/RECORD", "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"]))


def write_lock(project: Path, name: str, *packages: str) -> None:
    """A lock of version 1.0 of these packages, with the hashes of the index's wheels; of what it lacks, another."""
    lines = []
    for package in packages:
        wheel = project.parent / "wheels" / f"{package}-1.0-py3-none-any.whl"
        digest = hashlib.sha256(wheel.read_bytes() if wheel.exists() else b"").hexdigest()
        lines.append(f"{package}==1.0 \\\n    --hash=sha256:{digest}\n")
    lock = project / "scripts" / "locks" / name
    lock.parent.mkdir(exist_ok=True)
    lock.write_text("".join(lines))


@dataclass
class Index:
    """The package index, and what it was asked for; wheels whose names are in `stalling` never come to an end."""

    url: str = ""
    asked: list[str] = field(default_factory=list)
    stalling: set[str] = field(default_factory=set)
    stalled: Event = field(default_factory=Event)
    closing: Event = field(default_factory=Event)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name, version in WHEELS.items():
        write_wheel(wheels, name, version)
    found = Index()

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(self.path)
            if any(self.path.startswith(f"/{name}-") for name in found.stalling):
                self.send_response(200)
                self.send_header("Content-Length", "2000000")
                self.end_headers()
                # Else pip, which waits 20 s for each part, would ask again where the test gets no turn for so long.
                with suppress(OSError):
                    while not found.closing.is_set():
                        self.wfile.write(b"P")
                        self.wfile.flush()
                        found.stalled.set()
                        found.closing.wait(1.0)
                return
            super().do_GET()

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(wheels))) as server:
        found.url = f"http://127.0.0.1:{server.server_address[1]}/"
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield found
        found.closing.set()
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def empty_venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A venv with nothing but pip in it, since making one takes seconds. Shared: copy it."""
    folder = tmp_path_factory.mktemp("empty") / ".venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    return folder


@pytest.fixture
def project(bare_project: Path, empty_venv: Path) -> Path:
    """One whose set-up was stopped as soon as it had made the venv."""
    shutil.copytree(empty_venv, bare_project / ".venv", symlinks=True)
    return bare_project


@pytest.fixture
def bare_project(tmp_path: Path, index: Index) -> Path:
    """A project of the scripts that set up, with pins of its own, in a folder whose name needs care."""
    folder = tmp_path / "größe 项目 (1)"
    (folder / "scripts" / "local").mkdir(parents=True)
    (folder / "inference").mkdir()
    for name in ("serve", "test", "local/venv.sh", "local/locks.py"):
        shutil.copy(ROOT / "scripts" / name, folder / "scripts" / name)
    for name, content in PINS.items():
        (folder / name).write_text(content)
    write_lock(folder, "requirements.txt", *LOCKED)
    (folder / "scripts" / "local" / "server.py").write_text(PROGRAM)
    return folder


Environment = Callable[..., dict[str, str]]


@pytest.fixture
def environment(tmp_path: Path, index: Index) -> Environment:
    """Makes environment variables: those of the tests but for pip's and Python's, a home with pip's settings, and more.

    The settings name the index, once in a file and once in variables.
    """
    home = tmp_path / "home"
    (home / ".config" / "pip").mkdir(parents=True)

    def make(settings: str = "", **variables: str) -> dict[str, str]:
        named = f"[global]\nno-index = true\nfind-links = {index.url}\n"
        (home / ".config" / "pip" / "pip.conf").write_text(named + settings)
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PIP_", "PYTHON", "XDG_", "VIRTUAL_ENV", "CONDA"))
        }
        return kept | {"HOME": str(home), "PYTHON": sys.executable, "NO_PROXY": "127.0.0.1"} | variables

    return make


def serve(
    project: Path, env: dict[str, str], *arguments: str, cwd: Path | None = None, command: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [command or project / "scripts" / "serve", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd or project.parent,
        env=env,
        timeout=PATIENCE_S,
    )


def found_by(ran: subprocess.CompletedProcess[str]) -> Any:
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["a file", "variables"])
def test_settings_of_where_packages_are_are_left_aside_and_those_of_the_index_kept(
    kind: str, project: Path, environment: Environment, index: Index, tmp_path: Path
) -> None:
    elsewhere = {name: str(tmp_path / name) for name in ("target", "prefix", "root")}
    if kind == "a file":
        env = environment("[install]\nuser = true\n" + "".join(f"{name} = {at}\n" for name, at in elsewhere.items()))
    else:
        for name in WHEELS:
            (tmp_path / f"{name}.py").write_text("raise AssertionError('the wrong one')")
        variables = {f"PIP_{name.upper()}": at for name, at in elsewhere.items()}
        variables |= {"PYTHONPATH": str(tmp_path), "PYTHONHOME": str(tmp_path / "nowhere"), "PYTHONSAFEPATH": "1"}
        env = environment(PIP_USER="1", **variables)
    found = found_by(serve(project, env))
    assert Path(found["prefix"]) == project / ".venv"
    assert Path(found["torch"]).is_relative_to(project / ".venv")
    assert not [at for at in elsewhere.values() if Path(at).exists()]
    assert not (tmp_path / "home" / ".local").exists()
    assert "/large_thing-1.0-py3-none-any.whl" in index.asked


@pytest.mark.slow
def test_it_can_be_started_through_links_from_any_folder(
    project: Path, environment: Environment, tmp_path: Path
) -> None:
    programs, cwd = tmp_path / "bin", tmp_path / "some where"
    programs.mkdir()
    cwd.mkdir()
    (programs / "absolute").symlink_to(project / "scripts" / "serve")
    (programs / "serve").symlink_to("absolute")
    # CDPATH sends `cd scripts` elsewhere, and prints where to.
    env = environment(CDPATH=f"{programs}:{cwd}")
    env["PATH"] = f"{programs}:{env['PATH']}"
    found = found_by(serve(project, env, "--model", "a model", cwd=cwd, command=Path("serve")))
    assert found == {
        "prefix": str(project / ".venv"),
        "argv": ["--model", "a model"],
        "cwd": str(cwd),
        "torch": found["torch"],
    }


@pytest.mark.slow
def test_the_set_up_says_how_far_it_is_in_few_lines_and_the_second_start_nothing(
    bare_project: Path, environment: Environment
) -> None:
    env = environment()
    first = serve(bare_project, env)
    assert first.returncode == 0, first.stderr
    lines = first.stderr.splitlines()
    assert lines[0].startswith("Setting up .venv")
    assert f"\n$ scripts/serve\n{lines[0]}\n" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert [line for line in lines if "large_thing-1.0-py3-none-any.whl (1.5 MB)" in line]
    assert [line for line in lines if "Installing packages: 2" in line]
    assert not [line for line in lines if "small_thing" in line]
    assert len(lines) < 10
    # A venv that is complete needs no other Python.
    second = serve(bare_project, env | {"PYTHON": "/nowhere/python3"})
    assert (second.returncode, second.stderr) == (0, "")


@pytest.mark.slow
def test_where_installing_fails_the_advice_can_be_followed(
    project: Path, environment: Environment, index: Index
) -> None:
    (project / "inference" / "requirements.txt").write_text("missing_thing==1.0\n")
    write_lock(project, "requirements.txt", "missing_thing", "large_thing")
    env = environment()
    failed = serve(project, env)
    assert failed.returncode == 1
    assert failed.stdout == ""
    assert "No matching distribution found for missing_thing==1.0" in failed.stderr
    # It names what has builds and what is here, where pip's settings come from, and where all of pip's words are.
    assert f"with Python {'.'.join(map(str, sys.version_info[:3]))}" in failed.stderr
    [listing] = [line for line in failed.stderr.splitlines() if line.endswith("-m pip config list")]
    command = listing.partition("this lists them: ")[2].removesuffix(" -m pip config list")
    settings = subprocess.run([command, "-m", "pip", "config", "list"], capture_output=True, text=True, env=env)
    assert index.url in settings.stdout
    log = failed.stderr.rpartition("All that pip said: ")[2].strip()
    assert "missing_thing" in Path(log).read_text()
    # With other pins it installs those.
    (project / "inference" / "requirements.txt").write_text("small_thing==1.0\n")
    write_lock(project, "requirements.txt", *LOCKED)
    found_by(serve(project, env))


@pytest.mark.slow
def test_a_file_that_is_not_the_one_in_the_lock_is_refused(
    project: Path, environment: Environment, index: Index, tmp_path: Path
) -> None:
    write_wheel(tmp_path / "wheels", "large_thing", "1.0")
    refused = serve(project, environment())
    assert refused.returncode == 1
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in refused.stderr
    assert not list((project / ".venv").rglob("large_thing*"))


@pytest.mark.slow
def test_what_a_package_asks_for_is_installed_only_where_the_lock_names_it(
    project: Path, environment: Environment, tmp_path: Path
) -> None:
    write_wheel(tmp_path / "wheels", "small_thing", "1.0", requires="other_thing")
    write_wheel(tmp_path / "wheels", "other_thing", "1.0")
    write_lock(project, "requirements.txt", *LOCKED)
    refused = serve(project, environment())
    assert refused.returncode == 1
    assert "other_thing" in refused.stderr
    assert not list((project / ".venv").rglob("other_thing*"))
    # A lock that changed is installed.
    write_lock(project, "requirements.txt", *LOCKED, "other_thing")
    found_by(serve(project, environment()))
    assert list((project / ".venv").rglob("other_thing.py"))


@pytest.mark.slow
def test_a_change_to_a_file_that_the_requirements_include_counts(project: Path, environment: Environment) -> None:
    included = project / "scripts" / "some.txt"
    included.write_text("small_thing==1.0\n")
    (project / "requirements.txt").write_text(f"{PINS['requirements.txt']}-r scripts/some.txt\n")
    found_by(serve(project, environment()))
    included.write_text("small_thing==2.0\n")
    refused = serve(project, environment())
    assert refused.returncode == 1
    assert "requirements.txt asks for small-thing==2.0, but scripts/locks/requirements.txt has 1.0." in refused.stderr


@pytest.mark.slow
def test_a_lock_that_lacks_a_requirement_is_named_before_anything_is_downloaded(
    project: Path, environment: Environment, index: Index
) -> None:
    for pin in ("other_thing==1.0", "large_thing==2.0"):
        (project / "requirements.txt").write_text(f"{PINS['requirements.txt']}{pin}\n")
        refused = serve(project, environment())
        assert (refused.returncode, refused.stdout) == (1, "")
        *_, difference, remedy = refused.stderr.splitlines()
        has = {"other_thing==1.0": "none", "large_thing==2.0": "1.0"}[pin]
        assert difference == (
            f"requirements.txt asks for {pin.replace('_', '-')}, but scripts/locks/requirements.txt has {has}."
        )
        assert remedy.endswith("/.venv/bin/python scripts/lock.py")
    assert index.asked == []


@pytest.mark.slow
def test_a_build_of_torch_that_needs_more_than_the_lock_has_gets_it(
    project: Path, environment: Environment, tmp_path: Path
) -> None:
    """As the build for Linux with CUDA does, where PyTorch's CPU index can't be reached."""
    write_wheel(tmp_path / "wheels", "torch", "0.1", requires="other_thing", code=b"import other_thing")
    write_wheel(tmp_path / "wheels", "other_thing", "1.0")
    found_by(serve(project, environment()))


@pytest.mark.slow
def test_ctrl_c_ends_the_set_up_with_one_line_and_the_same_command_goes_on(
    project: Path, environment: Environment, index: Index
) -> None:
    index.stalling = {"torch"}
    env = environment()
    process = subprocess.Popen(
        [project / "scripts" / "serve"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        start_new_session=True,
    )
    try:
        assert index.stalled.wait(PATIENCE_S)
        # A terminal sends it to all processes of a command.
        os.killpg(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, stdout) == (130, "")
    assert stderr.splitlines()[-1] == "Stopped; the same command goes on from here."
    assert "Traceback" not in stderr
    assert "failed" not in stderr
    # It doesn't go on to the index that may have several GB.
    assert [path for path in index.asked if path.startswith("/torch-")] == ["/torch-0.1-py3-none-any.whl"]
    index.stalling.clear()
    found_by(serve(project, env))


@pytest.mark.slow
def test_a_python_that_is_too_old_is_named(bare_project: Path, environment: Environment, tmp_path: Path) -> None:
    old = tmp_path / "old python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    refused = serve(bare_project, environment(PYTHON=str(old)))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert str(old) in refused.stderr
    assert "Python 3.11" in refused.stderr
    assert not (bare_project / ".venv").exists()


@pytest.mark.slow
def test_scripts_test_can_be_started_through_a_link(
    project: Path, environment: Environment, index: Index, tmp_path: Path
) -> None:
    # The programs that it runs, as packages that say that they were run.
    for name in ("ruff", "mypy", "pytest"):
        write_wheel(tmp_path / "wheels", name, "1.0")
    (project / "requirements-dev.txt").write_text("-r requirements.txt\nruff==1.0\nmypy==1.0\npytest==1.0\n")
    write_lock(project, "requirements-dev.txt", *LOCKED, "ruff", "mypy", "pytest")
    (tmp_path / "test").symlink_to(project / "scripts" / "test")
    env = environment()
    ran = subprocess.run([tmp_path / "test"], capture_output=True, text=True, env=env, timeout=PATIENCE_S, cwd="/")
    assert (ran.returncode, ran.stdout) == (0, "")
    for name in ("ruff", "mypy", "pytest"):
        assert list((project / ".venv").rglob(f"{name}-1.0.dist-info"))


def test_without_a_python_the_given_command_is_the_one_to_repeat() -> None:
    sourced = ["bash", "-c", ". scripts/local/venv.sh; find_python", "scripts/deploy"]
    environment = {**os.environ, "PYTHON": "/nowhere/python3"}
    ended = subprocess.run(sourced, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr.endswith("PYTHON=/path/to/python3 scripts/deploy\n")
