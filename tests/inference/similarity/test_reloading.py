"""Files are loaded when first asked for, again when they change, and what was good serves on."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from similarity import reloading
from similarity.errors import StateError
from similarity.reloading import FromFiles


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


def test_a_file_that_comes_later_is_taken_up(loader: Loader) -> None:
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
    assert "keeping what was loaded before: StateError: bad file" in caplog.text
    loader.path.unlink()
    assert value.get() == "good"
    replace(loader.path, "better")
    assert value.get() == "better"


def test_a_bad_file_is_not_read_for_every_request(loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("similarity.reloading.time", SimpleNamespace(monotonic=lambda: clock[0]))
    loader.path.write_text("bad")
    value = FromFiles([loader.path], loader)
    for _ in range(10):
        with pytest.raises(StateError):
            value.get()
    assert loader.loads == 1
    # A network file system may fail without the file changing.
    clock[0] += reloading.RETRY_S + 0.1
    with pytest.raises(StateError):
        value.get()
    assert loader.loads == 2


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


def test_an_error_nobody_foresaw_is_raised_and_tried_again(loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, errors = [100.0], [MemoryError("for now")]
    monkeypatch.setattr("similarity.reloading.time", SimpleNamespace(monotonic=lambda: clock[0]))
    loader.path.write_text("good")

    def load() -> str:
        if errors:
            raise errors[0]
        return loader()

    value = FromFiles([loader.path], load)
    for _ in range(2):
        with pytest.raises(MemoryError, match="for now"):
            value.get()
    errors.clear()
    clock[0] += reloading.RETRY_S + 0.1
    assert value.get() == "good"
