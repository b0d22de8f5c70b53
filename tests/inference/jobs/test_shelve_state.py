"""The job that each deployment calls first: what it answers, and when it stops the deployment."""

from __future__ import annotations

import dataclasses
import json
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobs.shelve_state import ShelvingError
from lambdas import SCHEDULED, Image, days_ago, start_again, titles, with_titles
from metric_lines import Printed
from similarity.incidents.state import TIME_FORMAT, IncidentState
from similarity.shelf.versions import state_names


@pytest.mark.slow
def test_a_deployment_puts_the_images_state_on_the_shelf_and_the_handlers_serve_it(
    image: Image, tiny_state: IncidentState, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    answer = image.shelve(with_titles(tiny_state, "deployed", "2026-11-26T07:04:05Z"))
    assert answer["shelved"].startswith("20261126T070405Z-")
    assert answer == {
        "shelved": answer["shelved"],
        "published": None,
        "serves": answer["shelved"],
        "removed": [],
        "model": None,
        "note": "",
    }
    assert json.loads(json.dumps(answer)) == answer
    image.state_path.unlink()
    assert titles() == {"deployed"}
    assert "state shelved" in [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("event", [{}, SCHEDULED])
def test_each_call_tells_the_age_of_the_served_state_s_snapshot(
    event: dict[str, object], image: Image, tiny_state: IncidentState, printed_metrics: Printed
) -> None:
    source = {"kind": "aiid-snapshot", "name": "backup.tar.bz2", "date": days_ago(20)}
    dataclasses.replace(with_titles(tiny_state, "old", days_ago(3)), source=source).save(image.state_path)
    image.call_job(event)
    (line,) = printed_metrics.lines()
    assert line.pop("StateAgeDays") == pytest.approx(20, abs=0.1)
    assert line == {}


@pytest.mark.parametrize(
    "source",
    [
        {},
        {"kind": "csv", "name": "a", "date": "2026-11-20T10:00:00Z"},
        {"kind": "aiid-snapshot", "name": "a", "date": ""},
    ],
)
def test_a_state_that_is_not_of_a_dated_snapshot_has_no_age(
    source: dict[str, str], image: Image, tiny_state: IncidentState, printed_metrics: Printed
) -> None:
    image.shelve(dataclasses.replace(with_titles(tiny_state, "own", days_ago(3)), source=source))
    assert printed_metrics.lines() == []


def what_is_there(image: Image) -> dict[Path, tuple[int, int, int]]:
    stats = {path: path.stat() for path in image.mount.rglob("*")}
    return {path: (stat.st_ino, stat.st_mode, stat.st_mtime_ns) for path, stat in stats.items()}


def test_the_same_deployment_again_changes_nothing(image: Image, tiny_state: IncidentState) -> None:
    first = image.shelve(with_titles(tiny_state, "deployed", days_ago(0)))
    before = what_is_there(image)
    assert image.shelve() == first
    assert what_is_there(image) == before


def test_a_deployment_with_a_newer_state_wins_and_one_with_an_older_state_says_that_it_changes_nothing(
    image: Image, tiny_state: IncidentState, caplog: pytest.LogCaptureFixture
) -> None:
    image.shelve(with_titles(tiny_state, "old", days_ago(2)))
    new = image.shelve(with_titles(tiny_state, "new", days_ago(1)))
    assert (new["serves"], new["note"]) == (new["shelved"], "")
    assert titles() == {"new"}
    again = image.shelve(with_titles(tiny_state, "older", days_ago(3)))
    assert again["serves"] == new["shelved"]
    assert new["shelved"] in again["note"]
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        "older state deployed"
    ]
    start_again()
    assert titles() == {"new"}


def ahead(minutes: float) -> str:
    return f"{datetime.now(UTC) + timedelta(minutes=minutes):{TIME_FORMAT}}"


def test_a_state_that_is_dated_ahead_stops_the_deployment_and_names_the_remedy(
    image: Image, tiny_state: IncidentState
) -> None:
    image.shelve(with_titles(tiny_state, "four", ahead(4)))
    names = state_names(image.shelf)
    with pytest.raises(ShelvingError, match=r"built at .* 60 minutes from now .* set the clock .* build it again"):
        image.shelve(with_titles(tiny_state, "sixty", ahead(60.2)))
    assert state_names(image.shelf) == names


def test_a_state_of_another_model_stops_the_deployment(image: Image, tiny_state: IncidentState) -> None:
    with pytest.raises(ShelvingError, match="made with another model"):
        image.shelve(dataclasses.replace(tiny_state, model_fingerprint="0" * 64))
    assert state_names(image.shelf) == []


@pytest.mark.parametrize("content", [None, b"", b"no state"])
def test_a_state_that_can_not_be_read_stops_the_deployment(content: bytes | None, image: Image) -> None:
    image.state_path.unlink()
    if content is not None:
        image.state_path.write_bytes(content)
    with pytest.raises(ShelvingError, match=r"incident_cls\.pt"):
        image.shelve()
    assert state_names(image.shelf) == []


def test_without_a_shelf_or_its_file_system_it_stops_the_deployment(
    image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    image.mount.rmdir()
    with pytest.raises(OSError, match="shelf"):
        image.shelve()
    monkeypatch.delenv("SHELF_DIR")
    with pytest.raises(ShelvingError, match="SHELF_DIR"):
        image.shelve()


def test_a_shelf_that_can_not_be_written_to_stops_the_deployment_and_keeps_what_it_has(
    image: Image, tiny_state: IncidentState, monkeypatch: pytest.MonkeyPatch
) -> None:
    image.shelve()
    names = state_names(image.shelf)

    def refuse(path: Path, *options: object, **more: object) -> None:
        if image.states in path.parents:
            raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OSError, match="Read-only"):
        image.shelve(with_titles(tiny_state, "new", days_ago(0)))
    assert state_names(image.shelf) == names
