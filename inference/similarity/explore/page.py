"""The page as a document: page.html with the state's facts and its map, and headers that keep foreign code out.

The page has no code but its own. Its Content-Security-Policy names the hashes of its script and its style, so the
browser runs no other, even if a title or a text holds HTML: https://www.w3.org/TR/CSP3/

What the page does with the data is left to page.html.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from similarity.api.answers import Document, state
from similarity.incidents.collection import licence_of
from similarity.incidents.metrics import Metric
from similarity.incidents.points import evenly
from similarity.incidents.ranking import Ranking
from similarity.incidents.state import IncidentState

MEDIA_TYPE = "text/html; charset=utf-8"

# Of more incidents, the map has so many, evenly chosen: a browser draws them in some hundredths of a second. Lambda
# allows 6 MB for an answer. 10,000 usual titles take 1 MB, and compressed, even titles of 200 Chinese letters fit.
MOST_ON_MAP = 10_000
# A longer title is cut on the map.
MOST_TITLE_CHARS = 200
# Places on the map are whole numbers from minus this to this.
PLACES = 1000

# The best metric comes first: docs/evaluation.md has the figures.
_FOR_TEXTS: tuple[Metric, ...] = ("hybrid", "whitened", "centered")
_FOR_INCIDENTS: tuple[Metric, ...] = ("whitened", "centered")

_LICENCE_PAGES = {"CC BY-SA 4.0": "https://creativecommons.org/licenses/by-sa/4.0/"}

# The API speaks of a state, which readers don't know. page.html says the same of an answer.
_PLAINER = {503: "The service can't load its incidents at the moment."}

_DATA = '<script type="application/json" id="data">null</script>'


def page_of(ranking: Ranking) -> Document:
    """The page of a state."""
    facts = ranking.facts
    licence = licence_of(facts.collection, facts.licence)
    return _page(
        {
            "error": None,
            "collection": {
                "name": facts.collection,
                "url": _site(facts.record_url),
                "licence": licence or None,
                "licence_url": _LICENCE_PAGES.get(licence),
                "record_url": facts.record_url or None,
            },
            "state": state(facts),
            "metrics": {"text": _first(_FOR_TEXTS, ranking), "incident": _first(_FOR_INCIDENTS, ranking)},
            "map": map_of(ranking.state),
        },
        status=200,
    )


def error_page(status: int, sentence: str) -> Document:
    """The page that says why there is nothing to explore now. sentence: of the API; a reader may get a plainer one."""
    return _page({"error": _PLAINER.get(status, sentence)}, status=status)


def map_of(state: IncidentState) -> dict[str, Any]:
    """The incidents on the map, a list a column; `x` and `y` are empty if the state has no map.

    total: the number of incidents in the state. urls: by id, where it isn't that of the collection's record_url.
    """
    total = len(state)
    rows = evenly(total, MOST_ON_MAP).tolist()
    places = np.rint(state.points * PLACES).astype(int)  # (incidents, 2), or (0, 2)
    x, y = places[rows].T.tolist() if len(places) else ([], [])
    ids = state.incident_ids.tolist()
    return {
        "total": total,
        "ids": [ids[row] for row in rows],
        "x": x,
        "y": y,
        "titles": [_cut(state.titles[row]) for row in rows],
        "dates": [state.dates[row] if state.dates else "" for row in rows],
        "urls": {ids[row]: state.urls[row] for row in rows if state.urls and state.urls[row]},
    }


def _cut(title: str) -> str:
    return title if len(title) <= MOST_TITLE_CHARS else f"{title[: MOST_TITLE_CHARS - 1]}…"


def _first(wanted: tuple[Metric, ...], ranking: Ranking) -> Metric:
    return next(metric for metric in wanted if metric in ranking.metrics)


def _site(record_url: str) -> str | None:
    """The start page of the site that a template of URLs leads to."""
    parts = urlsplit(record_url)
    return f"{parts.scheme}://{parts.netloc}/" if parts.netloc and "{" not in parts.netloc else None


def _page(data: dict[str, Any], status: int) -> Document:
    html, policy = _template()
    # Half a surrogate pair can't be sent as UTF-8. Without ensure_ascii, a letter takes half as many bytes or fewer.
    written = json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace").decode()
    # HTML ends the element at "</script", wherever that stands. "<!--" would change how it ends.
    written = written.replace("<", "\\u003c")
    headers = {
        "Content-Security-Policy": policy,
        "Cache-Control": "public, max-age=300" if status == 200 else "no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return Document(html.replace(_DATA, _DATA.replace("null", written)), MEDIA_TYPE, headers, status)


@cache
def _template() -> tuple[str, str]:
    """The file, and the policy for its script and its style."""
    html = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    script, style = (_hash(html, name) for name in ("script", "style"))
    return html, (
        f"default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _hash(html: str, element: str) -> str:
    """The source of the CSP for the content of the element without attributes."""
    (content,) = re.findall(f"<{element}>(.*?)</{element}>", html, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
