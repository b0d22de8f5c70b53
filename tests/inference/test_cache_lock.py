"""The lock: one holder at a time, however many ask at once, and none that is dead keeps it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from similarity import cache_lock
from similarity.cache_lock import Lock, LockError, server_time


def leave_behind(folder: Path, *, age_s: float) -> Path:
    """The lock of a holder that died so long ago."""
    stack = ExitStack()
    stack.enter_context(Lock(folder).hold(0))
    stack.pop_all()
    path = max(folder.iterdir(), key=lambda path: int(path.name))
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_one_at_a_time(tmp_path: Path) -> None:
    lock = Lock(tmp_path)
    with lock.hold(0), pytest.raises(LockError), lock.hold(0):
        pass
    with lock.hold(0):
        pass


def test_a_waiting_one_gets_it_when_it_is_released(tmp_path: Path) -> None:
    released = []
    with ThreadPoolExecutor(1) as pool:
        with Lock(tmp_path).hold(0):

            def hold() -> bool:
                with Lock(tmp_path).hold(10):
                    return bool(released)

            waiting = pool.submit(hold)
            time.sleep(0.2)
            released.append(True)
        assert waiting.result(10)


def test_a_dead_holder_does_not_keep_it(tmp_path: Path) -> None:
    leave_behind(tmp_path, age_s=cache_lock.STALE_S - 5)
    with pytest.raises(LockError), Lock(tmp_path).hold(0):
        pass
    leave_behind_path = leave_behind_of(tmp_path)
    os.utime(leave_behind_path, (time.time() - cache_lock.STALE_S - 1,) * 2)
    with Lock(tmp_path).hold(0):
        assert not leave_behind_path.exists()


def leave_behind_of(folder: Path) -> Path:
    [path] = folder.iterdir()
    return path


def test_a_holder_that_makes_progress_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_lock, "STALE_S", 0.3)
    with Lock(tmp_path).hold(0) as beat:
        for _ in range(5):
            time.sleep(0.1)
            beat()
            with pytest.raises(LockError), Lock(tmp_path).hold(0):
                pass
        time.sleep(0.4)
        with Lock(tmp_path).hold(0), pytest.raises(LockError, match="was taken over"):
            beat()


def test_one_of_many_takes_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for round_ in range(20):
        folder = tmp_path / str(round_)
        folder.mkdir()
        leave_behind(folder, age_s=3600)
        everyone, done = threading.Barrier(8), threading.Barrier(8)

        def take(folder: Path = folder, everyone: threading.Barrier = everyone, done: threading.Barrier = done) -> bool:
            everyone.wait(10)
            try:
                with Lock(folder).hold(0):
                    done.wait(10)
                    return True
            except LockError:
                done.wait(10)
                return False

        with ThreadPoolExecutor(8) as pool:
            taken = [each.result() for each in [pool.submit(take) for _ in range(8)]]
        assert sum(taken) == 1
        assert len(list(folder.iterdir())) == 1


def test_two_that_saw_the_same_dead_one_do_not_both_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second acts on what it saw only when the first has taken over already."""
    leave_behind(tmp_path, age_s=3600)
    is_free: Callable[[Lock, Path], bool] = Lock._is_free
    second = Lock(tmp_path)
    with ExitStack() as stack:

        def slow_is_free(lock: Lock, path: Path) -> bool:
            found = is_free(lock, path)
            if lock is second and found:
                stack.enter_context(Lock(tmp_path).hold(0))
            return found

        monkeypatch.setattr(Lock, "_is_free", slow_is_free)
        with pytest.raises(LockError), second.hold(0):
            pass


def test_a_second_that_is_later_still_finds_a_higher_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between what the second saw and what it does, others have held the lock twice, and one holds it."""
    leave_behind(tmp_path, age_s=3600)
    is_free: Callable[[Lock, Path], bool] = Lock._is_free
    second = Lock(tmp_path)
    with ExitStack() as stack:

        def slow_is_free(lock: Lock, path: Path) -> bool:
            found = is_free(lock, path)
            if lock is second and found:
                for _ in range(2):
                    with Lock(tmp_path).hold(0):
                        pass
                stack.enter_context(Lock(tmp_path).hold(0))
            return found

        monkeypatch.setattr(Lock, "_is_free", slow_is_free)
        with pytest.raises(LockError), second.hold(0):
            pass


def test_ages_are_told_by_the_servers_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Lock(tmp_path).hold(0):
        monkeypatch.setattr(time, "time", lambda: 0.0)
        with pytest.raises(LockError), Lock(tmp_path).hold(0):
            pass
    assert server_time(tmp_path) > 1e9
    assert len(list(tmp_path.iterdir())) == 1
