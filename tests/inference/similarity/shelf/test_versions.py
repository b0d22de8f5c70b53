"""Versions on the shelf: whole or not there, whoever writes, is killed, or finds the disk full."""

from __future__ import annotations

import errno
import gc
import hashlib
import os
import random
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lambdas import make_old
from processes import kill_before
from similarity.shelf import versions
from similarity.shelf.versions import put, put_aside, remove_leftovers, state_name, state_names
from tiny import cleared


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A version of two files."""
    chance = random.Random(0)
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(chance.randbytes(300_000))
    return {name: tmp_path / name for name in ("a", "b")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shelf").mkdir()
    return tmp_path / "shelf" / "version"


def is_whole(folder: Path, files: dict[str, Path]) -> bool:
    return {path.name: path.read_bytes() for path in folder.iterdir()} == {
        name: path.read_bytes() for name, path in files.items()
    }


def test_a_version_is_written_once_and_only_the_group_may_read_it(folder: Path, files: dict[str, Path]) -> None:
    assert put(folder, files)
    assert is_whole(folder, files)
    assert folder.stat().st_mode & 0o7777 == 0o750
    assert {path.stat().st_mode & 0o7777 for path in folder.iterdir()} == {0o640}
    before = folder.stat()
    assert not put(folder, files)
    assert (folder.stat().st_ino, folder.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "a").write_bytes(b"other"),
        lambda folder: (folder / "a").unlink(),
        lambda folder: (folder / "c").touch(),
        lambda folder: cleared(folder).mkdir(),
        lambda folder: cleared(folder).touch(),
    ],
)
def test_a_damaged_version_gives_way_to_a_whole_one(
    damage: Callable[[Path], object], folder: Path, files: dict[str, Path]
) -> None:
    put(folder, files)
    damage(folder)
    assert put(folder, files)
    assert is_whole(folder, files)


@pytest.mark.slow
@pytest.mark.parametrize("was", ["nothing", "damaged"])
def test_killed_at_every_step(was: str, folder: Path, files: dict[str, Path]) -> None:
    killed = 0
    for step in range(1000):
        shutil.rmtree(folder.parent)
        folder.parent.mkdir()
        if was == "damaged":
            folder.mkdir()
            (folder / "a").write_bytes(b"half")
        child = os.fork()
        if not child:
            # A collection might end sessions of earlier tests, which wait for threads that a fork doesn't have.
            gc.disable()
            kill_before(step)
            put(folder, files)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if folder.exists() and not (was == "damaged" and (folder / "a").read_bytes() == b"half"):
            assert is_whole(folder, files)
        put(folder, files)
        assert is_whole(folder, files)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        killed += 1
    assert killed >= 8
    # What the killed ones have left goes in time, and nothing else does.
    for path in folder.parent.iterdir():
        make_old(path, 3601)
    remove_leftovers(folder.parent)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("call", ["fsync", "rename", "chmod", "mkdir"])
def test_a_disk_that_fails_leaves_what_was_there(
    call: str, folder: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder, files)
    monkeypatch.setattr(os, call, _raiser(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        put(folder.with_name("another"), files)
    monkeypatch.undo()
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert is_whole(folder, files)


def _raiser(error: Exception) -> Callable[..., Any]:
    def fail(*args: object, **options: object) -> Any:
        raise error

    return fail


def test_twenty_that_write_at_once_leave_one_version(
    folder: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them have their files in hand before the first one puts them in place."""
    barrier, rename = threading.Barrier(20), Path.rename

    def meet_and_rename(path: Path, target: Path) -> Path:
        if target == folder and not barrier.broken:
            barrier.wait(60)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", meet_and_rename)
    wrote: list[bool] = []
    threads = [threading.Thread(target=lambda: wrote.append(put(folder, files))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(wrote) == [False] * 19 + [True]
    assert is_whole(folder, files)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_damaged_version_that_another_writer_puts_aside_at_the_same_moment_gives_way_too(
    folder: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder, files)
    (folder / "a").write_bytes(b"other")
    rename = Path.rename

    def after_another(path: Path, target: Path) -> Path:
        if path == folder:
            rename(path, path.with_name(".old-by-another"))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", after_another)
    assert put(folder, files)
    assert is_whole(folder, files)


def test_what_was_put_aside_can_still_be_read_and_goes_after_an_hour(folder: Path, files: dict[str, Path]) -> None:
    put(folder, files)
    with (folder / "a").open("rb") as opened:
        aside = put_aside(folder)
        assert not folder.exists()
        remove_leftovers(folder.parent)
        assert aside.exists()
        make_old(aside, 3601)
        remove_leftovers(folder.parent)
        assert list(folder.parent.iterdir()) == []
        assert opened.read() == files["a"].read_bytes()


def test_names_sort_by_time_with_undated_ones_last(tmp_path: Path) -> None:
    times = ["2026-11-26T07:04:05Z", "", "2025-12-31T23:59:59Z", "2026-11-26T07:04:06Z"]
    names = [state_name(time, f"{number:016x}") for number, time in enumerate(times)]
    assert names[0] == "20261126T070405Z-0000000000000000"
    (tmp_path / "states").mkdir()
    for name in [*names, ".new-1", "readme", "20261126T070405Z-short"]:
        (tmp_path / "states" / name).mkdir()
    assert state_names(tmp_path) == [names[3], names[0], names[2], names[1]]


def test_the_hash_is_that_of_the_bytes_copied(tmp_path: Path, files: dict[str, Path]) -> None:
    digest = versions.copy_hashed(files["a"], tmp_path / "copy")
    assert digest == hashlib.sha256(files["a"].read_bytes()).hexdigest()
    assert (tmp_path / "copy").read_bytes() == files["a"].read_bytes()
