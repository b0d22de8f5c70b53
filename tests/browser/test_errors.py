"""Errors: one sentence for a person each, and a button that tries again."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import expect

from browser.conftest import Opens
from browser.explorer import Explorer
from browser.made import LOST, NO_JSON, Made, found, gateway, incident, refused
from browser.states import TEXT
from similarity.explore.page import error_page

pytestmark = pytest.mark.slow

# An error, and words of its sentence.
ERRORS = {
    "no connection": (LOST, "connection"),
    "too many requests": (gateway(429, "Too Many Requests"), "many|busy"),
    "too large": (gateway(413, "Request Entity Too Large"), "long|large"),
    "no instance": (gateway(503, "Service Unavailable"), "start|busy|moment"),
    "too slow": (gateway(504, "Endpoint Request Timed-out"), "start|long|moment"),
    "crashed": (gateway(500, "Internal Server Error"), "went wrong|failed|fault"),
    "our own error": (
        refused(500, "internal_error", "Error! Something went wrong on our side; the cause is in our log."),
        "went wrong|failed|fault",
    ),
    "no state": (refused(503, "state_unavailable", "Error! The incident state could not be loaded."), "incidents|data"),
    "no model": (refused(503, "model_unavailable", "Error! The model could not be loaded on our side."), "model"),
    "not JSON": (NO_JSON, "answer|network"),
    "cut JSON": (Made(200, '{"body": {"incidents": ['), "answer|network"),
    "other JSON": (Made(200, "[]"), "answer|network"),
}


def sentence_of(explorer: Explorer) -> str:
    """The error, without its button. It isn't in the words of programs."""
    expect(explorer.error).to_be_visible()
    said = explorer.error.inner_text().replace("Try again", "").strip()
    assert re.fullmatch(r"[A-Z].+\.", said)
    assert not re.search(r"[{}\[\]_<>]|\b[45]\d\d\b|Error|JSON|null|undefined|status|fetch", said), said
    return said


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_is_a_sentence_and_can_be_tried_again(name: str, explorer: Explorer) -> None:
    made, words = ERRORS[name]
    service = explorer.answer_with(made, made, found(incident(6, 0.9), match="likely"))
    explorer.open()
    explorer.find(TEXT)
    said = sentence_of(explorer)
    assert re.search(words, said), said
    expect(explorer.matches).to_have_count(0)
    expect(explorer.page.get_by_role("progressbar")).to_have_count(0)
    explorer.try_again.click()
    explorer.until(lambda: len(service.asked) == 2, "the second try")
    assert sentence_of(explorer) == said
    explorer.try_again.click()
    explorer.expect_matches(6)
    expect(explorer.error).to_be_hidden()
    assert service.asked == [service.asked[0]] * 3


def test_errors_of_different_causes_have_different_sentences(explorer: Explorer) -> None:
    service = explorer.answer_with()
    explorer.open()
    said = set()
    causes = ("no connection", "too many requests", "too large", "no instance", "no state", "no model", "not JSON")
    for cause in causes:
        service.ready.append(ERRORS[cause][0])
        # The sentence before is gone as soon as the next request begins.
        explorer.find(f"{TEXT} {cause}")
        explorer.until(lambda: not service.ready, "the request")
        said.add(sentence_of(explorer))
    assert len(said) == len(causes)


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


@pytest.mark.parametrize("number", ["0", "-3", "1.5", "99999999999999999999999"])
def test_a_number_that_no_incident_can_have_is_no_trouble(number: str, explorer: Explorer) -> None:
    """The browser or the page says so. Nothing breaks."""
    explorer.open()
    explorer.show_incident(number)
    invalid: Any = explorer.number.evaluate("field => !field.validity.valid")
    if not invalid:
        sentence_of(explorer)
    explorer.show_incident(23)
    expect(explorer.page.get_by_role("heading", name="Incidents most like incident 23")).to_be_visible()


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


def test_a_page_without_a_state_can_be_loaded_again(opens: Opens) -> None:
    explorer = opens()
    explorer.show(error_page(503, "The incidents could not be loaded on our side; the cause is in our log."))
    explorer.open()
    expect(explorer.error).to_contain_text("The incidents could not be loaded on our side; the cause is in our log.")
    explorer.page.unroute_all()
    explorer.try_again.click()
    expect(explorer.text).to_be_visible()
    expect(explorer.error).to_be_hidden()
    explorer.find(TEXT)
    expect(explorer.matches.first).to_be_visible()
