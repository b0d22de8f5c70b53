"""The figures of evaluate.py are those worked out by hand on a state whose ranks are known."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import build_state
from evaluate import agreement, answers, encode, main
from evaluation.figures import Scores, scores
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.incidents.metrics import Metric
from similarity.incidents.ranking import Ranking
from similarity.incidents.state import IncidentState
from similarity.sources.database import Incident, Report
from similarity.vectors import unit
from tiny import write_tiny_longformer

TITLES = ["A car hit a man", "A chatbot lied", "Courts used biased scores", "A plane fell", "A robot hurt a worker"]


def incident(incident_id: int, text: str) -> Incident:
    return Incident(incident_id, text, "", (Report(None, text),))


def vector(encoder: TorchEncoder, text: str) -> np.ndarray:
    return encoder.encode(text).vector


def measured(
    queries: list[Incident], encoder: TorchEncoder, state: IncidentState, metrics: Sequence[Metric]
) -> dict[Metric, Scores]:
    vectors = encode([query.texts[0] for query in queries], encoder, "queries")
    return {metric: scores(each) for metric, each in answers(queries, vectors, Ranking(state), metrics).items()}


@pytest.fixture
def ranked(tiny_encoder: TorchEncoder) -> tuple[list[Incident], IncidentState]:
    """Five queries and a state in which their incidents come at the ranks 1, 2, 4, 1 and 5.

    The scalar product of query q and the mean of incident i is what PRODUCTS says, and all means are equally long: the
    cosines of a query are in the same order.
    """
    queries = [incident(number, title) for number, title in enumerate(TITLES, start=1)]
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
    ranked: tuple[list[Incident], IncidentState], tiny_encoder: TorchEncoder
) -> None:
    queries, state = ranked
    # Ranks 1, 2, 4, 1, 5.
    found = measured(queries, tiny_encoder, state, ["cosine"])["cosine"]
    assert found.queries == 5
    assert found.recall == {1: 2 / 5, 3: 3 / 5, 10: 1.0}
    assert found.mean_reciprocal_rank == pytest.approx((1 + 1 / 2 + 1 / 4 + 1 + 1 / 5) / 5)


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
    assert measured([incident(1, TITLES[0])], tiny_encoder, state, ["cosine", "centered"]) == {
        "cosine": Scores(queries=1, recall={1: 0.0, 3: 1.0, 10: 1.0}, mean_reciprocal_rank=0.5),
        "centered": Scores(queries=1, recall={1: 1.0, 3: 1.0, 10: 1.0}, mean_reciprocal_rank=1.0),
    }


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
    ranks, no_match = capsys.readouterr().out.split("\n\n")
    assert ranks.splitlines() == [
        "metric    queries  first 1   first 3   first 10  mean 1/rank",
        "cosine    2        0.000     1.000     1.000     0.500",
        "centered  2        0.000     1.000     1.000     0.500",
    ]
    header, *rows = no_match.splitlines()
    assert header.split() == ["AUC", "of", "the", "best", "similarity", "cosine", "centered"]
    assert [row[:52].rstrip() for row in rows] == [
        "queries, 42 unrelated news",
        "queries, all 73 unrelated texts",
        "without their incident, 42 unrelated news",
        "without their incident, all 73 unrelated texts",
        "queries, the same without their incident",
    ]
    # Each query equals the vector of the other's incident, so the best similarity is 1, also without its own. No other
    # text comes so near. By `centered`, texts are compared with two opposite directions.
    assert [row[52:].split()[0] for row in rows] == ["1.000", "1.000", "1.000", "1.000", "0.500"]


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
    ("mode", "query"),
    [
        ("title", "title"),
        ("title-and-description", "title"),
        ("title-and-description", "description"),
        ("description", "description"),
    ],
)
def test_a_state_that_holds_the_queries_themselves_measures_nothing(
    mode: str,
    query: str,
    precision: str,
    options: list[str],
    tiny_model_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    incidents, state = build(tmp_path, tiny_model_dir, mode, precision)
    capsys.readouterr()
    arguments = [str(incidents), "--model", str(tiny_model_dir), "--state", str(state), "--query", query]
    assert main([*arguments, *options]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.splitlines()[-1] == (
        "evaluate: nothing to measure: 5 queries left out: the state holds their own text; "
        "build a state from other texts, see --help."
    )


@pytest.mark.parametrize(("mode", "query"), [("title", "description"), ("description", "title")])
def test_a_state_of_other_texts_is_measured_with_every_query(
    mode: str, query: str, tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    incidents, state = build(tmp_path, tiny_model_dir, mode)
    capsys.readouterr()
    arguments = [str(incidents), "--model", str(tiny_model_dir), "--state", str(state), "--query", query]
    assert main(arguments) == 0
    _, *rows = capsys.readouterr().out.partition("\n\n")[0].splitlines()
    assert [row.split()[:2] for row in rows] == [["cosine", "5"], ["centered", "5"]]


def test_queries_whose_own_text_the_state_holds_are_left_out_and_counted(
    ranked: tuple[list[Incident], IncidentState],
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
    _, cosine, _, last, several = capsys.readouterr().out.partition("\n\n")[0].splitlines()
    assert several.startswith("1 incidents have several reports: ")
    assert cosine.split()[1] == "4"
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
    ranked: tuple[list[Incident], IncidentState],
    tiny_model_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ranked[1].save(tmp_path / "state.pt")
    incidents = write_incidents(tmp_path / "incidents.csv", TITLES)
    arguments = [str(incidents), "--model", str(tiny_model_dir), "--state", str(tmp_path / "state.pt")]
    assert main([*arguments, "--engine", "torch", "--precision", "bfloat16"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    found = re.fullmatch(r"first as in float32: (\d\.\d{3}), smallest cosine: (\d\.\d{4})", last)
    assert found
    assert 0.99 < float(found[2]) <= 1


def test_agreement_counts_first_incidents_and_the_smallest_cosine(
    ranked: tuple[list[Incident], IncidentState], tiny_encoder: TorchEncoder
) -> None:
    ranking = Ranking(ranked[1])
    vectors = encode(TITLES, tiny_encoder, "queries")
    first, second = unit(vectors[0]), unit(vectors[1])
    assert agreement(vectors, vectors, ranking)[0] == 1.0
    assert agreement(vectors, vectors, ranking)[1] == pytest.approx(1.0, abs=1e-6)
    # By the table of products, queries 1 and 2 have the same first incident; so only the cosine tells them apart.
    same, cosine = agreement([vectors[1]], [vectors[0]], ranking)
    assert same == 1.0
    assert cosine == pytest.approx(float(first @ second), abs=1e-6)
    # Query 4 has another one than query 1.
    assert agreement([vectors[0], vectors[3]], [vectors[0], vectors[0]], ranking)[0] == 0.5


def test_a_precision_that_the_engine_lacks_exits_with_2(tmp_path: Path, tiny_model_dir: Path) -> None:
    incidents = write_incidents(tmp_path / "incidents.csv", TITLES)
    with pytest.raises(SystemExit) as exit_:
        main([str(incidents), "--model", str(tiny_model_dir), "--precision", "bfloat16"])
    assert exit_.value.code == 2


def test_descriptions_can_be_asked_for(
    ranked: tuple[list[Incident], IncidentState],
    tiny_model_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # All descriptions are alike, so all queries are, and each incident has another rank: 1 to 5.
    ranked[1].save(tmp_path / "state.pt")
    incidents = write_incidents(tmp_path / "incidents.csv", TITLES)
    arguments = [str(incidents), "--model", str(tiny_model_dir), "--state", str(tmp_path / "state.pt")]
    assert main([*arguments, "--query", "description"]) == 0
    _, *rows = capsys.readouterr().out.partition("\n\n")[0].splitlines()
    # (1 + 1/2 + 1/3 + 1/4 + 1/5) / 5 = 0.45667
    assert [row.split() for row in rows] == [
        [metric, "5", "0.200", "0.600", "1.000", "0.457"] for metric in ("cosine", "centered")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["another model", "no model", "no state", "a broken state", "no incidents"])
def test_what_can_not_be_evaluated_is_told_in_one_line(
    broken: str,
    ranked: tuple[list[Incident], IncidentState],
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
    name: str, ranked: tuple[list[Incident], IncidentState], tiny_model_dir: Path, tmp_path: Path
) -> None:
    ranked[1].save(tmp_path / "state.pt")
    incidents = write_incidents(tmp_path / name, TITLES)
    assert main([str(incidents), "--model", str(tiny_model_dir), "--state", str(tmp_path / "state.pt")]) == 0


def test_a_source_that_is_no_table_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([str(tmp_path)])
    assert exit_.value.code == 2
    assert "isn't a" in capsys.readouterr().err


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
    _, cosine, _, note = output.out.partition("\n\n")[0].splitlines()
    # No query but the third finds its own; those of the others' titles come first. The rest is below.
    vectors = np.stack([vector(tiny_encoder, title) for title in TITLES]).astype(np.float64)
    means = np.stack([vector(tiny_encoder, text) for text in texts]).astype(np.float64)
    cosines = vectors @ means.T / np.linalg.norm(vectors, axis=1)[:, None] / np.linalg.norm(means, axis=1)
    ranks = [1 + int((row > row[place]).sum()) for place, row in enumerate(cosines)]
    expected = [f"{np.mean([rank <= limit for rank in ranks]):.3f}" for limit in (1, 3, 10)]
    assert cosine.split() == ["cosine", "5", *expected, f"{np.mean([1 / rank for rank in ranks]):.3f}"]
    assert expected[0] == "0.200"
    assert note == "1 queries repeat their incident's text."
    assert output.err.count("line 8: ") == 1  # The bad row is reported once.
    # Of the first and the third query, one repeats its incident's text.
    assert main([*arguments, "--queries", "2"]) == 0
    _, cosine, _, note = capsys.readouterr().out.partition("\n\n")[0].splitlines()
    assert (cosine.split()[1], note) == ("2", "1 queries repeat their incident's text.")
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
    assert main([*arguments, "--query", "description"]) == 0
    output = capsys.readouterr()
    _, cosine, _, note = output.out.partition("\n\n")[0].splitlines()
    assert cosine.split()[:3] == ["cosine", "1", "1.000"]
    assert note == "1 queries repeat their incident's text."
    # With its only incident removed, a state can't say anything.
    assert output.out.splitlines()[-1].split()[-2:] == ["nan", "nan"]


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
    _, cosine, *_ = capsys.readouterr().out.splitlines()
    queries = [unit(with_prefixes.encode(title).vector) for title in TITLES]
    reports = [unit(with_prefixes.for_reports().encode(title).vector) for title in TITLES]
    assert float(queries[0] @ reports[0]) < 0.9999
    ranks = [1 + sum(float(q @ other) > float(q @ reports[at]) for other in reports) for at, q in enumerate(queries)]
    assert cosine.split()[-1] == f"{np.mean([1 / rank for rank in ranks]):.3f}"


def test_a_few_queries_in_long_texts(
    ranked: tuple[list[Incident], IncidentState],
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
        assert printed[" ".join(options)].splitlines()[1].split()[1] == "3"
    assert printed["--surround 20"] == printed["--surround 20 --place start"]
    assert len(set(printed.values())) == 3


@pytest.mark.parametrize(
    "options",
    [["--place", "end"], ["--surround", "0"], ["--surround", "100001"], ["--queries", "-1"], ["--place", "top"]],
)
def test_options_that_can_not_be_used_exit_with_2(options: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([str(write_incidents(tmp_path / "incidents.csv", TITLES)), *options])
    assert exit_.value.code == 2
