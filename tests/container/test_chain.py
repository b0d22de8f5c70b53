"""The whole chain with the image: both jobs and the handlers as Lambdas, EFS as a volume, S3 and AIID's page on this
machine.

The image's model has the name and the dimension of AIID's, so that it can use AIID's vectors.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import publish_state
from chain.asking import asking
from chain.cloud import BUCKET, DAILY, Cloud, running_cloud
from chain.deployment import make_image
from chain.site import PAGE, Content, Site
from container.gateway import serving_instances
from container.instance import Function, Instance
from container.volume import Volume
from lambdas import log_lines
from processes import repeating
from similarity.encoder.loading import load_encoder
from similarity.encoder.text_encoder import TextEncoder
from similarity.inbox.bucket import HOLD_KEY, SERVED_KEY
from similarity.inbox.publications import publications
from similarity.incidents.state import state_version
from similarity.settings import AIID_MAX_TOKENS, DEFAULT_MODEL_URI
from snapshot_server import Host
from snapshots import Snapshot, embedding, form_hash, large
from tiny import write_tiny_longformer

if TYPE_CHECKING:
    from stack import Synthesised

QUESTION = "A robot did harm"
FIRST = Content().with_text(11, "A vending machine kept the change")
SECOND = FIRST.with_text(12, "An oven baked all night").with_merged(3, 1)
THIRD = SECOND.with_text(13, "A lawn mower left the garden")
HANDLERS = ("similar", "embed_to_db_similar", "health")
# The ports of an instance that lead to S3 and to the page.
S3_PORT, PAGE_PORT = 9002, 9003
DIMENSION, LONGEST_INPUT = 768, 4096


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    return write_tiny_longformer(folder, hidden_size=DIMENSION, max_tokens=LONGEST_INPUT, name=DEFAULT_MODEL_URI)


@pytest.fixture(scope="module")
def encoder(model: Path) -> TextEncoder:
    return load_encoder(model, engine="torch", max_tokens=AIID_MAX_TOKENS)


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with running_cloud() as cloud:
        yield cloud


@pytest.fixture
def site(host: Host, encoder: TextEncoder, tmp_path: Path) -> Site:
    return Site(host, lambda text: encoder.encode(text).vector, tmp_path)


@dataclass(frozen=True)
class Deployed:
    """The functions of a deployment whose image has another model folder."""

    functions: dict[str, Function]
    cloud: Cloud
    site: Site
    volume: Volume
    model_dir: Path

    def handler(self, module: str) -> Function:
        return self._with_model(replace(self.functions[module], volume=self.volume.name))

    def job(self, name: str) -> Function:
        """Reaches S3 and the page, but in place of the VPC's endpoint and the internet by ports of its own."""
        function = self.functions[name]
        environment = {
            **function.environment,
            **{key: value for key, value in self.cloud.variables.items() if key != "AWS_ENDPOINT_URL"},
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{S3_PORT}",
        }
        servers = {S3_PORT: self.cloud.port}
        if name == "jobs.refresh":
            environment["SNAPSHOTS_URL"] = f"http://127.0.0.1:{PAGE_PORT}{PAGE}"
            servers[PAGE_PORT] = int(self.site.host.url.rpartition(":")[2])
        else:
            function = replace(function, volume=self.volume.name)
        return self._with_model(replace(function, environment=environment, servers=servers))

    def _with_model(self, function: Function) -> Function:
        mount = f"type=bind,src={self.model_dir},dst=/var/task/model,readonly"
        return replace(function, mounts=(*function.mounts, mount))

    @property
    def image_version(self) -> str:
        return state_version(self.model_dir / "incident_cls.pt")

    def newest_version(self) -> str:
        newest = publications(self.cloud.bucket)[0]
        assert newest.facts is not None
        return newest.facts.version


@pytest.fixture
def deployed(
    functions: dict[str, Function],
    cloud: Cloud,
    site: Site,
    volume: Volume,
    model: Path,
    synthesised: Synthesised,
    tmp_path: Path,
    cache_dir: Path,
    one_thread: None,
) -> Deployed:
    """Its image's state was built of AIID's first snapshot, and that a day ago."""
    site.publish(Content())
    folder = make_image(site, model, tmp_path / "image", days=1)
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755)
    return Deployed(functions, cloud, site, volume, folder)


def pattern_of_new_states(synthesised: Synthesised) -> dict[str, Any]:
    """That of the rule that invokes the job, with the bucket's name in place of the reference to it."""
    (pattern,) = [
        rule["EventPattern"] for rule in synthesised.properties("AWS::Events::Rule") if "EventPattern" in rule
    ]
    (reference,) = pattern["detail"]["bucket"]["name"]
    assert set(reference) == {"Ref"}
    return {**pattern, "detail": {**pattern["detail"], "bucket": {"name": [BUCKET]}}}


def answer(instance: Instance, event: object) -> dict[str, Any]:
    found = instance.invoke(event).answer
    assert not found.is_error, (found.payload.decode(), instance.log()[-3000:])
    return dict(found.json())


def test_states_come_and_go_without_one_failed_answer(
    deployed: Deployed, encoder: TextEncoder, synthesised: Synthesised, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("publishing.api._PAUSE_S", 0.5)
    cloud, site, image = deployed.cloud, deployed.site, deployed.image_version
    with ExitStack() as stack:
        shelve, refresh = (
            stack.enter_context(Instance(deployed.job(name))) for name in ("jobs.shelve_state", "jobs.refresh")
        )
        instances = {name: stack.enter_context(Instance(deployed.handler(name))) for name in HANDLERS}
        url = stack.enter_context(
            serving_instances({f"/{name.replace('_', '-')}": each for name, each in instances.items()})
        )
        cloud.deploy(url, pattern_of_new_states(synthesised))
        assert answer(shelve, {})["note"] == ""
        callers = stack.enter_context(asking(url, QUESTION, encoder.encode(QUESTION).vector.tolist()))
        callers.wait_for(image)

        def hand_on_events() -> None:
            for event in cloud.events():
                for _ in range(2):
                    answer(shelve, event)

        stack.enter_context(repeating(hand_on_events))
        versions = [image]

        def refreshed(content: Content) -> None:
            site.publish(content)
            found = answer(refresh, DAILY)
            assert found["published"], found
            versions.append(found["published"])
            callers.wait_for(versions[-1])

        refreshed(FIRST)
        refreshed(SECOND)
        assert publish_state.main(["--rollback"]) == 0
        versions.append(versions[-2])
        callers.wait_for(versions[-1])
        assert "rollback" in answer(refresh, DAILY)["reason"]
        answer(shelve, DAILY)
        refreshed(THIRD)

        for caller in callers.callers:
            assert caller.versions() == versions, caller.url
        callers.require_no_failure()
        for instance in instances.values():
            traffic = instance.traffic()
            assert traffic.tcp_connects == instance.api.connections, "handlers reach nothing but the Runtime API"
            assert (traffic.udp_sent, traffic.without_route) == (0, 0)
        for job in (shelve, refresh):
            assert job.traffic().tcp_connects > job.api.connections
            assert {line["level"] for line in log_lines(job.log())} <= {"INFO", "DEBUG"}
    note = cloud.bucket.read_note(HOLD_KEY)
    assert note is not None
    assert note["versions"] == [versions[2]]


def test_a_deployment_that_s3_does_not_answer_succeeds(deployed: Deployed) -> None:
    """The volume is new, and nothing listens where S3 should."""
    job = deployed.job("jobs.shelve_state")
    deployed.cloud.deploy("http://127.0.0.1:1")
    with Instance(replace(job, servers={})) as instance, Instance(deployed.handler("health")) as health:
        assert "can't be" in answer(instance, {})["note"]
        body = health.ask({"rawPath": "/health", "requestContext": {"http": {"method": "GET"}}, "version": "2.0"})
        assert body["body"]["state"]["version"] == deployed.image_version
        failed = instance.invoke(DAILY).answer
        assert failed.is_error, "so that Lambda invokes it again"


def snapshot_of_aiids_size(encoder: TextEncoder, computed: int) -> Snapshot:
    """7,000 reports, all with vectors but for `computed` ones; those that are compared with the model's are its own."""
    from similarity.refresh.build import SAMPLE

    snapshot = large()
    reports = [dict(each) for each in snapshot.reports]
    for each in reports[-computed:]:
        del each["embedding"]
    by_length = sorted(reports[:-computed], key=lambda each: (len(each["plain_text"]), each["report_number"]))
    for place in np.linspace(0, len(by_length) - 1, SAMPLE):
        each = by_length[round(place)]
        vector = encoder.encode(each["plain_text"]).vector
        each["embedding"] = embedding(vector.tolist(), form_hash(each["plain_text"]))
    return replace(snapshot, reports=reports)


def used_kib(instance: Instance) -> int:
    """Of /tmp."""
    return int(instance.run("df", "--output=used", "/tmp").split()[-1])


def test_a_snapshot_of_aiids_size_stays_within_lambdas_limits(
    deployed: Deployed, encoder: TextEncoder, tmp_path: Path
) -> None:
    cloud, site = deployed.cloud, deployed.site
    cloud.deploy("http://127.0.0.1:1")
    with Instance(deployed.job("jobs.shelve_state")) as shelve:
        answer(shelve, {})
    name = "backup-20261123100000.tar.bz2"
    archive = snapshot_of_aiids_size(encoder, computed=50).write(tmp_path / name)
    site.host.files[f"/{name}"] = archive.read_bytes()
    site.host.pages[PAGE] = f'<a href="/{name}">{name}</a>'
    # /tmp isn't memory there.
    job = deployed.job("jobs.refresh")
    job = replace(job, memory_mib=job.memory_mib + job.tmp_mib)
    used: list[int] = []
    with Instance(job) as refresh:
        started = time.monotonic()
        with repeating(lambda: used.append(used_kib(refresh))):
            found = answer(refresh, DAILY)
        took = time.monotonic() - started
        peak = refresh.peak_memory()
        assert found["published"], found
        assert found["vectors"] == {"published": 6950, "computed": 50}, found
        assert peak.resident < (job.memory_mib - job.tmp_mib) << 20
        print(
            f"\nrefresh of {archive.stat().st_size >> 20} MiB: {took:.0f} s of {job.timeout_s:.0f}, "
            f"{peak.resident >> 20} MiB of {job.memory_mib - job.tmp_mib}, "
            f"/tmp {max(used, default=0) >> 10} MiB of {job.tmp_mib}"
        )
    assert cloud.bucket.read_note(SERVED_KEY) is not None
    assert deployed.newest_version() == found["published"]
