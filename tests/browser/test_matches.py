"""The matches of a text and of an incident: what the page says about them, while it waits, and when none is good."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, expect

from browser.conftest import Opens
from browser.explorer import Explorer
from browser.made import NO_MATCH, Fields, found, incident
from browser.states import BY_ID, TEXT
from serving import Server
from similarity.encoder.tokens import Tokens

pytestmark = pytest.mark.slow


def asked_of(server: Server, **body: object) -> Fields:
    """The service's own answer."""
    answer: Fields = server.post("/similar", **body).json()["body"]
    return answer


def ids_of(answer: Fields) -> list[int]:
    return [each["incident_id"] for each in answer["incidents"]]


def test_a_text_is_answered_with_the_matches_of_the_service(explorer: Explorer, server: Server) -> None:
    answer = asked_of(server, text=TEXT, num=10, metric="hybrid", explain=True)
    assert answer["match"] == "likely"
    explorer.open()
    explorer.find(TEXT)
    explorer.expect_matches(*ids_of(answer))
    expect(explorer.verdict).to_have_text("This text is likely about incident 6.")
    expect(explorer.page.get_by_role("heading", name="Matches", exact=True)).to_be_visible()
    for match, given in zip(explorer.matches.all(), answer["incidents"], strict=True):
        known = BY_ID[given["incident_id"]]
        link = match.get_by_role("link", name=known.title, exact=True)
        expect(link).to_have_attribute("href", f"https://incidentdatabase.ai/cite/{known.incident_id}")
        expect(match.locator("time")).to_have_attribute("datetime", known.date)
        expect(match).to_contain_text(str(known.incident_id))
        meter = match.get_by_role("meter")
        assert float(meter.get_attribute("value") or "") == pytest.approx(given["confidence"], abs=0.005)
    first = explorer.matches.first
    for word in answer["incidents"][0]["why"]["words"]:
        expect(first).to_contain_text(word)
    expect(first.locator("q, blockquote")).to_contain_text(answer["incidents"][0]["why"]["sentence"])


def test_the_service_is_asked_for_ten_matches_with_reasons(explorer: Explorer) -> None:
    service = explorer.answer_with(found(incident(6, 0.9)), found(incident(7)))
    explorer.open()
    explorer.find(TEXT)
    explorer.expect_matches(6)
    explorer.show_incident(4)
    explorer.expect_matches(7)
    assert service.asked == [
        {"text": TEXT, "num": 10, "metric": "hybrid", "explain": True},
        {"incident_id": 4, "num": 10, "metric": "whitened"},
    ]


WORDS = {
    0.93: ("93%", "very likely the same incident"),
    0.8: ("80%", "very likely the same incident"),
    0.79: ("79%", "likely the same incident"),
    0.5: ("50%", "likely the same incident"),
    0.49: ("49%", "possibly the same incident"),
    0.1: ("10%", "possibly the same incident"),
    0.09: ("9%", "probably another incident"),
}


def test_confidence_is_a_meter_and_words(explorer: Explorer) -> None:
    confidences = dict(zip(BY_ID, WORDS, strict=False))
    explorer.answer_with(found(*(incident(*pair) for pair in confidences.items()), match="likely"))
    explorer.open()
    explorer.find(TEXT)
    explorer.expect_matches(*confidences)
    for match, (percent, words) in zip(explorer.matches.all(), WORDS.values(), strict=True):
        said = match.inner_text()
        assert re.search(rf"(?<!\d){percent}", said)
        assert re.search(rf"(?<!very ){words}" if words.startswith("likely") else words, said)
        expect(match.get_by_role("meter")).to_have_accessible_name(re.compile("."))


VERDICTS = {
    "likely": "This text is likely about incident 4.",
    "possible": "This text may be about incident 4.",
    None: "The most similar incidents come first.",
}


def test_the_verdict_is_in_words(explorer: Explorer) -> None:
    explorer.open()
    for verdict, sentence in VERDICTS.items():
        confidence = None if verdict is None else 0.4
        explorer.answer_with(found(incident(4, confidence), incident(7, confidence), match=verdict))
        explorer.find(f"{verdict} {TEXT}")
        expect(explorer.verdict).to_have_text(sentence)
        explorer.expect_matches(4, 7)
        expect(explorer.page.get_by_role("heading", name="Matches", exact=True)).to_be_visible()


def test_where_nothing_matches_the_page_says_so_plainly(explorer: Explorer) -> None:
    explorer.answer_with(found(incident(4, 0.04), incident(7, 0.3), match="none", warnings=(NO_MATCH, "A warning.")))
    explorer.open()
    explorer.find(TEXT)
    explorer.expect_matches(4, 7)
    expect(explorer.verdict).to_have_text("No recorded incident matches this text.")
    heading = "The nearest incidents, probably about something else"
    expect(explorer.page.get_by_role("heading", name=heading)).to_be_visible()
    for match in explorer.matches.all():
        expect(match).to_contain_text("probably another incident")
    # The other warning is shown, this one has been said.
    expect(explorer.page.get_by_text("A warning.")).to_be_visible()
    expect(explorer.page.get_by_text(NO_MATCH)).to_have_count(0)


@pytest.mark.parametrize("is_exact", [True, False])
def test_a_text_that_was_cut_is_told_without_tokens(is_exact: bool, explorer: Explorer) -> None:
    cut = Tokens([0] * 4096, came=36002, came_is_exact=is_exact, is_blank=False, is_shortened=False)
    (warning,) = cut.warnings()
    explorer.answer_with(found(incident(4, 0.4), match="possible", warnings=("First.", warning, "Last.")))
    explorer.open()
    explorer.find(TEXT)
    told = "The text is too long to compare all of it. Its beginning was compared."
    expect(explorer.page.locator("#warnings li")).to_have_text(["First.", told, "Last."])


def test_without_calibration_there_are_similarities(explorer: Explorer) -> None:
    explorer.answer_with(found(incident(4, similarity=0.6345), incident(7, similarity=-0.02)))
    explorer.open()
    explorer.find(TEXT)
    explorer.expect_matches(4, 7)
    expect(explorer.matches.nth(0)).to_contain_text("similarity 0.63")
    expect(explorer.matches.nth(1)).to_contain_text(re.compile("similarity [-\u2212]0.02"))
    expect(explorer.page.get_by_role("meter")).to_have_count(0)


def test_a_match_without_title_date_and_page_has_its_number(explorer: Explorer) -> None:
    explorer.answer_with(found(incident(12, 0.9, title=None, date=None, url=None), match="likely"))
    explorer.open()
    explorer.find(TEXT)
    explorer.expect_matches(12)
    expect(explorer.matches.first).to_contain_text("Incident 12")
    expect(explorer.matches.first.get_by_role("link")).to_have_count(0)
    expect(explorer.matches.first.locator("time")).to_have_count(0)
    for word in ("null", "undefined", "NaN"):
        expect(explorer.page.locator("body")).not_to_contain_text(word)


def test_an_incident_is_shown_with_its_neighbours(explorer: Explorer, server: Server) -> None:
    neighbours = ids_of(asked_of(server, incident_id=23, num=10, metric="whitened"))
    explorer.open()
    explorer.show_incident(23)
    explorer.expect_matches(*neighbours)
    heading = explorer.page.get_by_role("heading", name="Incidents most like incident 23")
    expect(heading).to_be_visible()
    own = explorer.page.get_by_role("link", name=BY_ID[23].title)
    expect(own).to_have_attribute("href", "https://incidentdatabase.ai/cite/23")
    expect(explorer.page.get_by_role("main").locator("time").first).to_have_attribute("datetime", BY_ID[23].date)
    assert top_of(own) < top_of(heading) < top_of(explorer.matches.first)


def top_of(element: Locator) -> float:
    box = element.bounding_box()
    assert box
    return float(box["y"])


def test_a_match_leads_to_its_neighbours(explorer: Explorer, server: Server) -> None:
    explorer.open()
    explorer.find(TEXT)
    explorer.page.get_by_role("button", name="Neighbours of incident 6", exact=True).click()
    explorer.expect_matches(*ids_of(asked_of(server, incident_id=6, num=10, metric="whitened")))
    expect(explorer.page.get_by_role("heading", name="Incidents most like incident 6")).to_be_visible()
    # A text that stands beside another result would look like the one that was asked.
    expect(explorer.number).to_have_value("6")


def test_progress_is_seen_while_the_service_works(opens: Opens) -> None:
    explorer = opens()
    # Its hands are the test's.
    explorer.page.clock.install()
    service = explorer.answer_with()
    explorer.open()
    progress = explorer.page.get_by_role("progressbar")
    expect(progress).to_have_count(0)
    explorer.find(TEXT)
    expect(progress).to_be_visible()
    expect(explorer.status).to_contain_text("Searching")
    explorer.page.clock.fast_forward(4000)
    expect(explorer.status).to_have_text("Still searching: the service may be starting, which takes some seconds.")
    explorer.until(lambda: len(service.waiting) == 1, "the request")
    service.answer(found(incident(6, 0.9), match="likely"))
    explorer.expect_matches(6)
    expect(progress).to_have_count(0)
    expect(explorer.status).not_to_contain_text("earching")
    expect(explorer.status).not_to_be_empty()


def test_a_late_answer_does_not_take_the_place_of_a_newer_one(explorer: Explorer) -> None:
    service = explorer.answer_with()
    explorer.open()
    explorer.find(TEXT)
    explorer.until(lambda: len(service.asked) == 1, "the first request")
    explorer.show_incident(4)
    explorer.until(lambda: len(service.asked) == 2, "the second request")
    service.answer(found(incident(7)), number=1)
    explorer.expect_matches(7)
    service.answer(found(incident(10, 0.9), match="likely"), number=0)
    # An answer that comes later has come, and the script has had its turn.
    explorer.page.evaluate("fetch('health').then(reply => reply.text())")
    explorer.expect_matches(7)
    expect(explorer.page.get_by_role("heading", name="Incidents most like incident 4")).to_be_visible()
    expect(explorer.error).to_be_hidden()


def test_an_empty_text_is_not_sent(explorer: Explorer) -> None:
    service = explorer.answer_with(found(incident(6)))
    explorer.open()
    explorer.find("   ")
    expect(explorer.page.get_by_role("progressbar")).to_have_count(0)
    explorer.find(TEXT)
    explorer.expect_matches(6)
    assert len(service.asked) == 1


def test_the_number_of_incidents_does_not_contradict_the_verdict(explorer: Explorer) -> None:
    explorer.answer_with(found(incident(4, 0.01), match="none", warnings=(NO_MATCH,)))
    explorer.open()
    explorer.find(TEXT)
    expect(explorer.verdict).to_have_text("No recorded incident matches this text.")
    expect(explorer.status).not_to_contain_text("found")
