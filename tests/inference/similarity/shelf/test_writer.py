"""What the job keeps on the shelf and what it removes; modes and leftovers of the file system."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from jobs.shelve_state import ShelvingError
from lambdas import Image, days_ago, make_old, with_titles
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.errors import StateError
from similarity.incidents import state as state_module
from similarity.incidents.state import IncidentState
from similarity.shelf.versions import UNDATED, state_names
from similarity.shelf.writer import HUGGINGFACE_DIRNAME, KEPT_S, prepare, put_models_aside, shelve_own, tidy
from tiny import TINY_TEXTS, state_of_texts, write_tiny_longformer


@pytest.fixture(scope="module")
def of_another_model(tmp_path_factory: pytest.TempPathFactory) -> IncidentState:
    encoder = TorchEncoder.load(write_tiny_longformer(tmp_path_factory.mktemp("other"), seed=1))
    return state_of_texts(encoder, TINY_TEXTS)


def put_of_age(image: Image, state: IncidentState, days: float) -> str:
    """Puts a state on the shelf as it was built and put there so long ago."""
    name = image.put(with_titles(state, f"{days} days", days_ago(days)))
    make_old(image.states / name, days * 24 * 3600)
    return name


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_the_newest_three_that_the_image_can_use_and_all_young_ones_stay(
    image: Image, tiny_state: IncidentState, of_another_model: IncidentState
) -> None:
    old = [put_of_age(image, tiny_state, days) for days in (50, 40, 30, 20)]
    others = [put_of_age(image, of_another_model, days) for days in (45, 35, 0.5)]
    damaged = put_of_age(image, tiny_state, 10)
    os.truncate(image.states / damaged / "incident_cls.pt", 100)
    make_old(image.states / damaged, 10 * 24 * 3600)
    young = put_of_age(image, tiny_state, 0.9)
    answer = image.shelve(with_titles(tiny_state, "deployed", days_ago(0)))
    # The newest three, with the deployed one; the newest of another model, which a deployment taken back would serve.
    assert set(state_names(image.shelf)) == {answer["shelved"], young, old[3], others[2]}
    assert set(answer["removed"]) == {*old[:3], *others[:2], damaged}
    assert answer["serves"] == answer["shelved"]


def test_many_young_states_all_stay(image: Image, tiny_state: IncidentState) -> None:
    names = {put_of_age(image, tiny_state, hours / 24) for hours in range(1, 8)}
    deployed = image.shelve()["shelved"]
    assert set(state_names(image.shelf)) == {*names, deployed}


def test_the_newest_of_another_model_stays_however_old(
    image: Image, tiny_state: IncidentState, of_another_model: IncidentState
) -> None:
    old = [put_of_age(image, of_another_model, days) for days in (90, 60)]
    answer = image.shelve(with_titles(tiny_state, "deployed", days_ago(0)))
    assert state_names(image.shelf) == [answer["shelved"], old[1]]


def fail_to_open(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on the file system fails for files whose path has this part."""
    open_file = Path.open

    def fail(path: Path, *options: Any, **more: Any) -> Any:
        if part in str(path):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return open_file(path, *options, **more)

    monkeypatch.setattr(Path, "open", fail)


def test_a_state_that_the_file_system_fails_to_read_stays(
    image: Image, tiny_state: IncidentState, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = put_of_age(image, tiny_state, 10)
    fail_to_open(old, monkeypatch)
    answer = image.shelve(with_titles(tiny_state, "deployed", days_ago(0)))
    assert answer["removed"] == []
    assert state_names(image.shelf) == [answer["shelved"], old]


def test_a_deployed_state_that_can_not_be_read_back_stops_the_deployment_and_removes_nothing(
    image: Image, tiny_state: IncidentState, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = [put_of_age(image, tiny_state, days) for days in (10, 20, 30, 40)]
    new = image.put(with_titles(tiny_state, "deployed", days_ago(0)))
    shutil.copy(image.states / new / "incident_cls.pt", image.state_path)
    monkeypatch.setattr("similarity.shelf.writer.put", lambda *_: False)
    fail_to_open(new, monkeypatch)
    with pytest.raises(StateError) as caught:
        tidy(image.shelf, shelve_own(image.shelf, image.state_path, lambda _: None).name, None, lambda _: None)
    assert new in caught.value.detail
    assert state_names(image.shelf) == [new, *old]


def test_a_deployed_state_that_another_run_removes_stops_the_deployment(
    image: Image, tiny_state: IncidentState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one with another undated state does, which takes its place."""
    monkeypatch.setattr("similarity.shelf.writer.put", lambda *_: False)
    with pytest.raises(ShelvingError, match="can't be read back: deploy again"):
        image.shelve(with_titles(tiny_state, "deployed"))


def test_a_whole_state_of_a_format_that_this_version_can_not_read_counts_as_one_that_another_can(
    image: Image, tiny_state: IncidentState, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as later:
        later.setattr(state_module, "VERSION", 2)
        of_later_version = put_of_age(image, tiny_state, 10)
    answer = image.shelve(with_titles(tiny_state, "deployed", days_ago(0)))
    assert answer["removed"] == []
    assert state_names(image.shelf) == [answer["shelved"], of_later_version]


def test_an_old_deployed_state_stays_on_the_shelf(image: Image, tiny_state: IncidentState) -> None:
    newer = [put_of_age(image, tiny_state, days) for days in (2, 3, 4)]
    answer = image.shelve(with_titles(tiny_state, "deployed", days_ago(100)))
    make_old(image.states / answer["shelved"], KEPT_S + 1)
    again = image.shelve()
    assert again == answer
    assert again["serves"] == newer[0]
    assert state_names(image.shelf) == [*newer, answer["shelved"]]


def test_an_undated_state_is_the_oldest_and_takes_the_place_of_other_undated_ones(
    image: Image, tiny_state: IncidentState
) -> None:
    first = image.shelve(with_titles(tiny_state, "first"))
    assert first["shelved"].startswith(UNDATED)
    assert first["serves"] == first["shelved"]
    second = image.shelve(with_titles(tiny_state, "second"))
    assert state_names(image.shelf) == [second["shelved"]]
    assert second["removed"] == [first["shelved"]]
    dated = put_of_age(image, tiny_state, 300)
    third = image.shelve(with_titles(tiny_state, "third"))
    assert state_names(image.shelf) == [dated, third["shelved"]]
    assert third["serves"] == dated


def test_the_shelf_is_the_jobs_and_the_group_may_write_beside_it(image: Image) -> None:
    before = os.umask(0o077)
    try:
        image.shelve()
    finally:
        os.umask(before)
    assert [mode(image.shelf), mode(image.states), mode(image.shelf / "models")] == [0o750] * 3
    assert mode(image.mount / HUGGINGFACE_DIRNAME) == 0o2770
    [name] = state_names(image.shelf)
    assert mode(image.states / name) == 0o750
    assert mode(image.states / name / "incident_cls.pt") == 0o640


def test_models_that_one_user_has_downloaded_become_the_groups(image: Image, tmp_path: Path) -> None:
    folder = image.mount / HUGGINGFACE_DIRNAME / "hub" / "models--a"
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"1")
    (folder / "weights").chmod(0o644)
    outside = tmp_path / "outside"
    outside.touch(0o600)
    (folder / "link").symlink_to(outside)
    for each in (folder, folder.parent):
        each.chmod(0o755)
    prepare(image.shelf)
    assert mode(folder) == mode(folder.parent) == 0o2775
    assert mode(folder / "weights") == 0o664
    assert mode(outside) == 0o600


def test_downloads_that_go_on_meanwhile_do_not_stop_the_deployment(
    image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler renames and removes files while the job goes through the folder."""
    hub = image.mount / HUGGINGFACE_DIRNAME / "hub"
    (hub / "gone" / "inside").mkdir(parents=True)
    for name in ("a", "gone.incomplete", "z"):
        (hub / name).touch(0o644)
    lstat = Path.lstat

    def removing(path: Path) -> os.stat_result:
        if path.name == "gone":
            shutil.rmtree(path)
        elif path.name == "gone.incomplete":
            path.unlink()
        return lstat(path)

    monkeypatch.setattr(Path, "lstat", removing)
    prepare(image.shelf)
    monkeypatch.undo()
    assert {path.name: mode(path) for path in hub.iterdir()} == {"a": 0o664, "z": 0o664}


def test_runs_that_meet_put_the_same_things_aside_once(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(image.shelf)
    former, model = image.mount / "incidents", image.shelf / "models" / "0123456789abcdef"
    former.mkdir()
    model.mkdir()
    rename = Path.rename

    def second(path: Path, target: Path) -> Path:
        rename(path, path.with_name(".old-by-the-first"))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", second)
    prepare(image.shelf)
    put_models_aside(image.shelf)
    assert not former.exists()
    assert not model.exists()


def test_what_the_former_cache_left_goes_when_no_lambda_can_use_it_any_more(image: Image) -> None:
    weights = image.mount / "incidents" / "models" / "1" / "model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"1")
    with weights.open("rb") as opened:
        prepare(image.shelf)
        assert not (image.mount / "incidents").exists()
        prepare(image.shelf)
        [aside] = image.mount.glob(".old-*")
        make_old(aside, 3601)
        prepare(image.shelf)
        assert list(image.mount.glob(".old-*")) == []
        assert opened.read() == b"1"


def test_without_the_mount_nothing_is_written_in_its_place(image: Image) -> None:
    image.mount.rmdir()
    with pytest.raises(FileNotFoundError):
        prepare(image.shelf)
    assert not image.mount.exists()
