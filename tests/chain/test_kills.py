"""Jobs and a rollback that are killed, each at every step. The next run makes it good, and nothing is lost."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from pathlib import Path

import pytest

import publish_state
from chain.cloud import DAILY
from chain.deployment import REFRESH, SHELVE, Deployment, job_variables
from chain.killing import killing
from chain.site import Content, Site
from lambdas import with_titles
from processes import wait_until
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.inbox.bucket import HOLD_KEY, STATE_KEY, STORE_KEY, deployed_key
from similarity.inbox.publications import publications, publish
from similarity.incidents.state import TIME_FORMAT, IncidentState, state_version
from similarity.refresh.vector_store import MadeWith, VectorStore
from similarity.shelf.versions import STATES

pytestmark = pytest.mark.slow

# No run has more steps. Without an end of its own, a test that goes wrong would never end.
MOST_STEPS = 200


def stored(stack: Deployment) -> set[tuple[str, str]]:
    """All versions of all objects in the bucket."""
    return {(each.key, each.version_id) for each in stack.cloud.bucket.versions("")}


def require_all_answer(stack: Deployment, version: str) -> None:
    """All that say which state is served say this one."""
    wait_until(lambda: stack.served()["version"] == version or bool(stack.failed), "served.json")
    assert not stack.failed
    assert stack.shelved()[0] == version
    wait_until(lambda: bool(stack.health()["state"]["version"] == version), "the server")


def require_steps(steps: list[str], *wanted: str) -> None:
    """Else a test would kill nothing where it hurts."""
    assert {f"{when} {step}" for when in ("before", "after") for step in wanted} <= set(steps), steps


def texts_in_store(stack: Deployment, texts: set[str], made_with: MadeWith, path: Path) -> set[str]:
    """Those whose vectors nobody has to compute again."""
    path.unlink(missing_ok=True)
    if stack.cloud.bucket.download(STORE_KEY, path) is None:
        return set()
    with VectorStore(path) as store:
        return set(store.get(sorted(texts), made_with))


def test_a_refresh(stack: Deployment, site: Site, tiny_encoder: TorchEncoder, tmp_path: Path) -> None:
    content = Content()
    made_with = MadeWith(tiny_encoder.fingerprint, "onnx", "float32", stack.served()["max_tokens"])
    variables = {**job_variables(stack.cloud, REFRESH, stack.model_dir), "SNAPSHOTS_URL": site.url}
    with killing(REFRESH, tmp_path, variables) as job:
        for step in range(MOST_STEPS):
            content = content.with_text(100 + step, f"An accident of kind {step}")
            date = site.publish(content)
            killed = job.run({}, step)
            before = stored(stack)
            stack.hand_on_events()
            stack.refresh.invoke({})
            stack.hand_on_events()
            assert stack.served()["source"]["date"] == date, job.steps
            assert stack.served()["incidents"] == len(content.texts)
            require_all_answer(stack, stack.served()["version"])
            assert stored(stack) >= before
            texts = {content.texts[number] for number in content.computed}
            assert texts == texts_in_store(stack, texts, made_with, tmp_path / "vectors.sqlite"), job.steps
            if not killed:
                break
    require_steps(job.steps, f"PutObject {STATE_KEY}", f"PutObject {STORE_KEY}")


def test_the_shelving_of_a_new_image_and_of_a_published_state(stack: Deployment, tmp_path: Path) -> None:
    image = stack.model_dir / "incident_cls.pt"
    published = tmp_path / "published.pt"
    state = IncidentState.load(image)
    built_at = datetime.fromisoformat(state.built_at)
    variables = {**job_variables(stack.cloud, SHELVE, stack.model_dir), "SHELF_DIR": str(stack.shelf)}
    with killing(SHELVE, tmp_path, variables) as job:
        for step in range(MOST_STEPS):
            later = f"{built_at + timedelta(minutes=1 + step):{TIME_FORMAT}}"
            with_titles(state, f"Image {step}", later).save(image)
            with_titles(state, f"Published {step}", later).save(published)
            version = publish(stack.cloud.bucket, published)
            stack.lose_events()
            killed = job.run({} if step % 2 else DAILY, step)
            before = stored(stack)
            stack.daily()
            require_all_answer(stack, version)
            assert stack.image_version in stack.shelved()
            assert stack.cloud.bucket.look_at(deployed_key(stack.image_version))
            assert stored(stack) >= before
            if not killed:
                break
    renamed = {path.name for path in (stack.shelf / STATES).iterdir() if path.name.endswith(version)}
    require_steps(job.steps, "PutObject served.json", f"PutObject {deployed_key(stack.image_version)}")
    assert {f"after rename {name}" for name in renamed} <= set(job.steps), job.steps


def test_a_rollback(stack: Deployment, tmp_path: Path) -> None:
    state = IncidentState.load(stack.model_dir / "incident_cls.pt")
    good, bad = tmp_path / "good.pt", tmp_path / "bad.pt"
    with killing("publish_state", tmp_path, stack.cloud.variables) as script, stack.handing_on_events():
        for step in range(MOST_STEPS):
            for key in (STATE_KEY, HOLD_KEY):  # a rollback reads the whole history, one step a publication
                stack.cloud.forget(key)
            date = f"2026-12-{1 + step // 24:02}T{step % 24:02}:00:00Z"
            source = {"kind": "aiid-snapshot", "name": "backup.tar.bz2", "date": date}
            for path in (good, bad):
                dataclasses.replace(with_titles(state, f"{path.name} {step}"), source=source).save(path)
                publish(stack.cloud.bucket, path)
            stack.hand_on_events()
            killed = script.run(["--rollback"], step)
            newest = publications(stack.cloud.bucket)[0]
            assert newest.facts is not None
            hold = stack.hold()
            if newest.facts.version != state_version(bad):
                assert hold is not None, script.steps
                assert state_version(bad) in hold["versions"], "refresh would publish it again"
            before = stored(stack)
            done = newest.facts.version == state_version(good)
            # The command says so, and exits with 1.
            assert publish_state.main(["--rollback", state_version(good)]) == int(done)
            stack.hand_on_events()
            require_all_answer(stack, state_version(good))
            hold = stack.hold()
            assert hold is not None
            assert (hold["source_date"], state_version(bad) in hold["versions"]) == (date, True)
            assert state_version(good) not in hold["versions"]
            assert stored(stack) >= before
            if not killed:
                break
    require_steps(script.steps, "PutObject hold.json", f"CopyObject {STATE_KEY}")
