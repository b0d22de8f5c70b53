"""States that lack parts, and other databases: the page says so, and works without them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from playwright.sync_api import expect

from browser.explorer import Explorer
from browser.made import found, incident
from browser.states import BY_ID, INCIDENTS, TEXT
from similarity.explore import page as explore
from similarity.incidents.fit import Fit
from similarity.incidents.points import no_points
from similarity.incidents.ranking import Ranking
from similarity.incidents.state import IncidentState

pytestmark = pytest.mark.slow


def show(explorer: Explorer, state: IncidentState) -> None:
    """The page of this state. Its answers are those of the real one."""
    explorer.show(explore.page_of(Ranking(state, "0123456789abcdef")))
    explorer.open()


def expect_no_word_of_programs(explorer: Explorer) -> None:
    for word in ("null", "undefined", "NaN", "[object"):
        expect(explorer.page.locator("body")).not_to_contain_text(word)


def test_the_page_names_the_database_its_licence_and_its_age(explorer: Explorer) -> None:
    explorer.open()
    footer = explorer.page.get_by_role("contentinfo")
    database = footer.get_by_role("link", name="AI Incident Database")
    expect(database).to_have_attribute("href", "https://incidentdatabase.ai/")
    licence = footer.get_by_role("link", name="CC BY-SA 4.0")
    expect(licence).to_have_attribute("href", "https://creativecommons.org/licenses/by-sa/4.0/")
    for said in ("12", "2026", "tiny"):
        expect(footer).to_contain_text(said)


def test_a_state_without_a_map_is_explored_without_it(explorer: Explorer, mapped: IncidentState) -> None:
    show(explorer, replace(mapped, points=no_points()))
    expect(explorer.page.get_by_text("no map")).to_be_visible()
    expect(explorer.map).to_be_hidden()
    explorer.find(TEXT)
    expect(explorer.matches).to_have_count(10)
    explorer.show_incident(23)
    expect(explorer.page.get_by_role("link", name=BY_ID[23].title)).to_be_visible()


def test_a_state_of_the_original_service_is_explored_by_numbers(explorer: Explorer, mapped: IncidentState) -> None:
    """It has no titles, dates, calibration, words or map."""
    bare = replace(
        mapped, titles=[""] * len(INCIDENTS), dates=(), points=no_points(), fit=Fit(), source={}, built_at=""
    )
    service = explorer.answer_with(found(incident(4, title=None, date=None)), found(incident(6, title=None, date=None)))
    show(explorer, bare)
    explorer.find(TEXT)
    explorer.expect_matches(4)
    expect(explorer.verdict).to_have_text("The most similar incidents come first.")
    explorer.show_incident(23)
    explorer.expect_matches(6)
    expect(explorer.page.get_by_text("Incident 23", exact=True)).to_be_visible()
    assert [asked["metric"] for asked in service.asked] == ["centered", "centered"]
    expect_no_word_of_programs(explorer)


def test_the_map_of_a_state_without_titles_names_numbers(explorer: Explorer, mapped: IncidentState) -> None:
    show(explorer, replace(mapped, titles=[""] * len(INCIDENTS), dates=()))
    explorer.page.mouse.move(*explorer.places()[23])
    expect(explorer.tip).to_contain_text("23")
    expect_no_word_of_programs(explorer)


def test_a_map_that_lacks_incidents_says_so(
    explorer: Explorer, mapped: IncidentState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explore, "MOST_ON_MAP", 5)
    show(explorer, mapped)
    on_map = explorer.data()["map"]["ids"]
    assert len(on_map) == 5
    expect(explorer.page.get_by_text("5 of 12")).to_be_visible()
    assert set(explorer.places()) == set(on_map)
    # What isn't on the map can be shown all the same.
    explorer.show_incident(next(each for each in BY_ID if each not in on_map))
    expect(explorer.matches).to_have_count(10)


def test_another_database_has_its_own_name_and_pages(explorer: Explorer, mapped: IncidentState) -> None:
    name = "Common Weakness Enumeration"
    weaknesses = replace(mapped, collection=name, record_url="https://cwe.example/{id}.html", licence="Own terms")
    show(explorer, weaknesses)
    footer = explorer.page.get_by_role("contentinfo")
    expect(footer.get_by_role("link", name=name)).to_have_attribute("href", "https://cwe.example/")
    expect(footer).to_contain_text("Own terms")
    for other in ("AI Incident Database", "CC BY-SA", "incidentdatabase"):
        expect(explorer.page.locator("body")).not_to_contain_text(other)
    explorer.show_incident(23)
    own = explorer.page.get_by_role("link", name=BY_ID[23].title)
    expect(own).to_have_attribute("href", "https://cwe.example/23.html")


def test_a_database_without_pages_and_licence_has_no_links(explorer: Explorer, mapped: IncidentState) -> None:
    show(explorer, replace(mapped, collection="Our own notes", record_url="", licence=""))
    expect(explorer.page.get_by_role("contentinfo")).to_contain_text("Our own notes")
    explorer.show_incident(23)
    expect(explorer.matches).to_have_count(10)
    expect(explorer.page.get_by_text(BY_ID[23].title, exact=True).first).to_be_visible()
    expect(explorer.page.get_by_role("link", name=BY_ID[23].title)).to_have_count(0)
    expect_no_word_of_programs(explorer)


def test_an_answer_of_other_data_says_how_to_renew_the_map(explorer: Explorer) -> None:
    version = "fedcba9876543210"
    explorer.open()
    explorer.answer_with(
        found(incident(6), version=explorer.data()["state"]["version"]), found(incident(7), version=version)
    )
    explorer.find(TEXT)
    explorer.expect_matches(6)
    renewing = explorer.page.get_by_text("Reload the page to renew the map.")
    expect(renewing).to_have_count(0)
    explorer.show_incident(4)
    explorer.expect_matches(7)
    expect(renewing).to_be_visible()


def test_points_on_one_spot_make_a_map(explorer: Explorer, mapped: IncidentState) -> None:
    show(explorer, replace(mapped, points=np.zeros((len(INCIDENTS), 2), dtype=np.float32)))
    explorer.find(TEXT)
    expect(explorer.matches).to_have_count(10)
    expect(explorer.map).to_have_attribute("data-at", "0.0000 0.0000")


def test_without_scripts_the_page_says_that_it_needs_them(explorer: Explorer) -> None:
    browser = explorer.page.context.browser
    assert browser
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(f"{explorer.origin}/explore")
        said = page.locator("noscript > p")
        expect(said).to_be_visible()
        expect(said).to_contain_text("JavaScript")
        expect(said).to_contain_text("/similar")


def test_ids_that_javascript_would_round_are_exact(explorer: Explorer, mapped: IncidentState) -> None:
    ids = [2**53 - 1, 2**53, 2**53 + 1, 2**62 + 1, *range(2**63 - 8, 2**63)]
    show(explorer, replace(mapped, incident_ids=np.array(ids), titles=[f"The title of {each}" for each in ids]))
    first, other = 2**53 + 1, 2**53
    service = explorer.answer_with(found(incident(first, 0.9), match="likely"), found(incident(other)))
    explorer.find(TEXT)
    explorer.expect_matches(first)
    expect(explorer.verdict).to_have_text(f"This text is likely about incident {first}.")
    explorer.page.get_by_role("button", name=f"Neighbours of incident {first}").click()
    explorer.expect_matches(other)
    expect(explorer.page.get_by_role("link", name=f"The title of {first}")).to_be_visible()
    assert explorer.page.url.endswith(f"#incident={first}")
    assert [str(asked.get("incident_id")) for asked in service.asked] == ["None", str(first)]
    service.ready.append(found(incident(other)))
    explorer.show_incident(2**63 - 1)
    expect(explorer.page.get_by_role("heading", name=f"Incidents most like incident {2**63 - 1}")).to_be_visible()


def test_one_incident_is_counted_as_one(explorer: Explorer, mapped: IncidentState) -> None:
    one = IncidentState(
        *(mapped.incident_ids[:1], mapped.report_counts[:1], mapped.means[:1], mapped.titles[:1]),
        points=mapped.points[:1],
    )
    explorer.answer_with(found())
    show(explorer, one)
    expect(explorer.page.get_by_role("contentinfo")).to_contain_text("1 incident, 1 report.")
    explorer.show_incident(1)
    expect(explorer.verdict).to_have_text("There are no other incidents.")
