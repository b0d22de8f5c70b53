"""Page, archive, bucket and file system that fail: what the jobs say, that the service goes on, and what heals it."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import publish_state
from chain.asking import Callers, asking
from chain.deployment import Deployment
from chain.function import FunctionError
from chain.site import PAGE, Content, Site
from processes import wait_until
from serving import serving
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.inbox.bucket import HOLD_KEY, SERVED_KEY, STATE_KEY, STORE_KEY
from similarity.inbox.publications import publications, publish
from similarity.incidents.state import IncidentState, state_version
from snapshot_server import Host

pytestmark = pytest.mark.slow

NEWER = Content().with_text(11, "A vending machine kept the change")
NEWEST = NEWER.with_text(12, "An oven baked all night")


@pytest.fixture
def callers(stack: Deployment, tiny_encoder: TorchEncoder) -> Iterator[Callers]:
    """They ask until the test ends, and none of them may fail."""
    with asking(stack.server.url, "A robot", tiny_encoder.encode("A robot").vector.tolist()) as callers:
        callers.wait_for(stack.image_version)
        yield callers
        callers.require_no_failure()


def published(stack: Deployment, site: Site, content: Content) -> str:
    """The version of the state that a refresh publishes of new content. Nobody hears of it yet."""
    site.publish(content)
    stack.refresh.invoke({})
    newest = publications(stack.cloud.bucket)[0].facts
    assert newest is not None
    return newest.version


def put(stack: Deployment, key: str, content: bytes) -> None:
    path = stack.shelf.parent / "content"
    path.write_bytes(content)
    stack.cloud.bucket.upload(path, key)


def last_problem(log: list[dict[str, str]]) -> dict[str, str]:
    return [line for line in log if "reason" in line][-1]


def test_page_or_archive_out_of_order(stack: Deployment, site: Site, host: Host, callers: Callers) -> None:
    def no_page() -> None:
        del host.pages[PAGE]

    def no_link() -> None:
        host.pages[PAGE] = "<p>We have moved.</p>"

    def no_archive() -> None:
        del host.files[newest()]

    def half_an_archive() -> None:
        host.files[newest()] = host.files[newest()][: len(host.files[newest()]) // 2]

    def another_file() -> None:
        host.files[newest()] = b"<p>Please log in.</p>"

    def newest() -> str:
        return max(host.files)

    image = stack.image_version
    troubles: dict[Callable[[], None], str] = {
        no_page: "answers 404",
        no_link: "no link",
        no_archive: "answers 404",
        half_an_archive: "damaged|cut|end",
        another_file: "isn't a bzip2 file",
    }
    for trouble, reason in troubles.items():
        site.publish(NEWER)
        pages, files = dict(host.pages), dict(host.files)
        trouble()
        for _ in range(2):
            with pytest.raises(FunctionError, match=reason):
                stack.refresh.invoke({})
        problem = last_problem(stack.refresh.problems())
        assert (problem["level"], problem["message"]) == ("ERROR", "refresh failed")
        assert "scripts/build_state.py" in problem["remedy"]
        host.pages, host.files = pages, files
    assert stack.hand_on_events() == 0
    assert stack.cloud.bucket.look_at(STATE_KEY) is None
    callers.wait_for(image)
    assert stack.health()["state"]["version"] == image

    host.cuts = [1000]  # such a download is taken up again
    version = published(stack, site, NEWER)
    stack.hand_on_events()
    callers.wait_for(version)


def test_nonsense_in_place_of_a_state(stack: Deployment, site: Site, callers: Callers) -> None:
    good = published(stack, site, NEWER)
    stack.hand_on_events()
    callers.wait_for(good)
    put(stack, STATE_KEY, b"nonsense")
    stack.hand_on_events()
    for failed in stack.failed:
        assert "isn't served" in failed
        assert "scripts/publish_state.py" in failed
    assert stack.failed
    assert last_problem(stack.shelve.problems())["message"] == "trouble with the bucket"
    # A deployment isn't stopped by it, but says it.
    assert "isn't served" in stack.shelve.invoke({})["note"]
    callers.wait_for(good)
    assert stack.served()["version"] == stack.health()["state"]["version"] == good

    stack.failed.clear()
    assert publish_state.main(["--rollback"]) == 0
    assert stack.hand_on_events() == 1
    assert not stack.failed
    callers.wait_for(good)

    put(stack, STATE_KEY, b"nonsense again")
    best = published(stack, site, NEWEST)
    stack.failed.clear()
    stack.hand_on_events()
    callers.wait_for(best)
    assert not stack.failed


def test_a_state_of_another_model(stack: Deployment, callers: Callers, tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    state = IncidentState.load(stack.model_dir / "incident_cls.pt")
    dataclasses.replace(state, model_fingerprint="of another model").save(path)
    publish(stack.cloud.bucket, path)
    stack.hand_on_events()
    assert not stack.failed
    assert "another model" in stack.daily()["note"]
    callers.wait_for(stack.image_version)
    assert stack.served()["version"] == stack.image_version


def test_nonsense_in_place_of_notes_and_vectors(stack: Deployment, site: Site, callers: Callers) -> None:
    first = published(stack, site, NEWER)
    stack.hand_on_events()
    callers.wait_for(first)
    for key in (SERVED_KEY, HOLD_KEY):
        site.publish(NEWEST)
        put(stack, key, b"nonsense")
        with pytest.raises(FunctionError, match=key):
            stack.refresh.invoke({})
        assert stack.hand_on_events() == 0
        stack.daily()
        if key == HOLD_KEY:
            with pytest.raises(FunctionError, match=key):
                stack.refresh.invoke({})
            stack.cloud.forget(HOLD_KEY)
        stack.refresh.invoke({})
        assert stack.hand_on_events() == 1
        callers.wait_for(stack.served()["version"])

    put(stack, STORE_KEY, b"nonsense")
    last = published(stack, site, NEWEST)
    assert last_problem(stack.refresh.problems())["message"] == "store of vectors replaced"
    stack.hand_on_events()
    callers.wait_for(last)


def test_an_event_that_is_lost(stack: Deployment, site: Site, callers: Callers) -> None:
    version = published(stack, site, NEWER)
    assert stack.lose_events() == 1
    callers.wait_for(stack.image_version)
    stack.daily()
    callers.wait_for(version)
    assert stack.served()["version"] == version


def test_an_empty_file_system_under_a_full_bucket(
    stack: Deployment, site: Site, callers: Callers, tmp_path: Path
) -> None:
    first = published(stack, site, NEWER)
    stack.hand_on_events()
    callers.wait_for(first)
    version = published(stack, site, NEWEST)
    stack.hand_on_events()
    callers.wait_for(version)
    shutil.rmtree(stack.shelf)
    callers.wait_for(version)
    (tmp_path / "new").mkdir()
    variables = {"SHELF_DIR": str(stack.shelf)}
    with serving(tmp_path / "new", "--model", stack.model_dir, variables=variables) as new:
        body = new.get("/health").json()["body"]
        assert body["state"]["version"] == stack.image_version, "a process that starts now has only the image"
    stack.daily()
    assert stack.shelved() == [version, state_version(stack.model_dir / "incident_cls.pt")]
    (tmp_path / "newer").mkdir()
    with serving(tmp_path / "newer", "--model", stack.model_dir, variables=variables) as new:
        wait_until(lambda: bool(new.get("/health").json()["body"]["state"]["version"] == version), "the newest state")
    callers.wait_for(version)
