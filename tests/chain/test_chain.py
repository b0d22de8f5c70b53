"""From AIID's page to the answers, and back with a rollback, while callers ask all the time."""

from __future__ import annotations

from pathlib import Path

import pytest

import build_state
import publish_state
from chain.asking import Callers, asking
from chain.cloud import BUCKET, Cloud
from chain.deployment import HANDLERS, REFRESH, SHELVE, Deployment, deployment, make_image
from chain.permissions import allowed, forbidden
from chain.site import TEXTS, Content, Site
from serving import serving
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.inbox.bucket import STATE_KEY
from similarity.inbox.publications import publications
from snapshot_server import Host
from stack import DEFAULT, synthesise
from tiny import write_tiny_longformer

pytestmark = pytest.mark.slow

QUESTION = "A robot did harm"
FIRST = Content().with_text(11, "A vending machine kept the change")
SECOND = (
    FIRST.with_text(2, "A chatbot gave dangerous advice").with_text(12, "An oven baked all night").with_merged(3, 1)
)
THIRD = SECOND.with_text(13, "A lawn mower left the garden")


def refreshed(stack: Deployment, callers: Callers) -> str:
    """The version of the state that a run of the job publishes, once it answers everybody."""
    stack.refresh.invoke({})
    assert stack.hand_on_events() == 1
    version = newest_version(stack)
    callers.wait_for(version)
    assert stack.health()["state"]["version"] == stack.served()["version"] == version
    return version


def newest_version(stack: Deployment) -> str:
    newest = publications(stack.cloud.bucket)[0]
    assert newest.facts is not None
    return newest.facts.version


def rolled_back(stack: Deployment, callers: Callers, *version: str) -> str:
    with stack.handing_on_events():
        assert publish_state.main(["--rollback", *version]) == 0
    served: str = stack.health()["state"]["version"]
    callers.wait_for(served)
    return served


def ids(stack: Deployment, text: str) -> list[int]:
    """Of all incidents, the most similar one first."""
    incidents = stack.server.post("/similar", text=text, num=-1).json()["body"]["incidents"]
    return [each["incident_id"] for each in incidents]


def test_states_come_and_go_without_one_failed_answer(
    stack: Deployment, site: Site, tiny_encoder: TorchEncoder, model_dir: Path, tmp_path: Path
) -> None:
    image = stack.image_version
    vector = tiny_encoder.encode(QUESTION).vector.tolist()
    (tmp_path / "laptop").mkdir()
    with (
        serving(tmp_path / "laptop", "--model", model_dir) as laptop,
        asking(laptop.url, QUESTION, vector) as on_laptop,
        asking(stack.server.url, QUESTION, vector) as callers,
    ):
        callers.wait_for(image)
        stack.refresh.invoke({})
        assert stack.hand_on_events() == 0, "the page has no newer snapshot"

        date = site.publish(FIRST)
        first = refreshed(stack, callers)
        assert stack.health()["state"]["source_date"] == date
        assert ids(stack, FIRST.texts[11])[0] == 11

        held = site.publish(SECOND)
        second = refreshed(stack, callers)
        assert stack.health()["state"]["source_date"] == held
        assert ids(stack, SECOND.texts[12])[0] == 12
        assert ids(stack, SECOND.texts[2])[0] == 2
        assert sorted(ids(stack, QUESTION)) == sorted({*TEXTS, 11, 12} - {3})

        assert rolled_back(stack, callers) == first
        assert stack.hold() == {"source_date": held, "versions": [second]}
        assert rolled_back(stack, callers) == image
        assert stack.hold() == {"source_date": held, "versions": sorted([first, second])}
        assert sorted(ids(stack, QUESTION)) == sorted(TEXTS)

        stack.refresh.invoke({})
        assert stack.hand_on_events() == 0, "what was taken back isn't published again"
        stack.daily()
        callers.wait_for(image)

        date = site.publish(THIRD)
        third = refreshed(stack, callers)
        assert stack.health()["state"]["source_date"] == date
        assert ids(stack, THIRD.texts[13])[0] == 13

        callers.require_no_failure()
        on_laptop.wait_for(image)
    for caller in callers.callers:
        assert caller.versions() == [image, first, second, first, image, third], caller.url
    permissions = synthesise(DEFAULT, tmp_path / "cdk").template.to_json()
    for job in (REFRESH, SHELVE):
        calls = stack.cloud.calls_of(job)
        assert calls
        assert forbidden(calls, allowed(permissions, job, BUCKET)) == set()
    assert stack.cloud.calls_of(HANDLERS) == []
    for caller in on_laptop.callers:
        assert caller.versions() == [image], "a server without a shelf"
    assert not stack.failed
    assert not stack.shelve.problems()
    assert not stack.refresh.problems()
    assert callers.count > 5 * 6


def test_a_state_taken_back_comes_again_by_name(stack: Deployment, site: Site, tiny_encoder: TorchEncoder) -> None:
    image = stack.image_version
    with asking(stack.server.url, QUESTION, tiny_encoder.encode(QUESTION).vector.tolist()) as callers:
        site.publish(FIRST)
        first = refreshed(stack, callers)
        assert rolled_back(stack, callers) == image
        assert rolled_back(stack, callers, first) == first
        hold = stack.hold()
        assert hold is not None
        assert hold == {"source_date": "", "versions": []}, "what was taken back was good, and so is the image's state"
        site.publish(SECOND)
        second = refreshed(stack, callers)
    for caller in callers.callers:
        assert caller.versions()[-4:] == [first, image, first, second]


def test_a_service_of_other_records_is_left_alone(
    cloud: Cloud, site: Site, host: Host, tiny_model_dir: Path, tmp_path: Path, cache_dir: Path
) -> None:
    folder = tmp_path / "image"
    folder.mkdir()
    for path in tiny_model_dir.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    table = tmp_path / "incidents.csv"
    table.write_text("incident_id,title,description\n1,Mine,A record of mine\n2,Too,Another record\n")
    assert build_state.main([str(table), "--model", str(folder)]) == 0
    site.publish(FIRST)
    with deployment(cloud, site.url, folder, tmp_path) as stack:
        stack.refresh.invoke({})
        assert host.asked == []
        assert cloud.bucket.look_at(STATE_KEY) is None
        assert stack.hand_on_events() == 0
        assert stack.health()["state"]["version"] == stack.image_version
        assert not stack.refresh.problems()


def test_an_image_of_another_model_takes_over_and_hands_back(
    stack: Deployment, site: Site, tiny_encoder: TorchEncoder, tmp_path: Path
) -> None:
    """As a deployment does it: the functions of both images run for a while, on one file system and one bucket."""
    image = stack.image_version
    with asking(stack.server.url, QUESTION, tiny_encoder.encode(QUESTION).vector.tolist()) as callers:
        site.publish(FIRST)
        first = refreshed(stack, callers)
        other = write_tiny_longformer(tmp_path / "other", seed=1)
        new_image = make_image(site, other, tmp_path / "new-image", days=0.5, vectors="computed")
        vector = TorchEncoder.load(other).encode(QUESTION).vector.tolist()
        with (
            deployment(stack.cloud, site.url, new_image, tmp_path) as new,
            asking(new.server.url, QUESTION, vector) as new_callers,
        ):
            own = new.image_version
            new_callers.wait_for(own)
            assert "another model" in new.daily()["note"], "the newest state in the bucket is the old model's"
            callers.wait_for(first)

            site.publish(SECOND)
            second = refreshed(new, new_callers)
            assert rolled_back(new, new_callers) == own, "the newest earlier state of this model"
            assert new.served()["version"] == own
            new_callers.require_no_failure()
            assert not new.failed
        for caller in new_callers.callers:
            assert caller.versions() == [own, second, own], caller.url
        # Back to the old image: a deployment first calls its job.
        assert "another model" in stack.shelve.invoke({})["note"]
        callers.wait_for(first)
        assert stack.served()["version"] == first
    for caller in callers.callers:
        assert caller.versions() == [image, first], caller.url
