"""Functions and the file system that they share: filled by the first starts, used by later ones, never in the way.

What a whole cache looks like is in the docstring of `similarity.cache`.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

import build_state
from container.engine import Image, docker
from container.instance import ACCESS_POINT_USER, MOUNT_PATH, Function, Instance
from container.volume import Volume
from tiny import SAMPLE_DIR

CACHE = PurePosixPath("incidents")
WARM = {"warm": True}
ASK = {"text": "A self-driving car hit a woman pushing a bicycle", "num": 1}
STARTS = 20
KILLS = 50
# About what copying model and state of the quick start takes, from the answer on.
FILL_S = 0.3
# A new state is taken up within a minute.
TAKEN_UP_S = 60.0

InProcess = Callable[[str, object], dict[str, Any]]


@pytest.fixture(scope="session")
def best(in_process: InProcess) -> int:
    """The incident that the image's own model and state find first."""
    return first(in_process("similar", ASK))


@pytest.fixture
def filled(similar: Function, volume: Volume) -> Volume:
    """The volume of `similar` after a deployment's priming."""
    with Instance(similar) as instance:
        assert instance.ask(WARM)["statusCode"] == 200
    return volume


def first(envelope: dict[str, Any]) -> int:
    assert envelope["statusCode"] == 200, envelope
    return int(envelope["body"]["incidents"][0]["incident_id"])


def events(log: str) -> list[dict[str, Any]]:
    """The lines of JSON in a log, which are what went another way than planned."""
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]


def versions(volume: Volume, kind: str) -> set[str]:
    """Names of all that is in a folder of the cache, what is written and what was set aside included."""
    return set(volume.run("sh", "-c", f"ls -A {CACHE / kind}").split())


def require_one_whole_version(volume: Volume, function: Function) -> None:
    """Model and state of the image, once, bit for bit; nothing half written."""
    (model,), states = versions(volume, "models"), versions(volume, "states") - {"current"}
    (state,) = states
    assert all(re.fullmatch("[0-9a-f]{64}", name) for name in (model, state))
    assert json.loads(volume.run("cat", str(CACHE / "states" / "current")))["version"] == state
    of_image = docker(
        *("run", "--rm", "--network=none", "--entrypoint=sh", "--workdir=/var/task/model", function.image),
        *("-c", "sha256sum *"),
    )
    expected = {name: digest for digest, name in (line.split() for line in of_image.splitlines())}
    del expected["manifest.json"]
    cached = {path: digest for path, digest in volume.files().items() if path.name in expected}
    assert {path.name: digest for path, digest in cached.items()} == expected
    assert {path.parent for path in cached} == {CACHE / "models" / model, CACHE / "states" / state}


def test_twenty_that_start_at_once_leave_one_whole_version(similar: Function, volume: Volume, best: int) -> None:
    with ExitStack() as stack, ThreadPoolExecutor(STARTS) as pool:
        instances = list(pool.map(lambda _: Instance(similar), range(STARTS)))
        for instance in instances:
            stack.push(instance)
        assert [first(answer) for answer in pool.map(lambda each: each.ask(ASK), instances)] == [best] * STARTS
        assert {answer["statusCode"] for answer in pool.map(lambda each: each.ask(WARM, 180), instances)} == {200}
        logged = [event for instance in instances for event in events(instance.log())]
        assert not [event for event in logged if event["level"] != "info"]
        copied = [kind for event in logged if event["event"] == "cache-filled" for kind in event["filled"]]
        assert sorted(copied) == ["models", "states"]
        assert [first(answer) for answer in pool.map(lambda each: each.ask(ASK), instances)] == [best] * STARTS
    require_one_whole_version(volume, similar)


def weights_mapped(instance: Instance) -> set[str]:
    """The files with weights that the process has in its memory."""
    return set(re.findall(r"\S+\.safetensors", instance.run("cat", "/proc/1/maps")))


def test_a_later_start_takes_the_model_from_the_volume(similar: Function, volume: Volume, best: int) -> None:
    with Instance(similar) as instance:
        assert first(instance.ask(ASK)) == best
        assert weights_mapped(instance) == {"/var/task/model/model.safetensors"}
        assert instance.ask(WARM)["statusCode"] == 200
    with Instance(similar) as instance:
        assert first(instance.ask(ASK)) == best
        (model,) = versions(volume, "models")
        assert weights_mapped(instance) == {f"{MOUNT_PATH}/{CACHE}/models/{model}/model.safetensors"}
        assert not [event for event in events(instance.log()) if event["level"] != "info"]


def require_served_by_the_image(function: Function, best: int, reason: str) -> None:
    with Instance(function) as instance:
        for _ in range(3):
            assert first(instance.ask(ASK)) == best
        assert instance.ask(WARM)["statusCode"] == 200
        (event,) = [event for event in events(instance.log()) if event["level"] != "info"]
        assert event["serves"] == "image"
        assert re.search(reason, event["reason"])


def test_a_full_volume_does_not_keep_it_from_answering(similar: Function, image: Image, best: int) -> None:
    with Volume.create(image.name, size_mib=20) as small:
        require_served_by_the_image(replace(similar, volume=small.name), best, "No space left")
        assert not [name for kind in ("models", "states") for name in versions(small, kind) if name.startswith(".")]


def test_a_read_only_volume_does_not_keep_it_from_answering(similar: Function, best: int) -> None:
    require_served_by_the_image(replace(similar, volume_read_only=True), best, "Read-only file system")


def test_a_volume_that_is_not_there_does_not_keep_it_from_answering(similar: Function, best: int) -> None:
    require_served_by_the_image(replace(similar, volume=None), best, "No such file|Read-only file system")


def test_a_volume_of_somebody_else_does_not_keep_it_from_answering(
    similar: Function, filled: Volume, best: int
) -> None:
    require_served_by_the_image(replace(similar, user="1002:1002"), best, "Permission denied")


def test_a_flipped_bit_is_noticed_and_mended(similar: Function, filled: Volume, best: int) -> None:
    (model,) = versions(filled, "models")
    with_a_bit_flipped = (
        f"import mmap; file = open('{CACHE}/models/{model}/model.safetensors', 'r+b')\n"
        "mmap.mmap(file.fileno(), 0)[50_000_000] ^= 1"
    )
    filled.run("python3", "-c", with_a_bit_flipped)
    with Instance(similar) as instance:
        assert first(instance.ask(ASK)) == best
        assert instance.ask(WARM)["statusCode"] == 200
        assert [event["event"] for event in events(instance.log()) if event["level"] != "info"] == ["cache-corrupt"]
    filled.run("sh", "-c", f"rm -r {CACHE}/models/.bad-*")
    require_one_whole_version(filled, similar)


def test_kills_in_the_midst_of_filling_leave_nothing_to_trip_over(similar: Function, volume: Volume, best: int) -> None:
    """An hour passes between two starts, so that the lock of who was killed and what it left are old."""
    chance = random.Random(0)
    cut_off = 0
    for _ in range(KILLS):
        with Instance(similar) as instance:
            assert first(instance.ask(ASK)) == best  # after which it fills
            time.sleep(chance.uniform(0, FILL_S))
            docker("kill", "--signal=KILL", instance.container)
            assert not [event for event in events(instance.log()) if event["level"] != "info"]
        whole = "current" in versions(volume, "states")
        cut_off += not whole
        if whole:  # the next one is to find something to fill
            volume.run("sh", "-c", f"rm -r {CACHE}/models/* {CACHE}/states/* {CACHE}/seen/*")
        volume.run("sh", "-c", f"find {CACHE} -exec touch --date='1 hour ago' {{}} +")
    assert cut_off > KILLS // 4
    with Instance(similar) as instance:
        assert first(instance.ask(ASK)) == best
        assert instance.ask(WARM)["statusCode"] == 200
    require_one_whole_version(volume, similar)


def publish(function: Function, volume: Volume, state: Path) -> None:
    """As a person does where the file system is mounted."""
    docker("cp", state, f"{volume.name}:/new.pt")
    volume.run("sh", "-c", f"cat /new.pt > new.pt && chown {ACCESS_POINT_USER} new.pt")
    docker(
        *("run", "--rm", "--user", ACCESS_POINT_USER, "--network=none", "--entrypoint=/opt/venv/bin/python"),
        *(f"--env={name}={value}" for name, value in function.environment.items()),
        *(f"--mount=type=volume,src={volume.name},dst={MOUNT_PATH}", function.image),
        *("-m", "similarity.publish", f"{MOUNT_PATH}/new.pt"),
    )


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


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TAKEN_UP_S
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {TAKEN_UP_S:g} s"
        time.sleep(0.1)


def test_a_new_state_is_taken_up_while_requests_run(
    similar: Function, filled: Volume, best: int, context: Path, tmp_path: Path, tiny_state_path: Path
) -> None:
    """And one of another model is refused."""
    table, new = tmp_path / "incidents.csv", tmp_path / "new.pt"
    lines = (SAMPLE_DIR / "incidents.csv").read_text().splitlines(keepends=True)
    table.write_text("".join(line for line in lines if not line.startswith(f"{best},")))
    assert build_state.main([str(table), "--model", str(context / "model"), "--out", str(new)]) == 0
    with Instance(similar) as instance, requests_running(instance) as answers:
        wait_until(lambda: len(answers) > 2, "answers")
        publish(similar, filled, new)
        wait_until(lambda: first(answers[-1]) != best, "the new state")
        publish(similar, filled, tiny_state_path)
        wait_until(lambda: "state-refused" in instance.log(), "the refusal")
        after = len(answers)
        wait_until(lambda: len(answers) > after + 2, "answers after the refusal")
    found = [first(answer) for answer in answers]
    assert found == sorted(found, key=lambda incident_id: incident_id != best), "from the old state to the new, once"
