"""The name of a collection, the pages of its incidents, and which row an id stands for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from similarity.incidents.collection import (
    DEFAULT_COLLECTION,
    DEFAULT_RECORD_URL,
    MOST_NAME_CHARS,
    MOST_URL_CHARS,
    require_name,
    require_template,
    require_url,
    url_of,
)
from similarity.incidents.state import MAX_ID, IncidentState


def state_of(ids: Sequence[int], duplicates: Sequence[tuple[int, int]] = (), **pages: Any) -> IncidentState:
    return IncidentState(
        np.array(ids),
        np.ones(len(ids), dtype=np.int64),
        np.ones((len(ids), 2), dtype=np.float32),
        [""] * len(ids),
        duplicates=np.array(duplicates, dtype=np.int64).reshape(-1, 2),
        **pages,
    )


GOOD_URLS = [
    "https://example.org",
    "http://example.org:8080/a?b=c&d=%20#e",
    "HTTPS://EXAMPLE.ORG/",
    "https://user@example.org/~x/(y)!;*',",
    "https://[2001:db8::1]/",
    "https://例え.jp/事故",
    "https://example.org/" + "a" * (MOST_URL_CHARS - 20),
]
BAD_URLS = [
    *("", "example.org", "/cite/1", "//example.org", "https://", "https:///a", "https:example.org", "http://:80"),
    *("javascript:alert(1)", "JavaScript://example.org/%0aalert(1)", "data:text/html,x", "ftp://example.org"),
    *("https://example.org/a b", " https://example.org", "https://example.org\n", "https://example.org/\t", "\x00"),
    *('https://example.org/"', "https://example.org/<b>", "https://example.org/{id}", "https://example.org\\a"),
    *("https://example.org/`", "https://example.org/^", "https://example.org/|", "https://example.org/\u2028"),
    *("https://example.org/\u202egpj", "https://example.org/\ud800", "https://example.org/\u00a0"),
    *("https://example.org:99999", "https://example.org:0", "https://example.org:a", "https://[::1", "https://]/"),
    "https://example.org/" + "a" * (MOST_URL_CHARS - 19),
]


@pytest.mark.parametrize("url", GOOD_URLS, ids=range(len(GOOD_URLS)))
def test_a_page_of_the_web_is_taken(url: str) -> None:
    require_url(url)
    assert state_of([7], urls=[url]).url_of(0) == url


@pytest.mark.parametrize("url", BAD_URLS, ids=range(len(BAD_URLS)))
def test_any_other_url_is_refused(url: str) -> None:
    with pytest.raises(
        ValueError,
        match=r"^must be an http or https URL of at most 2,000 characters, without spaces and <>\"\\\^`{\|}$",
    ):
        require_url(url)
    if url:
        with pytest.raises(ValueError, match=r"^each of urls must be an http or https URL"):
            state_of([7], urls=[url])


@pytest.mark.parametrize("template", ["", "https://example.org/{id}", "https://{id}.example.org/?q={id}"])
def test_a_template_has_a_place_for_the_id(template: str) -> None:
    require_template(template)
    assert state_of([7], record_url=template).record_url == template


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("https://example.org/", "must have {id} where the id of an incident belongs"),
        ("https://example.org/{ID}", "must have {id} where"),
        ("https://example.org/{}", "must have {id} where"),
        (" ", "must have {id} where"),
        ("{id}", "must be an http or https URL"),
        ("javascript:alert({id})", "must be an http or https URL"),
        ("https://example.org/{id}/{name}", "must be an http or https URL"),
        ("https://example.org/{id} ", "must be an http or https URL"),
        ("https://example.org/{id}" + "a" * MOST_URL_CHARS, "must be an http or https URL"),
    ],
)
def test_a_bad_template_is_refused(template: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        require_template(template)
    with pytest.raises(ValueError, match=f"^record_url {message}"):
        state_of([7], record_url=template)


@pytest.mark.parametrize("name", ["x", "AI Incident Database", "事故", "n" * MOST_NAME_CHARS, "a  b", "<b>"])
def test_a_name_of_one_line_is_taken(name: str) -> None:
    require_name(name)
    assert state_of([7], collection=name).collection == name


@pytest.mark.parametrize("name", ["", " ", "\u3000", "a\nb", "a\tb", "\x1b[2J", "\ud800", "n" * (MOST_NAME_CHARS + 1)])
def test_another_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"^must be a name of 1 to 100 characters on one line$"):
        require_name(name)
    with pytest.raises(ValueError, match=r"^collection must be a name"):
        state_of([7], collection=name)


ANY = st.text(max_size=30) | st.sampled_from(["https://example.org/", "https://{id}", "//", ":"]).flatmap(
    lambda start: st.text(max_size=9).map(lambda end: start + end)
)


@given(ANY)
def test_whatever_is_checked_is_taken_or_refused(text: str) -> None:
    checks: list[Callable[[str], None]] = [require_url, require_template, require_name]
    for check in checks:
        try:
            check(text)
        except ValueError:
            continue
        assert text.isprintable()
        assert not set(text) & set('"<>\\ ') or check is require_name


def test_a_state_says_where_its_pages_are() -> None:
    state = state_of([3, 5, MAX_ID])
    assert (state.collection, state.record_url, state.urls) == (DEFAULT_COLLECTION, DEFAULT_RECORD_URL, ())
    assert state.url_of(0) == "https://incidentdatabase.ai/cite/3"
    assert state.url_of(2) == f"https://incidentdatabase.ai/cite/{MAX_ID}"
    state = state_of([3, 5], record_url="https://example.org/{id}?{id}", urls=["", "https://example.org/page"])
    assert [state.url_of(row) for row in range(2)] == ["https://example.org/3?3", "https://example.org/page"]
    state = state_of([3, 5], record_url="", urls=["", "https://example.org/page"])
    assert [state.url_of(row) for row in range(2)] == [None, "https://example.org/page"]
    assert state_of([3, 5], record_url="").url_of(1) is None


def test_a_page_is_the_template_with_the_id() -> None:
    assert url_of("", 7) is None
    assert url_of("https://example.org/{id}/{id}", 7) == "https://example.org/7/7"


@pytest.mark.parametrize(
    ("pages", "message"),
    [
        ({"urls": ["https://example.org"]}, "urls must be a list of as many URLs as there are incidents, or of none"),
        ({"urls": "https://example.org"}, "urls must be a list"),
        ({"urls": {}}, "urls must be a list"),
        ({"urls": ["", None]}, "collection, record_url, licence and urls must be strings"),
        ({"collection": None}, "collection, record_url, licence and urls must be strings"),
        ({"record_url": 3}, "collection, record_url, licence and urls must be strings"),
    ],
)
def test_pages_of_another_type_are_refused(pages: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        state_of([3, 5], **pages)


@given(st.sets(st.integers(1, 40) | st.integers(MAX_ID - 3, MAX_ID), min_size=1))
def test_a_row_is_that_of_the_id(ids: set[int]) -> None:
    ordered = sorted(ids)
    state = state_of(ordered)
    for asked in [*range(-2, 45), *range(MAX_ID - 5, MAX_ID + 3), 10**40]:
        assert state.row_of(asked) == (ordered.index(asked) if asked in ids else None)


def test_a_merged_incident_became_another() -> None:
    state = state_of([3, 5, 9], [(4, 3), (5, 3), (8, 100), (MAX_ID, 9)])
    became = {4: 3, 5: 3, 8: 100, MAX_ID: 9}
    for asked in [*range(-2, 12), 100, MAX_ID - 1, MAX_ID, MAX_ID + 1, 10**40]:
        found = state.became(asked)
        assert found == became.get(asked, asked)
        assert type(found) is int
    assert state_of([3]).became(3) == 3
