"""The map: hovering names an incident, clicking opens it, and a text lies amid its first matches."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from playwright.sync_api import expect

from browser.conftest import Opens
from browser.explorer import HEIGHT, WIDTHS, Explorer
from browser.made import LOST, Fields, found, incident
from browser.states import BY_ID, INCIDENTS, TEXT
from serving import Server
from similarity.explore import page as explore
from similarity.incidents.ranking import Ranking
from similarity.incidents.state import IncidentState

pytestmark = pytest.mark.slow

# Keeps what the canvas has written since it was last cleared: text, left end or middle, middle, width.
KEEP_WRITTEN = """{
    const canvas = CanvasRenderingContext2D.prototype, {clearRect, fillText} = canvas;
    canvas.clearRect = function (...at) { window.written = []; clearRect.apply(this, at); };
    canvas.fillText = function (text, x, y) {
        written.push([String(text), x, y, this.measureText(text).width]);
        fillText.call(this, text, x, y);
    };
}"""


def marked_place(explorer: Explorer) -> tuple[float, float]:
    """Where the map marks the text or the incident, in the units of the state."""
    x, y = (explorer.map.get_attribute("data-at") or "").split()
    return float(x), float(y)


def mean_place(matches: list[Fields]) -> tuple[float, float]:
    """The mean of the first five matches on the map, weighted with their similarities; those below 0 count nothing."""
    first = [each for each in matches if each["incident_id"] in BY_ID][:5]
    weights = [max(0.0, each["similarity"]) for each in first]
    if sum(weights) == 0:
        weights = [1.0] * len(first)
    places = [BY_ID[each["incident_id"]] for each in first]
    x = sum(weight * place.x for weight, place in zip(weights, places, strict=True)) / sum(weights)
    y = sum(weight * place.y for weight, place in zip(weights, places, strict=True)) / sum(weights)
    return x, y


def test_all_incidents_are_where_the_state_has_them(explorer: Explorer) -> None:
    """By their places on the screen, found with the mouse, the map is the state's: turned nowhere, and to scale."""
    explorer.open()
    places = explorer.places()
    assert set(places) == set(BY_ID)
    left, right = BY_ID[1], BY_ID[12]
    scale = (places[12][0] - places[1][0]) / (right.x - left.x)
    assert scale > 100
    upwards = (places[7][1] - places[6][1]) / (BY_ID[7].y - BY_ID[6].y)
    assert abs(upwards) == pytest.approx(scale, rel=0.05)
    for each in INCIDENTS:
        x, y = places[each.incident_id]
        assert x == pytest.approx(places[1][0] + scale * (each.x - left.x), abs=8)
        assert y == pytest.approx(places[1][1] + upwards * (each.y - left.y), abs=8)


def test_hovering_names_an_incident(explorer: Explorer) -> None:
    explorer.open()
    places = explorer.places()
    for incident_id in (23, 71):
        explorer.page.mouse.move(*places[incident_id])
        expect(explorer.tip).to_be_visible()
        known = BY_ID[incident_id]
        expect(explorer.tip).to_contain_text(f"Incident {incident_id}")
        expect(explorer.tip).to_contain_text(known.title)
        expect(explorer.tip.locator("time")).to_have_attribute("datetime", known.date)
    explorer.page.mouse.move(0, 0)
    expect(explorer.tip).to_be_hidden()


def test_clicking_opens_an_incident_and_its_neighbours(explorer: Explorer, server: Server) -> None:
    answer = server.post("/similar", incident_id=71, num=10, metric="whitened").json()["body"]
    explorer.open()
    explorer.page.mouse.click(*explorer.places()[71])
    explorer.expect_matches(*(each["incident_id"] for each in answer["incidents"]))
    expect(explorer.page.get_by_role("heading", name="Incidents most like incident 71")).to_be_visible()
    assert explorer.page.url.endswith("#incident=71")


def test_a_finger_opens_an_incident(opens: Opens) -> None:
    explorer = opens(width=375, touch=True)
    explorer.open()
    explorer.page.touchscreen.tap(*explorer.places()[71])
    expect(explorer.page.get_by_role("heading", name="Incidents most like incident 71")).to_be_visible()


def test_clicking_where_nothing_is_does_nothing(explorer: Explorer) -> None:
    explorer.open()
    places = explorer.places()
    (x, y), (far_x, far_y) = places[7], places[10]
    explorer.page.mouse.click((x + far_x) / 2, (y + far_y) / 2 + 20)
    assert "#incident" not in explorer.page.url


def test_dragging_moves_the_map_and_opens_nothing(explorer: Explorer) -> None:
    explorer.open()
    # At first all of it is in view.
    explorer.page.get_by_role("button", name="Zoom in").click()
    before = explorer.places()
    x, y = before[31]
    explorer.page.mouse.move(x, y)
    explorer.page.mouse.down()
    explorer.page.mouse.move(x - 30, y + 20, steps=4)
    explorer.page.mouse.move(x - 60, y + 40, steps=4)
    explorer.page.mouse.up()
    assert "#incident" not in explorer.page.url
    after = explorer.places()
    # At the edge, an incident is hovered on one side alone.
    kept = [
        each for each in after if each in before and explorer.is_amid(before[each]) and explorer.is_amid(after[each])
    ]
    assert len(kept) >= 3
    for incident_id in kept:
        assert after[incident_id][0] - before[incident_id][0] == pytest.approx(-60, abs=6)
        assert after[incident_id][1] - before[incident_id][1] == pytest.approx(40, abs=6)
    explorer.page.get_by_role("button", name="Show all").click()
    assert set(explorer.places()) == set(BY_ID)


def test_buttons_zoom(explorer: Explorer) -> None:
    explorer.open()
    before = explorer.scale()
    explorer.page.get_by_role("button", name="Zoom in").click()
    nearer = explorer.scale()
    assert nearer > 1.1 * before
    explorer.page.get_by_role("button", name="Zoom out").click()
    assert explorer.scale() == pytest.approx(before, rel=0.05)


def test_a_text_lies_at_the_mean_of_its_first_five_matches(explorer: Explorer, server: Server) -> None:
    answer = server.post("/similar", text=TEXT, num=10, metric="hybrid", explain=True).json()["body"]
    expected = mean_place(answer["incidents"])
    explorer.open()
    expect(explorer.map).to_have_attribute("data-at", "")
    explorer.find(TEXT)
    expect(explorer.matches).to_have_count(10)
    assert marked_place(explorer) == pytest.approx(expected, abs=0.00051)
    explorer.show_incident(4)
    expect(explorer.page.get_by_role("heading", name="Incidents most like incident 4")).to_be_visible()
    assert marked_place(explorer) == pytest.approx((BY_ID[4].x, BY_ID[4].y), abs=0.00051)


MATCHES = {
    "negative similarities count nothing": [
        *(incident(4, similarity=0.8), incident(7, similarity=0.2), incident(10, similarity=-0.5)),
        *(incident(12, similarity=-0.6), incident(16, similarity=-0.7), incident(23, similarity=-0.8)),
    ],
    "without any similarity all count alike": [incident(each, similarity=-0.1) for each in (4, 7, 10, 12, 16, 23)],
    "those that are not on the map are passed over": [
        *(incident(900, similarity=0.9), incident(4, similarity=0.8), incident(901, similarity=0.7)),
        *(incident(7, similarity=0.6), incident(10, similarity=0.5), incident(12, similarity=0.4)),
        *(incident(16, similarity=0.3), incident(23, similarity=0.2)),
    ],
    "one match": [incident(23, similarity=0.3)],
}


def test_the_mean_is_right_whatever_the_matches_are(explorer: Explorer) -> None:
    explorer.open()
    for name, matches in MATCHES.items():
        explorer.answer_with(found(*matches))
        explorer.find(name)
        explorer.expect_matches(*(each["incident_id"] for each in matches))
        assert marked_place(explorer) == pytest.approx(mean_place(matches), abs=0.00051), name


def test_a_text_whose_matches_are_not_on_the_map_has_no_place(explorer: Explorer) -> None:
    explorer.answer_with(found(incident(900, similarity=0.9)))
    explorer.open()
    explorer.find(TEXT)
    explorer.expect_matches(900)
    expect(explorer.map).to_have_attribute("data-at", "")


# Of the map as it was last drawn: the discs' numbers and the label, each [text, x, y, width]; x is that of its middle.
_KEEP_TEXTS = """() => {
    const {fillText, clearRect} = CanvasRenderingContext2D.prototype;
    CanvasRenderingContext2D.prototype.clearRect = function (...given) {
        window.texts = [];
        clearRect.apply(this, given);
    };
    CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
        const {width} = this.measureText(text);
        window.texts.push([String(text), this.textAlign === "left" ? x + width / 2 : x, y, width]);
        fillText.call(this, text, x, y);
    };
}"""
_DRAWN = """new Promise(resolve => requestAnimationFrame(() => requestAnimationFrame(() => resolve(window.texts))))"""
# The radius of a disc.
_RADIUS = 10

_CROWDS = {
    "on one spot": [(0.0, 0.0)] * 12,
    "in a corner": [(-1.0, 1.0), *[(0.98 + 0.002 * each, -1.0) for each in range(11)]],
    "at an edge": [(-1.0 + each / 5.5, -1.0 if each < 11 else 1.0) for each in range(12)],
}


@pytest.mark.parametrize("crowd", _CROWDS)
def test_numbers_and_label_stay_readable_in_a_crowd(crowd: str, explorer: Explorer, mapped: IncidentState) -> None:
    state = replace(mapped, points=np.array(_CROWDS[crowd], dtype=np.float32))
    explorer.show(explore.page_of(Ranking(state, "0123456789abcdef")))
    explorer.answer_with(found(*(incident(each, similarity=0.5) for each in list(BY_ID)[2:])))
    explorer.open()
    explorer.page.evaluate(_KEEP_TEXTS)
    explorer.find(TEXT)
    expect(explorer.matches).to_have_count(10)
    for width in WIDTHS:
        explorer.page.set_viewport_size({"width": width, "height": HEIGHT})
        texts = explorer.page.evaluate(_DRAWN)
        discs = {text: (x, y) for text, x, y, _ in texts if text.isdecimal()}
        assert set(discs) == {str(rank) for rank in range(1, 11)}
        for (one, place), (other, far) in combinations(discs.items(), 2):
            assert math.dist(place, far) >= 2 * _RADIUS, (width, one, other)
        ((label, middle, y, wide),) = [each for each in texts if not each[0].isdecimal()]
        assert label == "your text"
        box = explorer.page.evaluate("document.getElementById('map').clientWidth")
        assert wide / 2 <= middle <= box - wide / 2
        for rank, (disc_x, disc_y) in discs.items():
            apart = max(abs(disc_x - middle) - wide / 2, 0), max(abs(disc_y - y) - 6, 0)
            assert math.hypot(*apart) >= _RADIUS, (width, rank)


def test_on_a_phone_the_map_stays_where_it_is_when_a_finger_chooses(opens: Opens) -> None:
    """The list above it grows by some screens. An error, which is above it too, is brought into view."""
    explorer = opens(width=375, touch=True)
    explorer.open()
    places = explorer.places()
    before = explorer.map.bounding_box()
    explorer.page.touchscreen.tap(*places[71])
    expect(explorer.matches).to_have_count(10)
    after = explorer.map.bounding_box()
    assert before
    assert after
    assert after["y"] == pytest.approx(before["y"], abs=2)
    explorer.answer_with(LOST)
    explorer.page.touchscreen.tap(*explorer.places()[7])
    expect(explorer.error).to_be_in_viewport(ratio=1)


def test_a_button_released_beside_the_map_ends_the_drag(explorer: Explorer) -> None:
    explorer.open()
    explorer.page.get_by_role("button", name="Zoom in").click()
    explorer.map.scroll_into_view_if_needed()
    box = explorer.map.bounding_box()
    assert box
    right, middle = box["x"] + box["width"], box["y"] + box["height"] / 2
    explorer.page.mouse.move(right - 3, middle)
    explorer.page.mouse.down()
    explorer.page.mouse.move(right + 1, middle)
    explorer.page.mouse.up()
    before = explorer.places()
    explorer.page.mouse.move(right - 30, middle)
    explorer.page.mouse.move(right - 90, middle, steps=3)
    assert explorer.places() == before


@pytest.mark.parametrize("width", [1280, 375])
def test_the_name_of_an_incident_covers_no_number(opens: Opens, mapped: IncidentState, width: int) -> None:
    """Its ten neighbours are around it, all but at the same place."""
    explorer = opens(width=width)
    explorer.page.add_init_script(KEEP_WRITTEN)
    angles = np.arange(len(INCIDENTS)) * 2.4
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1) * 0.02 + [0.3, -0.4]
    near = [each.incident_id for each in INCIDENTS if each.incident_id not in (1, 23)]
    points[[each.incident_id for each in INCIDENTS].index(1)] = [-1, 1]
    explorer.show(explore.page_of(Ranking(replace(mapped, points=points.astype(np.float32)), "0123456789abcdef")))
    explorer.answer_with(found(*(incident(each, similarity=0.5) for each in near)))
    explorer.open("#incident=23")
    explorer.expect_matches(*near)
    explorer.until(lambda: len(explorer.page.evaluate("written")) == 11, "the numbers and the name")
    *numbers, (label, left, middle, wide) = explorer.page.evaluate("written")
    assert label == "incident 23"
    assert sorted(int(number) for number, *_ in numbers) == list(range(1, 11))
    for number, x, y, _ in numbers:
        # Of the disc around the number, 2 of its 10 pixels may be covered.
        assert not (left - 8 < x < left + wide + 8 and abs(y - middle) < 14), number
