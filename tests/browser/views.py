"""What the page can show, for whoever looks at all of it: at widths, in colour schemes, by axe-core, on pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

from browser.explorer import HEIGHT, SCHEMES, WIDTHS, Explorer
from browser.made import NO_MATCH, found, gateway, incident
from browser.states import TEXT


def _start(explorer: Explorer) -> None:
    explorer.open()


def _good_match(explorer: Explorer) -> None:
    explorer.open()
    explorer.find(TEXT)
    expect(explorer.matches).to_have_count(10)


def _no_match(explorer: Explorer) -> None:
    text = "The weather was fine, and many people went to the beach."
    matches = [incident(each, 0.04, why={"words": ["people"], "sentence": text}) for each in (6, 16, 12, 23, 7)]
    explorer.answer_with(found(*matches, match="none", warnings=(NO_MATCH,)))
    explorer.open()
    explorer.find(text)
    explorer.expect_matches(6, 16, 12, 23, 7)


def _error(explorer: Explorer) -> None:
    explorer.answer_with(gateway(503, "Service Unavailable"))
    explorer.open()
    explorer.find(TEXT)
    expect(explorer.try_again).to_be_visible()


def _incident(explorer: Explorer) -> None:
    explorer.open()
    explorer.show_incident(23)
    expect(explorer.matches).to_have_count(10)


# Those with answers that the tests make come last: from then on a page asks for no others.
VIEWS: dict[str, Callable[[Explorer], None]] = {
    "start": _start,
    "good-match": _good_match,
    "incident": _incident,
    "no-match": _no_match,
    "error": _error,
}


def looks(page: Page) -> Iterator[tuple[int, Any]]:
    """Sets each width in each colour scheme."""
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": HEIGHT})
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            yield width, scheme


def take_picture(page: Page, name: str) -> None:
    """Of the whole page, into the folder that SCREENSHOTS names, if it does."""
    folder = os.environ.get("SCREENSHOTS")
    if folder:
        # From its top, with the mouse on nothing.
        page.mouse.move(0, 0)
        page.evaluate("scrollTo(0, 0)")
        # The map is drawn before the browser paints again.
        page.evaluate("new Promise(resolve => requestAnimationFrame(() => requestAnimationFrame(resolve)))")
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)
