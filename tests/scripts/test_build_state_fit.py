"""What a build fits to its state, and that every build of the same data fits the same."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from build_state import main
from processes import Command
from published import content_of
from similarity.encoder.tokens import prepare
from similarity.incidents.ranking import Ranking
from similarity.incidents.state import IncidentState
from similarity.incidents.whitening import DEFAULT_POWER, POWERS, whitening
from similarity.incidents.words import words_of
from tiny import ROOT, SAMPLE_DIR

pytestmark = pytest.mark.usefixtures("cache_dir", "one_thread")

SCRIPT = ROOT / "scripts" / "build_state.py"
TOO_FEW = "no confidence, because there are too few reports and titles that could be asked"


def build(source: Path, out: Path, model: Path, *options: str) -> IncidentState:
    assert main([str(source), "--model", str(model), "--out", str(out), *options]) == 0
    return IncidentState.load(out)


def same_bytes(one: IncidentState, other: IncidentState) -> bool:
    return content_of(replace(one, built_at="")) == content_of(replace(other, built_at=""))


def described(out: str) -> str:
    """The line that says what was fitted."""
    [line] = [line for line in out.splitlines() if line.startswith("Fitted: ")]
    return line.removeprefix("Fitted: ")


def test_a_state_of_the_sample_has_all_that_can_be_fitted(
    out: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = build(SAMPLE_DIR, out, tiny_model_dir)
    fit = state.fit
    assert fit.power in POWERS
    assert fit.whitening is not None
    np.testing.assert_allclose(fit.whitening, whitening(state.means, fit.power), rtol=1e-5, atol=1e-6)
    with (SAMPLE_DIR / "incidents.csv").open(encoding="utf-8", newline="") as file:
        rows = {int(row["incident_id"]): row for row in csv.DictReader(file)}
    described_as = (f"{rows[each]['title']}\n{rows[each]['description']}" for each in state.incident_ids.tolist())
    texts = [prepare(each, "unidecode") for each in described_as]
    assert fit.words is not None
    assert set(fit.words.words) == {word for text in texts for word in words_of(text)}
    assert Ranking(state).metrics == ("cosine", "centered", "whitened", "hybrid")
    assert fit.calibration.keys() == {"cosine", "centered", "whitened", "hybrid"}
    words = f"whitening power {fit.power:g}, word index of {len(fit.words.words)} words"
    assert described(capsys.readouterr().out) == f"{words}, confidence from 147 reports and 52 titles"
    # The words of an incident find it, even with the vector of another.
    for row in (0, 20, 51):
        [first] = Ranking(state).most_similar(state.means[row], 1, "hybrid", texts[row])
        assert first.incident_id == state.incident_ids[row]
        assert first.confidence is not None


@pytest.mark.slow
def test_builds_of_the_same_data_are_the_same_to_the_bit(
    out: Path, cache_dir: Path, tmp_path: Path, tiny_model_dir: Path, encoded: list[str]
) -> None:
    first = build(SAMPLE_DIR, out, tiny_model_dir)
    assert len(encoded) == 147 + 52
    again = build(SAMPLE_DIR, out, tiny_model_dir)
    assert len(encoded) == 147 + 52, "the store has them"
    assert same_bytes(again, first)
    anew = build(SAMPLE_DIR, out, tiny_model_dir, "--cache", str(tmp_path / "another cache"))
    assert same_bytes(anew, first)
    arguments: Command = [SAMPLE_DIR, "--model", tiny_model_dir, "--out", out, "--cache", cache_dir]
    command = [sys.executable, SCRIPT, *arguments]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONHASHSEED": "7"})
    assert same_bytes(IncidentState.load(out), first)


# The word index.


@pytest.mark.slow
@pytest.mark.parametrize("order", ["title,reports", "reports, title"])
def test_the_parts_in_the_word_index_can_be_chosen(order: str, out: Path, tiny_model_dir: Path) -> None:
    state = build(SAMPLE_DIR, out, tiny_model_dir, "--words", order)
    assert state.options["words"] == "title,reports"
    whole = build(SAMPLE_DIR, out, tiny_model_dir)
    assert whole.options["words"] == "title,description"
    assert state.fit.words is not None
    assert whole.fit.words is not None
    with (SAMPLE_DIR / "reports.csv").open(encoding="utf-8", newline="") as file:
        of_reports = {word for row in csv.DictReader(file) for word in words_of(prepare(row["text"], "unidecode"))}
    of_titles = {word for title in state.titles for word in words_of(prepare(title, "unidecode"))}
    assert set(state.fit.words.words) == of_reports | of_titles
    assert not set(whole.fit.words.words) >= of_reports


@pytest.mark.parametrize("value", ["", "gossip", "title,gossip", "title;description"])
def test_other_parts_are_refused(
    value: str, out: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([str(SAMPLE_DIR), "--model", str(tiny_model_dir), "--out", str(out), "--words", value])
    assert exit_.value.code == 2
    assert f"must be some of title,description,reports, not {value!r}" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "words", "asked"),
    [
        ([], "title,description", "confidence from 52 titles"),
        (["--text", "description"], "description", "confidence from 52 titles"),
        (["--text", "description", "--words", "title"], "description", "confidence from 52 titles"),
        (["--text", "title"], "title,description", TOO_FEW),
    ],
)
def test_titles_ask_a_state_of_a_table_alone(
    options: list[str], words: str, asked: str, out: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """But not one that was made of nothing else."""
    state = build(SAMPLE_DIR / "incidents.csv", out, tiny_model_dir, *options)
    assert state.options["words"] == words
    assert described(capsys.readouterr().out).endswith(f" words, {asked}")
    assert bool(state.fit.calibration) is (asked != TOO_FEW)


# Sources without texts.


def test_titles_give_vectors_of_others_words_and_no_confidence(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, titles = tmp_path / "state.csv", tmp_path / "incidents.csv"
    source.write_text('incident_id,count,mean\n9,2,"[0.5, 1]"\n4,1,"[2, -3]"\n7,1,"[1, 1]"\n')
    titles.write_text("incident_id,title,description\n4,A Robot,It féll\n9,Planes,\n")
    state = build(source, out, tmp_path / "no model", "--titles", str(titles))
    assert (state.fit.power, dict(state.fit.calibration)) == (DEFAULT_POWER, {})
    assert state.fit.whitening is not None
    assert state.fit.whitening.tobytes() == whitening(state.means, DEFAULT_POWER).tobytes()
    assert state.fit.words is not None
    assert list(state.fit.words.words) == ["fell", "plane", "robot"]
    assert state.fit.words.scores(["fell"]).nonzero()[0].tolist() == [0]
    assert described(capsys.readouterr().out) == f"whitening power 0.125, word index of 3 words, {TOO_FEW}"
    ranking = Ranking(state)
    assert ranking.metrics == ("cosine", "centered", "whitened", "hybrid")
    matches = ranking.most_similar(state.means[0], 3, "hybrid", "planes")
    assert [match.confidence for match in matches] == [None] * 3


@pytest.mark.slow
def test_a_state_keeps_its_fit_but_not_the_confidence_of_other_words(
    out: Path, tmp_path: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = build(SAMPLE_DIR, tmp_path / "first.pt", tiny_model_dir)
    capsys.readouterr()
    again = build(tmp_path / "first.pt", out, tiny_model_dir)
    assert same_bytes(again, first)
    assert described(capsys.readouterr().out).endswith("words, confidence as before")
    titles = tmp_path / "incidents.csv"
    titles.write_text(f"incident_id,title\n{first.incident_ids[0]},Zebras\n")
    other = build(tmp_path / "first.pt", out, tiny_model_dir, "--titles", str(titles))
    assert other.titles[0] == "Zebras"
    assert other.fit.words is not None
    assert other.fit.words.scores(["zebra"]).nonzero()[0].tolist() == [0]
    assert other.fit.calibration.keys() == {"cosine", "centered", "whitened"}
    assert other.fit.calibration["cosine"] == first.fit.calibration["cosine"]
