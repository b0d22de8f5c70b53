"""`text`, `num`, `metric` and `embed`: what counts, what warns, what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from similarity.api import parameters
from similarity.api.events import Request
from similarity.errors import RequestError

INVALID_NUM = 'Provided value for "num" invalid, using default of 3.'
ZERO_NUM = 'Zero results requested with the "num" value of 0. Use value <0 for maximum possible.'


@pytest.mark.parametrize(
    ("given", "num", "warnings"),
    [
        (5, 5, []),
        (-1, -1, []),
        (0, 0, [ZERO_NUM]),
        ("0", 0, [ZERO_NUM]),
        ("-0", 0, [ZERO_NUM]),
        ("5", 5, []),
        ("-4", -4, []),
        (" 5", 5, []),
        ("+5", 5, []),
        ("007", 7, []),
        ("5.0", 3, [INVALID_NUM]),
        (2.7, 3, [INVALID_NUM]),
        (2.0, 3, [INVALID_NUM]),
        (True, 3, [INVALID_NUM]),
        (None, 3, [INVALID_NUM]),
        ("many", 3, [INVALID_NUM]),
        ("", 3, [INVALID_NUM]),
        ("1_000", 3, [INVALID_NUM]),
        ("٣", 3, [INVALID_NUM]),
        ("--5", 3, [INVALID_NUM]),
        ([5], 3, [INVALID_NUM]),
        ({}, 3, [INVALID_NUM]),
    ],
)
def test_num(given: object, num: int, warnings: list[str]) -> None:
    request = Request({"num": given})
    assert parameters.num(request) == num
    assert request.warnings == warnings


def test_num_is_3_where_it_is_missing() -> None:
    request = Request({})
    assert parameters.num(request) == 3
    assert request.warnings == []


@pytest.mark.parametrize("digits", ["9" * 30, "9" * 5000, "0" * 5000 + "9" * 20])
def test_num_of_any_length_means_all(digits: str) -> None:
    assert parameters.num(Request({"num": digits})) > 10**17
    assert parameters.num(Request({"num": "-" + digits})) < -(10**17)


@pytest.mark.parametrize("given", [{}, {"text": None}, {"text": ""}, {"text": " \n\t"}, {"text": "\u00a0"}])
def test_no_text(given: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=r"^Error! Valid input text not provided!$"):
        parameters.text(Request(given))


@pytest.mark.parametrize(
    ("given", "what"), [(3, "a number"), (True, "a boolean"), (["a"], "an array of 1"), ({"a": 1}, "an object")]
)
def test_text_that_is_no_string(given: object, what: str) -> None:
    with pytest.raises(RequestError, match=f'^Error! "text" must be a string, not {what}.$'):
        parameters.text(Request({"text": given}))


@pytest.mark.parametrize(
    ("given", "text"),
    [('"quoted"', "quoted"), ('""twice""', '"twice"'), ('"', '"'), ('"open', '"open'), ('say "it"', 'say "it"')],
)
def test_one_pair_of_quotes_is_taken_off_in_a_query_only(given: str, text: str) -> None:
    assert parameters.text(Request({"text": given}, from_query={"text"})) == text
    assert parameters.text(Request({"text": given})) == given
    assert parameters.text(Request({"text": given}, from_query={"num"})) == given


@pytest.mark.parametrize("given", ['""', '" "'])
def test_nothing_between_quotes_is_no_text(given: str) -> None:
    with pytest.raises(RequestError, match="Valid input text not provided"):
        parameters.text(Request({"text": given}, from_query={"text"}))


def test_metric() -> None:
    assert parameters.metric(Request({})) == "cosine"
    for metric in ("cosine", "centered", "whitened", "hybrid"):
        assert parameters.metric(Request({"metric": metric})) == metric


@pytest.mark.parametrize(
    ("given", "what"),
    [("foo", "a string of 3 characters"), ("", "a string of 0 characters"), (None, "null"), (1, "a number")],
)
def test_an_unknown_metric_is_refused(given: object, what: str) -> None:
    with pytest.raises(RequestError) as caught:
        parameters.metric(Request({"metric": given}))
    expected = f'Error! "metric" must be "cosine", "centered", "whitened" or "hybrid", not {what}.'
    assert str(caught.value) == expected


@pytest.mark.parametrize("given", [[1, -2.5, 3e-3], [1.0, -2.5, 0.003], "[1, -2.5, 3e-3]", " [1,-2.5,0.003]\n"])
def test_embed(given: object) -> None:
    assert parameters.embed(Request({"embed": given}), 3).tolist() == pytest.approx([1.0, -2.5, 0.003])


def test_embed_takes_whole_numbers_of_any_size_that_float32_holds() -> None:
    assert parameters.embed(Request({"embed": [10**30, 0, 1]}), 3).tolist() == pytest.approx([1e30, 0, 1])


@pytest.mark.parametrize("given", ['"[1, -2.5, 3e-3]"', ' "[1,-2.5,\\u0030.003]"\n'])
def test_embed_may_have_quotes_around_it(given: str) -> None:
    assert parameters.embed(Request({"embed": given}), 3).tolist() == [1.0, -2.5, 0.003]


@pytest.mark.parametrize("length", [1e-46, 1e-60, 1e-320, 5e-324])
def test_embed_may_be_smaller_than_float32_holds(length: float) -> None:
    vector = parameters.embed(Request({"embed": [length, 0, -length]}), 3)
    assert vector.tolist() == [length, 0, -length]


NOT_JSON = "3 numbers; the {} characters received are not valid JSON: {}."
NOT_FINITE = "3 finite numbers; the number at index 2 is NaN, infinite or too large for float32."
REFUSED_EMBEDS: list[tuple[Any, str]] = [
    (None, "3 numbers, got nothing."),
    ("", NOT_JSON.format(0, "Expecting value (line 1, column 1)")),
    ("[1, 2", NOT_JSON.format(5, "Expecting ',' delimiter (line 1, column 6)")),
    ("[1,\n2,x]", NOT_JSON.format(8, "Expecting value (line 2, column 3)")),
    ("[" * 200_000, NOT_JSON.format(200000, "it is nested too deeply")),
    (f"[{'9' * 5000}]", NOT_JSON.format(5002, "a number has more than 4300 digits")),
    ('"[1, 2"', NOT_JSON.format(5, "Expecting ',' delimiter (line 1, column 6)")),
    ('"\\"[1, 2, 3]\\""', "3 numbers, got a string of 9 characters."),
    ({"vector": []}, "3 numbers, got an object."),
    ("7", "3 numbers, got a number."),
    ("null", "3 numbers, got nothing."),
    ([], "3 numbers, got 0 entries."),
    ([1, 2], "3 numbers, got 2 entries."),
    ("[1, 2, 3, 4]", "3 numbers, got 4 entries."),
    ([1, 2, float("nan")], NOT_FINITE),
    ("[1, 2, NaN]", NOT_FINITE),
    ("[1, 2, -Infinity]", NOT_FINITE),
    ("[1, 2, 1e999]", NOT_FINITE),
    ([1, 2, 1e39], NOT_FINITE),
    ([1, 2, 10**400], NOT_FINITE),
    ([1, 2, "3"], "3 finite numbers; the entry at index 2 is a string of 1 characters."),
    ([1, 2, True], "3 finite numbers; the entry at index 2 is a boolean."),
    ([1, 2, None], "3 finite numbers; the entry at index 2 is null."),
    ([1, 2, [3]], "3 finite numbers; the entry at index 2 is an array of 1."),
]


@pytest.mark.parametrize(("given", "message"), REFUSED_EMBEDS, ids=range(len(REFUSED_EMBEDS)))
def test_a_bad_embed_is_refused(given: object, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        parameters.embed(Request({"embed": given}), 3)
    assert str(caught.value) == f'Error! "embed" must be a JSON list of {message}'


def test_an_embed_of_zeros_is_refused() -> None:
    with pytest.raises(RequestError, match="only zeros"):
        parameters.embed(Request({"embed": json.dumps([0, 0.0, -0.0])}), 3)
