"""Handlers with a cache: later starts use it, and nothing that is wrong with it is felt."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lambdas import Image, Logged, PassTime, ask, prime, start_again, titles
from similarity import cached
from similarity import service as service_module
from similarity.cache import Cache
from similarity.errors import ModelError, StateError


def test_the_first_answer_comes_from_the_image_and_the_cache_is_filled_after_it(
    image: Image, loaded_from: list[Path], logged: Logged
) -> None:
    ask()
    assert loaded_from == [image.model_dir]
    deadline = time.monotonic() + 10
    while not (
        image.model.exists() and (image.cache_dir / "seen").exists() and any((image.cache_dir / "seen").iterdir())
    ):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert image.is_whole()
    assert logged() == []


def test_a_later_start_loads_from_the_cache(
    image: Image, loaded_from: list[Path], logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ask()
    prime()
    assert image.is_whole()
    start_again()
    # Neither does the image's state have to be readable, nor its model, of which only samples are compared.
    (image.model_dir / "incident_cls.pt").write_bytes(bytes((image.model_dir / "incident_cls.pt").stat().st_size))
    assert ask() == first
    assert loaded_from == [image.model_dir, image.model]
    assert logged() == []


def test_each_handler_fills_and_needs_its_own_part(image: Image, loaded_from: list[Path]) -> None:
    prime("embed_to_db_similar")
    assert (image.model.exists(), image.state.exists()) == (False, True)
    shutil.rmtree(image.cache_dir)
    start_again()
    prime("text_to_embed")
    assert (image.model.exists(), image.state.exists()) == (True, False)
    assert loaded_from == [image.model_dir]


def test_without_manifest_or_directory_there_is_no_cache(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    (image.model_dir / "manifest.json").rename(image.model_dir / "elsewhere")
    prime()
    start_again()
    (image.model_dir / "elsewhere").rename(image.model_dir / "manifest.json")
    monkeypatch.delenv("INCIDENT_CACHE_DIR")
    prime()
    assert list(image.cache_dir.parent.iterdir()) == []


def test_a_manifest_of_another_folder_is_one_line_and_no_cache(image: Image, logged: Logged) -> None:
    with (image.model_dir / "config.json").open("a") as file:
        file.write("\n")
    prime()
    assert [line["event"] for line in logged()] == ["cache-unavailable"]
    assert not image.cache_dir.exists()


def test_an_image_that_is_not_what_its_manifest_says_fills_nothing(image: Image, logged: Logged) -> None:
    content = (image.model_dir / "provenance.json").read_bytes()
    (image.model_dir / "provenance.json").write_bytes(content.replace(b"tiny", b"tinx"))
    prime()
    [line] = logged()
    assert line["reason"].endswith("provenance.json is not what its manifest says")
    assert list((image.cache_dir / "models").iterdir()) == []


def test_priming_fills_before_it_answers(image: Image) -> None:
    envelope = importlib.import_module("similar").handler({"warm": True}, None)
    assert envelope["statusCode"] == 200
    assert envelope["body"] == {"warnings": [], "warm": True}
    assert image.is_whole()


@pytest.mark.parametrize("event", [{}, None])
def test_an_invocation_without_payload_primes_and_is_a_bad_request(image: Image, event: object) -> None:
    envelope = importlib.import_module("similar").handler(event, None)
    assert envelope["statusCode"] == 400
    assert image.is_whole()


@pytest.mark.parametrize("event", [{}, {"warm": True}])
@pytest.mark.parametrize(
    ("module", "filename", "error"),
    [
        ("similar", "incident_cls.pt", StateError),
        ("similar", "model.safetensors", ModelError),
        ("text_to_embed", "tokenizer.json", ModelError),
        ("embed_to_db_similar", "incident_cls.pt", StateError),
    ],
)
def test_priming_that_can_load_nothing_raises(
    module: str, filename: str, error: type[Exception], event: dict[str, Any], image: Image, logged: Logged
) -> None:
    (image.model_dir / filename).unlink()
    with pytest.raises(error):
        importlib.import_module(module).handler(event, None)


def test_callers_do_not_prime(image: Image) -> None:
    for body in ("{}", '{"warm": true}'):
        answer = importlib.import_module("similar").handler({"requestContext": {}, "body": body}, None)
        assert answer["statusCode"] == 400
    assert not image.cache_dir.exists()


def test_priming_waits_for_one_that_is_filling(image: Image, logged: Logged) -> None:
    lock = Cache(image.cache_dir).prepare()
    with lock.hold(0):
        thread = threading.Thread(target=prime)
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
        assert not image.model.exists()
    thread.join(10)
    assert image.is_whole()
    assert logged() == []


def test_a_cached_model_that_can_not_be_loaded_costs_one_line(
    image: Image, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another Lambda may set it aside, or the file system fail, after it has been verified."""
    prime()
    load = service_module.load_encoder

    def fail_in_the_cache(folder: Path, **options: Any) -> Any:
        if image.cache_dir in folder.parents:
            raise ModelError(f"{folder}: Stale file handle")
        return load(folder, **options)

    monkeypatch.setattr(service_module, "load_encoder", fail_in_the_cache)
    start_again()
    assert titles()
    [line] = logged()
    assert (line["event"], line["serves"]) == ("cache-unavailable", "image")
    assert "Stale file handle" in line["reason"]


def absent(image: Image) -> None:
    image.cache_dir.parent.rmdir()


def regular_file(image: Image) -> None:
    image.cache_dir.write_text("not a folder")


def regular_file_as_models(image: Image) -> None:
    image.cache_dir.mkdir()
    (image.cache_dir / "models").write_text("not a folder")


@pytest.mark.parametrize("spoil", [absent, regular_file, regular_file_as_models])
@pytest.mark.parametrize("module", ["similar", "text_to_embed"])
def test_a_cache_that_is_none_costs_one_line(
    spoil: Callable[[Image], None], module: str, image: Image, logged: Logged, pass_time: PassTime
) -> None:
    spoil(image)
    for _ in range(3):
        prime(module)
        pass_time(1000)
    [line] = logged()
    assert line["level"] == "warning"
    assert line["event"] == "cache-unavailable"
    assert line["serves"] == "image"
    assert "No such file" in line["reason"] or "File exists" in line["reason"] or "Not a directory" in line["reason"]


@pytest.fixture
def tmpfs(image: Image) -> Iterator[Callable[[str], None]]:
    """Mounts a file system, with these options, where the cache's is expected."""
    mount = image.cache_dir.parent

    def mount_it(options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(mount)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("only root can mount")

    yield mount_it
    subprocess.run(["umount", "-l", str(mount)], capture_output=True, check=False)


def test_a_full_file_system_costs_one_line_and_nothing_half_stays(
    image: Image, tmpfs: Callable[[str], None], logged: Logged
) -> None:
    model_bytes = sum(entry.size for entry in image.manifest.model.files)
    tmpfs(f"size={(model_bytes // 2) // 1024}k")
    for _ in range(2):
        prime()
    [line] = logged()
    assert "No space left on device" in line["reason"]
    assert list((image.cache_dir / "models").iterdir()) == []
    ask()


def test_a_read_only_file_system_costs_one_line(image: Image, tmpfs: Callable[[str], None], logged: Logged) -> None:
    tmpfs("ro")
    prime()
    ask()
    [line] = logged()
    assert "Read-only file system" in line["reason"]


def test_a_read_only_cache_is_read(
    image: Image, tmpfs: Callable[[str], None], loaded_from: list[Path], logged: Logged
) -> None:
    tmpfs("size=100m")
    prime()
    tmpfs_path = str(image.cache_dir.parent)
    subprocess.run(["mount", "-o", "remount,ro", tmpfs_path], check=True)
    start_again()
    prime()
    assert loaded_from == [image.model_dir, image.model]
    assert logged() == []


CORRUPTIBLE = [
    "models/config.json",
    "models/encoder.onnx",
    "models/model.safetensors",
    "models/provenance.json",
    "models/tokenizer.json",
    "models/manifest.json",
    "states/incident_cls.pt",
    "states/manifest.json",
    "states/current",
]


@pytest.mark.parametrize("name", CORRUPTIBLE)
@pytest.mark.parametrize("damage", ["bit", "cut", "gone"])
def test_damage_is_noticed_logged_and_mended(
    name: str, damage: str, image: Image, loaded_from: list[Path], logged: Logged, pass_time: PassTime
) -> None:
    first = ask()
    prime()
    kind, _, filename = name.partition("/")
    path = {"models": image.model, "states": image.state}[kind] / filename
    path = path if filename != "current" else image.cache_dir / name
    content = bytearray(path.read_bytes())
    if damage == "bit":
        content[len(content) // 2] ^= 1
    path.unlink()
    if damage != "gone":
        path.write_bytes(content[: len(content) // 2 if damage == "cut" else None])
    start_again()
    assert ask() == first
    prime()
    lines = logged()
    if (name, damage) == ("states/current", "gone"):
        assert lines == []  # as before the first state
    else:
        assert [(line["event"], line["serves"]) for line in lines] == [("cache-corrupt", "image")]
        # Copies only: what is broken may be in use for what is not.
        for bad in image.cache_dir.glob("*/.bad-*"):
            shutil.rmtree(bad)
    assert loaded_from[-1] == (image.model_dir if kind == "models" else image.model)
    assert image.is_whole()
    start_again()
    assert ask() == first
    assert loaded_from[-1] == image.model
    assert logged() == []


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux tells the path of a descriptor")
@pytest.mark.parametrize("name", ["pread", "open", "stat", "mkdir", "write", "fsync", "utime"])
def test_a_file_system_that_hangs_holds_nobody_up(
    name: str, image: Image, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    """Each call in turn that touches the cache and never returns; first with an empty cache, then with a full one."""
    prime()
    logged()
    monkeypatch.setattr(cached, "START_LIMIT_S", 0.3)
    monkeypatch.setattr(cached, "LOOK_LIMIT_S", 0.3)
    monkeypatch.setattr(cached, "PRIME_LIMIT_S", 0.3)
    released = threading.Event()
    works = getattr(os, name)

    def hang(target: Any, *args: Any, **options: Any) -> Any:
        path = Path(f"/proc/self/fd/{target}").readlink() if isinstance(target, int) else os.fspath(target)
        if str(path).startswith(str(image.cache_dir)):
            released.wait(30)
        return works(target, *args, **options)

    try:
        for empty in (False, True):
            start_again()
            if empty:
                shutil.rmtree(image.cache_dir)
            monkeypatch.setattr(os, name, hang)
            start = time.monotonic()
            ask()
            prime()
            ask()
            assert time.monotonic() - start < 2.5
            monkeypatch.setattr(os, name, works)
            lines = logged()
            assert [line["event"] for line in lines] in ([], ["cache-unavailable"])
    finally:
        released.set()
