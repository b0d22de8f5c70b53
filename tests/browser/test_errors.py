"""Errors: one sentence for a person each, and a button that tries again."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from browser.explorer import Explorer
from browser.made import LOST, NO_JSON, Made, found, gateway, incident, refused
from browser.states import TEXT
from similarity.explore.page import error_page

pytestmark = pytest.mark.slow

# An error, and words of its sentence.
ERRORS = {
    "no connection": (LOST, "connection"),
    "too many requests": (gateway(429, "Too Many Requests"), "many"),
    "too large": (gateway(413, "Request Entity Too Large"), "long"),
    "no instance": (gateway(503, "Service Unavailable"), "start"),
    "too slow": (gateway(504, "Endpoint Request Timed-out"), "start"),
    "crashed": (gateway(500, "Internal Server Error"), "try"),
    "our own error": (
        refused(500, "internal_error", "Error! Something went wrong on our side; the cause is in our log."),
        "wrong",
    ),
    "no state": (refused(503, "state_unavailable", "Error! The incident state could not be loaded."), "incidents"),
    "no model": (refused(503, "model_unavailable", "Error! The model could not be loaded on our side."), "model"),
    "not JSON": (NO_JSON, "answer"),
    "cut JSON": (Made(200, '{"body": {"incidents": ['), "answer"),
    "other JSON": (Made(200, "[]"), "answer"),
    "a match without an id": (Made(200, '{"body": {"incidents": [{"similarity": 0.5}]}}'), "answer"),
}


def sentence_of(explorer: Explorer) -> str:
    """The error, without its button. It isn't in the words of programs."""
    expect(explorer.error).to_be_visible()
    said = explorer.error.inner_text().replace("Try again", "").strip()
    assert re.fullmatch(r"[A-Z].+\.", said)
    assert not re.search(r"[{}\[\]_<>]|\b[45]\d\d\b|Error|JSON|null|undefined|status|fetch", said), said
    return said


def test_each_error_is_a_sentence_and_can_be_tried_again(explorer: Explorer) -> None:
    good = found(incident(6, 0.9), match="likely")
    service = explorer.answer_with()
    explorer.open()
    sentences = {}
    for number, (name, (made, words)) in enumerate(ERRORS.items()):
        service.asked.clear()
        # After a good answer, which must be gone, and twice, since the first try again may fail too.
        service.ready.extend([good, made, made, good])
        explorer.find(f"{number} good")
        explorer.expect_matches(6)
        explorer.find(f"{number} text")
        said = sentences[name] = sentence_of(explorer)
        assert re.search(words, said), (name, said)
        expect(explorer.matches).to_have_count(0)
        expect(explorer.page.get_by_role("progressbar")).to_have_count(0)
        explorer.try_again.click()
        explorer.until(lambda: len(service.asked) == 3, "the second try")
        assert sentence_of(explorer) == said
        explorer.try_again.click()
        explorer.expect_matches(6)
        expect(explorer.error).to_be_hidden()
        assert [asked["text"] for asked in service.asked] == [f"{number} good", *[f"{number} text"] * 3]
    # Those that a reader can do something about differ.
    causes = ("no connection", "too many requests", "too large", "no instance", "no state", "no model", "not JSON")
    assert len({sentences[cause] for cause in causes}) == len(causes)


def test_a_refusal_is_in_the_words_of_the_service(explorer: Explorer) -> None:
    explorer.answer_with(refused(400, "text_invalid", 'Error! The "text" has no words.'))
    explorer.open()
    explorer.find(TEXT)
    expect(explorer.error).to_contain_text('The "text" has no words.')
    expect(explorer.error).not_to_contain_text("Error!")


def test_an_unknown_incident_is_said_by_its_number(explorer: Explorer) -> None:
    explorer.open()
    explorer.show_incident(999)
    expect(explorer.error).to_contain_text("999")
    sentence_of(explorer)
    explorer.show_incident(23)
    expect(explorer.page.get_by_role("heading", name="Incidents most like incident 23")).to_be_visible()
    expect(explorer.error).to_be_hidden()


def test_a_number_that_no_incident_can_have_is_not_asked_for(explorer: Explorer) -> None:
    """The page says so beside the field, in which the reader stays."""
    explorer.open()
    for number in ("0", "-3", "1.5", "99999999999999999999999", "many", ""):
        explorer.show_incident(number)
        expect(explorer.number).to_have_attribute("aria-invalid", "true")
        expect(explorer.number).to_have_accessible_description(re.compile("number.*[.]$"))
        expect(explorer.number).to_be_focused()
    assert not [url for url in explorer.requests if url.endswith("/similar")]
    explorer.show_incident(23)
    expect(explorer.page.get_by_role("heading", name="Incidents most like incident 23")).to_be_visible()
    expect(explorer.number).not_to_have_attribute("aria-invalid", "true")


def test_without_a_network_the_page_goes_on_when_there_is_one_again(explorer: Explorer) -> None:
    explorer.open()
    explorer.page.context.set_offline(True)
    explorer.find(TEXT)
    assert "connection" in sentence_of(explorer)
    # What needs no service still works.
    expect(explorer.text).to_have_value(TEXT)
    explorer.page.context.set_offline(False)
    explorer.try_again.click()
    expect(explorer.matches.first).to_be_visible()
    expect(explorer.error).to_be_hidden()


def test_a_page_without_a_state_can_be_loaded_again(explorer: Explorer) -> None:
    explorer.show(
        error_page(503, "Error! The incident state could not be loaded on our side; the cause is in our log.")
    )
    explorer.open()
    expect(explorer.error).to_contain_text("The service can't load its incidents at the moment.")
    explorer.page.unroute_all()
    explorer.try_again.click()
    expect(explorer.text).to_be_visible()
    expect(explorer.error).to_be_hidden()
    explorer.find(TEXT)
    expect(explorer.matches.first).to_be_visible()
