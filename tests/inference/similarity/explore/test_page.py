"""The page as a browser gets it: its data, its policy, its size. `tests/browser` tests what it does with them.

Python's own HTML parser reads it, which ends a script where browsers end it.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from similarity.api.answers import Document, document_response
from similarity.explore import page
from similarity.explore.page import MOST_ON_MAP, MOST_TITLE_CHARS, PLACES, error_page, map_of, page_of
from similarity.incidents.fit import Fit
from similarity.incidents.ranking import Ranking
from similarity.incidents.state import IncidentState
from tiny import ROOT, fitted_state

FILE = ROOT / "inference" / "similarity" / "explore" / "page.html"
POINTS = np.array([[-1, 1], [0.12345, 0], [0.5, -0.25], [0, 0], [1, -1]], dtype=np.float32)
# Of Lambda, for an answer: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
MOST_BYTES = 6_000_000


class Elements(HTMLParser):
    """The elements of a page with their attributes, and the texts in its scripts and its style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.contents: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.contents.append("")

    def handle_data(self, data: str) -> None:
        if self.lasttag in ("script", "style") and data.strip():
            self.contents[-1] += data


def elements(document: Document) -> Elements:
    return Elements(document.content)


def parts(document: Document) -> tuple[str, str, str]:
    """Style, data and script, in this order. There are no others."""
    found = elements(document)
    assert [tag for tag, _ in found.tags if tag in ("style", "script")] == ["style", "script", "script"]
    style, data, script = found.contents
    return style, data, script


def data_of(document: Document) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(parts(document)[1])
    return data


def policy_of(document: Document) -> dict[str, list[str]]:
    written = document.headers["Content-Security-Policy"].split("; ")
    return {name: sources for name, *sources in (directive.split() for directive in written)}


@pytest.fixture(scope="module")
def mapped(tiny_state: IncidentState) -> IncidentState:
    """Five incidents with all that a state can have."""
    dates = [f"2020-01-0{day}" for day in range(1, 6)]
    source = {"kind": "aiid-snapshot", "name": "backup.tar.bz2", "date": "2026-11-23T10:11:12Z"}
    state = dataclasses.replace(tiny_state, points=POINTS, dates=dates, built_at="2026-11-24T07:04:05Z", source=source)
    return fitted_state(state, 2.0)


def shown(state: IncidentState, **changed: Any) -> Document:
    return page_of(Ranking(dataclasses.replace(state, **changed), "0123456789abcdef"))


def long_state(tiny_state: IncidentState, incidents: int, title: str) -> IncidentState:
    return IncidentState(
        incident_ids=np.arange(1, incidents + 1) * 3,
        report_counts=np.ones(incidents, dtype=np.int64),
        means=np.resize(tiny_state.means, (incidents, tiny_state.dimension)),
        titles=[title] * incidents,
        dates=["2020-01-01"] * incidents,
        points=np.resize(POINTS, (incidents, 2)),
    )


def test_the_page_has_the_facts_and_the_map_of_its_state(mapped: IncidentState) -> None:
    assert data_of(shown(mapped)) == {
        "error": None,
        "collection": {
            "name": "AI Incident Database",
            "url": "https://incidentdatabase.ai/",
            "licence": "CC BY-SA 4.0",
            "licence_url": "https://creativecommons.org/licenses/by-sa/4.0/",
            "record_url": "https://incidentdatabase.ai/cite/{id}",
        },
        "state": {
            "incidents": 5,
            "reports": 5,
            "built_at": "2026-11-24T07:04:05Z",
            "source_date": "2026-11-23T10:11:12Z",
            "model": "tiny",
            "version": "0123456789abcdef",
        },
        "metrics": {"text": "hybrid", "incident": "whitened"},
        "map": {
            "total": 5,
            "ids": [1, 4, 7, 10, 23],
            "x": [-1000, 123, 500, 0, 1000],
            "y": [1000, 0, -250, 0, -1000],
            "titles": list(mapped.titles),
            "dates": list(mapped.dates),
            "urls": {},
        },
    }


def test_what_an_earlier_state_lacks_is_empty(tiny_state: IncidentState) -> None:
    data = data_of(shown(tiny_state, titles=[""] * 5, model=""))
    assert data["metrics"] == {"text": "centered", "incident": "centered"}
    found = data["map"]
    assert (found["x"], found["y"]) == ([], [])
    assert found["titles"] == found["dates"] == [""] * 5
    assert found["ids"] == [1, 4, 7, 10, 23]
    assert [data["state"][name] for name in ("built_at", "source_date", "model")] == [None] * 3


@pytest.mark.parametrize(
    ("record_url", "site"),
    [
        ("https://cwe.mitre.org/data/definitions/{id}.html", "https://cwe.mitre.org/"),
        ("http://localhost:8000/{id}", "http://localhost:8000/"),
        # The site of each record is another one.
        ("https://{id}.example.org/", None),
        ("", None),
    ],
)
def test_another_database_has_its_own_name_site_and_licence(
    record_url: str, site: str | None, mapped: IncidentState
) -> None:
    name = "Common Weakness Enumeration"
    data = data_of(shown(mapped, collection=name, record_url=record_url))
    unknown = {"licence": None, "licence_url": None}
    assert data["collection"] == {"name": name, "url": site, "record_url": record_url or None, **unknown}
    own = data_of(shown(mapped, collection=name, record_url=record_url, licence="Own terms"))["collection"]
    assert (own["licence"], own["licence_url"]) == ("Own terms", None)


def test_pages_of_their_own_are_given_by_number(mapped: IncidentState) -> None:
    urls = ["", "https://elsewhere.example/4", "", "", "https://elsewhere.example/23"]
    assert data_of(shown(mapped, urls=urls))["map"]["urls"] == {"4": urls[1], "23": urls[4]}


HOSTILE = (
    "</script><script>alert(1)</script>",
    "</SCRIPT ><img src=x onerror=alert(1)>",
    "<!-- <script>",
    "]]> --> &lt;/script&gt; &quot;",
    "lines \u2028 and \u2029 and \x00 and \x1f and \x7f",
    '"quotes" \\ backslashes \\u003c/script> ${x} `',
    "null",
    page._DATA,
)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_title_name_or_url_breaks_out_of_its_element(hostile: str, mapped: IncidentState) -> None:
    document = shown(mapped, titles=[hostile] * 5)
    assert data_of(document)["map"]["titles"] == [hostile] * 5
    plain = shown(mapped)
    assert elements(document).tags == elements(plain).tags
    assert (parts(document)[0], parts(document)[2]) == (parts(plain)[0], parts(plain)[2])
    error = error_page(500, hostile)
    assert data_of(error) == {"error": hostile}
    assert elements(error).tags == elements(plain).tags


def test_half_a_letter_becomes_a_question_mark(mapped: IncidentState) -> None:
    """UTF-8 has no place for it, so the page couldn't be sent."""
    document = shown(mapped, titles=["cut \ud83d", "whole \U0001f916", "Größe", "漢字", ""])
    assert document.content.encode()
    assert data_of(document)["map"]["titles"] == ["cut ?", "whole \U0001f916", "Größe", "漢字", ""]


@pytest.mark.parametrize("is_error", [False, True])
def test_the_policy_allows_the_page_s_own_code_alone(is_error: bool, mapped: IncidentState) -> None:
    document = error_page(503, "Gone.") if is_error else shown(mapped)
    style, _, script = parts(document)
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'" for code in (script, style)
    ]
    assert policy_of(document) == {
        "default-src": ["'none'"],
        "script-src": [hashes[0]],
        "style-src": [hashes[1]],
        "connect-src": ["'self'"],
        "img-src": ["data:"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
        "frame-ancestors": ["'none'"],
        "require-trusted-types-for": ["'script'"],
        "trusted-types": ["'none'"],
    }


def test_the_file_needs_nothing_that_its_policy_forbids() -> None:
    html = FILE.read_text(encoding="utf-8")
    for tag, attributes in Elements(html).tags:
        assert "style" not in attributes, tag
        assert [name for name in attributes if name.startswith("on")] == [], tag
        assert tag != "base"
        for name in ("src", "href", "action"):
            assert (attributes.get(name) or "data:").startswith("data:"), tag
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|@import", html)


def test_the_headers_keep_the_page_fresh_and_its_address_private(mapped: IncidentState) -> None:
    good, error = shown(mapped), error_page(503, "Gone.")
    assert (good.status, error.status) == (200, 503)
    assert good.headers["Cache-Control"] == "public, max-age=300"
    assert error.headers["Cache-Control"] == "no-store"
    for document in (good, error):
        assert document.media_type == "text/html; charset=utf-8"
        assert document.headers["Referrer-Policy"] == "no-referrer"
        assert document.headers["X-Content-Type-Options"] == "nosniff"


def test_the_page_is_small_without_its_map() -> None:
    assert FILE.stat().st_size < 60_000
    assert FILE.read_text(encoding="utf-8").count(page._DATA) == 1


def test_a_large_state_is_thinned_out_evenly(tiny_state: IncidentState) -> None:
    found = map_of(long_state(tiny_state, 3 * MOST_ON_MAP + 1, "A title"))
    assert found["total"] == 3 * MOST_ON_MAP + 1
    rows = np.array(found["ids"]) // 3 - 1
    assert (rows[0], rows[-1], len(rows)) == (0, 3 * MOST_ON_MAP, MOST_ON_MAP)
    assert set(np.diff(rows).tolist()) == {3, 4}
    # Each still has its own place.
    expected = np.resize(POINTS, (3 * MOST_ON_MAP + 1, 2))[rows]
    assert np.abs(np.array([found["x"], found["y"]]).T / PLACES - expected).max() <= 0.5 / PLACES + 1e-7
    assert {len(found[name]) for name in ("ids", "x", "y", "titles", "dates")} == {MOST_ON_MAP}


def test_a_state_as_large_as_the_map_is_whole(tiny_state: IncidentState) -> None:
    assert map_of(long_state(tiny_state, MOST_ON_MAP, "A title"))["ids"] == list(range(3, 3 * MOST_ON_MAP + 1, 3))
    assert map_of(long_state(tiny_state, 1, "A title"))["ids"] == [3]


def test_a_long_title_is_cut(mapped: IncidentState) -> None:
    whole, long = "b" * MOST_TITLE_CHARS, "c" * (MOST_TITLE_CHARS + 1)
    titles = data_of(shown(mapped, titles=["a", whole, long, "", "x" * 100_000]))["map"]["titles"]
    assert titles[:4] == ["a", whole, f"{'c' * (MOST_TITLE_CHARS - 1)}…", ""]
    assert len(titles[4]) == MOST_TITLE_CHARS


@pytest.mark.slow
def test_the_largest_page_fits_into_an_answer_of_lambda(tiny_state: IncidentState) -> None:
    """A response of Lambda is JSON. The titles have the most letters, and each letter has three bytes."""
    letters = np.random.default_rng(0).integers(0x4E00, 0x9FFF, (MOST_ON_MAP, MOST_TITLE_CHARS))
    titles = ["".join(map(chr, row)) for row in letters.tolist()]
    state = dataclasses.replace(long_state(tiny_state, MOST_ON_MAP, ""), titles=titles)
    assert len(json.dumps(document_response(shown(state), compressed=True))) < MOST_BYTES
    usual = long_state(tiny_state, MOST_ON_MAP, "Self-driving test car strikes and kills woman in Tempe")
    assert len(json.dumps(document_response(shown(usual), compressed=False))) < MOST_BYTES / 3


def test_the_page_reads_the_sentence_about_a_merged_incident_as_the_api_writes_it() -> None:
    """It has the number of the incident that is answered."""
    api = (ROOT / "inference" / "similarity" / "answering.py").read_text(encoding="utf-8")
    [written] = re.findall(r'f"(Incident \{incident_id\} was merged .*?)"', api)
    [pattern] = re.findall(r"/\^(Incident \\d\+ was merged .*?)/\.exec", FILE.read_text(encoding="utf-8"))
    found = re.match(pattern, written.format(incident_id=5, became=4))
    assert found
    assert found[1] == "4"


def test_the_page_knows_the_warning_that_its_verdict_repeats() -> None:
    api = (ROOT / "inference" / "similarity" / "answering.py").read_text(encoding="utf-8")
    [beginning] = re.findall(r'isNone && each\.startsWith\("(.*?)"\)', FILE.read_text(encoding="utf-8"))
    assert f'none = f"{beginning}' in api


def test_the_state_without_a_fit_is_asked_by_what_it_has(mapped: IncidentState) -> None:
    assert data_of(shown(mapped, fit=Fit()))["metrics"] == {"text": "centered", "incident": "centered"}
    words_alone = dataclasses.replace(mapped.fit, whitening=None, power=0.0, calibration={})
    assert data_of(shown(mapped, fit=words_alone))["metrics"] == {"text": "hybrid", "incident": "centered"}
