"""Whether a state would be the same if it was built again is known without reading the snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from similarity.encoder.torch_encoder import TorchEncoder
from similarity.errors import ModelError
from similarity.incidents.collection import DEFAULT_LICENCE
from similarity.incidents.points import no_points
from similarity.incidents.state import IncidentState
from snapshots import NAME
from states.building import Options, is_current
from tiny import TINY_MAX_TOKENS


@pytest.fixture
def options(tmp_path: Path, tiny_model_dir: Path) -> Options:
    return Options(tiny_model_dir, tmp_path / "incident_cls.pt", tmp_path / "cache")


@pytest.fixture
def state(tiny_state: IncidentState) -> IncidentState:
    """As these options build it of AIID's snapshot with the tiny model."""
    return replace(
        tiny_state,
        source={"kind": "aiid-snapshot", "name": NAME, "date": "2026-11-23T10:00:00Z"},
        options={"vectors": "auto", "responses": "include", "words": "title,description"},
        max_tokens=TINY_MAX_TOKENS,
        licence=DEFAULT_LICENCE,
        points=np.zeros((len(tiny_state), 2), dtype=np.float32),
    )


def of(state: IncidentState, vectors: str, **parts: object) -> IncidentState:
    return replace(state, options={**state.options, "vectors": vectors}, **parts)  # type: ignore[arg-type]


def test_a_state_of_these_options_is_current(state: IncidentState, options: Options) -> None:
    assert is_current(state, NAME, options)
    assert is_current(of(state, "computed"), NAME, replace(options, vectors="computed"))


def test_name_pages_and_licence_are_current_if_they_are_the_options(state: IncidentState, options: Options) -> None:
    names = {"collection": "A copy", "record_url": "https://records.example/{id}", "licence": "CC0 1.0"}
    named, given = replace(state, **names), replace(options, **names)  # type: ignore[arg-type]
    assert is_current(named, NAME, given)
    assert not is_current(state, NAME, given)
    assert not is_current(named, NAME, replace(given, record_url=""))
    assert not is_current(named, NAME, replace(given, licence=None))


OTHER_STATES: dict[str, dict[str, object]] = {
    "source": {"source": {"kind": "aiid-snapshot", "name": "backup-20261116100000.tar.bz2", "date": ""}},
    "a folder of that name": {"source": {"kind": "records", "name": NAME, "date": ""}},
    "no source": {"source": {}},
    "no options": {"options": {}},
    "responses": {"options": {"vectors": "auto", "responses": "exclude", "words": "title,description"}},
    "words": {"options": {"vectors": "auto", "responses": "include", "words": "title"}},
    "an earlier version": {"options": {"vectors": "auto", "responses": "include"}},
    "fingerprint": {"model_fingerprint": "0123"},
    "precision": {"precision": "bfloat16"},
    "limit": {"max_tokens": 100},
    "no limit": {"max_tokens": 0},
    "pages": {"record_url": "https://records.example/{id}"},
    "no pages": {"record_url": ""},
    "name": {"collection": "A copy"},
    "licence": {"licence": "CC0 1.0"},
    "no licence": {"licence": ""},
    "no map": {"points": no_points()},
}


@pytest.mark.parametrize("what", OTHER_STATES)
def test_another_state_is_not_current(what: str, state: IncidentState, options: Options) -> None:
    assert not is_current(replace(state, **OTHER_STATES[what]), NAME, options)  # type: ignore[arg-type]


@pytest.mark.parametrize("vectors", ["auto", "published", "computed"])
@pytest.mark.parametrize("wanted", ["auto", "published", "computed"])
def test_vectors_of_another_origin_are_not_current(
    vectors: str, wanted: str, state: IncidentState, options: Options
) -> None:
    parts: Mapping[str, object] = {"model_fingerprint": "", "max_tokens": 2000} if vectors == "published" else {}
    made = of(state, vectors, **parts)
    assert is_current(made, NAME, replace(options, vectors=wanted)) is (vectors == wanted)  # type: ignore[arg-type]


def test_without_a_model_auto_means_published(state: IncidentState, options: Options, tmp_path: Path) -> None:
    without = replace(options, model_dir=tmp_path / "no model")
    published = of(state, "published", model_fingerprint="", max_tokens=2000)
    assert is_current(published, NAME, without)
    assert not is_current(published, NAME, replace(without, max_tokens=300))
    assert not is_current(state, NAME, without)
    limited = replace(published, max_tokens=300)
    assert is_current(limited, NAME, replace(without, max_tokens=300))
    assert not is_current(limited, NAME, without)


def test_the_limit_of_the_options_is_the_model_s_own_unless_it_is_set(
    state: IncidentState, options: Options, tiny_encoder: TorchEncoder
) -> None:
    assert tiny_encoder.longest_input == TINY_MAX_TOKENS
    assert is_current(state, NAME, replace(options, max_tokens=TINY_MAX_TOKENS))
    assert not is_current(state, NAME, replace(options, max_tokens=50))
    assert is_current(replace(state, max_tokens=50), NAME, replace(options, max_tokens=50))


def test_a_broken_model_is_told(state: IncidentState, options: Options, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError):
        is_current(state, NAME, replace(options, model_dir=tmp_path))
