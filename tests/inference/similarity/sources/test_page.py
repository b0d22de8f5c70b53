"""The newest snapshot is the one with the newest name that the page links to; what is wrong is told in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from similarity import __version__
from similarity.sources import page
from similarity.sources.page import Snapshot, newest_snapshot, snapshots_url
from similarity.sources.problems import SourceError
from similarity.sources.web import UnreachableError
from snapshot_server import Host

NEWEST = "backup-20261123100000.tar.bz2"
PAGE = """\
<!doctype html><html><head><title>Snapshots</title><link rel="x" href="https://x.org/backup-20991123100000.tar.bz2">
</head><body><p>backup-20981123100000.tar.bz2</p><!-- <a href="https://x.org/backup-20971123100000.tar.bz2">no</a> -->
<ul>
<li><a class="a" href="https://bucket.example/backup-20261116100000.tar.bz2">2026-11-16</a>
<li><A HREF=' https://bucket.example/a&amp;b/backup-20261123100000.tar.bz2?v=1 '>2026-11-23</A></li>
<li><a href="https://bucket.example/backup-20250101100000.tar.bz2">older
<li><a href="https://bucket.example/backup-20261130100000.xlsx">a table</a>
<li><a href="https://bucket.example/backup-20261399100000.tar.bz2">no date</a>
<li><a href="https://bucket.example/backup-20261130100000.tar.bz2.sha256">a checksum</a>
<li><a href="https://[no/url/backup-20261130100000.tar.bz2">no URL</a><a>nothing</a><a href>nothing</a>
"""


def test_the_newest_link_is_the_one_with_the_newest_name(host: Host) -> None:
    host.pages["/research/snapshots/"] = PAGE
    assert newest_snapshot(f"{host.url}/research/snapshots/") == Snapshot(
        f"https://bucket.example/a&b/{NEWEST}?v=1", NEWEST, "2026-11-23T10:00:00Z"
    )


@pytest.mark.parametrize("href", ["/files/", "../files/", "{url}/files/"])
def test_links_may_be_relative_and_lead_to_this_machine(href: str, host: Host) -> None:
    host.pages["/snapshots/"] = f'<a href="{href.format(url=host.url)}{NEWEST}">newest</a>'
    assert newest_snapshot(f"{host.url}/snapshots/").url == f"{host.url}/files/{NEWEST}"


def test_links_are_escaped_as_browsers_escape_them(host: Host) -> None:
    host.pages["/"] = f'<a href="https://x.org/a b/é/%C3%A9/{NEWEST}?a=b%20c">newest</a>'
    assert newest_snapshot(f"{host.url}/").url == f"https://x.org/a%20b/%C3%A9/%C3%A9/{NEWEST}?a=b%20c"


@pytest.mark.parametrize("start", ["<![if !IE]>", "<![endif]-->", "<![unknown[ x ]>", "<![ >", "<!>", "<!unknown x>"])
def test_declarations_that_only_browsers_understand_are_no_problem(start: str, host: Host) -> None:
    host.pages["/"] = start + PAGE
    assert newest_snapshot(f"{host.url}/").name == NEWEST


def test_relative_links_count_from_where_the_page_is_now(host: Host) -> None:
    host.redirects["/old"] = f"{host.url}/new/page"
    host.pages["/new/page"] = f'<a href="{NEWEST}">newest</a>'
    assert newest_snapshot(f"{host.url}/old").url == f"{host.url}/new/{NEWEST}"


def test_the_user_agent_names_this_project_alone(host: Host) -> None:
    host.pages["/"] = PAGE
    newest_snapshot(f"{host.url}/")
    [(_, headers)] = host.asked
    assert headers["User-Agent"] == f"similar-ai-incidents/{__version__}"
    assert "Referer" not in headers
    assert "Origin" not in headers


@pytest.mark.parametrize("content", ["", "<p>No snapshots today.</p>", '<a href="https://x.org/other.tar.bz2">x</a>'])
def test_a_page_without_links_is_told_in_one_sentence(content: str, host: Host) -> None:
    host.pages["/"] = content
    with pytest.raises(SourceError) as error:
        newest_snapshot(f"{host.url}/")
    assert str(error.value).startswith(f"{host.url}/ has no link to a file named backup-YYYYMMDDHHMMSS.tar.bz2; ")


@pytest.mark.parametrize(
    "link",
    [
        "http://bucket.example/",
        "http://localhost.example/",
        "http://localhost@bucket.example/",
        "ftp://localhost/",
        "file:///etc/",
        "//bucket.example/",
    ],
)
def test_a_newest_link_that_is_not_https_is_refused(link: str, host: Host) -> None:
    host.pages["/"] = PAGE.replace("https://bucket.example/a&amp;b/", link)
    with pytest.raises(SourceError, match=r"isn't an https URL; other URLs are allowed only on localhost\.$"):
        newest_snapshot(f"{host.url}/")


@pytest.mark.parametrize(
    "url", ["http://example.org/", "ftp://x/", "file:///etc/passwd", "snapshots", "", "https://[x"]
)
def test_a_page_that_is_not_https_is_refused_before_it_is_asked_for(url: str) -> None:
    with pytest.raises(SourceError, match=r"isn't an? (https )?URL"):
        newest_snapshot(url)


@pytest.mark.parametrize("target", ["http://bucket.example/", "ftp://bucket.example/", "file:///etc/passwd"])
def test_a_page_that_leads_to_http_is_refused(target: str, host: Host) -> None:
    host.redirects["/"] = target
    with pytest.raises(SourceError) as error:
        newest_snapshot(f"{host.url}/")
    assert "\n" not in str(error.value)
    assert [path for path, _ in host.asked] == ["/"]


@pytest.mark.parametrize(("status", "kind"), [(404, SourceError), (403, SourceError), (503, UnreachableError)])
def test_a_status_is_told_in_one_sentence(status: int, kind: type[Exception], host: Host) -> None:
    host.files["/"] = b"x"
    host.refusals = [status]
    with pytest.raises(SourceError, match=rf"^{host.url}/ can't be fetched: its server answers {status} ") as error:
        newest_snapshot(f"{host.url}/")
    assert type(error.value) is kind


def test_a_host_that_is_not_there_is_told_in_one_sentence(host: Host, tmp_path: Path) -> None:
    del tmp_path
    # Port 1 is one that nothing listens on.
    with pytest.raises(UnreachableError, match=r"^http://127\.0\.0\.1:1/ can't be reached: .*refused"):
        newest_snapshot("http://127.0.0.1:1/")


def test_a_page_that_is_cut_off_is_no_page(host: Host) -> None:
    host.files["/"] = PAGE.encode()
    host.chunked = True
    host.cuts = [900]
    with pytest.raises(UnreachableError, match="can't be reached: "):
        newest_snapshot(f"{host.url}/")


def test_a_page_that_does_not_end_is_refused(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.pages["/"] = PAGE + "x" * 100_000
    monkeypatch.setattr(page, "MAX_PAGE_BYTES", 50_000)
    with pytest.raises(SourceError, match=r"has more than 50,000 bytes, too many for a page of links\.$"):
        newest_snapshot(f"{host.url}/")


def test_the_page_is_aiids_unless_the_environment_names_another() -> None:
    assert (
        snapshots_url({}) == snapshots_url({"SNAPSHOTS_URL": ""}) == "https://incidentdatabase.ai/research/snapshots/"
    )
    assert snapshots_url({"SNAPSHOTS_URL": "http://localhost:1/"}) == "http://localhost:1/"
