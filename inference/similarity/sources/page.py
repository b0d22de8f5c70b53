"""AIID's page of weekly snapshots: which one is the newest. Fetching it is left to `download`."""

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

# The page has some 100 KB, and grows by a line a week.
MAX_PAGE_BYTES = 16 * 1024**2


@dataclass(frozen=True)
class Snapshot:
    """A snapshot that the page links to.

    name: of the file, backup-YYYYMMDDHHMMSS.tar.bz2. date: when it was made, as in `database.Source`.
    """

    url: str
    name: str
    date: str


def snapshots_url(environment: Mapping[str, str] | None = None) -> str:
    """The page's address: SNAPSHOTS_URL of the environment, or AIID's."""
    return (os.environ if environment is None else environment).get("SNAPSHOTS_URL") or SNAPSHOTS_URL


def newest_snapshot(url: str) -> Snapshot:
    """The newest snapshot by its name that the page at `url` links to. Raises SourceError.

    The host of the links isn't fixed, so any will do; but the link has to be https, or lead to this machine.
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
        # As browsers do, it escapes blanks and letters beyond ASCII.
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
