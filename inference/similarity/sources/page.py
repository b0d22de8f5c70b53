"""Finds the newest snapshot on AIID's page. `download` fetches it."""

from __future__ import annotations

import os
import string
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import quote, unquote, urljoin, urlsplit

from similarity.sources.database import snapshot_date
from similarity.sources.markup import LenientParser
from similarity.sources.problems import SourceError
from similarity.sources.web import get, read, require_https

SNAPSHOTS_URL = "https://incidentdatabase.ai/research/snapshots/"

# The page has about 100 KB, and grows by a line a week.
MAX_PAGE_BYTES = 16 * 1024**2


@dataclass(frozen=True)
class Snapshot:
    """A link on the page.

    name: the file's name, backup-YYYYMMDDHHMMSS.tar.bz2. date: the time in the name, like `database.Source.date`.
    """

    url: str
    name: str
    date: str


def snapshots_url(environment: Mapping[str, str] | None = None) -> str:
    """The page's URL: SNAPSHOTS_URL of `environment`, by default os.environ; without it AIID's page."""
    return (os.environ if environment is None else environment).get("SNAPSHOTS_URL") or SNAPSHOTS_URL


def newest_snapshot(url: str) -> Snapshot:
    """The snapshot with the newest name on the page at `url`. Links may lead to any host, since AIID's may change.

    Raises SourceError if the page can't be read or has no such link, or if the newest link isn't https. A link to this
    machine may be http.
    """
    content = bytearray()
    with get(url) as response:
        base = response.geturl()
        while piece := read(response, 1 << 16):
            content += piece
            if len(content) > MAX_PAGE_BYTES:
                raise SourceError(f"{url} has more than {MAX_PAGE_BYTES:,} bytes, too many for a page of links.")
    links = _Links()
    links.feed(content.decode(errors="replace"))
    links.close()
    found = [snapshot for href in links.hrefs if (snapshot := _snapshot(base, href))]
    if not found:
        raise SourceError(
            f"{url} has no link to a file named backup-YYYYMMDDHHMMSS.tar.bz2; download a snapshot by hand, and give "
            "its file as the source."
        )
    newest = max(found, key=lambda snapshot: snapshot.name)
    require_https(newest.url)
    return newest


def _snapshot(base: str, href: str) -> Snapshot | None:
    with suppress(ValueError):  # It isn't a URL.
        # Browsers escape blanks and letters beyond ASCII too.
        url = quote(urljoin(base, href.strip()), safe=string.punctuation)
        name = unquote(urlsplit(url).path.rpartition("/")[2])
        if (date := snapshot_date(name)) and name.endswith(".tar.bz2"):
            return Snapshot(url, name, date)
    return None


class _Links(LenientParser):
    def __init__(self) -> None:
        super().__init__()
        self.hrefs: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href")
        if tag == "a" and href:
            self.hrefs.append(href)
