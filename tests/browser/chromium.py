"""A Chromium of this machine: where it is, and how the tests drive it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, expect, sync_playwright

from processes import PATIENCE_S

PATIENCE_MS = PATIENCE_S * 1000

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
NONE = f"there is no {', '.join(NAMES[:-1])} or {NAMES[-1]} in PATH, nor has playwright installed its own Chromium"


class NoBrowserError(RuntimeError):
    """There is no Chromium here."""


def is_required() -> bool:
    """Whether these tests must run, as in CI. Otherwise they are left out if something isn't there."""
    return os.environ.get("RUN_BROWSER") == "1"


def find_chromium(own: str) -> Path:
    """The program. own: where playwright would install one. Raises NoBrowserError."""
    for found in (*map(shutil.which, NAMES), own):
        if found and Path(found).exists():
            return Path(found)
    raise NoBrowserError(NONE)


@contextmanager
def running_chromium() -> Iterator[Browser]:
    """Chromium without a window. However busy the machine is, there is time enough. Raises NoBrowserError."""
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        program = find_chromium(playwright.chromium.executable_path)
        browser = playwright.chromium.launch(executable_path=program, timeout=PATIENCE_MS)
        yield browser
        browser.close()
