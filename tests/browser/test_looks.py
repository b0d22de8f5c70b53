"""At a desk's and a phone's width, in light and dark: nothing is cut off, nobody is kept out."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from browser.axe import NoAxeError, fetch_axe, run_axe
from browser.chromium import is_required
from browser.conftest import Opens
from browser.explorer import HEIGHT, SCHEMES, Explorer
from browser.made import found, incident
from browser.views import VIEWS, looks, take_picture

pytestmark = pytest.mark.slow

# The narrowest that a page must fit in: https://www.w3.org/WAI/WCAG22/Understanding/reflow.html
NARROWEST = 320

# Of the page and of each visible element in it, whatever sticks out at the right or at the left.
STICKING_OUT = """() => [...document.querySelectorAll("body *")].filter(element => {
    const {left, right, width, height} = element.getBoundingClientRect();
    return width > 1 && height > 1 && (right > innerWidth + 1 || left < -1);
}).map(element => element.outerHTML.slice(0, 200))"""


@pytest.fixture(scope="module")
def axe(request: pytest.FixtureRequest) -> Path:
    """Kept between runs, as what pytest itself remembers."""
    try:
        return fetch_axe(request.config.cache.mkdir("axe-core"))
    except NoAxeError as error:
        if is_required():
            pytest.fail(str(error))
        pytest.skip(str(error))


def require_within(explorer: Explorer) -> None:
    wide = explorer.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0
    assert explorer.page.evaluate(STICKING_OUT) == []


@pytest.mark.parametrize("view", VIEWS)
def test_it_fits_into_every_width(view: str, explorer: Explorer) -> None:
    VIEWS[view](explorer)
    for width, scheme in looks(explorer.page):
        require_within(explorer)
        take_picture(explorer.page, f"{view}-{width}-{scheme}")
    explorer.page.set_viewport_size({"width": NARROWEST, "height": HEIGHT})
    require_within(explorer)


def test_words_without_an_end_are_broken(explorer: Explorer) -> None:
    explorer.page.set_viewport_size({"width": NARROWEST, "height": HEIGHT})
    endless = "w" * 500
    given = incident(6, 0.9, title=endless, why={"words": [endless], "sentence": endless})
    explorer.answer_with(found(given, match="likely", warnings=(endless,)))
    explorer.open()
    explorer.find(endless)
    explorer.expect_matches(6)
    require_within(explorer)


def test_it_follows_the_colour_scheme(explorer: Explorer) -> None:
    explorer.open()
    brightness = {}
    for scheme in SCHEMES:
        explorer.page.emulate_media(color_scheme=scheme)
        colours = explorer.page.evaluate(
            "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
        )
        brightness[scheme] = [sum(map(int, colour.strip("rgb()").split(","))) for colour in colours]
    paper, ink = brightness["light"]
    assert paper > 3 * 200
    assert ink < 3 * 80
    paper, ink = brightness["dark"]
    assert paper < 3 * 80
    assert ink > 3 * 200


def test_nothing_moves_by_itself(explorer: Explorer) -> None:
    explorer.open()
    explorer.show_incident(23)
    expect(explorer.matches).to_have_count(10)
    assert explorer.page.evaluate("document.getAnimations().length") == 0


def test_a_phone_reaches_all_of_it_with_a_finger(opens: Opens) -> None:
    explorer = opens(width=375, touch=True)
    explorer.open()
    explorer.text.tap()
    explorer.page.keyboard.type("A chatbot insulted people")
    explorer.page.get_by_role("button", name="Find incidents").tap()
    expect(explorer.matches).to_have_count(10)
    explorer.page.get_by_role("button", name="Neighbours of incident").first.tap()
    expect(explorer.page.get_by_role("heading", name="Incidents most like incident")).to_be_visible()
    explorer.page.get_by_role("button", name="See the map").tap()
    expect(explorer.map).to_be_focused()
    expect(explorer.map).to_be_in_viewport()
    explorer.page.get_by_role("button", name="Zoom in").tap()
    explorer.page.get_by_role("button", name="See the list").tap()
    expect(explorer.matches.first).to_be_in_viewport()
    require_within(explorer)


def test_axe_core_finds_no_fault(explorer: Explorer, axe: Path, record_property: Callable[[str, object], None]) -> None:
    lines, faults = [], []
    for view, show in VIEWS.items():
        show(explorer)
        for width, scheme in looks(explorer.page):
            found = run_axe(explorer.page, axe)
            name = f"{view}, {width} px, {scheme}"
            lines.append(f"axe-core: {name}: {found.passes} passes, {len(found.violations)} violations")
            # Their only letter is a sign, whose contrast axe-core doesn't judge. It is that of the buttons beside them.
            assert found.undecided <= {"#zoom-in", "#zoom-out"}
            faults += [f"{name}: {sentence}" for sentence in found.sentences()]
    record_property("figures", "\n".join(lines))
    assert faults == []


def test_axe_core_finds_faults(explorer: Explorer, axe: Path) -> None:
    """Else its silence would mean nothing."""
    explorer.open()
    explorer.page.evaluate(
        """() => {
            document.querySelector("label[for=text]").remove();
            document.querySelector("#about").style.color = "#ccc";
        }"""
    )
    broken = {violation["id"]: violation["impact"] for violation in run_axe(explorer.page, axe).violations}
    assert broken.items() >= {"label": "critical", "color-contrast": "serious"}.items()


# Half way along the bar and near its beginning: whether they have one colour.
_BAR = """async (picture) => {
    const image = new Image();
    image.src = `data:image/png;base64,${picture}`;
    await image.decode();
    const canvas = Object.assign(document.createElement("canvas"), {width: image.width, height: image.height});
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const colour = part => context.getImageData(image.width * part, image.height / 2, 1, 1).data.join(" ");
    return colour(0.1) === colour(0.7);
}"""


def test_a_bar_shows_its_part_in_forced_colours(explorer: Explorer) -> None:
    explorer.page.emulate_media(forced_colors="active")
    explorer.answer_with(found(incident(6, 0.4), match="none"))
    explorer.open()
    explorer.find("text")
    explorer.expect_matches(6)
    picture = base64.b64encode(explorer.page.get_by_role("meter").screenshot()).decode()
    assert explorer.page.evaluate(_BAR, picture) is False
    explorer.page.emulate_media(forced_colors="none")


def test_ranks_are_printed(explorer: Explorer) -> None:
    """Their digits have the colour of paper. Browsers leave out a background, unless the page insists."""
    explorer.open()
    explorer.show_incident(23)
    expect(explorer.matches).to_have_count(10)
    explorer.page.emulate_media(media="print")
    rank = explorer.matches.first.locator(".rank")
    assert rank.evaluate("element => getComputedStyle(element).printColorAdjust") == "exact"
    expect(explorer.map).to_be_hidden()
    explorer.page.emulate_media(media="screen")
