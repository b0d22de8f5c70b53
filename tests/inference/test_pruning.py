"""What is in use or may be stays in the cache; the rest goes."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from lambdas import Image, PassTime, ask, prime, start_again, with_titles
from similarity import cached, pruning
from similarity.cache import Cache
from similarity.manifest import ImageManifest
from similarity.publish import publish_state
from similarity.state import IncidentState


def age(path: Path, seconds: float) -> None:
    for each in (path, *path.glob("*")):
        os.utime(each, (time.time() - seconds,) * 2)


def model_versions(image: Image, tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """So many images deployed one after the other, each with another model; their folders in the cache."""
    folders = []
    for number in range(count):
        model_dir = tmp_path / f"image-{number}"
        shutil.copytree(image.model_dir, model_dir)
        (model_dir / "provenance.json").write_text(json.dumps({"model": "tiny", "number": number}))
        ImageManifest.of(model_dir).write(model_dir)
        monkeypatch.setenv("MODEL_DIR", str(model_dir))
        start_again()
        prime()
        folders.append(Image(model_dir, image.cache_dir).model)
        for folder in folders[:-1]:
            assert folder.exists()  # each was used within a day
    return folders


def test_models_that_were_not_used_for_a_day_go_but_for_the_one_before(
    image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = model_versions(image, tmp_path, 5, monkeypatch)
    day = pruning.MODEL_UNUSED_S
    for folder, seconds in zip(folders, (day - 60, day + 60, day - 120, 3 * day, 5 * day), strict=True):
        age(folder, 10 * day)
        used = image.cache_dir / "used" / folder.name
        used.touch()
        age(used, seconds)
    prime()
    assert [folder.exists() for folder in folders] == [True, False, True, False, True]
    age(image.cache_dir / "used" / folders[0].name, 9 * day)
    age(image.cache_dir / "used" / folders[2].name, 8 * day)
    start_again()
    prime()
    assert [folder.exists() for folder in folders] == [False, False, True, False, True]
    assert {path.name for path in (image.cache_dir / "used").iterdir()} == {folders[2].name, folders[4].name}


def test_using_a_model_is_noted_once_an_hour(image: Image, pass_time: PassTime) -> None:
    prime()
    start_again()
    ask()
    used = image.cache_dir / "used" / image.model.name
    age(used, 7200)
    old = used.stat().st_mtime
    pass_time(cached.LOOK_S)
    ask()
    assert used.stat().st_mtime == old
    pass_time(cached.MARK_USED_S)
    ask()
    assert used.stat().st_mtime > old


def test_states_go_but_for_the_current_the_one_before_and_young_ones(
    image: Image, tiny_state: IncidentState, tmp_path: Path
) -> None:
    prime()
    folders = [image.state]
    for title in ("a", "b", "c"):
        path = tmp_path / "state.pt"
        with_titles(tiny_state, title).save(path)
        folders.append(image.cache_dir / "states" / publish_state(path, image.cache_dir))
    age(folders[0], pruning.STATE_UNUSED_S + 60)
    age(folders[2], pruning.STATE_UNUSED_S + 60)
    age(folders[3], pruning.STATE_UNUSED_S + 60)
    prime()
    assert [folder.exists() for folder in folders] == [False, True, True, True]
    age(folders[1], pruning.STATE_UNUSED_S + 60)
    prime()
    assert [folder.exists() for folder in folders] == [False, False, True, True]


def test_leftovers_go_when_nobody_can_be_writing_them(image: Image) -> None:
    prime()
    old, young, moved, bad = (
        image.cache_dir / "models" / name for name in (".new-old", ".new-young", ".old-moved", ".bad-bit")
    )
    for path in (old, young, moved, bad):
        path.mkdir()
        (path / "model.safetensors").write_text("half")
    for path in (old, moved, bad):
        age(path, pruning.LEFTOVER_S + 60)
    time_file = image.cache_dir / "lock" / ".time-dead"
    time_file.touch()
    age(time_file, pruning.LEFTOVER_S + 60)
    prime()
    assert [path.exists() for path in (old, young, moved, bad, time_file)] == [False, True, False, True, False]
    # One that is slow has its last chunk only just written.
    age(young, pruning.LEFTOVER_S + 60)
    (young / "model.safetensors").touch()
    age(bad, pruning.MODEL_UNUSED_S + 60)
    prime()
    assert [path.exists() for path in (young, bad)] == [True, False]


def test_a_state_that_is_pruned_before_it_is_in_use_is_written_again(
    image: Image, newer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a Lambda is frozen for long just before it moves the pointer."""
    prime()
    point_to = Cache.point_to
    pruned = []

    def prune_and_point(cache: Cache, state: str) -> None:
        if not pruned:
            pruned.append(state)
            shutil.rmtree(cache.folder("states", state))
        point_to(cache, state)

    monkeypatch.setattr(Cache, "point_to", prune_and_point)
    version = publish_state(newer, image.cache_dir)
    assert pruned == [version]
    assert (image.cache_dir / "states" / version / "incident_cls.pt").read_bytes() == newer.read_bytes()
