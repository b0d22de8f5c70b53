#!/usr/bin/env python3
"""Measure how often a text about an incident finds that incident first.

Each incident's title (or description) is a query. The only right answer is the incident itself. This prints the share
of queries that find it at rank 1, 3 or 10 or better, and the mean reciprocal rank. For another precision than float32,
it also prints how often the first incident by cosine is the same as with float32, and the smallest cosine between the
vectors of both precisions.

If the state was made from the query's own text, the query finds its incident almost every time. Such queries are left
out and counted. They are recognised by the incident's vector: it equals the vector of the query, or of title and
description together, which build_state.py uses for an incidents.csv. This works only for incidents with one report.

Example: how well do titles find descriptions?
    python scripts/build_state.py incidents.csv --text description --out descriptions.pt
    python scripts/evaluate.py incidents.csv --state descriptions.pt
Example: is int8 good enough?
    python scripts/export_onnx.py inference/model --precision int8
    python scripts/evaluate.py incidents.csv --state descriptions.pt --precision int8
"""

from __future__ import annotations

from shared import command
from shared.command import INFERENCE_DIR, argument_parser, progress_bar

import io
import sys
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from similarity.encoder.loading import load_encoder
from similarity.encoder.text_encoder import TextEncoder
from similarity.errors import ModelError, StateError
from similarity.incidents.ranking import METRICS, Metric, Ranking
from similarity.incidents.state import IncidentState
from similarity.settings import (
    DEFAULT_ENGINE,
    DEFAULT_INCIDENTS_FILENAME,
    DEFAULT_MODEL_DIR,
    DEFAULT_MODEL_URI,
    DEFAULT_PRECISION,
    PRECISIONS,
    Precision,
)
from similarity.sources.database import Incident, TextMode
from similarity.sources.problems import Problems, SourceError
from similarity.sources.read import read_database
from similarity.sources.tables import is_text
from similarity.vectors import unit

RANKS = (1, 3, 10)
# Two vectors come from the same text if their distance is at most this share of their length. bfloat16 differs from
# float32 by 0.006. With the original model, the nearest two of 78 real reports differ by 0.057.
SAME_TEXT = 0.01


@dataclass(frozen=True)
class Scores:
    """recall: share of queries (0 to 1) with the right answer at rank r or better, for each r of RANKS."""

    queries: int
    recall: dict[int, float]
    mean_reciprocal_rank: float


def read_queries(path: Path, query: TextMode) -> tuple[list[Incident], list[Incident]]:
    """The queries of an incidents.csv, and the same incidents with title and description. Raises SourceError."""
    if not is_text(path):
        raise SourceError(f"{path} isn't a CSV file in UTF-8.")
    queries = read_database(path, Problems(), text=query).incidents
    with redirect_stderr(io.StringIO()):  # bad rows are reported already
        return list(queries), list(read_database(path, Problems(), text="title-and-description").incidents)


def made_from(texts: list[Incident], encoder: TextEncoder, state: IncidentState) -> set[int]:
    """Ids of the incidents whose only report in the state is one of their `texts`. encoder: computes in float32.

    Incidents with several reports are never among them, because the state has only the mean of their vectors.
    """
    known = zip(state.incident_ids.tolist(), state.means.astype(np.float64), state.report_counts.tolist(), strict=True)
    report_of = {incident_id: mean for incident_id, mean, count in known if count == 1}
    todo = sorted({(each.incident_id, text) for each in texts if each.incident_id in report_of for text in each.texts})
    found = set()
    with progress_bar(len(todo), "texts") as progress:
        for incident_id, text in todo:
            report = report_of[incident_id]
            if np.linalg.norm(encoder.encode(text).vector - report) <= SAME_TEXT * np.linalg.norm(report):
                found.add(incident_id)
            progress.update()
    return found


def evaluate(
    queries: list[Incident], encoder: TextEncoder, state: IncidentState, metrics: tuple[Metric, ...]
) -> dict[Metric, Scores]:
    """The scores for each metric. Queries whose incident isn't in the state are left out."""
    known, ranking = set(state.incident_ids.tolist()), Ranking(state)
    queries = [query for query in queries if query.incident_id in known]
    ranks: dict[Metric, list[int]] = {metric: [] for metric in metrics}
    with progress_bar(len(queries), "queries") as progress:
        for query in queries:
            vector = encoder.encode(query.texts[0]).vector
            for metric in metrics:
                found = [match.incident_id for match in ranking.most_similar(vector, -1, metric)]
                ranks[metric].append(found.index(query.incident_id) + 1)
            progress.update()
    return {metric: _scores(found) for metric, found in ranks.items()}


@dataclass(frozen=True)
class Agreement:
    """An encoder against a reference: share of queries with the same first incident, smallest cosine of vectors."""

    same_first: float
    smallest_cosine: float


def agreement(queries: list[Incident], encoder: TextEncoder, reference: TextEncoder, state: IncidentState) -> Agreement:
    """Compares `encoder` with `reference`, the same model in another precision, on the queries' texts."""
    same, cosines, ranking = 0, [1.0], Ranking(state)
    with progress_bar(len(queries), "queries") as progress:
        for query in queries:
            found, expected = (each.encode(query.texts[0]).vector for each in (encoder, reference))
            same += ranking.most_similar(found, 1)[0].incident_id == ranking.most_similar(expected, 1)[0].incident_id
            cosines.append(float(unit(found) @ unit(expected)))
            progress.update()
    return Agreement(same / max(len(queries), 1), min(cosines))


def _scores(ranks: list[int]) -> Scores:
    queries = max(len(ranks), 1)
    return Scores(
        queries=len(ranks),
        recall={limit: sum(rank <= limit for rank in ranks) / queries for limit in RANKS},
        mean_reciprocal_rank=sum(1 / rank for rank in ranks) / queries,
    )


def main(argv: list[str] | None = None) -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("incidents", type=Path, help="an incidents.csv")
    parser.add_argument(
        "--query", choices=("title", "description"), default="title", help="column with the queries (default title)"
    )
    parser.add_argument("--model", type=Path, default=INFERENCE_DIR / DEFAULT_MODEL_DIR, help="model folder")
    parser.add_argument("--state", type=Path, help="incident state (default incident_cls.pt in the model folder)")
    parser.add_argument(
        "--engine",
        choices=tuple(PRECISIONS),
        default=DEFAULT_ENGINE,
        help="engine that encodes the queries (default onnx)",
    )
    parser.add_argument(
        "--precision",
        choices=get_args(Precision),
        default=DEFAULT_PRECISION,
        help="precision of the queries' vectors (default float32)",
    )
    args = parser.parse_args(argv)
    if args.precision not in PRECISIONS[args.engine]:
        parser.error(f"--precision for --engine {args.engine} must be one of {', '.join(PRECISIONS[args.engine])}")
    if not args.incidents.is_file():
        parser.error(f"{args.incidents} isn't a file")
    try:
        queries, in_full = read_queries(args.incidents, args.query)
        encoder = load_encoder(args.model, engine=args.engine, precision=args.precision)
        reference = load_encoder(args.model, engine=args.engine)
        state = IncidentState.load(args.state or args.model / DEFAULT_INCIDENTS_FILENAME)
        state.require_made_by(encoder, encoder.name or DEFAULT_MODEL_URI)
        encoder, reference = (each.cut_at(state.max_tokens) for each in (encoder, reference))
    except (ModelError, StateError) as error:
        print(f"evaluate: {error.detail}", file=sys.stderr)
        return 1
    except SourceError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    known = set(state.incident_ids.tolist())
    queries = [query for query in queries if query.incident_id in known]
    own = made_from([*queries, *in_full], reference, state)
    kept = [query for query in queries if query.incident_id not in own]
    left_out = f"{len(queries) - len(kept)} queries left out: the state holds their own text"
    if not kept:
        reason = (
            f"{left_out}; build a state from other texts, see --help"
            if queries
            else "the state has none of the incidents"
        )
        print(f"evaluate: nothing to measure: {reason}.", file=sys.stderr)
        return 1
    print("metric    queries  " + "".join(f"first {limit:<4}" for limit in RANKS) + "mean 1/rank")
    for metric, scores in evaluate(kept, encoder, state, METRICS).items():
        shares = "".join(f"{scores.recall[limit]:<10.3f}" for limit in RANKS)
        print(f"{metric:<10}{scores.queries:<9}{shares}{scores.mean_reciprocal_rank:.3f}")
    if len(kept) < len(queries):
        print(f"{left_out}.")
    several = state.incident_ids[state.report_counts > 1].tolist()
    if untold := len({query.incident_id for query in kept}.intersection(several)):
        print(f"{untold} incidents have several reports: one of these may be the query's own text.")
    if encoder.precision != reference.precision:
        found = agreement(kept, encoder, reference, state)
        print(f"first as in float32: {found.same_first:.3f}, smallest cosine: {found.smallest_cosine:.4f}")
    return 0


if __name__ == "__main__":
    command.run(main)
