"""Which Chromium is taken."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from browser.chromium import NAMES, NoBrowserError, find_chromium, is_required
from programs import leave_path_empty, put_program


@pytest.mark.parametrize("name", NAMES)
def test_one_in_path_is_taken(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = put_program(tmp_path / "bin", name)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert find_chromium(str(tmp_path / "own")) == program


def test_the_first_name_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in reversed(NAMES):
        put_program(tmp_path / name, name)
    monkeypatch.setenv("PATH", os.pathsep.join(str(tmp_path / name) for name in reversed(NAMES)))
    assert find_chromium("").name == NAMES[0]


def test_the_one_that_playwright_installs_is_taken_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_path_empty(tmp_path, monkeypatch)
    own = put_program(tmp_path / "own", "chrome")
    assert find_chromium(str(own)) == own


def test_where_there_is_none_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_path_empty(tmp_path, monkeypatch)
    with pytest.raises(NoBrowserError, match="no chromium, chromium-browser, google-chrome or google-chrome-stable"):
        find_chromium(str(tmp_path / "own"))


@pytest.mark.parametrize(("value", "required"), [("1", True), ("", False), (None, False)])
def test_only_one_value_requires_these_tests(
    value: str | None, required: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if value is None:
        monkeypatch.delenv("RUN_BROWSER", raising=False)
    else:
        monkeypatch.setenv("RUN_BROWSER", value)
    assert is_required() is required
