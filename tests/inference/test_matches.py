"""How sure an answer is, end to end: `match`, `confidence`, the metrics, and the warnings about a text."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
from ast import literal_eval
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aiid_site import read_msg
from models.export import export
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.incidents.ranking import Ranking
from similarity.incidents.state import IncidentState
from similarity.incidents.words import MOST_CHARS
from similarity.service import service
from tiny import (
    MANY_SCRIPTS,
    TINY_TEXTS,
    Deployed,
    edit_config,
    fitted_state,
    state_of_texts,
    write_multilingual_longformer,
)

EVENTS = Path(__file__).resolve().parent.parent / "events"
TEXT = "A robot in a warehouse hurt workers"
RUSSIAN = MANY_SCRIPTS[2]

NO_MATCH = "No incident in the database is close enough: this {} probably belongs to none of them."
FOREIGN = "Most letters of the text are in a script that the model doesn't read. Its matches are often wrong."
ONE_WORD = "The text has only 1 word. Matches of texts with fewer than 5 words are often wrong."
BY_TEXT = ("similar", "text_to_db_similar")

Serve = Callable[..., None]


@pytest.fixture
def serve(deployed: Deployed, tiny_state: IncidentState) -> Serve:
    """Serves the tiny state with the data of all metrics, and confidences as `fitted_state` explains."""

    def serve(first: float, **numbers: float) -> None:
        fitted_state(tiny_state, first, **numbers).save(deployed.state_path)

    return serve


def invoke(module: str, event: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Status and body of the answer to an event of any kind."""
    answer = importlib.import_module(module).handler(event, None)
    envelope = json.loads(answer["body"]) if isinstance(answer["body"], str) else answer
    return envelope["statusCode"], envelope["body"]


def body_of(module: str, event: dict[str, Any]) -> dict[str, Any]:
    status, body = invoke(module, event)
    assert status == 200, body
    return body


def asked(module: str, tiny_state: IncidentState, **parameters: object) -> dict[str, Any]:
    given = {"embed": tiny_state.means[0].tolist()} if module == "embed_to_db_similar" else {"text": TEXT}
    return body_of(module, given | parameters)


@pytest.mark.parametrize(
    ("first", "none_below", "match"),
    [(2.0, 0.1, "likely"), (0.0, 0.1, "likely"), (-1.0, 0.1, "possible"), (-1.0, 0.9, "none"), (2.0, 0.9, "none")],
)
@pytest.mark.parametrize("module", [*BY_TEXT, "embed_to_db_similar"])
def test_match_follows_from_the_first_incidents_confidence(
    module: str, first: float, none_below: float, match: str, serve: Serve, tiny_state: IncidentState
) -> None:
    serve(first, none_below=none_below)
    body = asked(module, tiny_state)
    assert body["match"] == match
    assert [each["confidence"] for each in body["incidents"]] == pytest.approx(
        [1 / (1 + math.exp(-first)), *[1 / (1 + math.exp(5))] * 2]
    )
    kind = "vector" if module == "embed_to_db_similar" else "text"
    assert body["warnings"] == [NO_MATCH.format(kind)] * (match == "none")


@pytest.mark.parametrize("module", [*BY_TEXT, "embed_to_db_similar"])
def test_match_is_there_without_incidents(module: str, serve: Serve, tiny_state: IncidentState) -> None:
    serve(2.0)
    body = asked(module, tiny_state, num=0)
    assert (body["match"], body["incidents"], body["msg"], body["best_url"]) == ("likely", [], "[]", None)
    serve(-4.0)
    body = asked(module, tiny_state, num=0)
    assert (body["match"], body["incidents"]) == ("none", [])
    assert "probably belongs to none" in body["warnings"][-1]


@pytest.mark.parametrize("module", [*BY_TEXT, "embed_to_db_similar"])
def test_a_state_without_a_calibration_cannot_tell(module: str, deployed: Deployed, tiny_state: IncidentState) -> None:
    body = asked(module, tiny_state)
    assert body["match"] is None
    assert [each["confidence"] for each in body["incidents"]] == [None] * 3
    assert body["warnings"] == []


@pytest.mark.parametrize("metric", ["cosine", "centered", "whitened", "hybrid"])
@pytest.mark.parametrize("num", [-1, 0, 1, 3])
def test_every_metric_answers_in_the_form_that_the_site_reads(num: int, metric: str, serve: Serve) -> None:
    serve(0.0)
    body = body_of("similar", {"text": TEXT, "num": num, "metric": metric})
    pairs = read_msg(body["msg"])
    assert len(pairs) == {-1: 5, 0: 0, 1: 1, 3: 3}[num]
    assert [tuple(pair) for pair in pairs] == literal_eval(body["msg"])
    assert pairs == [[each["similarity"], each["incident_id"]] for each in body["incidents"]]
    assert pairs == sorted(pairs, reverse=True)
    for each in body["incidents"]:
        assert list(each) == ["incident_id", "similarity", "confidence", "title", "date", "url"]


@pytest.mark.parametrize("metric", ["whitened", "hybrid"])
@pytest.mark.parametrize("name", ["similar_get_v2", "similar_post_v1", "similar_post_base64_v2"])
def test_events_may_name_the_new_metrics(
    name: str, metric: str, deployed: Deployed, serve: Serve, tiny_encoder: TorchEncoder
) -> None:
    serve(0.0)
    event = json.loads((EVENTS / f"{name}.json").read_text())
    event["queryStringParameters"] = {**(event.get("queryStringParameters") or {}), "metric": metric}
    body = body_of("similar", event)
    ranking = Ranking(IncidentState.load(deployed.state_path))
    expected = ranking.most_similar(tiny_encoder.encode(TINY_TEXTS[1]).vector, 2, metric, TINY_TEXTS[1])  # type: ignore[arg-type]
    assert [each["incident_id"] for each in body["incidents"]] == [match.incident_id for match in expected]
    assert [each["similarity"] for each in body["incidents"]] == pytest.approx(
        [match.similarity for match in expected], abs=1e-5
    )


def test_hybrid_reads_the_words_of_the_callers_text(serve: Serve) -> None:
    serve(0.0)
    for number, title in TINY_TEXTS.items():
        body = body_of("similar", {"text": title, "metric": "hybrid"})
        assert body["incidents"][0]["incident_id"] == number
    # Two texts with one vector differ by their words: nothing behind the model's last token counts for a vector.
    filler = "so " * 200
    first, second = (
        body_of("similar", {"text": filler + words, "metric": "hybrid", "num": -1})
        for words in ("a chatbot learned to insult", "a trading program crashed")
    )
    assert first["best_url"].endswith("/4")
    assert second["best_url"].endswith("/10")
    same = [body_of("similar", {"text": filler + words, "num": -1})["msg"] for words in ("chatbot", "trading")]
    assert same[0] == same[1]


def test_hybrid_transliterates_the_words_as_the_state_does(serve: Serve) -> None:
    serve(0.0)
    plain, accented = (
        body_of("similar", {"text": text, "metric": "hybrid", "num": -1})
        for text in ("A trading program crashed the market", "Á träding prögram cräshed the märket")
    )
    assert accented["msg"] == plain["msg"]


def test_megabytes_are_ranked_by_the_words_at_their_beginning(serve: Serve) -> None:
    serve(0.0)
    text = "A chatbot learned to insult people " + "so " * MOST_CHARS
    short, long = (
        body_of("similar", {"text": each, "metric": "hybrid", "num": 1})
        for each in (text, text + "trading program crashed market " * 100_000)
    )
    assert (short["msg"], short["incidents"][0]["incident_id"]) == (long["msg"], 4)


def test_words_behind_much_that_is_dropped_count_too(serve: Serve) -> None:
    serve(0.0)
    text = "A chatbot learned to insult people"
    plain, late = (
        body_of("similar", {"text": each, "metric": "hybrid", "num": -1}) for each in (text, "🤖" * MOST_CHARS + text)
    )
    assert (late["msg"], late["incidents"][0]["incident_id"]) == (plain["msg"], 4)


def test_a_vector_has_no_words(serve: Serve, deployed: Deployed, tiny_state: IncidentState) -> None:
    event = {"embed": tiny_state.means[0].tolist(), "metric": "hybrid"}
    message = 'Error! "metric" can\'t be "hybrid" here, because a vector has no words. Use {}.'
    serve(0.0)
    assert invoke("embed_to_db_similar", event) == (
        400,
        {"warnings": [], "msg": message.format('"cosine", "centered" or "whitened"'), "code": "metric_unavailable"},
    )
    tiny_state.save(deployed.state_path)
    assert invoke("embed_to_db_similar", event)[1]["msg"] == message.format('"cosine" or "centered"')


def without(state: IncidentState, **parts: object) -> IncidentState:
    return dataclasses.replace(state, fit=dataclasses.replace(state.fit, **parts))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("lacks", "metric", "what", "instead"),
    [
        ({"words": None}, "hybrid", "word index", '"cosine", "centered" or "whitened"'),
        ({"whitening": None}, "whitened", "whitening map", '"cosine", "centered" or "hybrid"'),
        ({"words": None, "whitening": None}, "hybrid", "word index", '"cosine" or "centered"'),
    ],
)
def test_a_metric_that_the_state_has_no_data_for(
    lacks: dict[str, Any], metric: str, what: str, instead: str, deployed: Deployed, tiny_state: IncidentState
) -> None:
    without(fitted_state(tiny_state, 0.0), **lacks).save(deployed.state_path)
    message = f'Error! "metric" can\'t be "{metric}" here, because the state has no {what}. Use {instead}.'
    for module in BY_TEXT:
        assert invoke(module, {"text": TEXT, "metric": metric}) == (
            400,
            {"warnings": [], "msg": message, "code": "metric_unavailable"},
        )
    if metric != "hybrid":
        event = {"embed": tiny_state.means[0].tolist(), "metric": metric}
        assert invoke("embed_to_db_similar", event)[1]["msg"] == message.replace(instead, '"cosine" or "centered"')


def test_a_state_that_comes_later_brings_its_metrics(deployed: Deployed, tiny_state: IncidentState) -> None:
    assert invoke("similar", {"text": TEXT, "metric": "hybrid"})[0] == 400
    fitted_state(tiny_state, 0.0).save(deployed.state_path)
    assert invoke("similar", {"text": TEXT, "metric": "hybrid"})[0] == 200


@pytest.mark.parametrize("module", BY_TEXT)
@pytest.mark.parametrize(
    ("text", "warnings"),
    [
        ("robots", [ONE_WORD]),
        ("?", [ONE_WORD.replace("only 1 word", "no words")]),
        (RUSSIAN, [FOREIGN]),
        ("Привет", [FOREIGN, ONE_WORD]),
        (TEXT, []),
    ],
)
def test_a_text_that_can_not_be_judged_is_answered_with_a_warning(
    text: str, warnings: list[str], module: str, serve: Serve
) -> None:
    serve(2.0)
    assert body_of(module, {"text": text})["warnings"] == warnings
    # What matches comes last, and after the warnings about parameters.
    serve(-4.0)
    body = body_of(module, {"text": text, "num": "many"})
    bad_num = 'Provided value for "num" invalid, using default of 3.'
    assert body["warnings"] == [bad_num, *warnings, NO_MATCH.format("text")]


def test_an_embedding_is_warned_of_if_the_model_does_not_read_the_text(deployed: Deployed) -> None:
    assert body_of("text_to_embed", {"text": RUSSIAN})["warnings"] == [FOREIGN]
    assert body_of("text_to_embed", {"text": "robots"})["warnings"] == []


def test_a_multilingual_model_reads_the_scripts_of_its_tokenizer(deployed: Deployed) -> None:
    for path in deployed.model_dir.iterdir():
        path.unlink()
    write_multilingual_longformer(deployed.model_dir)
    state_of_texts(TorchEncoder.load(deployed.model_dir), TINY_TEXTS).save(deployed.state_path)
    service.cache_clear()
    for text in MANY_SCRIPTS:
        assert body_of("similar", {"text": text})["warnings"] == []
    for module in (*BY_TEXT, "text_to_embed"):
        assert body_of(module, {"text": "ⲁⲃⲅ ⲇⲉⲍ ⲏⲑⲓ ⲕⲗⲙ ⲛⲝⲟ"})["warnings"] == [FOREIGN]


def test_a_byte_level_model_without_transliteration_reads_all(deployed: Deployed, tiny_state: IncidentState) -> None:
    edit_config(deployed.model_dir, text_preparation="none")
    export(deployed.model_dir)
    fingerprint = TorchEncoder.load(deployed.model_dir).fingerprint
    new = dataclasses.replace(tiny_state, model_fingerprint=fingerprint, text_preparation="none")
    new.save(deployed.state_path)
    assert body_of("similar", {"text": RUSSIAN[:50]})["warnings"] == []


def test_older_callers_get_what_they_got(serve: Serve) -> None:
    """A state with the data of all metrics gives them the same answer, but for added fields."""
    event = {"text": TEXT, "num": 3}
    before = body_of("similar", event)
    serve(2.0)
    after = body_of("similar", event)
    assert [after[name] for name in ("warnings", "msg", "best_url")] == [
        before[name] for name in ("warnings", "msg", "best_url")
    ]
    assert [new | {"confidence": None} for new in after["incidents"]] == before["incidents"]
