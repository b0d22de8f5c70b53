"""Functions and the file system that they share: the job writes it as one user, the handlers read it as another.

What a shelf looks like is in the docstring of `similarity.shelf.versions`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import build_state
from container.engine import DockerError, Image, docker
from container.instance import HANDLERS_USER, JOBS_USER, MOUNT_PATH, Function, Instance
from container.runtime_api import RuntimeApiError
from container.volume import Volume
from lambdas import days_ago, log_lines
from processes import wait_until
from similarity.incidents.state import IncidentState, state_version
from similarity.shelf.versions import state_name
from tiny import SAMPLE_DIR

ASK = {"text": "A self-driving car hit a woman pushing a bicycle", "num": 1}
READY = {"warm": True}
STARTS = 10
KILLS = 3
STRANGER = "1003:1003"

InProcess = Callable[[str, object], dict[str, Any]]


@pytest.fixture(scope="session")
def best(in_process: InProcess) -> int:
    """The incident that the image's own model and state find first."""
    return first(in_process("similar", ASK))


@pytest.fixture
def job(functions: dict[str, Function], volume: Volume) -> Function:
    """The job that each deployment calls, with the volume of `similar`."""
    return replace(functions["jobs.shelve_state"], volume=volume.name)


@pytest.fixture(scope="session")
def newer(context: Path, best: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state of the image's model that lacks the incident `best`."""
    folder = tmp_path_factory.mktemp("newer")
    table, new = folder / "incidents.csv", folder / "incident_cls.pt"
    lines = (SAMPLE_DIR / "incidents.csv").read_text().splitlines(keepends=True)
    table.write_text("".join(line for line in lines if not line.startswith(f"{best},")))
    paths = ["--model", str(context / "model"), "--out", str(new), "--cache", str(folder / "cache")]
    assert build_state.main([str(table), *paths]) == 0
    new.chmod(0o644)
    return new


def deploy(job: Function, state: Path | None = None, **environment: str) -> dict[str, Any]:
    """What the job answers; with `state` as if the image had that one. Raises RuntimeApiError where the job raises."""
    mounts = () if state is None else (f"type=bind,src={state},dst=/var/task/model/incident_cls.pt,readonly",)
    with Instance(replace(job, mounts=mounts, environment={**job.environment, **environment})) as instance:
        answer = instance.invoke({}).json()
        if "errorMessage" in answer:
            raise RuntimeApiError(answer["errorMessage"])
        return dict(answer)


def first(envelope: dict[str, Any]) -> int:
    assert envelope["statusCode"] == 200, envelope
    return int(envelope["body"]["incidents"][0]["incident_id"])


def problems(instance: Instance) -> list[dict[str, Any]]:
    """The lines of the log that say more than that all went well."""
    return [line for line in log_lines(instance.log()) if line["level"] not in ("INFO", "DEBUG")]


def names(volume: Volume, folder: str) -> list[str]:
    return volume.run("ls", "-A", folder).split()


def put(volume: Volume, state: Path) -> str:
    """Puts a state on the shelf as the job would, but unseen."""
    name = state_name(IncidentState.load(state).built_at, state_version(state))
    docker("cp", state, f"{volume.name}:/new.pt")
    script = (
        f"mkdir shelf/states/.new && cat /new.pt > shelf/states/.new/incident_cls.pt"
        f" && chmod -R u=rwX,g=rX,o= shelf/states/.new && chown -R {JOBS_USER} shelf/states/.new"
        f" && mv shelf/states/.new shelf/states/{name}"
    )
    volume.run("sh", "-c", script)
    return name


def test_the_job_writes_and_the_handlers_read(job: Function, similar: Function, volume: Volume, newer: Path) -> None:
    answer = deploy(job, newer)
    assert answer["serves"] == answer["shelved"] == state_name(IncidentState.load(newer).built_at, state_version(newer))
    assert names(volume, "shelf/states") == [answer["shelved"]]
    in_image = IncidentState.load(newer)
    with Instance(similar) as instance:
        found = instance.ask({**ASK, "num": -1})["body"]["incidents"]
        assert sorted(each["incident_id"] for each in found) == in_image.incident_ids.tolist()
        assert problems(instance) == []


def test_nobody_but_the_job_may_write_states_and_only_the_group_reads_them(
    job: Function, similar: Function, volume: Volume
) -> None:
    name = deploy(job)["shelved"]
    stat = "shelf shelf/states shelf/models huggingface"
    found = volume.run("sh", "-c", f"stat --format '%a %u:%g' {stat} shelf/states/{name} shelf/states/{name}/*")
    assert found.splitlines() == [f"{mode} {JOBS_USER}" for mode in ("750", "750", "750", "2770", "750", "640")]
    with Instance(similar) as instance:
        assert instance.run("id", "-u") == HANDLERS_USER.partition(":")[0]
        for path in ("written", "shelf/written", "shelf/states/written", f"shelf/states/{name}/written"):
            with pytest.raises(DockerError, match="Permission denied"):
                instance.run("touch", f"{MOUNT_PATH}/{path}")
        for command in (["rm", "-r"], ["mv", "-t", "/tmp"]):
            with pytest.raises(DockerError, match=r"Permission denied|Read-only"):
                instance.run(*command, f"{MOUNT_PATH}/shelf/states/{name}")
        instance.run("mkdir", f"{MOUNT_PATH}/huggingface/hub")
        instance.run("touch", f"{MOUNT_PATH}/huggingface/hub/model")
        with pytest.raises(DockerError, match="Permission denied"):
            instance.run("ls", f"{MOUNT_PATH}/shelf", user=STRANGER)
    assert names(volume, "shelf/states") == [name]
    assert volume.run("stat", "--format", "%g", "huggingface/hub") == HANDLERS_USER.partition(":")[2]


def test_what_an_earlier_version_left_is_put_right(job: Function, similar: Function, volume: Volume) -> None:
    """One user for all Lambdas, and copies of model and state."""
    left = (
        "mkdir -p incidents/models/1 huggingface/hub && touch incidents/models/1/weights huggingface/hub/model"
        f" && chmod 755 huggingface huggingface/hub && chown -R {JOBS_USER} ."
    )
    volume.run("sh", "-c", left)
    deploy(job)
    assert "incidents" not in names(volume, ".")
    with Instance(similar) as instance:
        instance.run("sh", "-c", f"echo new > {MOUNT_PATH}/huggingface/hub/model")
    volume.run("sh", "-c", "touch --date='2 hours ago' .old-*")
    deploy(job)
    assert sorted(names(volume, ".")) == ["huggingface", "shelf"]


def test_many_that_start_at_once_beside_many_jobs_all_answer(
    job: Function, similar: Function, volume: Volume, best: int
) -> None:
    with ExitStack() as stack, ThreadPoolExecutor(2 * STARTS) as pool:
        instances = list(pool.map(Instance, [similar, job] * STARTS))
        for instance in instances:
            stack.push(instance)
        handlers, jobs = instances[::2], instances[1::2]
        shelving = [pool.submit(each.invoke, {}) for each in jobs]
        assert [first(answer) for answer in pool.map(lambda each: each.ask(ASK), handlers)] == [best] * STARTS
        answers = [each.result().json() for each in shelving]
        assert len({answer["shelved"] for answer in answers}) == 1, answers
    assert names(volume, "shelf/states") == [answers[0]["shelved"]]


def weights_mapped(instance: Instance) -> set[str]:
    """The files with weights that the process has in its memory."""
    return set(re.findall(r"\S+\.safetensors", instance.run("cat", "/proc/1/maps")))


def test_the_model_is_mapped_from_the_image_and_from_the_volume_only_where_that_is_set(
    job: Function, similar: Function, volume: Volume, best: int
) -> None:
    on_efs = replace(similar, environment={**similar.environment, "MODEL_ON_EFS": "true"})
    version = deploy(job, MODEL_ON_EFS="true")["model"]
    for function, folder in ((similar, "/var/task/model"), (on_efs, f"{MOUNT_PATH}/shelf/models/{version}")):
        with Instance(function) as instance:
            assert first(instance.ask(ASK)) == best
            assert weights_mapped(instance) == {f"{folder}/model.safetensors"}
            assert problems(instance) == []
    assert deploy(job)["model"] is None
    with Instance(on_efs) as instance:
        assert first(instance.ask(ASK)) == best
        assert weights_mapped(instance) == {"/var/task/model/model.safetensors"}


def require_served_by_the_image(function: Function, best: int, reason: str) -> None:
    with Instance(function) as instance:
        for _ in range(3):
            assert first(instance.ask(ASK)) == best
        assert instance.ask(READY)["statusCode"] == 200
        [problem] = problems(instance)
        assert problem["message"] == "shelf unavailable"
        assert re.search(reason, problem["reason"])


def test_a_volume_that_is_empty_or_not_there_leaves_the_image_serving(similar: Function, best: int) -> None:
    require_served_by_the_image(similar, best, "No such file")
    require_served_by_the_image(replace(similar, volume=None), best, "No such file")


def test_a_volume_of_somebody_else_leaves_the_image_serving(
    job: Function, similar: Function, best: int, newer: Path
) -> None:
    deploy(job, newer)
    require_served_by_the_image(replace(similar, user=STRANGER), best, "Permission denied")


def test_a_volume_that_is_read_only_can_be_read_and_stops_a_deployment(
    job: Function, similar: Function, volume: Volume, best: int, newer: Path
) -> None:
    deploy(job, newer)
    with Instance(replace(similar, volume_read_only=True)) as instance:
        assert first(instance.ask(ASK)) != best
        assert problems(instance) == []
    with pytest.raises(RuntimeApiError, match="Read-only file system"):
        deploy(replace(job, volume_read_only=True))


def test_a_full_volume_stops_a_deployment_and_keeps_what_it_has(
    job: Function, similar: Function, image: Image, best: int, newer: Path
) -> None:
    with Volume.create(image.name, size_mib=1) as small:
        name = deploy(replace(job, volume=small.name))["shelved"]
        small.run("sh", "-c", "cat /dev/zero > filler || true")
        with pytest.raises(RuntimeApiError, match="No space left"):
            deploy(replace(job, volume=small.name), newer)
        assert names(small, "shelf/states") == [name]
        with Instance(replace(similar, volume=small.name)) as instance:
            assert first(instance.ask(ASK)) == best
            assert problems(instance) == []


def test_a_flipped_bit_is_refused_and_the_next_deployment_mends_it(
    job: Function, similar: Function, volume: Volume, best: int, newer: Path
) -> None:
    deploy(job)
    name = deploy(job, newer)["shelved"]
    flip = (
        f"import mmap; file = open('shelf/states/{name}/incident_cls.pt', 'r+b')\n"
        "mmap.mmap(file.fileno(), 0)[20_000] ^= 1"
    )
    volume.run("python3", "-c", flip)
    with Instance(similar) as instance:
        assert first(instance.ask(ASK)) == best
        [problem] = problems(instance)
        assert (problem["message"], problem["state"]) == ("state refused", name)
    deploy(job, newer)
    with Instance(similar) as instance:
        assert first(instance.ask(ASK)) != best


def test_a_job_that_is_killed_halfway_leaves_nothing_to_trip_over(
    job: Function, similar: Function, volume: Volume, best: int, tmp_path: Path
) -> None:
    """It is killed with some files of the model written: the last one is too large to be copied before that."""
    endless = tmp_path / "zz.safetensors"
    endless.touch(0o644)
    os.truncate(endless, 100 << 30)
    on_efs = replace(job, environment={**job.environment, "MODEL_ON_EFS": "true"})
    stuck = replace(on_efs, mounts=(f"type=bind,src={endless},dst=/var/task/model/{endless.name},readonly",))
    for _ in range(KILLS):
        with Instance(stuck) as instance, ThreadPoolExecutor(1) as pool:
            answering = pool.submit(instance.invoke, {})
            wait_until(
                lambda: endless.name in volume.run("sh", "-c", "ls shelf/models/.new-*/ || true"), "the last file"
            )
            docker("kill", "--signal=KILL", instance.container)
            assert answering.exception() is not None
        with Instance(similar) as instance:
            assert first(instance.ask(ASK)) == best
            assert problems(instance) == []
        volume.run("sh", "-c", "rm -r shelf/models/.new-*")
    volume.run("sh", "-c", "mkdir shelf/models/.new-1 && touch --date='2 hours ago' shelf/models/.new-1")
    version = deploy(on_efs)["model"]
    assert names(volume, "shelf/models") == [version]
    of_image = docker(
        *("run", "--rm", "--network=none", "--entrypoint=sh", "--workdir=/var/task/model", similar.image),
        *("-c", "sha256sum *"),
    )
    expected = {name: digest for digest, name in (line.split() for line in of_image.splitlines())}
    del expected["incident_cls.pt"]
    on_shelf = {path: digest for path, digest in volume.files().items() if "models" in path.parts}
    assert {path.name: digest for path, digest in on_shelf.items()} == expected


@contextmanager
def requests_running(instance: Instance) -> Iterator[list[dict[str, Any]]]:
    """Asks one request after the other meanwhile; gives the answers so far."""
    answers: list[dict[str, Any]] = []
    running = True

    def ask() -> None:
        while running:
            answers.append(instance.ask(ASK))

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        try:
            yield answers
        finally:
            running = False
        asking.result()


def test_a_new_state_is_served_while_requests_run_and_one_of_another_model_refused(
    job: Function, similar: Function, volume: Volume, best: int, newer: Path, tiny_state_path: Path, tmp_path: Path
) -> None:
    deploy(job)
    of_another_model = tmp_path / "other.pt"
    # Newer than all others.
    replace(IncidentState.load(tiny_state_path), built_at=days_ago(-0.001)).save(of_another_model)
    with Instance(similar) as instance, requests_running(instance) as answers:
        wait_until(lambda: len(answers) > 2, "answers")
        deploy(job, newer)
        wait_until(lambda: first(answers[-1]) != best, "the new state")
        put(volume, of_another_model)
        wait_until(lambda: "state refused" in instance.log(), "the refusal")
        after = len(answers)
        wait_until(lambda: len(answers) > after + 2, "answers after the refusal")
    found = [first(answer) for answer in answers]
    assert found == sorted(found, key=lambda incident_id: incident_id != best), "from the old state to the new, once"
