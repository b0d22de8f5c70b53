"""Processes that share a cache: started all at once, killed and frozen at whatever point, denied what they need."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from lambdas import Image, log_lines, start
from similarity import cache_lock, pruning
from similarity.cache import Cache
from similarity.cache_lock import LockError
from similarity.filling import fill
from similarity.manifest import ImageManifest
from similarity.publish import publish_state

# A Lambda's first two invocations: a caller's, and the deployment's.
INVOCATIONS = """
import json, sys
from similar import handler
print("ready", flush=True)
sys.stdin.readline()
print(json.dumps(handler({"text": "a robot", "num": 2}, None)), flush=True)
print(handler({"warm": True}, None)["statusCode"], flush=True)
"""

# The fill alone.
FILL = """
import os, signal, sys, time
from pathlib import Path
from similarity import manifest, synced_files
from similarity.cache import Cache
from similarity.filling import fill
{before}
model_dir = Path(os.environ["MODEL_DIR"])
image = manifest.ImageManifest.read(model_dir)
print("ready", flush=True)
sys.stdin.readline()
fill(Cache(Path(os.environ["INCIDENT_CACHE_DIR"])), image, model_dir, ["models", "states"], 0.0)
"""

# As the fixture `large`.
SMALL_CHUNKS = "synced_files.CHUNK_BYTES = manifest.CHUNK_BYTES = 65536\n"
SLOW = SMALL_CHUNKS + "fsync = os.fsync\nos.fsync = lambda descriptor: (time.sleep({}), fsync(descriptor))\n"


@pytest.fixture
def large(image: Image, monkeypatch: pytest.MonkeyPatch) -> Image:
    """An image whose fill takes long enough to be hit in the middle of it. Locks and leftovers are stale at once."""
    (image.model_dir / "more.safetensors").write_bytes(random.Random(0).randbytes(3 << 20))
    monkeypatch.setattr("similarity.manifest.CHUNK_BYTES", 65536)
    monkeypatch.setattr("similarity.synced_files.CHUNK_BYTES", 65536)
    ImageManifest.of(image.model_dir).write(image.model_dir)
    monkeypatch.setattr(cache_lock, "STALE_S", -1.0)
    monkeypatch.setattr(pruning, "LEFTOVER_S", -1.0)
    return image


def fill_here(image: Image) -> None:
    fill(Cache(image.cache_dir), image.manifest, image.model_dir, ["models", "states"], 0.0)


def test_of_20_that_start_at_once_one_fills(image: Image) -> None:
    processes = [start(image, INVOCATIONS) for _ in range(20)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()[1]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    answers, lines = set(), []
    for process in processes:
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr
        answer, status = stdout.splitlines()
        assert json.loads(answer)["statusCode"] == 200
        assert status == "200"
        answers.add(answer)
        lines += log_lines(stderr)
        assert len(stderr.splitlines()) == len(log_lines(stderr))
    assert len(answers) == 1
    filled = [kind for line in lines if line["event"] == "cache-filled" for kind in line["filled"]]
    assert sorted(filled) == ["models", "states"]
    assert [line for line in lines if line["level"] != "info"] == []
    assert image.is_whole()


def what_is_left(image: Image) -> str:
    """How far a fill has come."""
    if not image.cache_dir.exists():
        return "nothing"
    if (image.cache_dir / "seen" / image.manifest.state.id).exists():
        return "all"
    if (image.cache_dir / "states" / "current").exists():
        return "pointer"
    if image.state.exists():
        return "state"
    if image.model.exists():
        return "model"
    begun = [path for new in image.cache_dir.glob("models/.new-*") for path in new.iterdir()]
    return f"{len(begun)} files" if begun else "folders"


def assert_a_later_start_is_not_troubled(image: Image) -> None:
    manifest = image.manifest
    for version, folder in ((manifest.model, image.model), (manifest.state, image.state)):
        if folder.exists():
            version.require_same(folder)  # a whole version or none
    fill_here(image)
    assert image.is_whole()


def test_killed_at_random_moments(large: Image) -> None:
    """50 times, by a SIGKILL from outside, at any moment of what a whole fill takes."""
    left: Counter[str] = Counter()
    chance = random.Random(1)
    seconds = 0.0
    for round_ in range(51):
        process = start(large, FILL.format(before=SLOW.format(0.001)))
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        begun = time.monotonic()
        process.stdin.write("\n")
        process.stdin.flush()
        if round_ == 0:
            process.communicate(timeout=30)
            assert process.returncode == 0
            seconds = time.monotonic() - begun
        else:
            time.sleep(chance.uniform(0, seconds))
            process.kill()
            process.communicate(timeout=30)
            left[what_is_left(large)] += 1
        assert_a_later_start_is_not_troubled(large)
        shutil.rmtree(large.cache_dir)
    assert sum(left.values()) == 50
    assert len(left) >= 5, left
    assert sum(count for state, count in left.items() if state.endswith("files")) >= 10, left


# Every call that changes what is on disk, in the order of a fill.
CALLS = ("mkdir", "open", "write", "fsync", "rename", "replace", "utime", "unlink", "rmdir")
KILL_AT = f"""
calls = 0
def counted(name):
    call = getattr(os, name)
    def count(*args, **options):
        global calls
        calls += 1
        if calls == int(os.environ.get("KILL_AT", "0")):
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **options)
    setattr(os, name, count)
for name in {CALLS}:
    counted(name)
import atexit
atexit.register(lambda: print(calls))
"""


def test_killed_at_every_step(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before each call, in turn, that changes what is on disk."""
    monkeypatch.setattr(cache_lock, "STALE_S", -1.0)
    monkeypatch.setattr(pruning, "LEFTOVER_S", -1.0)
    program = FILL.format(before=KILL_AT).replace("sys.stdin.readline()", "")
    stdout, stderr = start(image, program).communicate(timeout=30)
    steps = int(stdout.splitlines()[-1])
    assert "cache-filled" in stderr, stderr
    left = set()
    for step in range(1, steps + 1):
        shutil.rmtree(image.cache_dir)
        monkeypatch.setenv("KILL_AT", str(step))
        process = start(image, program)
        process.communicate(timeout=30)
        assert process.returncode == -signal.SIGKILL
        left.add(what_is_left(image))
        assert_a_later_start_is_not_troubled(image)
    assert left >= {"nothing", "folders", "1 files", "model", "state", "pointer"}


def wait_for(image: Image, state: str) -> None:
    deadline = time.monotonic() + 20
    while what_is_left(image) != state:
        assert time.monotonic() < deadline, what_is_left(image)
        time.sleep(0.001)


def test_one_frozen_in_mid_fill_does_no_harm(large: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a Lambda between two requests: another takes over, and then the first thaws."""
    monkeypatch.setattr(cache_lock, "STALE_S", 0.3)
    monkeypatch.setattr(pruning, "LEFTOVER_S", 3600.0)
    process = start(large, FILL.format(before=SLOW.format(0.02)))
    try:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        wait_for(large, "3 files")
        # It makes progress: nobody takes the lock.
        time.sleep(0.5)
        with pytest.raises(LockError):
            fill_here(large)
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(0.5)
        fill_here(large)
        manifest = large.manifest
        manifest.model.require_same(large.model)
        inode = large.model.stat().st_ino
    finally:
        os.kill(process.pid, signal.SIGCONT)
    _, stderr = process.communicate(timeout=30)
    assert "LockError: the lock 1 was taken over" in stderr
    assert large.model.stat().st_ino == inode
    assert large.is_whole()


def test_one_frozen_before_it_publishes_does_not_put_an_old_state_in_use(
    image: Image, newer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_lock, "STALE_S", 0.2)
    monkeypatch.setattr(pruning, "LEFTOVER_S", 3600.0)
    freeze = """
write = Cache.write
def write_and_freeze(cache, kind, *args):
    write(cache, kind, *args)
    if kind == "states":
        os.kill(os.getpid(), signal.SIGSTOP)
Cache.write = write_and_freeze
"""
    process = start(image, FILL.format(before=freeze).replace("sys.stdin.readline()", ""))
    try:
        wait_for(image, "state")
        time.sleep(0.3)
        version = publish_state(newer, image.cache_dir)
    finally:
        os.kill(process.pid, signal.SIGCONT)
    _, stderr = process.communicate(timeout=30)
    assert "LockError" in stderr
    pointer = Cache(image.cache_dir).pointer()
    assert pointer is not None
    assert pointer.version == version


def test_without_the_lock_there_is_still_a_whole_version_or_none(large: Image) -> None:
    """Eight fill at once, each as if it held the lock: who comes second throws its copy away."""
    no_lock = """
from contextlib import nullcontext
from similarity.cache_lock import Lock
Lock.hold = lambda self, wait_s: nullcontext(lambda: None)
"""
    processes = [start(large, FILL.format(before=no_lock + SLOW.format(0.002))) for _ in range(8)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    seen = 0
    manifest = large.manifest
    while any(process.poll() is None for process in processes):
        if large.model.exists():
            manifest.model.require_same(large.model)
            seen += 1
    filled = 0
    for process in processes:
        _, stderr = process.communicate(timeout=30)
        assert process.returncode == 0, stderr
        filled += stderr.count("cache-filled")
    assert (seen > 0, filled > 1) == (True, True)
    assert_a_later_start_is_not_troubled(large)


PUBLISH = (
    KILL_AT
    + """
import sys
from pathlib import Path
from similarity.publish import publish_state
publish_state(Path(os.environ["NEWER"]), Path(os.environ["INCIDENT_CACHE_DIR"]), 0.0)
"""
)


def test_a_publication_killed_at_every_step_leaves_one_state_or_the_other(
    image: Image, newer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_lock, "STALE_S", -1.0)
    fill_here(image)
    monkeypatch.setenv("NEWER", str(newer))
    program = "import os, signal\n" + PUBLISH
    found = []
    for step in range(1, 100):
        monkeypatch.setenv("KILL_AT", str(step))
        process = start(image, program)
        process.communicate(timeout=30)
        pointer = Cache(image.cache_dir).pointer()
        assert pointer is not None
        assert (image.cache_dir / "states" / pointer.version / "incident_cls.pt").exists()
        found.append(pointer.version == image.manifest.state.id)
        if process.returncode == 0:
            break
        shutil.rmtree(image.cache_dir)
        fill_here(image)
    assert found[0]
    assert not found[-1]
    assert len(found) > 10


# Of root's powers nothing is left but its name.
POWERLESS = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"] if os.geteuid() == 0 else []


@pytest.mark.parametrize("mode", [0o000, 0o500])
def test_permission_denied_costs_one_line(mode: int, image: Image) -> None:
    if POWERLESS and shutil.which(POWERLESS[0]) is None:
        pytest.skip("root is denied nothing without setpriv")
    mount = image.cache_dir.parent
    mount.chmod(mode)
    try:
        stdout, stderr = start(image, INVOCATIONS, *POWERLESS).communicate("\n", timeout=30)
    finally:
        mount.chmod(0o700)
    assert stdout.splitlines()[-1] == "200", stderr
    [line] = log_lines(stderr)
    assert line["event"] == "cache-unavailable"
    assert "Permission denied" in line["reason"]
    assert len(stderr.splitlines()) == 1


def test_a_disk_that_takes_no_more_costs_one_line(image: Image) -> None:
    """Where no file system can be mounted, a limit of the process stands in for a full one."""
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))\n"
    stdout, stderr = start(image, limit + INVOCATIONS).communicate("\n", timeout=30)
    assert stdout.splitlines()[-1] == "200", stderr
    [line] = log_lines(stderr)
    assert (line["event"], "File too large" in line["reason"]) == ("cache-unavailable", True)
    assert list((image.cache_dir / "models").iterdir()) == []


def test_the_fill_needs_no_large_import(image: Image) -> None:
    program = FILL.format(before="").replace("sys.stdin.readline()", "") + "print(*sys.modules)\n"
    stdout, _ = start(image, program).communicate(timeout=30)
    assert not {"numpy", "torch", "onnxruntime"} & set(stdout.split())
    assert image.is_whole()
