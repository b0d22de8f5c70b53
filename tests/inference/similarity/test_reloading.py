"""Files are loaded when first asked for, again when they change, and what was good serves on."""

from __future__ import annotations

import logging
import threading
import traceback
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from similarity.errors import StateError
from similarity.reloading import FIRST_PAUSE_S, FromFiles


class Loader:
    """Reads a file; content that starts with "bad" is an error, as is a missing file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.loads = 0

    def __call__(self) -> str:
        self.loads += 1
        try:
            content = self.path.read_text()
        except OSError as error:
            raise StateError("missing") from error
        if content.startswith("bad"):
            raise StateError(content)
        return content


@pytest.fixture
def loader(tmp_path: Path) -> Loader:
    return Loader(tmp_path / "file")


def replace(path: Path, content: str) -> None:
    new = path.with_name("new")
    new.write_text(content)
    new.replace(path)


def refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The reasons that were logged."""
    assert set(caplog.messages) <= {"keeping what was loaded before"}
    return [vars(record)["reason"] for record in caplog.records]


def test_a_file_is_loaded_once(loader: Loader) -> None:
    loader.path.write_text("one")
    value = FromFiles([loader.path], loader)
    assert loader.loads == 0
    assert [value.get() for _ in range(5)] == ["one"] * 5
    assert loader.loads == 1


def test_a_changed_file_is_loaded_again(loader: Loader) -> None:
    loader.path.write_text("one")
    value = FromFiles([loader.path], loader)
    value.get()
    replace(loader.path, "two")
    assert value.get() == "two"


def test_a_file_that_comes_later_is_loaded(loader: Loader) -> None:
    value = FromFiles([loader.path], loader)
    with pytest.raises(StateError):
        value.get()
    replace(loader.path, "bad")
    with pytest.raises(StateError):
        value.get()
    replace(loader.path, "good")
    assert value.get() == "good"


def test_what_was_good_serves_on_and_the_log_says_why(loader: Loader, caplog: pytest.LogCaptureFixture) -> None:
    loader.path.write_text("good")
    value = FromFiles([loader.path], loader)
    value.get()
    replace(loader.path, "bad file")
    with caplog.at_level(logging.ERROR):
        assert value.get() == "good"
    assert refusals(caplog) == ["StateError: bad file"]
    loader.path.unlink()
    assert value.get() == "good"
    replace(loader.path, "better")
    assert value.get() == "better"


def test_without_keeping_it_what_was_good_ends_with_its_file(loader: Loader, caplog: pytest.LogCaptureFixture) -> None:
    loader.path.write_text("good")
    value = FromFiles([loader.path], loader, keeps_last=False)
    assert value.last is None
    assert value.get() == value.last == "good"
    replace(loader.path, "bad file")
    assert value.last == "good"
    with pytest.raises(StateError):
        value.get()
    assert value.last is None
    assert refusals(caplog) == []
    replace(loader.path, "better")
    assert value.get() == value.last == "better"


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def fails(value: FromFiles[str]) -> str:
    with pytest.raises(StateError) as caught:
        value.get()
    return caught.value.detail


def seconds_between_loads(value: FromFiles[str], loader: Loader, clock: Clock, loads: int) -> list[float]:
    """Asks every half second until the file has been read so many times more."""
    pauses: list[float] = []
    last_s, read = clock.now_s, loader.loads
    while len(pauses) < loads:
        clock.now_s += 0.5
        with suppress(StateError):
            value.get()
        if loader.loads > read:
            pauses.append(clock.now_s - last_s)
            last_s, read = clock.now_s, loader.loads
    return pauses


PAUSES_S = [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_a_bad_file_is_not_read_for_every_request(loader: Loader) -> None:
    clock = Clock()
    loader.path.write_text("bad")
    value = FromFiles([loader.path], loader, clock=clock)
    assert [fails(value) for _ in range(10)] == ["bad"] * 10
    assert loader.loads == 1
    # A network file system may fail without the file changing.
    assert seconds_between_loads(value, loader, clock, len(PAUSES_S)) == PAUSES_S


def test_a_bad_replacement_is_refused_once_and_tried_in_growing_pauses(
    loader: Loader, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    loader.path.write_text("good")
    value = FromFiles([loader.path], loader, clock=clock)
    value.get()
    for _ in range(2):  # another file is another refusal, though the reason is the same
        caplog.clear()
        replace(loader.path, "bad")
        assert [value.get() for _ in range(10)] == ["good"] * 10
        assert seconds_between_loads(value, loader, clock, len(PAUSES_S)) == PAUSES_S
        assert refusals(caplog) == ["StateError: bad"]
    replace(loader.path, "better")
    assert value.get() == "better"


def test_another_reason_for_the_same_file_is_logged_too(loader: Loader, caplog: pytest.LogCaptureFixture) -> None:
    clock, reasons = Clock(), ["hangs", "hangs", "is cut", "is cut"]
    loader.path.write_text("good")

    def load() -> str:
        if loader.loads:
            raise StateError(reasons.pop(0))
        return loader()

    value = FromFiles([loader.path], load, clock=clock)
    value.get()
    replace(loader.path, "new")
    while reasons:
        assert value.get() == "good"
        clock.now_s += 10
    assert refusals(caplog) == ["StateError: hangs", "StateError: is cut"]


def test_a_file_that_can_be_read_again_is_loaded_without_having_changed(loader: Loader) -> None:
    clock = Clock()
    loader.path.write_text("good")
    errors: list[Exception] = []

    def load() -> str:
        if errors:
            raise errors[0]
        return loader()

    value = FromFiles([loader.path], load, clock=clock)
    value.get()
    errors.append(OSError("the network is away"))
    replace(loader.path, "newer")
    assert value.get() == "good"
    errors.clear()
    assert value.get() == "good"
    clock.now_s += FIRST_PAUSE_S
    assert value.get() == "newer"


def test_nobody_waits_while_a_replacement_is_loaded(loader: Loader) -> None:
    loader.path.write_text("old")
    entered, release = threading.Event(), threading.Event()

    def load() -> str:
        if loader.loads:
            entered.set()
            assert release.wait(10)
        return loader()

    value = FromFiles([loader.path], load)
    value.get()
    replace(loader.path, "new")
    with ThreadPoolExecutor(9) as pool:
        try:
            first = pool.submit(value.get)
            assert entered.wait(10)
            others = [pool.submit(value.get) for _ in range(8)]
            # Without an answer from before, these would wait until the load ends, and it doesn't.
            assert [other.result(10) for other in others] == ["old"] * 8
        finally:
            release.set()
        assert first.result(10) == "new"
    assert value.get() == "new"
    assert loader.loads == 2


def test_an_error_that_is_kept_holds_no_half_loaded_weights_and_its_stack_trace_does_not_grow() -> None:
    class Weights:
        """Much memory."""

    left: list[weakref.ref[Weights]] = []

    def read() -> None:
        weights = Weights()
        left.append(weakref.ref(weights))
        raise ValueError("cut off")

    def load() -> str:
        weights = Weights()
        left.append(weakref.ref(weights))
        try:
            read()
        except ValueError as error:
            raise StateError("cut off") from error
        return "never"

    value, traces = FromFiles([], load), []
    for _ in range(3):
        with pytest.raises(StateError) as caught:
            value.get()
        traces.append(traceback.format_tb(caught.value.__traceback__))
        del caught
    assert [weights() for weights in left] == [None, None]
    assert "in load\n" in traces[0][-1]
    assert traces[0] == traces[1] == traces[2]


def test_a_load_that_was_interrupted_is_begun_again(loader: Loader) -> None:
    loader.path.write_text("good")
    interrupts = [KeyboardInterrupt()]

    def load() -> str:
        if interrupts:
            raise interrupts.pop()
        return loader()

    value = FromFiles([loader.path], load)
    with pytest.raises(KeyboardInterrupt):
        value.get()
    assert value.get() == "good"


def test_threads_wait_for_one_load(loader: Loader) -> None:
    loader.path.write_text("one")
    entered, release = threading.Event(), threading.Event()

    def slow_load() -> str:
        entered.set()
        release.wait(10)
        return loader()

    value = FromFiles([loader.path], slow_load)
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(value.get) for _ in range(8)]
        assert entered.wait(10)
        release.set()
        assert [answer.result() for answer in answers] == ["one"] * 8
    assert loader.loads == 1


def test_an_error_nobody_foresaw_is_raised_and_tried_again(loader: Loader) -> None:
    clock, errors = Clock(), [MemoryError("for now")]
    loader.path.write_text("good")

    def load() -> str:
        if errors:
            raise errors[0]
        return loader()

    value = FromFiles([loader.path], load, clock=clock)
    for _ in range(2):
        with pytest.raises(MemoryError, match="for now"):
            value.get()
    errors.clear()
    clock.now_s += FIRST_PAUSE_S
    assert value.get() == "good"


def test_an_error_nobody_foresaw_is_logged_with_its_stack_trace_while_what_was_good_serves(
    loader: Loader, caplog: pytest.LogCaptureFixture
) -> None:
    loader.path.write_text("good")

    def load() -> str:
        if loader.loads:
            raise ZeroDivisionError("in the reader")
        return loader()

    value = FromFiles([loader.path], load)
    value.get()
    replace(loader.path, "new")
    assert value.get() == "good"
    assert refusals(caplog) == ["ZeroDivisionError: in the reader"]
    assert "Traceback" in caplog.text
