"""Which state is served, as the handlers' callers see it, whatever the shared file system does."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from lambdas import Image, PassTime, ask, days_ago, start_again, titles, with_titles
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.incidents.state import IncidentState
from similarity.service import service
from similarity.shelf import served
from similarity.shelf.versions import state_name, state_names
from tiny import TINY_TEXTS, cleared, state_of_texts, write_tiny_longformer

LOGGER = "similarity.shelf.served"


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def problems(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]


@pytest.fixture
def newer(tiny_state: IncidentState) -> IncidentState:
    """A state of the same model that was built yesterday: its titles are all `newer`."""
    return with_titles(tiny_state, "newer", days_ago(1))


def look_again(pass_time: PassTime) -> set[str]:
    """The titles that are served once a look has been waited for."""
    pass_time(served.STALE_S + 1)
    return titles()


def test_the_image_serves_as_long_as_nothing_is_on_the_shelf(
    image: Image, pass_time: PassTime, caplog: pytest.LogCaptureFixture
) -> None:
    assert titles() == set(TINY_TEXTS.values())
    image.states.mkdir(parents=True)
    assert look_again(pass_time) == set(TINY_TEXTS.values())
    assert problems(caplog) == ["shelf unavailable"]


def test_a_process_serves_the_newest_from_its_first_answer_on(image: Image, newer: IncidentState) -> None:
    image.shelve()
    image.put(with_titles(newer, "older", days_ago(2)))
    image.put(newer)
    start_again()
    assert titles() == {"newer"}
    vector = ask("text_to_embed", {"text": "a robot"})["embedding"]["vector"]
    assert {each["title"] for each in ask("embed_to_db_similar", {"embed": vector})["incidents"]} == {"newer"}


def test_a_new_state_is_found_in_the_background_within_ten_seconds_of_use(
    image: Image, newer: IncidentState, pass_time: PassTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    image.shelve()
    assert titles() == set(TINY_TEXTS.values())
    image.put(newer)
    assert titles() == set(TINY_TEXTS.values())  # it has looked just now
    pass_time(served.LOOK_S + 1)
    waited: list[float | None] = []
    wait = threading.Event.wait

    def noting(event: threading.Event, timeout: float | None = None) -> bool:
        waited.append(timeout)
        return wait(event, timeout)

    look = service()._shelved
    assert look is not None
    titles()  # starts the look, and doesn't wait for it
    assert wait(look._look, 60)
    monkeypatch.setattr(threading.Event, "wait", noting)
    assert titles() == {"newer"}
    assert len(waited) == 1  # for a look that is over


def test_a_state_that_goes_from_the_shelf_gives_way_to_the_one_before(
    image: Image, newer: IncidentState, pass_time: PassTime
) -> None:
    image.put(with_titles(newer, "older", days_ago(2)))
    name = image.put(newer)
    assert titles() == {"newer"}
    shutil.rmtree(image.states / name)
    assert look_again(pass_time) == {"older"}


Break = Callable[[Path], object]
BROKEN: dict[str, Break] = {
    "cut off": lambda path: os.truncate(path, 1000),
    "a bit": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\1"),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
    "a folder": lambda path: cleared(path).mkdir(),
    "a link to nothing": lambda path: cleared(path).symlink_to("nowhere"),
}


@pytest.mark.parametrize("damage", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("is_fresh", [True, False])
def test_a_damaged_state_is_refused_once_and_the_last_good_one_served(
    damage: Break,
    is_fresh: bool,
    image: Image,
    newer: IncidentState,
    pass_time: PassTime,
    caplog: pytest.LogCaptureFixture,
) -> None:
    image.put(with_titles(newer, "older", days_ago(2)))
    if not is_fresh:
        assert titles() == {"older"}
    name = image.put(newer)
    damage(image.states / name / "incident_cls.pt")
    for _ in range(3):
        assert look_again(pass_time) == {"older"}
    assert problems(caplog) == ["state refused"]
    [record] = [record for record in caplog.records if record.getMessage() == "state refused"]
    assert vars(record)["state"] == name
    assert vars(record)["reason"]


def test_a_state_of_another_model_is_refused_and_the_newest_that_fits_served(
    image: Image, newer: IncidentState, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = TorchEncoder.load(write_tiny_longformer(tmp_path / "other", seed=1))
    image.put(newer)
    image.put(with_titles(state_of_texts(other, TINY_TEXTS), "of another model", days_ago(0)))
    assert titles() == {"newer"}
    assert problems(caplog) == ["state refused"]


def test_a_refused_state_is_tried_again_after_pauses_that_grow_and_served_once_it_is_whole(
    image: Image, newer: IncidentState, pass_time: PassTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = image.put(newer)
    path = image.states / name / "incident_cls.pt"
    content = path.read_bytes()
    path.write_bytes(b"half")
    clock, tried = [0.0], []
    load = served.ServedState._load

    def noting(states: served.ServedState, each: str) -> Any:
        tried.append(clock[0])
        return load(states, each)

    monkeypatch.setattr(served.ServedState, "_load", noting)
    for _ in range(300):
        assert "newer" not in titles()
        pass_time(served.STALE_S + 1)
        clock[0] += served.STALE_S + 1
    pauses = [later - earlier for earlier, later in pairwise(tried)]
    assert pauses == sorted(pauses)
    assert pauses[0] <= 2 * served.STALE_S
    assert served.LONGEST_PAUSE_S <= pauses[-1] <= served.LONGEST_PAUSE_S + 2 * served.STALE_S
    path.write_bytes(content)
    pass_time(served.LONGEST_PAUSE_S + 1)
    assert titles() == {"newer"}


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """From when it is cleared until it is set, every look at the shelf hangs."""
    let_go = threading.Event()
    let_go.set()

    def hang(shelf: Path) -> list[str]:
        let_go.wait()
        return state_names(shelf)

    monkeypatch.setattr(served, "state_names", hang)
    yield let_go
    let_go.set()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """For how long requests were ready to wait for a look; none of them really waits for one that hangs."""
    limits: list[float] = []

    def newest(look: served.Look) -> Any:
        if not look.pending.is_set():
            limits.append(look.deadline - time.monotonic())
            look.states.give_up(look.pending)
        return look.states.newest()

    monkeypatch.setattr(served.Look, "newest", newest)
    return limits


def test_a_shelf_that_hangs_keeps_one_request_waiting_for_a_second_at_most(
    image: Image,
    newer: IncidentState,
    hanging: threading.Event,
    waits: list[float],
    pass_time: PassTime,
    caplog: pytest.LogCaptureFixture,
) -> None:
    image.put(newer)
    hanging.clear()
    for _ in range(5):
        assert titles() == set(TINY_TEXTS.values())
        pass_time(served.STALE_S + 1)
    assert len(waits) == 1
    assert waits[0] <= served.WAIT_S
    assert problems(caplog) == ["shelf unavailable"]
    assert [thread.name for thread in threading.enumerate()].count("shelf") == 1
    hanging.set()
    states = service()._shelved
    assert states is not None
    assert states._look.wait(60)
    assert titles() == {"newer"}


def test_a_process_that_was_frozen_in_a_look_waits_for_it_when_it_goes_on(
    image: Image, newer: IncidentState, hanging: threading.Event, pass_time: PassTime
) -> None:
    image.shelve()
    titles()
    image.put(newer)
    hanging.clear()
    pass_time(served.LOOK_S + 1)
    assert titles() == set(TINY_TEXTS.values())  # a look in the background has begun
    pass_time(3600)
    threading.Timer(0.05, hanging.set).start()
    assert titles() == {"newer"}


def _unlistable(mount: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    listdir = os.listdir

    def refuse(path: Any = ".") -> list[str]:
        if str(path).startswith(str(mount)):
            raise OSError(number, os.strerror(number), str(path))
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refuse)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.ENOTCONN])
def test_a_shelf_that_fails_is_logged_once_and_the_last_state_served(
    number: int,
    image: Image,
    newer: IncidentState,
    pass_time: PassTime,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    image.put(newer)
    assert titles() == {"newer"}
    _unlistable(image.mount, monkeypatch, number)
    for _ in range(3):
        assert look_again(pass_time) == {"newer"}
    assert problems(caplog) == ["shelf unavailable"]
    start_again()
    assert titles() == set(TINY_TEXTS.values())


@pytest.mark.parametrize("what", ["mount", "shelf", "states"])
@pytest.mark.parametrize("becomes", ["gone", "empty"])
def test_a_shelf_that_is_lost_leaves_the_last_state_in_use(
    what: str, becomes: str, image: Image, newer: IncidentState, pass_time: PassTime
) -> None:
    image.put(newer)
    assert titles() == {"newer"}
    folder = {"mount": image.mount, "shelf": image.shelf, "states": image.states}[what]
    shutil.rmtree(folder)
    if becomes == "empty":
        folder.mkdir()
    assert look_again(pass_time) == {"newer"}
    start_again()
    assert titles() == set(TINY_TEXTS.values())


def test_a_full_disk_of_its_own_leaves_the_last_state_in_use(
    image: Image,
    newer: IncidentState,
    pass_time: PassTime,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    image.put(with_titles(newer, "older", days_ago(2)))
    assert titles() == {"older"}
    image.put(newer)
    fsync = os.fsync

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert look_again(pass_time) == {"older"}
    assert "No space left" in [vars(r)["reason"] for r in caplog.records if r.levelno > logging.INFO][-1]
    monkeypatch.setattr(os, "fsync", fsync)
    pass_time(served.FIRST_PAUSE_S)
    assert look_again(pass_time) == {"newer"}


def test_no_copy_stays_on_the_disk_of_the_process(
    image: Image, newer: IncidentState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "own"))
    image.put(newer)
    (image.states / state_name(days_ago(0), "0" * 16)).mkdir()
    assert titles() == {"newer"}
    assert list((tmp_path / "own").iterdir()) == []


def test_many_threads_that_ask_first_get_the_state_on_the_shelf(image: Image, newer: IncidentState) -> None:
    image.put(newer)
    found: list[set[str]] = []
    threads = [threading.Thread(target=lambda: found.append(titles())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [{"newer"}] * 8


def test_a_clock_that_is_set_back_does_not_end_the_looking(
    image: Image, newer: IncidentState, pass_time: PassTime
) -> None:
    image.shelve()
    titles()
    image.put(newer)
    pass_time(-3600)
    assert titles() == {"newer"}
