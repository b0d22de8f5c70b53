"""The scores of evaluate.py are those worked out by hand on a state whose ranks are known."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import build_state
from evaluate import Scores, agreement, evaluate, main
from similarity.encoder.text_encoder import Encoding
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.incidents.state import IncidentState
from similarity.sources.database import Incident, Report
from similarity.vectors import unit
from tiny import write_tiny_longformer

TITLES = ["A car hit a man", "A chatbot lied", "Courts used biased scores", "A plane fell", "A robot hurt a worker"]


def incident(incident_id: int, text: str) -> Incident:
    return Incident(incident_id, text, "", (Report(None, text),))


def vector(encoder: TorchEncoder, text: str) -> np.ndarray:
    return encoder.encode(text).vector


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
    found = evaluate(queries, tiny_encoder, state, ("cosine",))["cosine"]
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
    assert evaluate([incident(1, TITLES[0])], tiny_encoder, state, ("cosine", "centered")) == {
        "cosine": Scores(queries=1, recall={1: 0.0, 3: 1.0, 10: 1.0}, mean_reciprocal_rank=0.5),
        "centered": Scores(queries=1, recall={1: 1.0, 3: 1.0, 10: 1.0}, mean_reciprocal_rank=1.0),
    }


def test_queries_of_incidents_that_the_state_lacks_are_left_out(
    ranked: tuple[list[Incident], IncidentState], tiny_encoder: TorchEncoder
) -> None:
    queries, state = ranked
    scores = evaluate([queries[0], incident(99, "Unknown")], tiny_encoder, state, ("cosine",))["cosine"]
    assert scores == Scores(queries=1, recall={1: 1.0, 3: 1.0, 10: 1.0}, mean_reciprocal_rank=1.0)


def test_no_query_at_all_scores_nothing(
    ranked: tuple[list[Incident], IncidentState], tiny_encoder: TorchEncoder
) -> None:
    scores = evaluate([], tiny_encoder, ranked[1], ("cosine",))["cosine"]
    assert scores == Scores(queries=0, recall={1: 0.0, 3: 0.0, 10: 0.0}, mean_reciprocal_rank=0.0)


def write_incidents(path: Path, titles: list[str]) -> Path:
    lines = [f"{number},{title},About it.\n" for number, title in enumerate(titles, start=1)]
    path.write_text("incident_id,title,description\n" + "".join(lines))
    return path


def test_the_command_prints_a_table(
    tiny_model_dir: Path, tiny_encoder: TorchEncoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Two incidents with each other's vectors: each comes second. The state lacks the other three. Titles as they are
    # read from a table end with a full stop.
    IncidentState(
        incident_ids=np.array([1, 2]),
        report_counts=np.ones(2, dtype=np.int64),
        means=np.stack([vector(tiny_encoder, f"{TITLES[1]}."), vector(tiny_encoder, f"{TITLES[0]}.")]),
        titles=["", ""],
        model_fingerprint=tiny_encoder.fingerprint,
    ).save(tmp_path / "state.pt")
    incidents = write_incidents(tmp_path / "incidents.csv", TITLES)
    assert main([str(incidents), "--model", str(tiny_model_dir), "--state", str(tmp_path / "state.pt")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "metric    queries  first 1   first 3   first 10  mean 1/rank",
        "cosine    2        0.000     1.000     1.000     0.500",
        "centered  2        0.000     1.000     1.000     0.500",
    ]


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
    _, *rows = capsys.readouterr().out.splitlines()
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
    _, cosine, _, last, several = capsys.readouterr().out.splitlines()
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
    ranked: tuple[list[Incident], IncidentState], tiny_encoder: TorchEncoder, tiny_model_dir: Path
) -> None:
    queries, state = ranked

    class Turned(TorchEncoder):
        """Gives the second query's vector for the first's text."""

        def encode(self, text: str) -> Encoding:
            return super().encode(TITLES[1] if text == TITLES[0] else text)

    first, second = (unit(vector(tiny_encoder, title)) for title in TITLES[:2])
    turned = Turned.load(tiny_model_dir)
    found = agreement(queries[1:3], turned, tiny_encoder, state)
    assert found.same_first == 1.0
    assert found.smallest_cosine == pytest.approx(1.0, abs=1e-6)
    # Both queries have the same first incident by the table of products, so only the cosine tells them apart.
    found = agreement(queries[:1], turned, tiny_encoder, state)
    assert found.same_first == 1.0
    assert found.smallest_cosine == pytest.approx(float(first @ second), abs=1e-6)
    found = agreement(queries[3:4], tiny_encoder, tiny_encoder, state)
    assert found.same_first == 1.0


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
    _, *rows = capsys.readouterr().out.splitlines()
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
    assert main([str(incidents), "--model", str(model_dir)]) == 1
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
