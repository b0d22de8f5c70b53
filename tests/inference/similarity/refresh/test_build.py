"""A state's vectors come from AIID or from the encoder, and AIID's are used only where they are of the same kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pytest

from databases import IN_MEMORY, SNAPSHOT, computer, database
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.refresh.build import Built, VectorsFrom, build_state, has_published, token_limit
from similarity.refresh.compute import Computer, TooManyTextsError
from similarity.refresh.vector_store import StoreError, VectorStore
from similarity.settings import AIID_MAX_TOKENS, DEFAULT_MODEL_URI
from similarity.sources.database import Database
from similarity.sources.problems import SourceError
from similarity.vectors import Vector
from tiny import TINY_MAX_TOKENS, roberta_tokenizer

A, B, C, D = "A robot hurt a worker.", "Two planes went down.", "A court's risk scores.", "A chatbot insulted people."
TEXTS = {3: [A, B], 5: [C], 40: [D]}


def vector(number: float, dimension: int = 4) -> Vector:
    return np.arange(1, dimension + 1, dtype=np.float32) * np.float32(number)


def published_state(data: Database, max_tokens: int = AIID_MAX_TOKENS) -> Built:
    return build_state(data, vectors="published", responses="include", max_tokens=max_tokens)


def built(
    encoder: TorchEncoder, data: Database, vectors: VectorsFrom = "auto", max_tokens: int = TINY_MAX_TOKENS
) -> Built:
    with computer(encoder.cut_at(max_tokens)) as by:
        return build_state(data, vectors=vectors, responses="exclude", max_tokens=max_tokens, computer=by)


def vectors_of(encoder: TorchEncoder, texts: Sequence[str]) -> dict[str, Vector]:
    return {text: encoder.encode(text).vector for text in texts}


def near(vectors: Mapping[str, Vector], difference: float) -> dict[str, Vector]:
    """The vectors, with one other number in the last of them."""
    changed = {text: each.copy() for text, each in vectors.items()}
    last = next(reversed(changed.values()))
    last[7] += np.float32(difference)
    return changed


# AIID's vectors alone.


def test_a_published_state_has_the_means_of_the_reports_that_have_a_vector() -> None:
    found = published_state(database(TEXTS, {A: vector(1), B: vector(2), D: vector(3)}))
    state = found.state
    assert state.incident_ids.tolist() == [3, 40]
    assert state.report_counts.tolist() == [2, 1]
    np.testing.assert_allclose(state.means, [vector(1.5), vector(3)], atol=1e-6)
    assert found.reports == Counter(published=3, without=1)
    assert found.left_out == (5,)
    assert (state.model, state.model_fingerprint, state.precision) == (DEFAULT_MODEL_URI, "", "float32")
    assert state.options == {"vectors": "published", "responses": "include", "words": "title,description"}
    assert state.max_tokens == 2000


def test_a_mean_is_of_the_reports_with_a_vector_only() -> None:
    found = published_state(database({3: [A, B, C]}, {A: vector(1), C: vector(2)}))
    assert found.state.report_counts.tolist() == [2]
    np.testing.assert_allclose(found.state.means, [vector(1.5)], atol=1e-6)


def test_published_vectors_are_needed_for_a_state_of_them() -> None:
    with pytest.raises(SourceError, match="the source has no published vector of any report"):
        published_state(database(TEXTS))
    assert not has_published(database(TEXTS))
    assert has_published(database(TEXTS, {C: vector(1)}))


def test_reports_of_emoji_alone_are_left_out_of_every_state(tiny_encoder: TorchEncoder) -> None:
    data = database({1: ["🤖", A], 2: ["🤖🤖"]}, {"🤖": vector(9, 32), A: tiny_encoder.encode(A).vector})
    for found in (published_state(data), built(tiny_encoder, data), built(tiny_encoder, data, "computed")):
        assert found.state.incident_ids.tolist() == [1]
        assert found.state.report_counts.tolist() == [1]
        np.testing.assert_allclose(found.state.means, [tiny_encoder.encode(A).vector], atol=1e-6)
        assert found.reports["blank"] == 2
        assert found.left_out == (2,)
    with pytest.raises(SourceError, match="all texts are blank once they are prepared for the tokenizer"):
        built(tiny_encoder, database({2: ["🤖"]}), "computed")


# Computed vectors.


def test_a_computed_state_takes_none_of_aiids_vectors(tiny_encoder: TorchEncoder, encoded: list[str]) -> None:
    found = built(tiny_encoder, database(TEXTS, dict.fromkeys((A, C), vector(1))), "computed")
    assert sorted(encoded) == sorted([A, B, C, D])
    assert found.reports == Counter(computed=4)
    assert found.state.report_counts.tolist() == [2, 1, 1]
    ours = vectors_of(tiny_encoder, [A, B, C, D])
    expected = np.stack([(ours[A] + ours[B]) / 2, ours[C], ours[D]])
    np.testing.assert_allclose(found.state.means, expected, rtol=0, atol=1e-6)
    assert (found.state.model, found.state.model_fingerprint) == ("tiny", tiny_encoder.fingerprint)
    assert found.state.options == {"vectors": "computed", "responses": "exclude", "words": "title,description"}


# Both.


def test_auto_computes_the_rest(tiny_encoder: TorchEncoder, encoded: list[str]) -> None:
    # Not the very vectors of the encoder, so that it shows which were used.
    published = {text: each + np.float32(0.005) for text, each in vectors_of(tiny_encoder, [A, C]).items()}
    encoded.clear()
    found = built(tiny_encoder, database(TEXTS, published))
    assert found.reports == Counter(published=2, computed=2)
    assert sorted(encoded) == sorted([A, B, C, D]), "AIID's are computed too, as the sample"
    ours = vectors_of(tiny_encoder, [B, D])
    np.testing.assert_allclose(
        found.state.means, [(published[A] + ours[B]) / 2, published[C], ours[D]], rtol=0, atol=1e-6
    )
    assert found.state.model_fingerprint == tiny_encoder.fingerprint
    assert found.state.options["vectors"] == "auto"


@pytest.mark.parametrize("difference", [0.005, -0.005])
def test_a_small_difference_is_rounding(difference: float, tiny_encoder: TorchEncoder) -> None:
    published = near(vectors_of(tiny_encoder, [A, C]), difference)
    assert built(tiny_encoder, database(TEXTS, published)).reports["published"] == 2


@pytest.mark.parametrize("difference", [0.011, -0.011, 3, float("nan")])
def test_one_other_number_in_a_vector_stops_the_build(difference: float, tiny_encoder: TorchEncoder) -> None:
    published = near(vectors_of(tiny_encoder, [A, C]), difference)
    with pytest.raises(SourceError) as error:
        built(tiny_encoder, database(TEXTS, published))
    assert str(error.value) == (
        f"the model doesn't make AIID's vectors: that of report 103 differs by {abs(difference):.3f}; at most 0.01 is "
        "allowed. Give --vectors published or --vectors computed."
    )


def test_another_dimension_stops_the_build_before_anything_is_computed(
    tiny_encoder: TorchEncoder, encoded: list[str]
) -> None:
    with pytest.raises(SourceError, match="AIID's vectors have 4 dimensions, but the model's have 32, so they can't"):
        built(tiny_encoder, database(TEXTS, {C: vector(1)}))
    assert encoded == []


def test_the_sample_goes_from_the_shortest_text_to_the_longest(tiny_encoder: TorchEncoder, encoded: list[str]) -> None:
    texts = ["robot " * number for number in range(1, 22)]
    published = vectors_of(tiny_encoder, texts)
    encoded.clear()
    found = built(tiny_encoder, database({1: texts, 2: [A]}, published))
    assert sorted(encoded, key=len) == sorted([A, *(texts[at] for at in (0, 5, 10, 15, 20))], key=len)
    assert found.reports == Counter(published=21, computed=1)
    with pytest.raises(SourceError, match="that of report 121 differs"):
        built(tiny_encoder, database({1: texts}, near(published, 1)))


def test_a_build_without_changes_computes_no_sample_again(tiny_encoder: TorchEncoder, encoded: list[str]) -> None:
    data = database(TEXTS, vectors_of(tiny_encoder, [A, C]))
    with computer(tiny_encoder) as by:
        for expected in (Counter(published=2, computed=2), Counter(published=2, stored=2)):
            encoded.clear()
            found = build_state(data, vectors="auto", responses="include", max_tokens=TINY_MAX_TOKENS, computer=by)
            assert found.reports == expected
    assert encoded == []


@pytest.mark.parametrize("published", [[], [A]], ids=["", "a sample"])
def test_a_vector_that_got_lost_does_not_leave_a_report_out(published: list[str], tiny_encoder: TorchEncoder) -> None:
    def lose_one(texts: Sequence[str]) -> Iterator[Mapping[str, Vector]]:
        yield vectors_of(tiny_encoder, texts[1:])

    data = database(TEXTS, vectors_of(tiny_encoder, published))
    with VectorStore(IN_MEMORY) as store:
        by = Computer(tiny_encoder, store, lose_one)
        with pytest.raises(StoreError, match="it has lost 1 vectors"):
            build_state(data, vectors="auto", responses="include", max_tokens=TINY_MAX_TOKENS, computer=by)


def test_texts_are_counted_before_the_sample_is_computed(tiny_encoder: TorchEncoder, encoded: list[str]) -> None:
    data = database(TEXTS, vectors_of(tiny_encoder, [A, C]))
    encoded.clear()
    with VectorStore(IN_MEMORY) as store:
        by = Computer(tiny_encoder, store, most=3)
        with pytest.raises(TooManyTextsError, match="4 texts would have"):
            build_state(data, vectors="auto", responses="include", max_tokens=TINY_MAX_TOKENS, computer=by)
        assert encoded == []
        by = Computer(tiny_encoder, store, most=4)
        build_state(data, vectors="auto", responses="include", max_tokens=TINY_MAX_TOKENS, computer=by)


# Where texts are cut.


@pytest.mark.parametrize(
    ("vectors", "max_tokens", "longest_input", "limit"),
    [
        ("published", 0, None, 2000),
        ("published", 0, 4096, 2000),
        ("published", 0, 512, 2000),
        ("auto", 0, 4096, 2000),
        ("auto", 0, 512, 512),
        ("computed", 0, 4096, 4096),
        ("computed", 0, 512, 512),
        ("published", 300, None, 300),
        ("auto", 3000, 4096, 3000),
        ("computed", 3000, 4096, 3000),
    ],
)
def test_the_limit_of_tokens_follows_from_where_vectors_come_from(
    vectors: VectorsFrom, max_tokens: int, longest_input: int | None, limit: int
) -> None:
    assert token_limit(vectors, max_tokens, longest_input) == limit


SHORT = "A robot."
LONG = "A robot in a warehouse hurt workers. " * 3
TOKENS = {text: len(roberta_tokenizer().encode(text).ids) for text in (SHORT, LONG)}


@pytest.mark.parametrize("vectors", ["auto", "published"])
@pytest.mark.parametrize(
    ("limit", "aiids", "used"),
    [
        (TINY_MAX_TOKENS, TOKENS[LONG], [SHORT, LONG]),
        (TINY_MAX_TOKENS, TOKENS[LONG] - 1, [SHORT]),
        (TOKENS[LONG], TINY_MAX_TOKENS, [SHORT, LONG]),
        (TOKENS[LONG] - 1, TINY_MAX_TOKENS, [SHORT]),
        # Where the limits are the same, both cut a text at the same place.
        (TOKENS[LONG] - 1, TOKENS[LONG] - 1, [SHORT, LONG]),
    ],
)
def test_published_vectors_serve_texts_that_neither_limit_cuts(
    limit: int,
    aiids: int,
    used: list[str],
    vectors: VectorsFrom,
    tiny_encoder: TorchEncoder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("similarity.refresh.build.AIID_MAX_TOKENS", aiids)
    published = vectors_of(tiny_encoder.cut_at(aiids), [SHORT, LONG])
    found = built(tiny_encoder, database({1: [SHORT], 2: [LONG]}, published), vectors, limit)
    rest = "computed" if vectors == "auto" else "without"
    assert found.reports == Counter({"published": len(used), rest: 2 - len(used)})
    assert found.state.max_tokens == limit
    texts = [SHORT, LONG] if vectors == "auto" else used
    ours = vectors_of(tiny_encoder.cut_at(limit), texts)
    np.testing.assert_allclose(found.state.means, [ours[text] for text in texts], atol=1e-5)


def test_another_limit_than_aiids_needs_a_model_that_tells_how_long_texts_are() -> None:
    with pytest.raises(SourceError, match=r"With MAX_TOKENS=300, .* there is no model\. Leave MAX_TOKENS out\."):
        published_state(database(TEXTS, {C: vector(1)}), max_tokens=300)


# What else the state says.


def test_the_state_says_what_it_was_made_of(tiny_encoder: TorchEncoder) -> None:
    data = database(TEXTS, duplicates={41: 3, 7: 40}, dissimilar=[(5, 40), (3, 5)])
    state = built(tiny_encoder, data, "computed").state
    assert state.source == {"kind": "aiid-snapshot", "name": SNAPSHOT.name, "date": "2026-11-23T10:00:00Z"}
    assert list(state.titles) == ["Incident 3", "Incident 5", "Incident 40"]
    assert state.duplicates.tolist() == [[7, 40], [41, 3]]
    assert state.dissimilar.tolist() == [[3, 5], [5, 40]]
    assert state.text_preparation == "unidecode"
    assert state.max_tokens == TINY_MAX_TOKENS


def test_vectors_that_make_no_state_are_told(tiny_encoder: TorchEncoder) -> None:
    with pytest.raises(SourceError, match="the vectors don't make a usable state: the mean of incident 5 has a number"):
        published_state(database(TEXTS, {A: vector(1), C: vector(1e8)}))


@pytest.mark.parametrize("vectors", ["auto", "computed"])
def test_without_an_encoder_only_published_vectors_can_be_asked_for(vectors: VectorsFrom) -> None:
    with pytest.raises(ValueError, match="need an encoder"):
        build_state(database(TEXTS), vectors=vectors, responses="include", max_tokens=2000)


def test_an_encoder_of_another_limit_is_refused(tiny_encoder: TorchEncoder) -> None:
    with computer(tiny_encoder) as by, pytest.raises(ValueError, match="cuts texts at 128 tokens, not at 2000"):
        build_state(database(TEXTS), vectors="computed", responses="include", max_tokens=2000, computer=by)
