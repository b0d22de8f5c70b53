"""A state has one limit of tokens, and whatever embeds a text to be compared with it cuts the text there."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jobs.shelve_state import ShelvingError
from lambdas import Image, ask, days_ago, start_again, titles, with_titles
from similarity.encoder.loading import load_encoder
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.errors import ModelError
from similarity.incidents.state import IncidentState
from similarity.settings import Engine
from similarity.shelf.versions import state_names
from similarity.vectors import Vector
from tiny import TINY_MAX_TOKENS, TINY_TEXTS, Deployed, roberta_tokenizer

LIMIT = 20
TEXT = "A robot in a warehouse hurt workers. " * 5
CAME = len(roberta_tokenizer().encode(TEXT).ids)
assert LIMIT < CAME <= TINY_MAX_TOKENS

SaveState = Callable[[int], None]


@pytest.fixture
def save_state(deployed: Deployed, tiny_state: IncidentState) -> SaveState:
    """Saves the image's state with a limit."""

    def save(max_tokens: int) -> None:
        dataclasses.replace(tiny_state, max_tokens=max_tokens).save(deployed.state_path)

    return save


def cut_vector(encoder: TorchEncoder, limit: int) -> Vector:
    """Of the first tokens of TEXT, so many that they are `limit` with the two special ones."""
    ids = roberta_tokenizer().encode(TEXT).ids
    vector: Vector = encoder.vectors([[*ids[: limit - 1], ids[-1]]])[0]
    return vector


def embedded() -> np.ndarray:
    return np.array(ask("text_to_embed", {"text": TEXT})["embedding"]["vector"])


@pytest.mark.parametrize("limit", [3, LIMIT])
def test_every_route_cuts_a_text_where_the_state_says(
    limit: int, save_state: SaveState, tiny_encoder: TorchEncoder, tiny_state: IncidentState
) -> None:
    save_state(limit)
    expected = cut_vector(tiny_encoder, limit)
    assert not np.allclose(expected, tiny_encoder.encode(TEXT).vector, atol=1e-3)
    np.testing.assert_allclose(embedded(), expected, atol=1e-5)
    answers = [ask(module, {"text": TEXT}) for module in ("similar", "text_to_db_similar", "text_to_embed")]
    came = CAME if limit == LIMIT else "more than 3"  # of a text that is far too long, not all tokens are counted
    warning = f'Provided value for "text" has {came} tokens, using the first {limit}.'
    assert [answer["warnings"] for answer in answers] == [[warning]] * 3
    by_vector = ask("embed_to_db_similar", {"embed": expected.tolist()})
    for answer in answers[:2]:
        for found, wanted in zip(answer["incidents"], by_vector["incidents"], strict=True):
            assert found["similarity"] == pytest.approx(wanted["similarity"], abs=1e-5)


@pytest.mark.parametrize("limit", [0, TINY_MAX_TOKENS])
def test_without_a_lower_limit_texts_are_cut_at_the_models_maximum(
    limit: int, save_state: SaveState, tiny_encoder: TorchEncoder
) -> None:
    save_state(limit)
    assert ask(event={"text": TEXT})["warnings"] == []
    np.testing.assert_allclose(embedded(), tiny_encoder.encode(TEXT).vector, atol=1e-5)


def test_without_a_state_texts_are_cut_at_the_models_maximum(deployed: Deployed, tiny_encoder: TorchEncoder) -> None:
    deployed.state_path.unlink()
    np.testing.assert_allclose(embedded(), tiny_encoder.encode(TEXT).vector, atol=1e-5)


def test_a_limit_above_the_models_maximum_is_our_error_on_every_route(
    save_state: SaveState, caplog: pytest.LogCaptureFixture
) -> None:
    save_state(TINY_MAX_TOKENS + 1)
    for module in ("similar", "text_to_db_similar", "text_to_embed", "embed_to_db_similar"):
        caplog.clear()
        with pytest.raises(AssertionError, match="The incident state could not be loaded on our side"):
            ask(module, {"text": TEXT} if module != "embed_to_db_similar" else {"embed": [1.0] * 32})
        assert "cut at 129 tokens, but the model takes at most 128" in caplog.text


def test_a_text_is_not_embedded_while_the_state_that_has_the_limit_can_not_be_read(deployed: Deployed) -> None:
    deployed.state_path.write_bytes(b"no state")
    with pytest.raises(AssertionError, match="The incident state could not be loaded on our side"):
        embedded()


def test_another_state_moves_the_limit_without_loading_the_model_again(
    save_state: SaveState, tiny_encoder: TorchEncoder, loaded_from: list[Path]
) -> None:
    for limit in (LIMIT, 10, 0):
        save_state(limit)
        expected = cut_vector(tiny_encoder, limit) if limit else tiny_encoder.encode(TEXT).vector
        np.testing.assert_allclose(embedded(), expected, atol=1e-5)
        warnings = ask(event={"text": TEXT})["warnings"]
        assert [warning.endswith(f"the first {limit}.") for warning in warnings] == [True] * (limit > 0)
    assert len(loaded_from) == 1


@pytest.mark.parametrize(
    ("own", "shelved", "is_served"),
    [
        (LIMIT, LIMIT, True),
        (0, TINY_MAX_TOKENS, True),
        (TINY_MAX_TOKENS, 0, True),
        (None, 0, True),
        (0, LIMIT, False),
        (LIMIT, 0, False),
        (LIMIT, LIMIT + 1, False),
        (None, LIMIT, False),
    ],
)
def test_a_state_on_the_shelf_is_served_if_its_limit_is_that_of_the_images_state(
    own: int | None,
    shelved: int,
    is_served: bool,
    image: Image,
    save_state: SaveState,
    tiny_state: IncidentState,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    image.put(dataclasses.replace(with_titles(tiny_state, "on the shelf", days_ago(1)), max_tokens=shelved))
    if own is None:
        image.state_path.unlink()
    else:
        save_state(own)
    if own is None and not is_served:
        with pytest.raises(AssertionError, match="The incident state could not be loaded on our side"):
            titles()
    else:
        assert titles() == ({"on the shelf"} if is_served else set(TINY_TEXTS.values()))
    refused = [vars(record)["reason"] for record in caplog.records if record.getMessage() == "state refused"]
    assert len(refused) == (not is_served)
    if refused:
        here, there = own or TINY_MAX_TOKENS, shelved or TINY_MAX_TOKENS
        assert f"the state were cut at {there} tokens, but here texts are cut at {here}" in refused[0]


def test_texts_are_cut_where_those_of_the_served_state_were(
    image: Image, save_state: SaveState, tiny_state: IncidentState
) -> None:
    save_state(LIMIT)
    image.put(dataclasses.replace(with_titles(tiny_state, "on the shelf", days_ago(1)), max_tokens=LIMIT))
    answer = ask(event={"text": TEXT})
    assert {each["title"] for each in answer["incidents"]} == {"on the shelf"}
    assert answer["warnings"] == [f'Provided value for "text" has {CAME} tokens, using the first {LIMIT}.']


def test_a_start_reads_the_images_state_once_for_its_limit(
    image: Image, save_state: SaveState, tiny_state: IncidentState, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, loaded = IncidentState.load, []

    def load_and_note(path: Path) -> IncidentState:
        loaded.append(path)
        if path == image.state_path:
            time.sleep(0.1)  # The look at the shelf and the encoder ask meanwhile, each in a thread of its own.
        return load(path)

    monkeypatch.setattr(IncidentState, "load", load_and_note)
    image.put(dataclasses.replace(with_titles(tiny_state, "on the shelf", days_ago(1)), max_tokens=LIMIT))
    save_state(LIMIT)
    assert titles() == {"on the shelf"}
    assert loaded.count(image.state_path) == 1
    # A replaced state has another limit.
    save_state(LIMIT + 1)
    start_again()
    assert titles() == set(TINY_TEXTS.values())


def test_a_state_on_the_shelf_of_texts_that_were_prepared_otherwise_is_refused(
    image: Image, tiny_state: IncidentState, caplog: pytest.LogCaptureFixture
) -> None:
    image.put(dataclasses.replace(with_titles(tiny_state, "other", days_ago(1)), text_preparation="none"))
    assert titles() == set(TINY_TEXTS.values())
    [reason] = [vars(record)["reason"] for record in caplog.records if record.getMessage() == "state refused"]
    assert "prepared with none" in reason


def test_a_deployment_with_another_limit_shelves_its_state_and_its_lambdas_serve_it(
    image: Image, tiny_state: IncidentState
) -> None:
    image.shelve(with_titles(tiny_state, "before", days_ago(2)))
    assert titles() == {"before"}
    answer = image.shelve(dataclasses.replace(with_titles(tiny_state, "after", days_ago(3)), max_tokens=LIMIT))
    assert answer["serves"] == answer["shelved"]
    start_again()
    assert titles() == {"after"}


def test_a_deployment_with_a_limit_above_the_models_maximum_stops(image: Image, tiny_state: IncidentState) -> None:
    with pytest.raises(ShelvingError, match="cut at 129 tokens, but the model takes at most 128"):
        image.shelve(dataclasses.replace(tiny_state, max_tokens=TINY_MAX_TOKENS + 1))
    assert state_names(image.shelf) == []


@pytest.mark.parametrize("engine", ["onnx", "torch"])
def test_an_encoder_is_loaded_with_a_limit(engine: Engine, tiny_model_dir: Path, tiny_encoder: TorchEncoder) -> None:
    encoder = load_encoder(tiny_model_dir, engine=engine, max_tokens=LIMIT)
    assert (encoder.max_tokens, encoder.longest_input) == (LIMIT, TINY_MAX_TOKENS)
    np.testing.assert_allclose(encoder.encode(TEXT).vector, cut_vector(tiny_encoder, LIMIT), atol=1e-5)
    assert load_encoder(tiny_model_dir, engine=engine).max_tokens == TINY_MAX_TOKENS
    for limit in (-1, 1, 2, TINY_MAX_TOKENS + 1):
        with pytest.raises(ModelError) as caught:
            load_encoder(tiny_model_dir, engine=engine, max_tokens=limit)
        assert f"can't be cut at {limit} tokens: for this model, the limit is a number from 3 to 128" in (
            caught.value.detail
        )


def test_an_encoder_with_a_limit_leaves_the_one_it_was_made_of_as_it_was(tiny_encoder: TorchEncoder) -> None:
    before = tiny_encoder.encode(TEXT)
    assert len(tiny_encoder.cut_at(LIMIT).encode(TEXT).tokens.ids) == LIMIT
    assert len(before.tokens.ids) == len(tiny_encoder.encode(TEXT).tokens.ids) == CAME
    assert tiny_encoder.cut_at(LIMIT).cut_at(0).max_tokens == TINY_MAX_TOKENS
