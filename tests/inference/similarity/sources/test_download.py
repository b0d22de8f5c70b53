"""A snapshot is downloaded once, whole or not at all, and a download that was cut off goes on where it was."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import ssl
from pathlib import Path

import pytest

from similarity.sources import download as module
from similarity.sources import web
from similarity.sources.download import PAUSES_S, download
from similarity.sources.page import Snapshot
from similarity.sources.problems import SourceError
from similarity.sources.web import UnreachableError
from snapshot_server import Headers, Host

NAME = "backup-20261123100000.tar.bz2"
CONTENT = b"BZh9" + random.Random(0).randbytes(300_000)
PARTIAL, ABOUT = NAME + ".partial", NAME + ".partial.json"


@pytest.fixture
def snapshot(host: Host) -> Snapshot:
    host.files[f"/{NAME}"] = CONTENT
    return Snapshot(f"{host.url}/{NAME}", NAME, "2026-11-23T10:00:00Z")


def fetch(snapshot: Snapshot, folder: Path) -> Path:
    """Without the pauses."""
    return download(snapshot, folder, sleep=lambda seconds: None)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("chunked", [False, True])
def test_a_snapshot_is_downloaded_and_kept_for_the_next_run(
    chunked: bool, snapshot: Snapshot, host: Host, tmp_path: Path
) -> None:
    host.chunked = chunked
    path = fetch(snapshot, tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / NAME
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == [NAME]
    assert fetch(snapshot, path.parent) == path
    assert host.ranges == [None]


def test_progress_is_told_in_bytes(snapshot: Snapshot, host: Host, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    host.cuts = [100_000]
    download(snapshot, tmp_path, lambda done, total: told.append((done, total)), sleep=lambda seconds: None)
    assert told[0] == (0, len(CONTENT))
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert {total for _, total in told} == {len(CONTENT)}


@pytest.mark.parametrize("version", [{"ETag": '"1"'}, {"Last-Modified": "Mon, 23 Nov 2026 10:00:00 GMT"}])
def test_a_download_that_is_cut_goes_on_where_it_was(
    version: Headers, snapshot: Snapshot, host: Host, tmp_path: Path
) -> None:
    host.version, host.cuts = version, [100_000, 0, 50_000]
    assert fetch(snapshot, tmp_path).read_bytes() == CONTENT
    assert host.ranges == [None, "bytes=100000-", "bytes=100000-", "bytes=150000-"]
    assert [headers.get("If-Range") for _, headers in host.asked[1:]] == list(version.values()) * 3
    assert names(tmp_path) == [NAME]


def test_the_next_run_goes_on_where_the_last_one_was(snapshot: Snapshot, host: Host, tmp_path: Path) -> None:
    tries = len(PAUSES_S) + 1
    host.cuts = [100_000, *[0] * (tries - 1)]
    with pytest.raises(UnreachableError, match=r"was cut off: 100,000 of 300,004 bytes came\.$"):
        fetch(snapshot, tmp_path)
    assert names(tmp_path) == [PARTIAL, ABOUT]
    assert fetch(snapshot, tmp_path).read_bytes() == CONTENT
    assert host.ranges == [None, *["bytes=100000-"] * tries]
    assert names(tmp_path) == [NAME]


@pytest.mark.slow
def test_tries_are_further_and_further_apart(snapshot: Snapshot, host: Host, tmp_path: Path) -> None:
    slept: list[float] = []
    host.refusals = [503] * 100
    with pytest.raises(UnreachableError, match="its server answers 503"):
        download(snapshot, tmp_path, sleep=slept.append)
    assert slept == sorted(slept) == list(PAUSES_S)
    assert len(host.asked) == len(slept) + 1
    assert names(tmp_path) == []


def test_a_refusal_that_passes_is_no_error(snapshot: Snapshot, host: Host, tmp_path: Path) -> None:
    host.refusals = [503, 429, 408, 500]
    assert fetch(snapshot, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_refusal_that_stays_is_told_at_once(status: int, snapshot: Snapshot, host: Host, tmp_path: Path) -> None:
    host.refusals = [status]
    with pytest.raises(SourceError, match=rf"can't be fetched: its server answers {status} "):
        fetch(snapshot, tmp_path)
    assert len(host.asked) == 1
    assert names(tmp_path) == []


def test_a_url_that_can_not_be_asked_for_is_told_at_once(host: Host, tmp_path: Path) -> None:
    slept: list[float] = []
    with pytest.raises(SourceError, match="isn't a URL that can be fetched: "):
        download(Snapshot(f"{host.url}/a b/{NAME}", NAME, ""), tmp_path, sleep=slept.append)
    assert slept == []


def test_a_bad_certificate_is_the_servers(snapshot: Snapshot) -> None:
    """Its error is also a ValueError, as that of a bad URL."""
    with pytest.raises(UnreachableError, match=r"can't be reached: .*self-signed"), web._speaking(snapshot.url):
        raise ssl.SSLCertVerificationError(1, "self-signed certificate")


# The file changes between the parts.


def cut_off(snapshot: Snapshot, host: Host, folder: Path) -> None:
    """Leaves the first 100,000 bytes."""
    host.cuts = [100_000, *[0] * len(PAUSES_S)]
    with pytest.raises(UnreachableError):
        fetch(snapshot, folder)
    host.asked.clear()


NEWER = b"BZh9" + random.Random(1).randbytes(200_000)


@pytest.mark.parametrize("if_range", [True, False])
@pytest.mark.parametrize("content", [NEWER, NEWER[:50_000]], ids=["long", "shorter than the part"])
def test_another_version_is_downloaded_from_its_start(
    content: bytes, if_range: bool, snapshot: Snapshot, host: Host, tmp_path: Path
) -> None:
    """Whether the server compares If-Range or, as some do, ignores it."""
    cut_off(snapshot, host, tmp_path)
    host.files[f"/{NAME}"], host.version, host.checks_if_range = content, {"ETag": '"2"'}, if_range
    assert fetch(snapshot, tmp_path).read_bytes() == content
    assert host.ranges[0] == "bytes=100000-"
    assert names(tmp_path) == [NAME]


@pytest.mark.parametrize("version", [{}, {"ETag": 'W/"1"'}])
def test_without_a_strong_version_it_starts_anew(
    version: Headers, snapshot: Snapshot, host: Host, tmp_path: Path
) -> None:
    host.version, host.cuts = version, [100_000]
    assert fetch(snapshot, tmp_path).read_bytes() == CONTENT
    assert host.ranges == [None, None]


def test_a_server_that_knows_no_ranges_is_asked_for_all(snapshot: Snapshot, host: Host, tmp_path: Path) -> None:
    host.knows_ranges, host.cuts = False, [100_000]
    assert fetch(snapshot, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "range_",
    [
        "bytes 5-300003/300004",
        "bytes 100000-300003/*",
        "bytes 100000-300003/" + "9" * 5000,
        "nonsense",
        "",
    ],
)
def test_another_part_than_was_asked_for_is_not_taken(
    range_: str, snapshot: Snapshot, host: Host, tmp_path: Path
) -> None:
    cut_off(snapshot, host, tmp_path)
    host.change_headers = lambda headers: headers | ({"Content-Range": range_} if "Content-Range" in headers else {})
    assert fetch(snapshot, tmp_path).read_bytes() == CONTENT
    assert host.ranges == ["bytes=100000-", None]


def test_a_part_of_another_link_is_not_taken_up(snapshot: Snapshot, host: Host, tmp_path: Path) -> None:
    cut_off(snapshot, host, tmp_path)
    host.files[f"/other/{NAME}"] = NEWER
    other = Snapshot(f"{host.url}/other/{NAME}", NAME, snapshot.date)
    assert fetch(other, tmp_path).read_bytes() == NEWER
    assert host.ranges == [None]


@pytest.mark.parametrize("about", [b"", b"[]", b"[" * 100_000, b'{"url": 1}', b"\xff", None])
def test_a_part_of_which_nothing_is_known_is_not_taken_up(
    about: bytes | None, snapshot: Snapshot, host: Host, tmp_path: Path
) -> None:
    (tmp_path / PARTIAL).write_bytes(b"another file's")
    if about is not None:
        (tmp_path / ABOUT).write_bytes(about)
    assert fetch(snapshot, tmp_path).read_bytes() == CONTENT
    assert host.ranges == [None]
    assert names(tmp_path) == [NAME]


def test_a_version_that_no_header_can_hold_is_not_sent(snapshot: Snapshot, host: Host, tmp_path: Path) -> None:
    (tmp_path / PARTIAL).write_bytes(b"BZh9")
    (tmp_path / ABOUT).write_text(json.dumps({"url": snapshot.url, "version": "事故"}))
    assert fetch(snapshot, tmp_path).read_bytes() == CONTENT
    assert host.ranges == [None]


def test_a_part_that_is_already_whole_is_kept(snapshot: Snapshot, host: Host, tmp_path: Path) -> None:
    """A run was ended after the last byte, before the file was in its place."""
    cut_off(snapshot, host, tmp_path)
    (tmp_path / PARTIAL).write_bytes(CONTENT)
    assert fetch(snapshot, tmp_path).read_bytes() == CONTENT


# Lengths and contents that aren't true.


def lengths(length: int | None) -> object:
    def change(headers: Headers) -> Headers:
        changed = {name: value for name, value in headers.items() if name != "Content-Length"}
        return changed if length is None else changed | {"Content-Length": str(length)}

    return change


def test_a_file_shorter_than_its_length_is_never_whole(snapshot: Snapshot, host: Host, tmp_path: Path) -> None:
    host.knows_ranges = False
    host.change_headers = lengths(len(CONTENT) + 1)  # type: ignore[assignment]
    with pytest.raises(UnreachableError, match=r"was cut off: 300,004 of 300,005 bytes came\.$"):
        fetch(snapshot, tmp_path)
    assert NAME not in names(tmp_path)


@pytest.mark.parametrize("length", [None, "many"])
def test_a_file_without_a_length_is_refused(length: int | None, snapshot: Snapshot, host: Host, tmp_path: Path) -> None:
    """Nobody could tell whether it is whole."""
    host.change_headers = lengths(length)  # type: ignore[assignment]
    with pytest.raises(SourceError, match=r"its server doesn't say how long the file is\.$"):
        fetch(snapshot, tmp_path)
    assert names(tmp_path) == []


def test_a_chunked_file_that_is_cut_is_not_whole(snapshot: Snapshot, host: Host, tmp_path: Path) -> None:
    host.chunked, host.cuts = True, [100_000]
    assert fetch(snapshot, tmp_path).read_bytes() == CONTENT
    assert len(host.asked) == 2


def test_a_file_beyond_the_limit_is_refused_by_its_length(
    snapshot: Snapshot, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_DOWNLOAD_BYTES", len(CONTENT) - 1)
    told: list[int] = []
    with pytest.raises(SourceError, match=r"has more than 300,003 bytes, too many for a snapshot\.$"):
        download(snapshot, tmp_path, lambda done, total: told.append(done))
    assert told == []
    assert len(host.asked) == 1
    assert names(tmp_path) == []


def test_a_file_beyond_the_limit_is_refused_where_it_tells_no_length(
    snapshot: Snapshot, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_DOWNLOAD_BYTES", len(CONTENT) - 1)
    host.chunked = True
    with pytest.raises(SourceError, match="too many for a snapshot"):
        fetch(snapshot, tmp_path)
    assert len(host.asked) == 1
    assert names(tmp_path) == []


def test_a_page_in_the_place_of_the_file_is_not_kept(snapshot: Snapshot, host: Host, tmp_path: Path) -> None:
    host.files[f"/{NAME}"] = b"<html>Please log in.</html>"
    with pytest.raises(SourceError, match=rf"^{re.escape(NAME)} isn't a bzip2 file; "):
        fetch(snapshot, tmp_path)
    assert names(tmp_path) == []


# Where it leads, and where it is written.


@pytest.mark.parametrize("target", ["http://bucket.example/x", "ftp://localhost/x", "file:///etc/passwd"])
def test_a_redirect_away_from_https_is_refused(target: str, snapshot: Snapshot, host: Host, tmp_path: Path) -> None:
    del host.files[f"/{NAME}"]
    host.redirects[f"/{NAME}"] = target
    with pytest.raises(SourceError) as error:
        fetch(snapshot, tmp_path)
    assert "\n" not in str(error.value)
    assert len(host.asked) == 1
    assert names(tmp_path) == []


def test_a_redirect_on_this_machine_is_followed_with_its_range(snapshot: Snapshot, host: Host, tmp_path: Path) -> None:
    host.redirects["/moved"] = f"{host.url}/{NAME}"
    host.cuts = [100_000]
    assert fetch(Snapshot(f"{host.url}/moved", NAME, ""), tmp_path).read_bytes() == CONTENT
    assert host.ranges == [None, "bytes=100000-"]


def test_a_folder_that_can_not_be_written_is_told_in_one_sentence(snapshot: Snapshot, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SourceError, match=r"file/backup-20261123100000\.tar\.bz2 can't be written: "):
        fetch(snapshot, tmp_path / "file")


def test_a_full_disk_is_told_in_one_sentence_and_the_part_is_kept(
    snapshot: Snapshot, host: Host, tmp_path: Path
) -> None:
    """A file that may not grow further fails as one on a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
        with pytest.raises(SourceError, match=r"can't be written: File too large\.$"):
            fetch(snapshot, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(host.asked) == 1
    part = (tmp_path / PARTIAL).read_bytes()
    assert 0 < len(part) <= 200_000
    assert fetch(snapshot, tmp_path).read_bytes() == CONTENT
    assert host.ranges[1:] == [f"bytes={len(part)}-"]


def test_one_process_at_a_time_downloads(snapshot: Snapshot, host: Host, tmp_path: Path) -> None:
    with module._Partial(tmp_path / NAME):
        pid = os.fork()
        if not pid:
            try:
                fetch(snapshot, tmp_path)
            except SourceError as error:
                os._exit(42 if "another process is downloading" in str(error) else 1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 42
    assert host.asked == []
    assert fetch(snapshot, tmp_path).read_bytes() == CONTENT
