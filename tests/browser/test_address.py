"""The address: a result can be shared, found again by back and forward, and reaches no log."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

import pytest
from playwright.sync_api import expect

from browser.conftest import Opens
from browser.explorer import Explorer
from browser.made import found, incident
from browser.states import BY_ID, TEXT
from serving import Server

pytestmark = pytest.mark.slow

# A word that stands nowhere else.
SECRET = "xylophone"
# Everything that an address gives a meaning to, and signs of several bytes.
ODD = f"100 % {SECRET}? A=b & c#d + “ü” 漢字 \U0001f916\nnext line\t/\\ %41"


def fragment(explorer: Explorer) -> str:
    return explorer.page.url.partition("#")[2]


def test_a_shared_text_opens_the_same_result(explorer: Explorer, opens: Opens) -> None:
    explorer.open()
    explorer.find(ODD)
    expect(explorer.matches).to_have_count(10)
    assert unquote(fragment(explorer)) == f"text={ODD}"
    reader = opens()
    reader.open(f"#{fragment(explorer)}")
    expect(reader.matches).to_have_count(10)
    assert reader.matches.all_inner_texts() == explorer.matches.all_inner_texts()
    expect(reader.text).to_have_value(ODD)


def test_a_shared_incident_opens_the_same_result(explorer: Explorer) -> None:
    explorer.open()
    explorer.show_incident(23)
    expect(explorer.page.get_by_role("heading", name="Incidents most like incident 23")).to_be_visible()
    assert fragment(explorer) == "incident=23"
    explorer.page.reload()
    expect(explorer.page.get_by_role("heading", name="Incidents most like incident 23")).to_be_visible()
    expect(explorer.number).to_have_value("23")


def test_back_and_forward_show_the_results_again(explorer: Explorer) -> None:
    answers = [found(incident(6, 0.9), match="likely"), found(incident(7)), found(incident(10, 0.9), match="possible")]
    service = explorer.answer_with(*answers)
    explorer.open()
    explorer.find("first text")
    explorer.expect_matches(6)
    explorer.show_incident(4)
    explorer.expect_matches(7)
    explorer.find("second text")
    explorer.expect_matches(10)
    # If the page asks again, it gets the same.
    service.ready.extend([answers[1], answers[0]])
    explorer.page.go_back()
    explorer.expect_matches(7)
    expect(explorer.number).to_have_value("4")
    explorer.page.go_back()
    explorer.expect_matches(6)
    expect(explorer.text).to_have_value("first text")
    explorer.page.go_back()
    expect(explorer.matches).to_have_count(0)
    assert fragment(explorer) == ""
    service.ready[:] = [answers[0]]
    explorer.page.go_forward()
    explorer.expect_matches(6)
    expect(explorer.text).to_have_value("first text")


@pytest.mark.parametrize(
    "given", ["#text=", "#incident=", "#incident=abc", "#text=%E0%A4%A", "#nothing", "#incident=-1"]
)
def test_a_broken_address_breaks_nothing(given: str, explorer: Explorer) -> None:
    explorer.open(given)
    explorer.find(TEXT)
    expect(explorer.matches).to_have_count(10)


def test_the_text_stands_in_no_url_that_is_sent_and_in_no_log(explorer: Explorer, server: Server) -> None:
    explorer.open(f"#text={quote(f'A {SECRET} insulted people')}")
    expect(explorer.matches).to_have_count(10)
    explorer.find(f"The {SECRET} hit a car")
    explorer.page.get_by_role("button", name="Neighbours of incident").first.click()
    expect(explorer.page.get_by_role("heading", name="Incidents most like incident")).to_be_visible()
    sent = [url.partition("#")[0] for url in explorer.requests]
    assert [url for url in sent if SECRET in url or "?" in url] == []
    assert "/similar" in server.output
    assert SECRET not in server.output


def test_a_link_is_copied(opens: Opens) -> None:
    explorer = opens()
    explorer.page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=explorer.origin)
    explorer.open()
    explorer.find(ODD)
    expect(explorer.matches).to_have_count(10)
    explorer.page.get_by_role("button", name="Copy link").click()
    explorer.until(lambda: explorer.page.evaluate("navigator.clipboard.readText()") == explorer.page.url, "the link")


def test_a_text_too_long_for_an_address_is_searched_all_the_same(explorer: Explorer) -> None:
    explorer.answer_with(found(incident(6, 0.9), match="likely"))
    explorer.open()
    explorer.find("long " * 30_000)
    explorer.expect_matches(6)
    assert len(explorer.page.url) < 1000
    expect(explorer.page.get_by_text("too long")).to_be_visible()


def test_a_tab_says_what_it_shows(explorer: Explorer) -> None:
    """Whoever has many of them tells them apart."""
    explorer.answer_with(found(incident(6, 0.9), match="likely"), found(incident(7)), found(incident(7)))
    explorer.open()
    expect(explorer.page).to_have_title("Similar incidents")
    explorer.find(TEXT)
    explorer.expect_matches(6)
    expect(explorer.page).to_have_title(re.compile(f"^{TEXT[:40]}.* . Similar incidents$"))
    explorer.show_incident(23)
    explorer.expect_matches(7)
    expect(explorer.page).to_have_title(re.compile(f"^Incident 23: {BY_ID[23].title} . Similar incidents$"))
    explorer.show_incident(999)
    expect(explorer.page.get_by_role("heading", name="Incidents most like incident 999")).to_be_visible()
    expect(explorer.page).to_have_title(re.compile("^Incident 999 . Similar incidents$"))


def test_megabytes_in_one_line_are_searched(explorer: Explorer) -> None:
    """With the direction of each line set by itself, Chromium laid such a text out for minutes."""
    explorer.answer_with(found(incident(6, 0.9), match="likely"))
    explorer.open()
    explorer.page.evaluate("document.getElementById('text').value = 'a car hit a wall '.repeat(300_000)")
    explorer.page.get_by_role("button", name="Find incidents").click()
    explorer.expect_matches(6)
