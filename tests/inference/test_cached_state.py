"""States in the cache: new ones are taken up while requests run, bad ones refused, and the last that came wins."""

from __future__ import annotations

import dataclasses
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from lambdas import QUESTION, Image, Logged, PassTime, ask, prime, start_again, titles, with_titles
from similarity import cached, publish
from similarity.cache import Cache
from similarity.manifest import ImageManifest
from similarity.publish import publish_state
from similarity.state import IncidentState


def test_a_newer_state_is_taken_up_within_a_minute(
    image: Image, newer: Path, pass_time: PassTime, logged: Logged
) -> None:
    assert cached.LOOK_S <= 30
    prime()
    publish_state(newer, image.cache_dir)
    assert titles() != {"newer"}  # looked a moment ago
    pass_time(cached.LOOK_S)
    assert titles() == {"newer"}
    start_again()
    assert titles() == {"newer"}
    assert logged() == []


def test_a_state_is_taken_up_by_the_handler_that_loads_no_model(
    image: Image, newer: Path, pass_time: PassTime, loaded_from: list[Path]
) -> None:
    event = {"embed": [1.0] * 32}
    prime("embed_to_db_similar")
    publish_state(newer, image.cache_dir)
    pass_time(cached.LOOK_S)
    assert ask("embed_to_db_similar", event)["incidents"][0]["title"] == "newer"
    assert loaded_from == []


def test_a_new_image_puts_its_state_in_use_and_an_old_one_does_not_take_it_back(
    image: Image, newer: Path, tiny_state: IncidentState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prime()
    publish_state(newer, image.cache_dir)
    deployed = tmp_path / "deployed"
    shutil.copytree(image.model_dir, deployed)
    with_titles(tiny_state, "deployed").save(deployed / "incident_cls.pt")
    ImageManifest.of(deployed).write(deployed)
    monkeypatch.setenv("MODEL_DIR", str(deployed))
    start_again()
    assert titles() == {"deployed"}  # from its image: the cache has not seen it
    prime()
    pointer = Cache(image.cache_dir).pointer()
    assert pointer is not None
    assert pointer.version == Image(deployed, image.cache_dir).manifest.state.id
    monkeypatch.setenv("MODEL_DIR", str(image.model_dir))
    start_again()
    prime()
    assert titles() == {"deployed"}
    # What was published last wins, whoever brought it first.
    publish_state(newer, image.cache_dir)
    start_again()
    assert titles() == {"newer"}


@pytest.fixture
def newest(tiny_state: IncidentState, tmp_path: Path) -> Path:
    """As `newer`, and other than that: half of the incidents are gone."""
    path = tmp_path / "newest.pt"
    part = {field: getattr(tiny_state, field)[:2] for field in ("incident_ids", "report_counts", "means", "titles")}
    with_titles(dataclasses.replace(tiny_state, **part), "newest").save(path)
    return path


def damage(path: Path) -> None:
    """Flips a bit."""
    content = bytearray(path.read_bytes())
    content[-40] ^= 4
    path.write_bytes(content)


def bad_states(tiny_state: IncidentState, image: Image, tmp_path: Path) -> dict[str, Path]:
    no_state, other_model, other_size = (tmp_path / name for name in ("none.pt", "model.pt", "size.pt"))
    no_state.write_bytes(b"no state at all")
    dataclasses.replace(tiny_state, model_fingerprint="0" * 64).save(other_model)
    dataclasses.replace(tiny_state, means=np.ones((len(tiny_state), 5), dtype=np.float32)).save(other_size)
    return {"none": no_state, "other model": other_model, "other dimension": other_size}


@pytest.mark.parametrize("kind", ["none", "other model", "other dimension"])
@pytest.mark.parametrize("module", ["similar", "embed_to_db_similar"])
def test_a_bad_state_is_refused_and_the_old_one_serves_on(
    kind: str,
    module: str,
    image: Image,
    newer: Path,
    newest: Path,
    tiny_state: IncidentState,
    tmp_path: Path,
    pass_time: PassTime,
    logged: Logged,
) -> None:
    event = QUESTION if module == "similar" else {"embed": [1.0] * 32}
    prime(module)
    of_image = ask(module, event)
    publish_state(newer, image.cache_dir)
    pass_time(cached.LOOK_S)
    of_newer = ask(module, event)
    assert of_newer != of_image
    version = publish_state(bad_states(tiny_state, image, tmp_path)[kind], image.cache_dir)
    for _ in range(3):
        pass_time(cached.LOOK_S)
        assert ask(module, event) == of_newer
    [line] = logged()
    assert (line["level"], line["event"], line["version"]) == ("error", "state-refused", version)
    start_again()
    assert ask(module, event) == of_newer  # as do those that have been there all the time
    publish_state(newest, image.cache_dir)
    pass_time(cached.LOOK_S)
    assert ask(module, event) not in (of_newer, of_image)


def test_a_state_whose_cached_copy_is_damaged_can_be_published_again(
    image: Image, newer: Path, newest: Path, pass_time: PassTime, logged: Logged
) -> None:
    prime()
    version = publish_state(newer, image.cache_dir)
    publish_state(newest, image.cache_dir)
    damage(image.cache_dir / "states" / version / "incident_cls.pt")
    assert publish_state(newer, image.cache_dir) == version
    start_again()
    assert titles() == {"newer"}
    assert logged() == []


def test_a_newer_state_that_breaks_in_the_cache_gives_way_to_the_one_before(
    image: Image, newer: Path, newest: Path, tiny_state: IncidentState, logged: Logged
) -> None:
    prime()
    publish_state(newer, image.cache_dir)
    version = publish_state(newest, image.cache_dir)
    damage(image.cache_dir / "states" / version / "incident_cls.pt")
    start_again()
    assert titles() == set(tiny_state.titles)
    assert [line["event"] for line in logged()] == ["cache-corrupt"]
    prime()
    start_again()
    assert titles() == {"newer"}


def test_no_request_fails_while_states_come_and_go(
    image: Image, tiny_state: IncidentState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached, "LOOK_S", 0.01)
    prime()
    bad = list(bad_states(tiny_state, image, tmp_path).values())
    stop, seen, failures = threading.Event(), set[str](), list[object]()

    def keep_asking() -> None:
        while not stop.is_set():
            try:
                found = titles()
                assert len(found) == 1 or found == set(tiny_state.titles)  # of one state, never of two
                seen.update(found)
            except BaseException as error:
                failures.append(error)
                raise

    threads = [threading.Thread(target=keep_asking) for _ in range(3)]
    for thread in threads:
        thread.start()
    published = [f"published {number}" for number in range(6)]
    for number, title in enumerate(published):
        path = tmp_path / "published.pt"
        with_titles(tiny_state, title).save(path)
        publish_state(bad[number % len(bad)], image.cache_dir)
        publish_state(path, image.cache_dir)
        deadline = time.monotonic() + 10
        while title not in seen and time.monotonic() < deadline and not failures:
            time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join(10)
    assert failures == []
    assert seen >= set(published)


def test_publishing_from_the_command_line(
    image: Image, newer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    prime()
    assert publish.main([str(newer)]) == 0
    version = capsys.readouterr().out.strip()
    start_again()
    assert titles() == {"newer"}
    broken = tmp_path / "broken.pt"
    broken.write_text("broken")
    assert publish.main([str(broken)]) == 1
    assert "isn't an incident state that can be used" in capsys.readouterr().err
    pointer = Cache(image.cache_dir).pointer()
    assert pointer is not None
    assert pointer.version == version
    monkeypatch.delenv("INCIDENT_CACHE_DIR")
    assert publish.main([str(newer)]) == 1
