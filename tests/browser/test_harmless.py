"""HTML in texts, titles and anything else is shown as it is written, and does nothing."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from browser.explorer import Explorer
from browser.made import found, incident, refused
from similarity.explore.page import page_of
from similarity.incidents.ranking import Ranking
from similarity.incidents.state import IncidentState

pytestmark = pytest.mark.slow

RUNS = "window.hacked = true"
HOSTILE = (
    f"<script>{RUNS}</script>",
    f'<img src="https://attacker.example/x.png" onerror="{RUNS}">',
    f"</script><script>{RUNS}</script>",
    f'"><svg onload="{RUNS}"></svg>',
    f"<!--<script>{RUNS}//",
    f"javascript:{RUNS}",
    f"'-({RUNS})-'",
    "{{constructor.constructor('window.hacked = true')()}}",
    f'<iframe srcdoc="<script>parent.{RUNS}</script>"></iframe>',
    '<style>@import "https://attacker.example/x.css"</style>',
    '<base href="https://attacker.example/">',
    '<form action="https://attacker.example/"><button>Find incidents</button></form>',
)
ALL = " ".join(HOSTILE)


def require_unharmed(explorer: Explorer) -> None:
    """Nothing ran, and nothing became an element. The fixture looks at requests and violations."""
    assert explorer.page.evaluate("window.hacked") is None
    expect(explorer.page.locator("img, iframe, form[action], base, link:not([rel=icon]), object, embed")).to_have_count(
        0
    )
    expect(explorer.page.locator("style")).to_have_count(1)
    expect(explorer.page.locator("script")).to_have_count(2)
    for link in explorer.page.get_by_role("link").all():
        assert (link.get_attribute("href") or "").startswith(("https://", "http://", "#")), link
    assert explorer.foreign_requests == []


def test_hostile_answers_do_nothing(explorer: Explorer) -> None:
    incidents = [
        incident(
            100 + number,
            0.9,
            title=hostile,
            date=hostile,
            url=f"javascript:{RUNS}" if number % 2 else hostile,
            why={"words": [hostile, ALL], "sentence": hostile},
        )
        for number, hostile in enumerate(HOSTILE)
    ]
    explorer.answer_with(found(*incidents, match="likely", warnings=HOSTILE))
    explorer.open(f"#text={quote(ALL)}")
    expect(explorer.matches).to_have_count(len(HOSTILE))
    for match, hostile in zip(explorer.matches.all(), HOSTILE, strict=True):
        expect(match).to_contain_text(hostile)
    for hostile in HOSTILE:
        expect(explorer.page.get_by_text(hostile).first).to_be_visible()
    expect(explorer.text).to_have_value(ALL)
    # A link to something else than a page would show here.
    for link in explorer.matches.get_by_role("link").all():
        link.click()
    require_unharmed(explorer)


def test_hostile_sentences_of_errors_do_nothing(explorer: Explorer) -> None:
    explorer.answer_with(refused(400, "text_invalid", f"Error! {ALL}"))
    explorer.open()
    explorer.find(ALL)
    expect(explorer.error).to_contain_text(ALL)
    require_unharmed(explorer)


def test_hostile_titles_on_the_map_do_nothing(explorer: Explorer, mapped: IncidentState) -> None:
    """They stand in the page itself, as does the name of the collection."""
    hostile = replace(mapped, titles=list(HOSTILE), collection=HOSTILE[2], licence=HOSTILE[1], source={})
    explorer.show(page_of(Ranking(hostile, "0123456789abcdef")))
    explorer.open()
    assert explorer.data()["map"]["titles"] == list(HOSTILE)
    expect(explorer.page.get_by_text(HOSTILE[2]).first).to_be_visible()
    for place in explorer.places().values():
        explorer.page.mouse.move(*place)
        expect(explorer.tip).to_be_visible()
    require_unharmed(explorer)
    explorer.show_incident(4)
    expect(explorer.matches).to_have_count(10)
    require_unharmed(explorer)


def test_fields_of_another_kind_are_an_error(explorer: Explorer) -> None:
    odd = incident(7) | {"incident_id": HOSTILE[2], "similarity": HOSTILE[0], "confidence": HOSTILE[1]}
    explorer.answer_with(found(odd, match=HOSTILE[3]), found(incident(7)))
    explorer.open()
    explorer.find("text")
    expect(explorer.error).to_contain_text("This page can't show the answer.")
    require_unharmed(explorer)
    # For whoever looks for the cause.
    (line,) = explorer.trouble
    assert line.startswith("TypeError")
    explorer.trouble.clear()
    explorer.try_again.click()
    explorer.expect_matches(7)
