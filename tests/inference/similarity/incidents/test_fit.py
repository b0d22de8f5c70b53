"""The fitted parts of a state's file are kept, may be absent, and are refused when they are broken."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from same_content import as_arrays, assert_same
from similarity.errors import StateError
from similarity.incidents.confidence import EVIDENCE, Confidence
from similarity.incidents.fit import Fit
from similarity.incidents.metrics import METRICS
from similarity.incidents.pt_file import read_pt
from similarity.incidents.ranking import Ranking
from similarity.incidents.state import IncidentState
from similarity.incidents.whitening import whitening
from similarity.incidents.words import WordIndex

MEANS = np.arange(12, dtype=np.float32).reshape(3, 4) ** 2
DOCUMENTS = ["A robot hurt a worker", "Überwachung in 東京", "робот"]
# The fields that a state's file had before anything was fitted.
FIRST = {
    *("format", "version", "incident_ids", "report_counts", "means", "titles", "model", "model_fingerprint"),
    *("precision", "built_at", "dates", "source", "options", "max_tokens", "text_preparation", "duplicates"),
    *("dissimilar", "collection", "record_url", "urls", "licence", "points"),
}
FITTED = {
    *("whitening", "whitening_power", "words", "word_starts", "word_rows", "word_weights", "word_mean_length"),
    "calibration",
}


def some_fit() -> Fit:
    calibration = {
        metric: Confidence((0.1,) * (2 * len(EVIDENCE[metric]) + 1), (-2.5,) * (2 * len(EVIDENCE[metric]) + 1), 0.02)
        for metric in METRICS
    }
    return Fit(whitening(MEANS, 0.375), 0.375, WordIndex.of(DOCUMENTS), calibration)


def make_state(fit: Fit, means: np.ndarray = MEANS) -> IncidentState:
    return IncidentState(np.arange(1, 4) * 10, np.ones(3, dtype=np.int64), means, ["a", "b", "c"], fit=fit)


def assert_same_fit(found: Fit, expected: Fit) -> None:
    assert_same(found.to_plain(), expected.to_plain())


PARTS: dict[str, Callable[[Fit], Fit]] = {
    "all": lambda fit: fit,
    "none": lambda fit: Fit(),
    "map": lambda fit: Fit(fit.whitening, fit.power),
    "words": lambda fit: Fit(words=fit.words),
    "calibration": lambda fit: Fit(calibration={"centered": fit.calibration["centered"]}),
}


@pytest.mark.parametrize("parts", PARTS)
def test_what_was_fitted_is_kept_to_the_bit(parts: str, tmp_path: Path) -> None:
    fit = PARTS[parts](some_fit())
    make_state(fit).save(tmp_path / "s.pt")
    again = IncidentState.load(tmp_path / "s.pt")
    assert_same_fit(again.fit, fit)
    assert (again.fit.power, again.fit.words is None) == (fit.power, fit.words is None)
    if fit.words and again.fit.words:
        assert (list(again.fit.words.words), again.fit.words.incidents) == (list(fit.words.words), 3)
    again.save(tmp_path / "again.pt")
    assert (tmp_path / "again.pt").read_bytes() == (tmp_path / "s.pt").read_bytes()
    by_torch = as_arrays(torch.load(tmp_path / "s.pt", weights_only=True))
    assert_same({name: value for name, value in by_torch.items() if name not in FIRST}, fit.to_plain())


def test_a_file_has_the_fields_that_the_module_docstring_names(tmp_path: Path) -> None:
    make_state(some_fit()).save(tmp_path / "s.pt")
    content = torch.load(tmp_path / "s.pt", weights_only=True)
    assert content.keys() == FIRST | FITTED
    types = {name: content[name].dtype for name in ("whitening", "word_starts", "word_rows", "word_weights")}
    assert types == {
        "whitening": torch.float32,
        "word_starts": torch.int64,
        "word_rows": torch.int32,
        "word_weights": torch.float32,
    }
    assert content["words"].split("\n") == sorted(["robot", "hurt", "worker", "überwachung", "東京", "робот"])
    assert (type(content["whitening_power"]), type(content["word_mean_length"])) == (float, float)
    assert content["calibration"]["cosine"] == {"first": [0.1] * 5, "later": [-2.5] * 5, "none_below": 0.02}


@pytest.mark.slow
@given(
    st.lists(st.floats(-1e30, 1e30), min_size=5, max_size=5),
    st.lists(st.text(st.characters(exclude_categories=()), max_size=20), min_size=3, max_size=3),
)
def test_any_numbers_and_words_are_read_again(
    tmp_path_factory: pytest.TempPathFactory, weights: list[float], documents: list[str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any-fit.pt"
    fit = Fit(words=WordIndex.of(documents), calibration={"cosine": Confidence(tuple(weights), tuple(weights), 0.5)})
    make_state(fit).save(path)
    assert_same_fit(IncidentState.load(path).fit, fit)
    by_torch = as_arrays(torch.load(path, weights_only=True))
    assert by_torch["calibration"]["cosine"]["first"] == weights


# Other versions.


def test_a_state_of_the_version_before_loads_and_is_ranked_as_before(tmp_path: Path) -> None:
    make_state(some_fit()).save(tmp_path / "s.pt")
    content = torch.load(tmp_path / "s.pt", weights_only=True)
    torch.save({name: content[name] for name in FIRST}, tmp_path / "s.pt")
    state = IncidentState.load(tmp_path / "s.pt")
    assert (state.fit.whitening, state.fit.words, dict(state.fit.calibration)) == (None, None, {})
    ranking = Ranking(state)
    assert ranking.metrics == ("cosine", "centered")
    vector = np.ones(4, dtype=np.float32)
    found = ranking.most_similar(vector, -1)
    assert [match.confidence for match in found] == [None] * 3
    assert ranking.verdict(found, "cosine") is None
    with_all = Ranking(make_state(some_fit())).most_similar(vector, -1)
    assert [(m.incident_id, m.similarity) for m in found] == [(m.incident_id, m.similarity) for m in with_all]


def test_the_reader_of_the_version_before_takes_a_new_state(tmp_path: Path) -> None:
    """It read the file whole, required the first fields, took the later ones it knew, and left out all others."""
    state = make_state(some_fit())
    state.save(tmp_path / "s.pt")
    content: Any = read_pt(tmp_path / "s.pt")
    assert (content["format"], content["version"]) == ("incident-state", 1)
    known = {name: content[name] for name in FIRST - {"format", "version"}}
    assert_same(known["means"], state.means)
    assert IncidentState(**known).titles == state.titles
    plain = make_state(Fit())
    plain.save(tmp_path / "plain.pt")
    before: Any = read_pt(tmp_path / "plain.pt")
    assert_same({name: content[name] for name in before}, before)


# Broken files.


def starts(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers)


def of_cosine(**changes: object) -> dict[str, Any]:
    return {"cosine": {"first": [0.0] * 5, "later": [0.0] * 5, "none_below": 0.1, **changes}}


WORDS = WordIndex.of(DOCUMENTS)
assert WORDS is not None
assert WORDS.starts.tolist() == list(range(7))
WRONG: dict[str, list[object]] = {
    "whitening": [
        torch.eye(4, dtype=torch.float64), torch.eye(3), torch.ones(4), torch.full((4, 4), torch.nan),
        torch.full((4, 4), torch.inf), torch.full((4, 4), 1.1e6), torch.eye(4) * -3e38,
        torch.eye(4).half(), [[1.0] * 4] * 4, "map",
    ],
    "whitening_power": ["0.5", math.nan, -0.1, 1.5, True, None, torch.tensor(0.5)],
    "words": [["robot"], 7, None, torch.ones(3), "robot", "", "a\nb"],
    "word_starts": [
        torch.arange(7).int(), torch.arange(7).float(), torch.arange(6), torch.arange(8), starts(0, 1, 2, 3, 4, 5, 7),
        starts(1, 1, 2, 3, 4, 5, 6), starts(0, 1, 3, 2, 4, 5, 6), starts(0, -1, 2, 3, 4, 5, 6),
        starts(0, 2**63 - 1, -(2**63), -1, 2, 3, 6), torch.arange(7)[None], torch.tensor(6), list(range(7)), None,
    ],
    "word_rows": [
        torch.zeros(6).long(), torch.zeros(5).int(), torch.full((6,), 3).int(), torch.full((6,), -1).int(),
        torch.zeros(6, 1).int(), torch.tensor(0).int(), [0] * 6, None,
    ],
    "word_weights": [
        torch.ones(6).double(), torch.ones(7), torch.full((6,), torch.nan), torch.full((6,), -1.0),
        torch.full((6,), torch.inf), torch.ones(6, 1), [1.0] * 6, None,
    ],
    "word_mean_length": [0.0, -1.0, math.nan, math.inf, 3, "3", None, torch.tensor(3.0)],
    "calibration": [
        [], "calibration", None, {"cosine": None}, {"cosine": []}, {"cosine": {}}, of_cosine(first=[0.0] * 4),
        of_cosine(later=[0.0] * 6), of_cosine(first=torch.zeros(5)), of_cosine(first=["0"] * 5),
        of_cosine(later=[math.nan] * 5), of_cosine(none_below=math.inf), of_cosine(none_below=1),
        {"hybrid": of_cosine()["cosine"]},
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_broken_part_is_refused_in_one_plain_sentence(name: str, tmp_path: Path) -> None:
    path = tmp_path / "s.pt"
    make_state(some_fit()).save(path)
    content = torch.load(path, weights_only=True)
    assert WRONG.keys() == FITTED
    for value in WRONG[name]:
        torch.save({**content, name: value}, path)
        with pytest.raises(StateError) as caught:
            IncidentState.load(path)
        begin, _, reason = caught.value.detail.partition(" that can be used: ")
        assert begin == f"{path} isn't an incident state"
        assert reason.startswith(("whitening", "the word index ", "words must ", "calibration ", "the calibration ")), (
            value,
            reason,
        )
        assert "\n" not in reason
        assert str(path) not in str(caught.value)


@pytest.mark.parametrize("missing", ["word_starts", "word_rows", "word_weights", "word_mean_length"])
def test_a_word_index_without_one_of_its_parts_is_refused(missing: str, tmp_path: Path) -> None:
    make_state(some_fit()).save(tmp_path / "s.pt")
    content = torch.load(tmp_path / "s.pt", weights_only=True)
    del content[missing]
    torch.save(content, tmp_path / "s.pt")
    with pytest.raises(StateError) as caught:
        IncidentState.load(tmp_path / "s.pt")
    assert "word" in caught.value.detail


def test_a_word_index_of_more_incidents_than_the_state_has_is_refused() -> None:
    with pytest.raises(ValueError, match="as many documents as there are incidents"):
        make_state(Fit(words=WordIndex.of([*DOCUMENTS, "one more"])))


@pytest.mark.parametrize("ids", [7, None, "abc", [10, 20, 30], torch.tensor(10)])
def test_ids_of_another_type_are_refused_beside_a_fit(ids: object, tmp_path: Path) -> None:
    make_state(some_fit()).save(tmp_path / "s.pt")
    content = torch.load(tmp_path / "s.pt", weights_only=True)
    torch.save({**content, "incident_ids": ids}, tmp_path / "s.pt")
    with pytest.raises(StateError):
        IncidentState.load(tmp_path / "s.pt")


def test_a_metric_of_a_later_version_is_ignored(tmp_path: Path) -> None:
    make_state(some_fit()).save(tmp_path / "s.pt")
    content = torch.load(tmp_path / "s.pt", weights_only=True)
    content["calibration"] |= {"of tomorrow": {"anything": [1, "two"]}}
    torch.save({**content, "another field": 7}, tmp_path / "s.pt")
    assert_same_fit(IncidentState.load(tmp_path / "s.pt").fit, some_fit())
