"""`incident_id`, `exclude`, `explain` and `embedding`: what counts, what warns, what is refused."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from similarity.api import parameters
from similarity.api.request import Request
from similarity.asked import Asked
from similarity.errors import RequestError
from similarity.incidents.state import MAX_ID

# What JSON can say, and what only a Python program can.
HOSTILE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
NOT_IDS: list[tuple[Any, str]] = [
    (0, "a number below 1"),
    (-3, "a number below 1"),
    (-(10**4000), "a number below 1"),
    (-0.0, "a number below 1"),
    (0.5, "a number below 1"),
    (-math.inf, "a number below 1"),
    (2.5, "a number that isn't whole"),
    (math.nan, "a number that isn't whole"),
    (math.inf, "a number that isn't whole"),
    (True, "a boolean"),
    (False, "a boolean"),
    ({"id": 3}, "an object"),
    ("0", "a string of 1 characters"),
    ("00", "a string of 2 characters"),
    ("-3", "a string of 2 characters"),
    ("+3", "a string of 2 characters"),
    ("3.0", "a string of 3 characters"),
    ("3e2", "a string of 3 characters"),
    ("1_0", "a string of 3 characters"),
    ("0x1", "a string of 3 characters"),
    ("٣", "a string of 1 characters"),
    ("³", "a string of 1 characters"),
    ("NaN", "a string of 3 characters"),
    ("null", "a string of 4 characters"),
    ("\ud800", "a string of 1 characters"),
    ("3\x00", "a string of 2 characters"),
    ("3;4", "a string of 3 characters"),
    ("x" * 100_000, "a string of 100000 characters"),
]


def refused(code: str, message: str, ask: Any, request: Request) -> None:
    with pytest.raises(RequestError) as caught:
        ask(request)
    assert (caught.value.status, caught.value.code, str(caught.value)) == (400, code, message)


# text or incident_id.


@pytest.mark.parametrize("other", [{}, {"text": None}, {"text": ""}, {"text": " \n"}])
@pytest.mark.parametrize(
    ("value", "incident_id"),
    [
        (23, 23),
        (23.0, 23),
        (1e300, MAX_ID + 1),
        ("23", 23),
        (" 23\n", 23),
        ("0023", 23),
        ("0" * 5000 + "7", 7),
        (MAX_ID, MAX_ID),
        (str(MAX_ID), MAX_ID),
        (1795000000000000001, 1795000000000000001),
        ("1795000000000000001", 1795000000000000001),
        (MAX_ID + 1, MAX_ID + 1),
        (10**4000, MAX_ID + 1),
        ("9" * 20, MAX_ID + 1),
        ("9" * 100_000, MAX_ID + 1),
    ],
)
def test_an_incident_may_stand_for_a_text(value: object, incident_id: int, other: dict[str, Any]) -> None:
    request = Request({"incident_id": value, **other})
    assert parameters.text_or_incident(request) == incident_id
    assert request.warnings == []


@pytest.mark.parametrize("given", [{}, {"incident_id": None}, {"incident_id": ""}, {"incident_id": " "}])
def test_without_an_incident_there_must_be_a_text(given: dict[str, Any]) -> None:
    assert parameters.text_or_incident(Request({"text": "a robot", **given})) == "a robot"
    assert parameters.text_or_incident(Request({"text": '"a"', **given}, from_query={"text"})) == "a"
    missing = "Error! Valid input text not provided!"
    for empty in ({}, {"text": None}, {"text": " "}):
        refused("text_missing", missing, parameters.text_or_incident, Request({**empty, **given}))
    wrong = 'Error! "text" must be a string, not a number.'
    refused("text_invalid", wrong, parameters.text_or_incident, Request({"text": 3, **given}))


@pytest.mark.parametrize("incident_id", [23, "23", "x", 0, [], False])
@pytest.mark.parametrize("text", ["a robot", 3, [], False, "\ud800"])
def test_a_text_and_an_incident_are_too_much(incident_id: object, text: object) -> None:
    message = 'Error! Either "text" or "incident_id" must be provided, not both.'
    request = Request({"text": text, "incident_id": incident_id})
    refused("parameters_conflict", message, parameters.text_or_incident, request)


@pytest.mark.parametrize(("value", "kind"), [*NOT_IDS, ([3], "an array of 1"), ([], "an array of 0")])
def test_what_is_no_id_stands_for_no_text(value: object, kind: str) -> None:
    message = f'Error! "incident_id" must be a whole number above 0, not {kind}.'
    refused("incident_id_invalid", message, parameters.text_or_incident, Request({"incident_id": value}))


# exclude.


@pytest.mark.parametrize(
    ("value", "ids"),
    [
        ([1, 2, 3], {1, 2, 3}),
        (["1", " 2 ", 3], {1, 2, 3}),
        ([1.0, 2], {1, 2}),
        ("1,2,3", {1, 2, 3}),
        (" 1 , 2,\n3 ", {1, 2, 3}),
        ("[1, 2, 3]", {1, 2, 3}),
        ("3,,3,", {3}),
        (7, {7}),
        ("7", {7}),
        ([5, 5, "5", "05"], {5}),
        ([], set()),
        ("[]", set()),
        (",", set()),
        ("", set()),
        (" ", set()),
        (None, set()),
        ([MAX_ID, MAX_ID + 1, 10**400], {MAX_ID, MAX_ID + 1}),
        (f"{MAX_ID},{10**400},{'9' * 5000}", {MAX_ID, MAX_ID + 1}),
        (list(range(1, 100_001)), set(range(1, 100_001))),
        (",".join(map(str, range(1, 100_001))), set(range(1, 100_001))),
    ],
    ids=range(20),
)
def test_exclude(value: object, ids: set[int]) -> None:
    request = Request({"exclude": value})
    assert parameters.exclude(request) == ids
    assert request.warnings == []


def test_nothing_is_excluded_unless_it_is_asked_for() -> None:
    assert parameters.exclude(Request({})) == frozenset()


NO_IDS = 'Error! "exclude" must be a list of incident ids, each a whole number above 0; the entry at index {} is {}.'


@pytest.mark.parametrize(("value", "kind"), NOT_IDS)
def test_anything_but_ids_is_not_excluded(value: object, kind: str) -> None:
    refused("exclude_invalid", NO_IDS.format(0, kind), parameters.exclude, Request({"exclude": value}))
    refused("exclude_invalid", NO_IDS.format(2, kind), parameters.exclude, Request({"exclude": [1, "2", value, 0]}))
    many = [*range(1, 100_001), value]
    refused("exclude_invalid", NO_IDS.format(100_000, kind), parameters.exclude, Request({"exclude": many}))
    if isinstance(value, str):
        refused("exclude_invalid", NO_IDS.format(1, kind), parameters.exclude, Request({"exclude": f"1,{value}"}))


@pytest.mark.parametrize(
    ("value", "place", "kind"),
    [
        ([None], 0, "null"),
        ([[1]], 0, "an array of 1"),
        ([1, ""], 1, "a string of 0 characters"),
        (["1,2"], 0, "a string of 3 characters"),
        ("1 2", 0, "a string of 3 characters"),
        ("[[1]]", 0, "a string of 3 characters"),
        ('"1"', 0, "a string of 3 characters"),
    ],
)
def test_an_entry_is_one_id(value: object, place: int, kind: str) -> None:
    refused("exclude_invalid", NO_IDS.format(place, kind), parameters.exclude, Request({"exclude": value}))


# explain and embedding.


@pytest.mark.parametrize("name", ["explain", "embedding"])
@pytest.mark.parametrize(
    ("value", "flag"),
    [
        (True, True),
        (False, False),
        ("true", True),
        ("TRUE", True),
        (" True\n", True),
        ("false", False),
        ("False", False),
    ],
)
def test_a_flag(value: object, flag: bool, name: str) -> None:
    request = Request({name: value})
    assert parameters.flag(request, name) is flag
    assert request.warnings == []
    assert getattr(parameters.asked(request), name) is flag


@pytest.mark.parametrize("name", ["explain", "embedding"])
@pytest.mark.parametrize(
    "value",
    *[
        [
            None,
            "",
            " ",
            0,
            1,
            "0",
            "1",
            "yes",
            "no",
            "on",
            1.0,
            float("nan"),
            10**4000,
            [],
            [True],
            {},
            "tru e",
            "\ud800",
            "\uff54\uff52\uff55\uff45",
            '"true"',
            "x" * 100_000,
        ]
    ],
    ids=range(21),
)
def test_what_is_no_flag_counts_as_false(value: object, name: str) -> None:
    request = Request({name: value})
    assert parameters.flag(request, name) is False
    assert request.warnings == [f'Provided value for "{name}" invalid, using default of false.']


# All of them.


def test_what_is_asked() -> None:
    assert parameters.asked(Request({})) == Asked(3, "cosine", frozenset(), explain=False, embedding=False)
    given = {"num": "-1", "metric": "hybrid", "exclude": "3", "explain": "true", "embedding": True}
    assert parameters.asked(Request(given)) == Asked(-1, "hybrid", frozenset({3}), explain=True, embedding=True)
    assert parameters.asked_of_vector(Request(given)) == Asked(-1, "hybrid", frozenset({3}))
    request = Request({"num": "x", "explain": 1, "embedding": 2})
    parameters.asked(request)
    assert [re.findall('"(.*?)"', warning)[0] for warning in request.warnings] == ["num", "explain", "embedding"]


@given(HOSTILE, HOSTILE)
def test_any_value_is_read_or_refused_in_one_sentence(value: Any, other: Any) -> None:
    for ask, names in (
        (parameters.text_or_incident, ("incident_id", "text")),
        (parameters.asked, ("exclude", "explain")),
        (parameters.asked, ("explain", "embedding")),
    ):
        request = Request(dict(zip(names, (value, other), strict=True)))
        found, said = None, "Error! Nothing is wrong."
        try:
            found = ask(request)
        except RequestError as error:
            said = str(error)
        assert re.fullmatch(r"Error! [^\n]{10,150}[.!]", said), said
        ids = found.exclude if isinstance(found, Asked) else [found] if isinstance(found, int) else []
        assert all(type(each) is int and 1 <= each <= MAX_ID + 1 for each in ids)
        json.dumps(request.warnings)


def test_parameters_that_are_described_are_read() -> None:
    # The examples of the API's document need no warning.
    for name, parameter in parameters.PARAMETERS.items():
        if parameter.example is None or name == "text":
            continue
        for value in (parameter.example, str(parameter.example).strip("[]")):
            request = Request({"text": "a", name: value} if name != "incident_id" else {name: value})
            parameters.text_or_incident(request)
            parameters.asked(request)
            assert request.warnings == [], name
