"""All of it by keyboard alone."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import expect

from browser.explorer import Explorer
from browser.made import found, incident
from browser.states import BY_ID, TEXT

pytestmark = pytest.mark.slow

FOCUSED = """() => {
    const element = document.activeElement, style = getComputedStyle(element);
    const label = element.labels?.[0]?.innerText ?? element.getAttribute("aria-label") ?? element.innerText;
    const seen = (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0) || style.boxShadow !== "none";
    return element === document.body ? null : {name: label.trim(), seen, id: element.id};
}"""


def press(explorer: Explorer, *keys: str) -> None:
    for key in keys:
        explorer.page.keyboard.press(key)


def focused(explorer: Explorer) -> Any:
    return explorer.page.evaluate(FOCUSED)


def tab_to(explorer: Explorer, name: str) -> None:
    """Presses Tab until the element with that name has the focus; it comes before the page begins anew."""
    for _ in range(60):
        press(explorer, "Tab")
        at = focused(explorer)
        if at and at["name"] == name:
            return
    raise AssertionError(f"Tab never reaches {name}")


def stops(explorer: Explorer) -> list[Any]:
    """What has the focus as Tab goes once through the page."""
    found: list[Any] = []
    for _ in range(80):
        press(explorer, "Tab")
        at = focused(explorer)
        if at is None or (found and at == found[0]):
            return found
        found.append(at)
    raise AssertionError("Tab doesn't come to an end")


def test_tab_reaches_everything_in_order_and_shows_where_it_is(explorer: Explorer) -> None:
    explorer.open()
    before = [stop["name"] for stop in stops(explorer)]
    wanted = ["Text of a report", "Find incidents", "Number of an incident", "Show incident", "Map of all incidents"]
    assert [name for name in before if name in wanted] == wanted
    assert {"Zoom in", "Zoom out", "Show all"} <= set(before)
    explorer.find(TEXT)
    expect(explorer.matches).to_have_count(10)
    explorer.page.evaluate("document.activeElement.blur()")
    found = stops(explorer)
    names = [stop["name"] for stop in found]
    assert [stop["name"] for stop in found if not stop["seen"]] == []
    for match in BY_ID:
        if f"Neighbours of incident {match}" in names:
            assert names.index(BY_ID[match].title) < names.index(f"Neighbours of incident {match}")
    assert len([name for name in names if name.startswith("Neighbours of incident")]) == 10


def test_a_text_is_found_from_within_its_field(explorer: Explorer) -> None:
    service = explorer.answer_with(found(incident(6)), found(incident(7)))
    explorer.open()
    tab_to(explorer, "Text of a report")
    explorer.page.keyboard.type("A chatbot insulted")
    press(explorer, "Enter")  # is a line of the text
    explorer.page.keyboard.type("people")
    press(explorer, "Control+Enter")
    explorer.expect_matches(6)
    explorer.text.focus()
    press(explorer, "End", "!", "Meta+Enter")
    explorer.expect_matches(7)
    assert [asked["text"] for asked in service.asked] == ["A chatbot insulted\npeople", "A chatbot insulted\npeople!"]


def test_the_whole_way_without_a_mouse(explorer: Explorer) -> None:
    explorer.open()
    tab_to(explorer, "Text of a report")
    explorer.page.keyboard.type(TEXT)
    tab_to(explorer, "Find incidents")
    press(explorer, "Enter")
    expect(explorer.verdict).to_have_text("This text is likely about incident 6.")
    tab_to(explorer, "Neighbours of incident 6")
    press(explorer, "Space")
    expect(explorer.page.get_by_role("heading", name="Incidents most like incident 6")).to_be_visible()
    explorer.page.evaluate("document.activeElement.blur()")
    tab_to(explorer, "Number of an incident")
    press(explorer, "Control+a")
    explorer.page.keyboard.type("999")
    press(explorer, "Enter")
    expect(explorer.error).to_contain_text("999")
    tab_to(explorer, "Try again")
    press(explorer, "Enter")
    expect(explorer.error).to_contain_text("999")


# The direction of each key, as the screen has it: x to the right, y downwards.
ARROWS = {"ArrowRight": (1, 0), "ArrowLeft": (-1, 0), "ArrowDown": (0, 1), "ArrowUp": (0, -1)}


def test_arrows_go_over_the_map_and_enter_opens(explorer: Explorer) -> None:
    explorer.open()
    places = explorer.places()
    tab_to(explorer, "Map of all incidents")
    press(explorer, "ArrowRight")
    at = announced(explorer)
    assert at is not None
    seen = {at}
    for to in ("Left", "Left", "Up", "Right", "Down", "Down", "Right", "Right", "Right"):
        key = f"Arrow{to}"
        (x, y), (x0, y0) = ARROWS[key], places[at]
        ahead = {other: x * (place[0] - x0) + y * (place[1] - y0) for other, place in places.items()}
        aside = {other: abs(y * (place[0] - x0) + x * (place[1] - y0)) for other, place in places.items()}
        press(explorer, key)
        after = announced(explorer)
        # Within 45 degrees of the direction. Where an incident is on the screen, is known to some pixels.
        if after is None:
            assert [other for other in places if ahead[other] > aside[other] + 10] == []
            continue
        assert ahead[after] > aside[after] - 10
        at = after
        seen.add(at)
    assert len(seen) >= 4
    press(explorer, "Enter")
    expect(explorer.page.get_by_role("heading", name=f"Incidents most like incident {at}")).to_be_visible()


def test_arrows_reach_every_incident(explorer: Explorer) -> None:
    """From each incident that is reached, all four directions are tried."""
    explorer.open()
    explorer.map.focus()
    press(explorer, "ArrowRight")
    first = announced(explorer)
    assert first is not None
    ways: dict[int, list[str]] = {first: []}
    left = [first]
    while left:
        at = left.pop()
        for key in ARROWS:
            # From the beginning, since an arrow back may lead elsewhere.
            press(explorer, "Escape", "ArrowRight", *ways[at], key)
            after = announced(explorer)
            if after is not None and after not in ways:
                ways[after] = [*ways[at], key]
                left.append(after)
    assert set(ways) == set(BY_ID)


def test_keys_zoom(explorer: Explorer) -> None:
    explorer.open()
    before = explorer.scale()
    explorer.map.focus()
    press(explorer, "+")
    assert explorer.scale() > 1.1 * before
    press(explorer, "-")
    assert explorer.scale() == pytest.approx(before, rel=0.05)
    press(explorer, "+", "+", "0")
    assert explorer.scale() == pytest.approx(before, rel=0.05)


def announced(explorer: Explorer) -> int | None:
    """The incident that the map's live region names; None if it says that there is none in that direction."""
    said = explorer.page.locator("#announce").inner_text()
    if said.startswith("No incident is"):
        return None
    found = re.search(r"Incident (\d+)", said)
    assert found, said
    assert BY_ID[int(found[1])].title in said
    return int(found[1])
