"""The figures of evaluate.py are those worked out by hand on a state whose ranks are known."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import build_state
from evaluate import main
from evaluation.asking import FOLDS, Compared, answers
from evaluation.figures import RankFigures, rank_figures
from evaluation.texts import Query
from similarity.encoder.text_encoder import TextEncoder
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.incidents.fit import Fit
from similarity.incidents.ranking import Ranking
from similarity.incidents.state import IncidentState
from similarity.incidents.words import WordIndex
from similarity.refresh.fitting import FEWEST
from similarity.vectors import unit
from snapshots import NAME, Snapshot, embedding, form_hash
from snapshots import incident as an_incident
from snapshots import report as a_report
from tiny import SAMPLE_DIR, state_of_texts, write_tiny_longformer


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluate.ROOT", tmp_path / "root")


TITLES = ["A car hit a man", "A chatbot lied", "Courts used biased scores", "A plane fell", "A robot hurt a worker"]


def vector(encoder: TextEncoder, text: str) -> np.ndarray:
    return encoder.encode(text).vector


def measured(queries: list[Query], encoder: TextEncoder, state: IncidentState) -> dict[Compared, RankFigures]:
    vectors = [vector(encoder, query.text) for query in queries]
    found = answers(queries, vectors, [Ranking(state)] * FOLDS, encoder.text_preparation, lambda: None)
    ids = [query.incident_id for query in queries]
    return {metric: rank_figures(each.rank, ids) for metric, each in found.items()}


def shares(figures: RankFigures) -> dict[int, float]:
    return {limit: each.value for limit, each in figures.recall.items()}


def first_table(output: str) -> tuple[int, dict[str, list[str]], list[str]]:
    """The number of queries, the figures of each metric without their intervals, and the notes."""
    about, header, *rows = output.partition("\n\n")[0].splitlines()
    assert header.split() == ["metric", "first", "1", "first", "3", "first", "10", "mean", "1/rank"]
    metrics = [row for row in rows if row.count("(") == 4]
    assert rows[: len(metrics)] == metrics
    return (
        int(about.split()[0]),
        {row.split()[0]: re.findall(r"(\S+) \([\d.]+ to [\d.]+\)", row) for row in metrics},
        [row for row in rows[len(metrics) :] if not row.startswith("power of the whitening map")],
    )


def table(output: str, title: str) -> dict[str, dict[str, str]]:
    """The cells of the table of that title, by metric and row."""
    [found] = [block for block in output.split("\n\n") if block.startswith(title)]
    header, *rows = found.splitlines()
    names = header[54:].split()
    return {name: {row[:54].rstrip(): row[54:].split()[at] for row in rows} for at, name in enumerate(names)}


@pytest.fixture
def ranked(tiny_encoder: TorchEncoder) -> tuple[list[Query], IncidentState]:
    """Five queries and a state in which their incidents come at the ranks 1, 2, 4, 1 and 5.

    The scalar product of query q and the mean of incident i is what PRODUCTS says, and all means are equally long: the
    cosines of a query are in the same order.
    """
    queries = [Query(number, title) for number, title in enumerate(TITLES, start=1)]
    vectors = np.stack([vector(tiny_encoder, title) for title in TITLES]).astype(np.float64)
    # dual[i] @ vectors[q] = 1 where i = q, else 0.
    dual = np.linalg.pinv(vectors).T
    means = np.array(PRODUCTS).T @ dual
    # What is added is orthogonal to all queries and makes each mean sqrt(2) times as long as the longest was.
    _, _, basis = np.linalg.svd(vectors, full_matrices=True)
    lengths = np.linalg.norm(means, axis=1)
    means += basis[len(TITLES) :][: len(TITLES)] * np.sqrt(2 * lengths.max() ** 2 - lengths**2)[:, None]
    state = IncidentState(
        incident_ids=np.arange(1, 6),
        report_counts=np.ones(5, dtype=np.int64),
        means=means.astype(np.float32),
        titles=TITLES,
        model=tiny_encoder.name or "",
        model_fingerprint=tiny_encoder.fingerprint,
    )
    return queries, state


# Row q, column i: how like query q is to incident i. The right answers stand on the diagonal.
PRODUCTS = [
    [0.9, 0.1, 0.2, 0.3, 0.4],
    [0.9, 0.8, 0.1, 0.2, 0.3],
    [0.9, 0.8, 0.3, 0.7, 0.1],
    [0.1, 0.2, 0.3, 0.9, 0.4],
    [0.5, 0.6, 0.7, 0.8, 0.1],
]


def test_scores_are_the_shares_of_known_ranks(
    ranked: tuple[list[Query], IncidentState], tiny_encoder: TorchEncoder
) -> None:
    queries, state = ranked
    # Ranks 1, 2, 4, 1, 5.
    found = measured(queries, tiny_encoder, state)["cosine"]
    assert found.queries == 5
    assert shares(found) == {1: 2 / 5, 3: 3 / 5, 10: 1.0}
    assert found.mean_reciprocal_rank.value == pytest.approx((1 + 1 / 2 + 1 / 4 + 1 + 1 / 5) / 5)


def test_every_metric_is_scored_by_its_own_ranks(tiny_encoder: TorchEncoder) -> None:
    query = vector(tiny_encoder, TITLES[0])
    # Orthogonal to the query and as long.
    across = np.stack([-query[1::2], query[0::2]], axis=1).flatten()
    assert abs(float(query @ across)) < 1e-3
    # By the cosine the second is nearer: it is 1, the first's 0.995. Less the center, 0.55 query + 0.05 across, the
    # first is 0.45 query + 0.05 across, the second its opposite, and what is asked for 0.45 query - 0.05 across.
    state = IncidentState(
        incident_ids=np.array([1, 2]),
        report_counts=np.ones(2, dtype=np.int64),
        means=np.stack([query + 0.1 * across, 0.1 * query]),
        titles=["", ""],
    )
    found = measured([Query(1, TITLES[0])], tiny_encoder, state)
    assert shares(found["cosine"]) == {1: 0.0, 3: 1.0, 10: 1.0}
    assert shares(found["centered"]) == {1: 1.0, 3: 1.0, 10: 1.0}


def write_incidents(path: Path, titles: list[str]) -> Path:
    lines = [f"{number},{title},About it.\n" for number, title in enumerate(titles, start=1)]
    path.write_text("incident_id,title,description\n" + "".join(lines))
    return path


def test_the_command_prints_a_table(
    tiny_model_dir: Path, tiny_encoder: TorchEncoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Two incidents with each other's vectors: each comes second. The state lacks the other three.
    IncidentState(
        incident_ids=np.array([1, 2]),
        report_counts=np.ones(2, dtype=np.int64),
        means=np.stack([vector(tiny_encoder, TITLES[1]), vector(tiny_encoder, TITLES[0])]),
        titles=["", ""],
        model_fingerprint=tiny_encoder.fingerprint,
    ).save(tmp_path / "state.pt")
    incidents = write_incidents(tmp_path / "incidents.csv", TITLES)
    assert main([str(incidents), "--model", str(tiny_model_dir), "--state", str(tmp_path / "state.pt")]) == 0
    output = capsys.readouterr().out
    queries, metrics, notes = first_table(output)
    assert (queries, notes) == (2, [])
    assert metrics["cosine"] == metrics["centered"] == ["0.000", "1.000", "1.000", "0.500"]
    # Each query equals the vector of the other's incident, so the best similarity is 1, also without its own. No other
    # text comes so near. By `centered`, texts are compared with two opposite directions.
    assert table(output, "AUC of the largest score")["cosine"] == {
        "queries, 42 unrelated news": "1.000",
        "without their incident, 42 unrelated news": "1.000",
        "queries, all 73 unrelated texts": "1.000",
        "without their incident, all 73 unrelated texts": "1.000",
        "queries, the same without their incident": "0.500",
    }


def build(folder: Path, model_dir: Path, mode: str, precision: str = "float32") -> tuple[Path, Path]:
    """A table of incidents, and the state that build_state.py makes of it."""
    incidents, state = write_incidents(folder / "incidents.csv", TITLES), folder / "state.pt"
    arguments = [str(incidents), "--model", str(model_dir), "--out", str(state), "--text", mode]
    assert build_state.main([*arguments, "--precision", precision, "--cache", str(folder / "cache")]) == 0
    return incidents, state


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--engine", "torch"], ["--engine", "torch", "--precision", "bfloat16"]])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("mode", "task"),
    [
        ("title", "title"),
        ("title-and-description", "title"),
        ("title-and-description", "description"),
        ("description", "description"),
    ],
)
def test_a_state_that_holds_the_queries_themselves_measures_nothing(
    mode: str,
    task: str,
    precision: str,
    options: list[str],
    tiny_model_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    incidents, state = build(tmp_path, tiny_model_dir, mode, precision)
    capsys.readouterr()
    arguments = [str(incidents), "--model", str(tiny_model_dir), "--state", str(state), "--task", task]
    assert main([*arguments, *options]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.splitlines()[-1] == (
        "evaluate: nothing to measure: 5 queries left out: the state holds their own text; "
        "build a state from other texts, see --help."
    )


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "task"), [("title", "description"), ("description", "title")])
def test_a_state_of_other_texts_is_measured_with_every_query(
    mode: str, task: str, tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    incidents, state = build(tmp_path, tiny_model_dir, mode)
    capsys.readouterr()
    arguments = [str(incidents), "--model", str(tiny_model_dir), "--state", str(state), "--task", task]
    assert main(arguments) == 0
    queries, metrics, notes = first_table(capsys.readouterr().out)
    assert (queries, notes) == (5, [])
    assert {"cosine", "centered"} <= set(metrics)


def test_queries_whose_own_text_the_state_holds_are_left_out_and_counted(
    ranked: tuple[list[Query], IncidentState],
    tiny_model_dir: Path,
    tiny_encoder: TorchEncoder,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Incident 1 has the title as its report; incident 2 has it as one of two, which its mean doesn't tell.
    _, state = ranked
    means = state.means.copy()
    means[0] = vector(tiny_encoder, f"{TITLES[0]}.")
    means[1] = (vector(tiny_encoder, f"{TITLES[1]}.") + means[1]) / 2
    made = dataclasses.replace(state, means=means, report_counts=np.array([1, 2, 1, 1, 1]))
    made.save(tmp_path / "state.pt")
    incidents = write_incidents(tmp_path / "incidents.csv", [*TITLES, "Not in the state"])
    assert main([str(incidents), "--model", str(tiny_model_dir), "--state", str(tmp_path / "state.pt")]) == 0
    queries, _, [last, several] = first_table(capsys.readouterr().out)
    assert several.startswith("1 incidents have several reports: ")
    assert queries == 4
    assert last == "1 queries left out: the state holds their own text."


def test_a_state_without_any_of_the_incidents_measures_nothing(
    tiny_model_dir: Path, tiny_state_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    incidents = tmp_path / "incidents.csv"
    incidents.write_text("incident_id,title,description\n99,Unknown,About it.\n")
    assert main([str(incidents), "--model", str(tiny_model_dir), "--state", str(tiny_state_path)]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.splitlines()[-1] == "evaluate: nothing to measure: the state has none of the incidents."


def test_a_bad_row_is_reported_once(
    tiny_model_dir: Path, tiny_state_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    incidents = write_incidents(tmp_path / "incidents.csv", TITLES)
    with incidents.open("a") as file:
        file.write("x,Bad,About it.\n")
    assert main([str(incidents), "--model", str(tiny_model_dir), "--state", str(tiny_state_path)]) == 0
    assert capsys.readouterr().err.count("incidents.csv, line 7: ") == 1


def test_a_reduced_precision_is_compared_with_float32(
    ranked: tuple[list[Query], IncidentState],
    tiny_model_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ranked[1].save(tmp_path / "state.pt")
    incidents = write_incidents(tmp_path / "incidents.csv", TITLES)
    arguments = [str(incidents), "--model", str(tiny_model_dir), "--state", str(tmp_path / "state.pt")]
    assert main([*arguments, "--engine", "torch", "--precision", "bfloat16"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    found = re.fullmatch(
        r"same first incident as float32: (\d\.\d{4}) by cosine, (\d\.\d{4}) by centered; "
        r"smallest cosine: (\d\.\d{4}); 5 texts",
        last,
    )
    assert found
    assert 0.99 < float(found[3]) <= 1


def test_a_precision_that_the_engine_lacks_exits_with_2(tmp_path: Path, tiny_model_dir: Path) -> None:
    incidents = write_incidents(tmp_path / "incidents.csv", TITLES)
    with pytest.raises(SystemExit) as exit_:
        main([str(incidents), "--model", str(tiny_model_dir), "--precision", "bfloat16"])
    assert exit_.value.code == 2


def test_descriptions_can_be_asked_for(
    ranked: tuple[list[Query], IncidentState],
    tiny_model_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # All descriptions are alike, so all queries are, and each incident has another rank: 1 to 5.
    ranked[1].save(tmp_path / "state.pt")
    incidents = write_incidents(tmp_path / "incidents.csv", TITLES)
    arguments = [str(incidents), "--model", str(tiny_model_dir), "--state", str(tmp_path / "state.pt")]
    assert main([*arguments, "--task", "description"]) == 0
    queries, metrics, _ = first_table(capsys.readouterr().out)
    # (1 + 1/2 + 1/3 + 1/4 + 1/5) / 5 = 0.45667
    assert queries == 5
    assert metrics["cosine"] == metrics["centered"] == ["0.200", "0.600", "1.000", "0.457"]


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["another model", "no model", "no state", "a broken state", "no incidents"])
def test_what_can_not_be_evaluated_is_told_in_one_line(
    broken: str,
    ranked: tuple[list[Query], IncidentState],
    tiny_model_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model_dir = tmp_path / "model"
    if broken == "another model":
        write_tiny_longformer(model_dir, seed=2)
    elif broken != "no model":
        shutil.copytree(tiny_model_dir, model_dir)
    else:
        model_dir.mkdir()
    state_path = model_dir / "incident_cls.pt"
    if broken == "a broken state":
        state_path.write_bytes(b"no state")
    elif broken != "no state":
        ranked[1].save(state_path)
    capsys.readouterr()  # transformers' progress
    incidents = write_incidents(tmp_path / "incidents.csv", [] if broken == "no incidents" else TITLES)
    assert main([str(incidents), "--model", str(model_dir), "--state", str(state_path)]) == 1
    output = capsys.readouterr()
    [line] = output.err.splitlines()
    assert line.startswith("evaluate: ")
    assert output.out == ""


def test_queries_are_cut_where_the_texts_of_the_state_were(
    tiny_model_dir: Path, tiny_encoder: TorchEncoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tiny_encoder.cut_at(6)
    IncidentState(
        incident_ids=np.arange(1, 6),
        report_counts=np.ones(5, dtype=np.int64),
        means=np.stack([cut.encode(title).vector for title in TITLES]),
        titles=TITLES,
        model_fingerprint=tiny_encoder.fingerprint,
        max_tokens=6,
    ).save(tmp_path / "state.pt")
    incidents = write_incidents(tmp_path / "incidents.csv", TITLES)
    assert main([str(incidents), "--model", str(tiny_model_dir), "--state", str(tmp_path / "state.pt")]) == 1
    assert "5 queries left out: the state holds their own text" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["incidents.CSV", "incidents"])
def test_a_table_is_known_by_its_content(
    name: str, ranked: tuple[list[Query], IncidentState], tiny_model_dir: Path, tmp_path: Path
) -> None:
    ranked[1].save(tmp_path / "state.pt")
    incidents = write_incidents(tmp_path / name, TITLES)
    assert main([str(incidents), "--model", str(tiny_model_dir), "--state", str(tmp_path / "state.pt")]) == 0


def test_a_source_that_is_missing_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([str(tmp_path / "none.csv")])
    assert exit_.value.code == 2
    assert "there is no file or folder" in capsys.readouterr().err


def test_without_a_state_the_other_column_makes_one_in_memory(
    tiny_model_dir: Path, tiny_encoder: TorchEncoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Each description is the title of the next incident, but the third repeats its own, with other punctuation.
    incidents = tmp_path / "incidents.csv"
    texts = [TITLES[1], TITLES[0], f"{TITLES[2]}!", TITLES[4], TITLES[3]]
    rows = [f"{number},{title},{text}\n" for number, (title, text) in enumerate(zip(TITLES, texts, strict=True), 1)]
    incidents.write_text("incident_id,title,description\n" + "".join(rows) + "6,No description,\nx,Bad,row\n")
    arguments = [str(incidents), "--model", str(tiny_model_dir), "--cache", str(tmp_path / "cache")]
    assert main(arguments) == 0
    output = capsys.readouterr()
    queries, metrics, notes = first_table(output.out)
    # No query but the third finds its own; those of the others' titles come first. The rest is below.
    vectors = np.stack([vector(tiny_encoder, title) for title in TITLES]).astype(np.float64)
    means = np.stack([vector(tiny_encoder, text) for text in texts]).astype(np.float64)
    cosines = vectors @ means.T / np.linalg.norm(vectors, axis=1)[:, None] / np.linalg.norm(means, axis=1)
    ranks = [1 + int((row > row[place]).sum()) for place, row in enumerate(cosines)]
    expected = [f"{np.mean([rank <= limit for rank in ranks]):.3f}" for limit in (1, 3, 10)]
    assert queries == 5
    assert metrics["cosine"] == [*expected, f"{np.mean([1 / rank for rank in ranks]):.3f}"]
    assert expected[0] == "0.200"
    assert notes == ["1 queries repeat their incident's text."]
    assert output.err.count("line 8: ") == 1  # The bad row is reported once.
    # Of the first and the third query, one repeats its incident's text.
    assert main([*arguments, "--queries", "2"]) == 0
    queries, _, notes = first_table(capsys.readouterr().out)
    assert (queries, notes) == (2, ["1 queries repeat their incident's text."])
    # The vectors were kept: nothing is computed again.
    assert main(arguments) == 0
    again = capsys.readouterr()
    assert again.out == output.out
    assert " chars" in output.err
    assert " chars" not in again.err


def test_descriptions_find_titles_the_other_way(
    tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    incidents = tmp_path / "incidents.csv"
    incidents.write_text("incident_id,title,description\n1,A car hit a man,A car hit a man\n2,,Only this\n")
    arguments = [str(incidents), "--model", str(tiny_model_dir), "--cache", str(tmp_path / "cache")]
    assert main([*arguments, "--task", "description"]) == 0
    output = capsys.readouterr()
    queries, metrics, notes = first_table(output.out)
    assert (queries, metrics["cosine"][0]) == (1, "1.000")
    assert notes == ["1 queries repeat their incident's text."]
    # With its only incident removed, a state can't say anything.
    for title, row in (
        ("AUC of the largest score", "queries, the same without their incident"),
        ("false alarms", "queries without their incident"),
    ):
        assert table(output.out, title)["cosine"][row] == "-"


@pytest.mark.slow
def test_a_query_keeps_its_own_prefix_and_the_state_gets_the_reports(
    tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model_dir = tmp_path / "model"
    shutil.copytree(tiny_model_dir, model_dir)
    config = json.loads((model_dir / "config.json").read_text())
    (model_dir / "config.json").write_text(json.dumps({**config, "query_prefix": "ask: ", "report_prefix": "told: "}))
    with_prefixes = TorchEncoder.load(model_dir)
    incidents = tmp_path / "incidents.csv"
    incidents.write_text(
        "".join(["incident_id,title,description\n", *(f"{n},{t},{t}\n" for n, t in enumerate(TITLES, 1))])
    )
    arguments = [str(incidents), "--model", str(model_dir), "--cache", str(tmp_path / "cache"), "--engine", "torch"]
    assert main(arguments) == 0
    _, metrics, _ = first_table(capsys.readouterr().out)
    queries = [unit(with_prefixes.encode(title).vector) for title in TITLES]
    reports = [unit(with_prefixes.for_reports().encode(title).vector) for title in TITLES]
    assert float(queries[0] @ reports[0]) < 0.9999
    ranks = [1 + sum(float(q @ other) > float(q @ reports[at]) for other in reports) for at, q in enumerate(queries)]
    assert metrics["cosine"][-1] == f"{np.mean([1 / rank for rank in ranks]):.3f}"


@pytest.mark.slow
def test_a_few_queries_in_long_texts(
    ranked: tuple[list[Query], IncidentState],
    tiny_model_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ranked[1].save(tmp_path / "state.pt")
    incidents = write_incidents(tmp_path / "incidents.csv", TITLES)
    arguments = [str(incidents), "--model", str(tiny_model_dir), "--state", str(tmp_path / "state.pt")]
    printed = {}
    for options in (
        [],
        ["--surround", "20"],
        ["--surround", "20", "--place", "start"],
        ["--surround", "20", "--place", "end"],
    ):
        assert main([*arguments, "--queries", "3", *options]) == 0
        printed[" ".join(options)] = capsys.readouterr().out
        assert first_table(printed[" ".join(options)])[0] == 3
    assert printed["--surround 20"] == printed["--surround 20 --place start"]
    assert len(set(printed.values())) == 3
    assert main([*arguments, "--queries", "1"]) == 0
    assert capsys.readouterr().out.startswith("1 query about 1 incident; in parentheses: 95 % intervals\n")


@pytest.mark.parametrize(
    "options",
    [
        ["--place", "end"],
        ["--surround", "0"],
        ["--surround", "100001"],
        ["--queries", "-1"],
        ["--place", "top"],
        ["--task", "report"],
        ["--task", "pairs"],
        ["--task", "texts"],
        ["--words", "title,names"],
        ["--texts", "there is no such file"],
    ],
)
def test_options_that_can_not_be_used_exit_with_2(options: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([str(write_incidents(tmp_path / "incidents.csv", TITLES)), *options])
    assert exit_.value.code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--texts", str(SAMPLE_DIR / "incidents.csv")],
        ["--state", "state.pt"],
        [str(SAMPLE_DIR), "--task", "description"],
        [str(SAMPLE_DIR), "--state", "state.pt"],
        ["--texts", str(SAMPLE_DIR / "incidents.csv"), "--state", "state.pt", "--task", "title"],
    ],
)
def test_sources_and_tasks_that_do_not_fit_exit_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2


@pytest.mark.slow
@pytest.mark.parametrize("task", ["first-sentence", "first-20-words"])
def test_beginnings_of_descriptions_ask_for_titles(
    task: str, tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The first sentence, and the first 20 words, are the incident's title. The rest is another's.
    incidents = tmp_path / "incidents.csv"
    titles = [f"{title} again and again and again and again in a town by the sea and lake" for title in TITLES]
    first = [" ".join(title.split()[:20]) for title in titles]
    rows = [f"{n},{title}.,{title}. {TITLES[n % 5]} yesterday.\n" for n, title in enumerate(first, start=1)]
    incidents.write_text("incident_id,title,description\n" + "".join(rows))
    arguments = [str(incidents), "--model", str(tiny_model_dir)]
    assert main([*arguments, "--task", task]) == 0
    queries, metrics, notes = first_table(capsys.readouterr().out)
    repeated = 5 if task == "first-sentence" else sum(len(title.split()) == 20 for title in first)
    assert queries == 5
    assert notes == ([f"{repeated} queries repeat their incident's text."] if repeated else [])
    if task == "first-sentence":
        assert metrics["cosine"][0] == metrics["words"][0] == "1.000"
    assert main([*arguments, "--task", "description"]) == 0
    assert first_table(capsys.readouterr().out)[2] == []


def dumped(path: Path, encoded: dict[str, list[float]]) -> Path:
    """A snapshot with AIID's vectors: incident k has the reports 2k and 2k + 1. 1 is marked as like 2, and unlike 3."""
    reports = [
        a_report(number, text, embedding=embedding(vector, form_hash(text)))
        for number, (text, vector) in enumerate(encoded.items(), start=2)
    ]
    incidents = [an_incident(number, [2 * number, 2 * number + 1]) for number in range(1, len(reports) // 2 + 1)]
    incidents[0] |= {"editor_similar_incidents": [2], "editor_dissimilar_incidents": [3]}
    return Snapshot(incidents, reports).write(path / NAME)


@pytest.mark.slow
def test_the_original_models_reports_are_measured_without_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Both reports of an incident are near each other, but for the last incident's, which are nearer to others.
    random = np.random.default_rng(3)
    vectors = np.repeat(random.normal(size=(20, 768)), 2, axis=0) + 0.1 * random.normal(size=(40, 768))
    vectors[-1], vectors[-2] = vectors[0] + 0.01, vectors[2] + 0.01
    texts = {f"Report {number} says it.": vector.tolist() for number, vector in enumerate(vectors)}
    arguments = [str(dumped(tmp_path, texts)), "--model", str(tmp_path / "none")]
    assert main([*arguments, "--task", "report", "--task", "pairs"]) == 0
    reports, pairs = capsys.readouterr().out.split("Task pairs\n")
    queries, metrics, notes = first_table(reports.removeprefix("Task report\n"))
    assert queries == 40
    assert metrics["cosine"][0] == "0.950"
    assert notes == ["Without a model, no unrelated text was asked."]
    assert pairs.splitlines()[0] == "1 similar and 1 dissimilar pairs; 1 incidents have both."
    # There are enough reports to fit to.
    assert FEWEST <= 32
    assert "first match" in table(reports, "calibration error")["hybrid"]
    # Other texts have no vector.
    assert main([*arguments, "--task", "title"]) == 1
    assert "need a model" in capsys.readouterr().err


@pytest.fixture(scope="session")
def sample_json(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, object], Path]:
    """The figures of the sample with a tiny model, and the folder of the plots."""
    folder = tmp_path_factory.mktemp("sample")
    with pytest.MonkeyPatch.context() as patch:
        written: list[str] = []
        patch.setattr("builtins.print", lambda text="", **_: written.append(text))
        options = ["--json", "--plots", str(folder / "plots"), "--cache", str(folder / "cache"), "--queries", "60"]
        tasks = ["--task", "report", "--task", "title"]
        assert main([str(SAMPLE_DIR), "--model", str(tiny_model_dir), *tasks, *options]) == 0
    return json.loads("".join(written)), folder / "plots"


@pytest.mark.slow
def test_json_has_all_figures_of_each_task(sample_json: tuple[dict[str, object], Path]) -> None:
    found: Any = sample_json[0]
    assert list(found) == ["report", "title"]
    for content in found.values():
        assert set(content["metrics"]) == {"cosine", "centered", "whitened", "hybrid", "words"}
        assert len(content["powers"]) == FOLDS
        for metric, each in content["metrics"].items():
            assert set(each["ranks"]["recall"]) == {"1", "3", "10"}
            assert 0 <= each["ranks"]["recall"]["1"]["low"] <= each["ranks"]["recall"]["1"]["value"]
            assert set(each["auc"]) >= {"queries, all 73 unrelated texts", "queries, the same without their incident"}
            if metric == "words":
                assert each["calibration_error"] is None
                assert each["verdicts"] == {}
            else:
                assert 0 <= each["calibration_error"] <= 1
                assert sum(each["verdicts"]["all unrelated"].values()) == pytest.approx(1)
    assert found["report"]["metrics"]["cosine"]["ranks"]["queries"] == 60


@pytest.mark.slow
def test_a_folder_that_can_not_be_made_is_told_before_anything_is_computed(
    tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    incidents = write_incidents(tmp_path / "incidents.csv", TITLES)
    cache = tmp_path / "no-cache-yet"
    arguments = ["--model", str(tiny_model_dir), "--cache", str(cache), "--plots", str(incidents)]
    assert main([str(incidents), *arguments]) == 1
    assert capsys.readouterr().err.splitlines() == [f"evaluate: {incidents}: File exists"]
    assert not cache.exists()


@pytest.mark.slow
def test_plots_are_written_for_each_task(sample_json: tuple[dict[str, object], Path]) -> None:
    assert sorted(path.name for path in sample_json[1].iterdir()) == [
        f"{task}-{name}.png" for task in ("report", "title") for name in ("length", "reliability", "scores")
    ]


@pytest.mark.slow
def test_the_fields_of_the_word_index_can_be_chosen(
    tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for words in ("title,description", "reports"):
        options = ["--words", words, "--cache", str(tmp_path / "cache"), "--queries", "40"]
        assert main([str(SAMPLE_DIR), "--model", str(tiny_model_dir), *options]) == 0
        found.append(first_table(capsys.readouterr().out)[1])
    assert found[0]["cosine"] == found[1]["cosine"]
    assert float(found[0]["words"][0]) > float(found[1]["words"][0])


def own_texts(path: Path) -> Path:
    path.write_text(
        "text,incident_id\n"
        f"{TITLES[0]},1\n"  # the state's own
        "A man was run over by a car,1\n"
        "A plane came down,4\n"
        "Not in the state,77\n"
        "A cake with cherries,\n"
    )
    return path


def test_a_users_own_texts_are_asked_of_a_state(
    tiny_model_dir: Path, tiny_encoder: TorchEncoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    IncidentState(
        incident_ids=np.arange(1, 6),
        report_counts=np.ones(5, dtype=np.int64),
        means=np.stack([vector(tiny_encoder, title) for title in TITLES]),
        titles=TITLES,
        model_fingerprint=tiny_encoder.fingerprint,
    ).save(tmp_path / "state.pt")
    arguments = ["--model", str(tiny_model_dir), "--texts", str(own_texts(tmp_path / "own.csv"))]
    assert main([*arguments, "--state", str(tmp_path / "state.pt")]) == 0
    output = capsys.readouterr().out
    queries, metrics, notes = first_table(output)
    # The state is asked as it is: it has neither a whitening map nor words.
    assert (queries, set(metrics)) == (2, {"cosine", "centered"})
    assert notes == [
        "1 queries left out: the state doesn't have their incident.",
        "1 queries left out: the state holds their own text.",
    ]
    assert "queries, all 74 unrelated texts" in output


def test_a_users_own_texts_are_asked_of_a_state_made_in_memory(
    tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    incidents = write_incidents(tmp_path / "incidents.csv", TITLES)
    own = own_texts(tmp_path / "own.csv")
    assert main([str(incidents), "--model", str(tiny_model_dir), "--texts", str(own)]) == 0
    queries, metrics, notes = first_table(capsys.readouterr().out)
    assert (queries, set(metrics)) == (2, {"cosine", "centered", "whitened", "hybrid", "words"})
    assert notes == [
        "1 queries left out: the state doesn't have their incident.",
        "1 queries left out: the state holds their own text.",
    ]
    own.write_text("text,incident_id\nAbout no incident,\n")
    assert main([str(incidents), "--model", str(tiny_model_dir), "--texts", str(own)]) == 1
    assert "nothing to measure: no text names an incident." in capsys.readouterr().err
    own.write_text("text,incident_id\nNot in the state,77\n")
    assert main([str(incidents), "--model", str(tiny_model_dir), "--texts", str(own)]) == 1
    assert "the state has none of the incidents" in capsys.readouterr().err


@pytest.mark.slow
def test_a_title_is_taken_out_of_the_states_word_index(
    tiny_model_dir: Path, tiny_encoder: TorchEncoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # All titles have a word in common, and all descriptions are alike. Without its own title, an incident has none of
    # the query's words.
    titles = [f"robot {name}" for name in ("one", "two", "three")]
    incidents = write_incidents(tmp_path / "incidents.csv", titles)
    for words_from, first in (("title,description", "0.000"), ("description", "1.000"), ("reports", None)):
        documents = [f"{title}\nAbout it." if "title" in words_from else "About it." for title in titles]
        dataclasses.replace(
            state_of_texts(tiny_encoder, dict(enumerate(TITLES[:3], start=1))),
            options={"words": words_from},
            fit=Fit(words=WordIndex.of(documents)),
        ).save(tmp_path / "state.pt")
        assert main([str(incidents), "--model", str(tiny_model_dir), "--state", str(tmp_path / "state.pt")]) == 0
        _, metrics, notes = first_table(capsys.readouterr().out)
        # Nobody knows which of the reports' texts a query is in.
        assert metrics.get("words", [None])[0] == first
        assert ["it isn't asked" in note for note in notes] == ([True] if first is None else [])
