"""The answers that the tests make have the form that /openapi describes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator

import openapi
from browser.made import NO_MATCH, Made, found, incident, refused
from openapi_documents import answers_closed

MADE = {
    "matches of a text": found(
        incident(6, 0.9, why={"words": ["chatbot"], "sentence": "A chatbot."}), incident(900), match="likely"
    ),
    "no match": found(incident(4, 0.01), match="none", warnings=(NO_MATCH,)),
    "neighbours": found(incident(4, title=None, date=None, url=None)),
    "an error": refused(400, "text_invalid", "Error! The text has no words."),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE)
def test_a_made_answer_is_one_that_the_api_gives(name: str) -> None:
    made: Made = MADE[name]
    document: dict[str, Any] = answers_closed(json.loads(openapi.handler({}, None)["body"]))
    answer = document["paths"]["/similar"]["post"]["responses"][str(made.status)]
    if "$ref" in answer:
        answer = document["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    schema = {**answer["content"][made.media_type]["schema"], "components": document["components"]}
    assert [error.message for error in OAS31Validator(schema).iter_errors(json.loads(made.content))] == []
