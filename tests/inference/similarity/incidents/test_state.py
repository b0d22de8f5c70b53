"""The incident state: both forms load, whatever else is refused, and nothing is lost when saving fails."""

from __future__ import annotations

import dataclasses
import os
import pickle
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from similarity.encoder.torch_encoder import TorchEncoder
from similarity.errors import StateError
from similarity.incidents.ranking import Ranking
from similarity.incidents.state import MAX_SIZE, IncidentState
from similarity.incidents.vector_index import Index
from tiny import ROOT, TINY_MAX_TOKENS, RunsCode, write_tiny_longformer


def make_state(incidents: int = 3, **changes: Any) -> IncidentState:
    fields: dict[str, Any] = {
        "incident_ids": np.arange(1, incidents + 1) * 10,
        "report_counts": np.arange(1, incidents + 1),
        "means": np.arange(incidents * 4, dtype=np.float32).reshape(incidents, 4) + 1,
        "titles": [f"Incident {number} — ünïcode" for number in range(incidents)],
        "model": "a/model",
        "model_fingerprint": "f" * 64,
        "precision": "float32",
    }
    return IncidentState(**{**fields, **changes})


def test_saving_and_loading_gives_the_same(tmp_path: Path) -> None:
    state = make_state()
    state.save(tmp_path / "s.pt")
    again = IncidentState.load(tmp_path / "s.pt")
    for field in ("incident_ids", "report_counts", "means"):
        assert np.array_equal(getattr(again, field), getattr(state, field)), field
        assert getattr(again, field).dtype == getattr(state, field).dtype
    assert (again.titles, again.model, again.model_fingerprint, again.precision) == (
        state.titles,
        "a/model",
        "f" * 64,
        "float32",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["s.pt"]


# All that a state may say beside the fields of the first version.
LATER: dict[str, Any] = {
    "built_at": "2026-11-26T07:04:05Z",
    "dates": ["2015-05-19", "", "2026-02-28"],
    "source": {
        "kind": "aiid-snapshot",
        "name": "backup-20261123100000.tar.bz2",
        "date": "2026-11-23T10:00:00Z",
    },
    "options": {"vectors": "published", "responses": "include"},
    "max_tokens": 2000,
    "text_preparation": "none",
    "duplicates": np.array([[5, 10], [7, 99]]),
    "dissimilar": np.array([[20, 30], [10, 20]]),
    "collection": "Événements d'aviation",
    "record_url": "https://records.example/?no={id}",
    "urls": ["", "http://records.example:8080/geese", "https://[2001:db8::1]/c#2"],
    "licence": "CC BY-SA 4.0",
    "points": np.array([[-1, 1], [0.25, -0.1], [1e-30, 0]], dtype=np.float32),
}


def test_what_a_state_says_of_its_origin_is_kept(tmp_path: Path) -> None:
    make_state(**LATER).save(tmp_path / "s.pt")
    again = IncidentState.load(tmp_path / "s.pt")
    for name, value in LATER.items():
        found = getattr(again, name)
        assert np.array_equal(found, value) if isinstance(value, np.ndarray) else found == value, name
    content = torch.load(tmp_path / "s.pt", weights_only=True)
    for name, value in LATER.items():
        assert content[name].tolist() == value.tolist() if isinstance(value, np.ndarray) else content[name] == value, (
            name
        )


@pytest.mark.parametrize("missing", [*([name] for name in LATER), list(LATER)])
def test_a_state_of_an_earlier_version_loads(missing: list[str], tmp_path: Path) -> None:
    make_state(**LATER).save(tmp_path / "s.pt")
    content = torch.load(tmp_path / "s.pt", weights_only=True)
    torch.save({name: value for name, value in content.items() if name not in missing}, tmp_path / "s.pt")
    state, plain = IncidentState.load(tmp_path / "s.pt"), make_state()
    assert (plain.max_tokens, plain.text_preparation, plain.duplicates.shape) == (0, "unidecode", (0, 2))
    assert plain.collection == "AI Incident Database"
    assert (plain.record_url, list(plain.urls)) == ("https://incidentdatabase.ai/cite/{id}", [])
    assert (plain.licence, plain.points.shape, str(plain.points.dtype)) == ("", (0, 2), "float32")
    for name in missing:
        found, expected = getattr(state, name), getattr(plain, name)
        assert np.array_equal(found, expected) if isinstance(expected, np.ndarray) else found == expected, name


IDS = st.integers(1, 10**6)
TEXTS = st.text(st.characters(exclude_categories=()), max_size=30)
ORIGINS = st.fixed_dictionaries(
    {
        "titles": st.lists(TEXTS, min_size=3, max_size=3),
        "dates": st.just([]) | st.lists(st.just("") | st.dates().map(str), min_size=3, max_size=3),
        "source": st.just({})
        | st.fixed_dictionaries(
            {
                "kind": st.sampled_from(["csv", "records", "other"]),
                "name": TEXTS,
                "date": st.sampled_from(["", LATER["built_at"]]),
            }
        ),
        "options": st.dictionaries(TEXTS, TEXTS, max_size=3),
        "max_tokens": st.just(0) | st.integers(3, 10**6),
        "text_preparation": TEXTS,
        "duplicates": st.dictionaries(IDS, IDS.map(lambda number: number + 10**6), max_size=5).map(
            lambda became: np.array(sorted(became.items()), dtype=np.int64).reshape(-1, 2)
        ),
        "dissimilar": st.lists(st.tuples(IDS, IDS).filter(lambda pair: pair[0] < pair[1]), max_size=5).map(
            lambda pairs: np.array(pairs, dtype=np.int64).reshape(-1, 2)
        ),
        "points": st.sampled_from([0, 3]).flatmap(
            lambda count: arrays(np.float32, (count, 2), elements=st.floats(-1, 1, width=32))
        ),
    }
)


@pytest.mark.slow
@given(ORIGINS)
def test_whatever_a_state_may_say_is_read_again(tmp_path_factory: Any, origin: dict[str, Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "any-origin.pt"
    state = make_state(**origin)
    state.save(path)
    again, by_torch = IncidentState.load(path), torch.load(path, weights_only=True)
    for name, value in origin.items():
        if isinstance(value, np.ndarray):
            assert np.array_equal(getattr(again, name), value), name
            assert by_torch[name].tolist() == value.tolist()
        else:
            assert getattr(again, name) == by_torch[name] == value, name


def test_the_url_of_an_incident_is_its_own_or_the_template_filled_in() -> None:
    state = make_state(record_url=LATER["record_url"], urls=LATER["urls"])
    expected = ["https://records.example/?no=10", *LATER["urls"][1:]]
    assert [state.url_of(row) for row in range(3)] == expected
    none = make_state(record_url="", urls=["", LATER["urls"][1], ""])
    assert [none.url_of(row) for row in range(3)] == [None, LATER["urls"][1], None]
    assert make_state(record_url="").url_of(1) is None
    twice = make_state(record_url="https://records.example/{id}/{id}.html")
    assert twice.url_of(2) == "https://records.example/30/30.html"


WRONG: dict[str, list[object]] = {
    "dates": [
        "abc", {"a": "b"}, ["2026-11-26"], ["", "", 7], ["", "", "26 November"], ["", "", "20261126"],
        ["", "", "2026-02-30"], torch.ones(3), None,
    ],
    "source": [
        "csv", ["kind", "name", "date"], {"kind": "csv"}, {**LATER["source"], "more": ""},
        {**LATER["source"], "name": 7}, {**LATER["source"], "kind": "gossip"},
        {**LATER["source"], "date": "2026-11-23"}, None,
    ],
    "options": [[("vectors", "auto")], "auto", {"vectors": True}, {"vectors": ["auto"]}, None],
    "max_tokens": [2, 1, -1, 2000.0, True, "2000", None, torch.tensor(2000)],
    "text_preparation": [None, 7, ["unidecode"]],
    "duplicates": [
        {"5": 10}, [[5, 10]], torch.ones(2, 2), torch.tensor([5, 10]), torch.tensor([[5, 10, 11]]), torch.tensor(5),
        torch.empty(0, 3, dtype=torch.int64), torch.tensor([[0, 10]]), torch.tensor([[5, -1]]), torch.tensor([[5, 5]]),
        torch.tensor([[5, 10], [5, 20]]), torch.tensor([[7, 10], [5, 10]]), torch.tensor([[5, 7], [7, 10]]), None,
    ],
    "dissimilar": [
        [(20, 30)], torch.tensor([20.0, 30.0]), torch.tensor([[30, 20]]), torch.tensor([[20, 20]]),
        torch.tensor([[0, 1]]), torch.tensor([[1, 2, 3]]), torch.tensor([[20, 30]]).int(), None,
    ],
    "collection": ["", "  ", "a" * 101, "two\nlines", "a\0b", "\u202eevil", 7, None, ["AIID"]],
    "record_url": [
        "https://records.example/", "javascript:alert({id})", "JAVASCRIPT:alert({id})", "data:text/html,{id}", "{id}",
        "//records.example/{id}", "https:///{id}", "https://records.example/{id}/ {id}", "ftp://records.example/{id}",
        'https://records.example/{id}"onload=', "https://records.example:{id}000000/", "https://[{id}", "\n", 7, None,
        "https://records.example/{id}" + "a" * 2000,
    ],
    "urls": [
        "abc", {"a": "b"}, ["https://records.example/1"], ["", "", 7], ["", "", None], ["", "", "javascript:alert(1)"],
        ["", "", " https://records.example/1"], ["", "", "records.example/1"], ["", "", "https://a/<script>"],
        ["", "", "https://records.example/1\n"], ["", "", "https://a/" + "a" * 2000], torch.ones(3), None,
    ],
    "licence": ["  ", "a" * 101, "two\nlines", "a\0b", "\u202eevil", 7, None, ["CC0"]],
    "points": [
        [[0.0, 0.0]] * 3, "points", 0.5, None, torch.zeros(3, 2).double(), torch.zeros(3, 2).half(),
        torch.zeros(3, 2).long(), torch.zeros(2, 2), torch.zeros(4, 2), torch.zeros(3, 3), torch.zeros(2, 3),
        torch.zeros(6), torch.zeros(0), torch.zeros(0, 3), torch.zeros(3, 2, 1), torch.full((3, 2), torch.nan),
        torch.full((3, 2), torch.inf), torch.tensor([[0, 0], [0, 0], [0, -1.0001]]),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_field_of_the_wrong_type_or_shape_is_refused_in_words(name: str, tmp_path: Path) -> None:
    path = tmp_path / "s.pt"
    make_state(**LATER).save(path)
    content = torch.load(path, weights_only=True)
    for value in WRONG[name]:
        torch.save({**content, name: value}, path)
        with pytest.raises(StateError) as caught:
            IncidentState.load(path)
        _, _, reason = caught.value.detail.partition("that can be used: ")
        assert name in reason, (value, reason)
        assert " must " in reason, (value, reason)


SAVE_WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
import numpy as np
from similarity.incidents.state import IncidentState
state = IncidentState(np.array([1]), np.array([1]), np.ones((1, 2), dtype=np.float32), ["a"], dates=["2026-11-26"])
state.save(sys.argv[1])
assert IncidentState.load(sys.argv[1]).dates == ["2026-11-26"]
"""


def test_a_state_is_saved_and_loaded_where_torch_is_not_installed(tmp_path: Path) -> None:
    path = tmp_path / "s.pt"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "inference")}
    subprocess.run([sys.executable, "-c", SAVE_WITHOUT_TORCH, path], check=True, env=environment)
    assert torch.load(path, weights_only=True)["titles"] == ["a"]


def test_the_time_at_which_a_state_was_built_is_kept_and_may_be_missing(tmp_path: Path) -> None:
    make_state(built_at="2026-11-26T07:04:05Z").save(tmp_path / "s.pt")
    assert IncidentState.load(tmp_path / "s.pt").built_at == "2026-11-26T07:04:05Z"
    content = torch.load(tmp_path / "s.pt", weights_only=True)
    del content["built_at"]  # as earlier versions wrote it
    torch.save(content, tmp_path / "s.pt")
    assert IncidentState.load(tmp_path / "s.pt").built_at == ""


@pytest.mark.parametrize(
    "time", ["yesterday", "2026-11-26", "2026-11-26T07:04:05", "2026-11-26T07:04:05+01:00", "2026-13-26T07:04:05Z", 7]
)
def test_a_time_that_could_be_misread_is_refused(time: object, tmp_path: Path) -> None:
    make_state().save(tmp_path / "s.pt")
    content = torch.load(tmp_path / "s.pt", weights_only=True)
    torch.save({**content, "built_at": time}, tmp_path / "s.pt")
    with pytest.raises(StateError) as caught:
        IncidentState.load(tmp_path / "s.pt")
    assert "built_at must be" in caught.value.detail


def test_a_saved_state_is_what_the_module_docstring_says(tmp_path: Path) -> None:
    make_state().save(tmp_path / "s.pt")
    content = torch.load(tmp_path / "s.pt", weights_only=True)
    assert {name: type(value) for name, value in content.items()} == {
        "format": str,
        "version": int,
        "incident_ids": torch.Tensor,
        "report_counts": torch.Tensor,
        "means": torch.Tensor,
        "titles": list,
        "model": str,
        "model_fingerprint": str,
        "precision": str,
        "built_at": str,
        "dates": list,
        "source": dict,
        "options": dict,
        "max_tokens": int,
        "text_preparation": str,
        "duplicates": torch.Tensor,
        "dissimilar": torch.Tensor,
        "collection": str,
        "record_url": str,
        "urls": list,
        "licence": str,
        "points": torch.Tensor,
    }
    assert content["format"] == "incident-state"
    assert content["version"] == 1


def test_the_file_can_be_read_by_other_users(tmp_path: Path) -> None:
    make_state().save(tmp_path / "s.pt")
    assert (tmp_path / "s.pt").stat().st_mode & 0o777 == 0o644


def test_the_original_list_form_loads(tmp_path: Path) -> None:
    torch.save([torch.tensor([[1.0, 2.0], [3.0, 6.0]]), None, torch.tensor([[5.0, 5.0]])], tmp_path / "s.pt")
    state = IncidentState.load(tmp_path / "s.pt")
    assert state.incident_ids.tolist() == [1, 3]
    assert state.report_counts.tolist() == [2, 1]
    assert state.means.tolist() == [[2.0, 4.0], [5.0, 5.0]]
    assert list(state.titles) == ["", ""]


def save_dict(path: Path, **changes: Any) -> None:
    make_state().save(path)
    content = {**torch.load(path, weights_only=True), **changes}
    torch.save({name: value for name, value in content.items() if value is not None}, path)


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    make_state().save(path)
    path.write_bytes(change(path.read_bytes()))


def flipped() -> torch.Tensor:
    """Means of which one number has the highest bit of its exponent set: finite, and about 1e38."""
    means = np.full((3, 4), 0.5, dtype=np.float32)
    means.view(np.uint32)[1, 2] |= 1 << 30
    assert np.isfinite(means).all()
    return torch.from_numpy(means)


# A state without incidents.
NONE: dict[str, Any] = {
    "incident_ids": torch.empty(0, dtype=torch.int64),
    "report_counts": torch.empty(0, dtype=torch.int64),
    "means": torch.empty(0, 4),
    "titles": [],
}

BROKEN: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "a folder": lambda path: path.mkdir(),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("<html>404</html>"),
    "cut in half": lambda path: rewrite(path, lambda content: content[: len(content) // 2]),
    "cut by a byte": lambda path: rewrite(path, lambda content: content[:-1]),
    "a pickle that runs code": lambda path: path.write_bytes(pickle.dumps(RunsCode(path.with_name("ran")))),
    "torch's own form of it": lambda path: torch.save({"x": RunsCode(path.with_name("ran"))}, path),
    "a number": lambda path: torch.save(3, path),
    "an empty list": lambda path: torch.save([], path),
    "a list of numbers": lambda path: torch.save([1.0, 2.0], path),
    "a list of flat tensors": lambda path: torch.save([torch.ones(3)], path),
    "a list of tensors of several sizes": lambda path: torch.save([torch.ones(1, 3), torch.ones(1, 4)], path),
    "another format": lambda path: save_dict(path, format="something"),
    "a later version": lambda path: save_dict(path, version=2),
    "no means": lambda path: save_dict(path, means=None),
    "means in half precision": lambda path: save_dict(path, means=torch.ones(3, 4, dtype=torch.float16)),
    "a mean too few": lambda path: save_dict(path, means=torch.ones(2, 4)),
    "means that are NaN": lambda path: save_dict(path, means=torch.full((3, 4), torch.nan)),
    "means that are a list": lambda path: save_dict(path, means=[[1.0] * 4] * 3),
    "titles that are numbers": lambda path: save_dict(path, titles=[1, 2, 3]),
    "a title too few": lambda path: save_dict(path, titles=["a", "b"]),
    "an id twice": lambda path: save_dict(path, incident_ids=torch.tensor([1, 1, 2])),
    "ids out of order": lambda path: save_dict(path, incident_ids=torch.tensor([2, 1, 3])),
    "ids that are floats": lambda path: save_dict(path, incident_ids=torch.tensor([1.0, 2.0, 3.0])),
    "no incidents": lambda path: save_dict(path, **NONE),
    "an id of 0": lambda path: save_dict(path, incident_ids=torch.tensor([0, 1, 2])),
    "an id below 0": lambda path: save_dict(path, incident_ids=torch.tensor([-(2**63), 1, 2**63 - 1])),
    "titles that are a string": lambda path: save_dict(path, titles="abc"),
    "titles that are a dict": lambda path: save_dict(path, titles={"a": "x", "b": "y", "c": "z"}),
    "means of 1e38": lambda path: save_dict(path, means=torch.full((3, 4), -1e38)),
    "one number with a flipped bit": lambda path: save_dict(path, means=flipped()),
    "a list of doubles too large for float32": lambda path: torch.save(
        [torch.full((2, 3), 1e300, dtype=torch.double)], path
    ),
    "a list of integers": lambda path: torch.save([torch.ones(2, 3).long()], path),
    "a list of nothing": lambda path: torch.save([None, None], path),
    "a list of empty tensors": lambda path: torch.save([torch.ones(0, 3)], path),
    "a count of 0": lambda path: save_dict(path, report_counts=torch.tensor([0, 1, 1])),
    "counts whose sum overflows": lambda path: save_dict(path, report_counts=torch.tensor([1, 2**62, 2**62])),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_state_is_a_state_error(name: str, tmp_path: Path) -> None:
    path = tmp_path / "s.pt"
    BROKEN[name](path)
    with pytest.raises(StateError) as caught:
        IncidentState.load(path)
    assert str(path) in caught.value.detail
    assert str(path) not in str(caught.value)
    assert "Errno" not in caught.value.detail
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
@given(
    means=arrays(
        np.float32,
        array_shapes(min_dims=2, max_dims=2, max_side=6),
        elements=st.floats(-MAX_SIZE, MAX_SIZE, width=32),
    ),
    query=st.integers(0, 2**16),
)
def test_every_state_that_loads_gives_as_many_incidents_as_it_is_asked_for(
    means: np.ndarray, query: int, tmp_path_factory: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "any-state.pt"
    make_state(len(means), means=means).save(path)
    state = IncidentState.load(path)
    vector = np.random.default_rng(query).standard_normal((means.shape[1],)).astype(np.float32)
    for metric in Ranking(state).metrics:
        for num in range(len(means) + 2):
            assert len(Ranking(state).most_similar(vector, num, metric)) == min(num, len(means))
        assert len(Ranking(state).most_similar(vector, -1, metric)) == len(means)


@pytest.mark.parametrize("name", ["m\nERROR forged", "m\r\x1b[2Jx", "m\u2028x", "\ud800"])
def test_a_name_with_line_breaks_makes_no_lines_in_the_log(name: str, tiny_encoder: TorchEncoder) -> None:
    state = make_state(means=np.ones((3, 32), dtype=np.float32), model=name)
    for by in (state, make_state(means=np.ones((3, 32), dtype=np.float32), model=name, model_fingerprint="")):
        with pytest.raises(StateError) as caught:
            by.require_made_by(tiny_encoder, "tiny")
        assert caught.value.detail.isprintable()


def test_a_full_disk_leaves_the_old_state(tmp_path: Path) -> None:
    path = tmp_path / "s.pt"
    make_state().save(path)
    before = path.read_bytes()
    child = os.fork()
    if child == 0:
        # A limit on a file's size fails a write as a full disk does, at a byte that the test chooses.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            make_state(means=np.ones((3, 4096), dtype=np.float32)).save(path)
        except OSError as error:
            os._exit(7 if str(error) == f"[Errno 27] File too large: '{path}'" else 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["s.pt"]


def test_a_kill_while_saving_leaves_the_old_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.pt"
    make_state().save(path)
    before = path.read_bytes()
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(os, "fsync", lambda descriptor: os.kill(os.getpid(), signal.SIGKILL))
        make_state(model="another").save(path)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert path.read_bytes() == before


def test_a_state_of_texts_that_were_prepared_otherwise_is_refused(tiny_encoder: TorchEncoder) -> None:
    state = make_state(
        means=np.ones((3, 32), dtype=np.float32), model_fingerprint="", model="", text_preparation="none"
    )
    with pytest.raises(StateError) as caught:
        state.require_made_by(tiny_encoder, "tiny")
    assert "prepared with none" in caught.value.detail
    assert "the loaded model uses unidecode" in caught.value.detail


def test_a_state_of_texts_that_the_model_can_not_take_is_refused(tiny_encoder: TorchEncoder) -> None:
    state = make_state(means=np.ones((3, 32), dtype=np.float32), model_fingerprint="", model="")
    dataclasses.replace(state, max_tokens=TINY_MAX_TOKENS).require_made_by(tiny_encoder, "tiny")
    with pytest.raises(StateError) as caught:
        dataclasses.replace(state, max_tokens=TINY_MAX_TOKENS + 1).require_made_by(tiny_encoder, "tiny")
    assert "cut at 129 tokens, but the model takes at most 128" in caught.value.detail


def test_a_state_of_another_model_is_refused(
    tmp_path: Path, tiny_encoder: TorchEncoder, tiny_state: IncidentState
) -> None:
    tiny_state.require_made_by(tiny_encoder, "tiny")
    other = TorchEncoder.load(write_tiny_longformer(tmp_path, seed=1))
    with pytest.raises(StateError, match="could not be loaded") as caught:
        tiny_state.require_made_by(other, "other")
    assert "made with another model (tiny) than other" in caught.value.detail


def test_a_state_of_another_dimension_is_refused(tiny_encoder: TorchEncoder) -> None:
    with pytest.raises(StateError) as caught:
        make_state().require_made_by(tiny_encoder, "tiny")
    assert "4 dimensions, but the model has 32" in caught.value.detail


def test_a_state_without_fingerprint_goes_by_the_model_name(tiny_encoder: TorchEncoder) -> None:
    state = make_state(means=np.ones((3, 32), dtype=np.float32), model_fingerprint="", model="a/model")
    state.require_made_by(tiny_encoder, "a/model")
    with pytest.raises(StateError):
        state.require_made_by(tiny_encoder, "another/model")


def test_the_original_form_names_no_model_and_goes_by_its_dimension(tiny_encoder: TorchEncoder, tmp_path: Path) -> None:
    torch.save([torch.ones(1, 32)], tmp_path / "s.pt")
    IncidentState.load(tmp_path / "s.pt").require_made_by(tiny_encoder, "anything")


def test_the_center_counts_each_incident_once() -> None:
    state = make_state(2, means=np.array([[1, 0, 0, 0], [3, 4, 0, 0]], np.float32), report_counts=np.array([1, 9]))
    _, similarities = Index(state.means).top(np.array([2.0, 2.0, 0.0, 0.0]), 2, "centered")
    assert similarities.tolist() == [0, 0]  # the center itself has no direction
