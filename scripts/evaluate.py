#!/usr/bin/env python3
"""Measure how often a text about an incident finds that incident first.

Each incident's title (or description) is the query, the incident itself the one right answer. Prints the share found at
rank 1, 3 and 10, and the mean reciprocal rank.

Example: how well do titles find descriptions?
    python scripts/build_state.py incidents.csv --text description --out descriptions.pt
    python scripts/evaluate.py incidents.csv --state descriptions.pt
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from _inference import INFERENCE_DIR
from command_line import argument_parser
from progress import progress_bar
from similarity.encoding import TextEncoder, load_encoder
from similarity.errors import ModelError, StateError
from similarity.index import METRICS, Metric
from similarity.ranking import most_similar
from similarity.settings import DEFAULT_INCIDENTS_FILENAME, DEFAULT_MODEL_DIR, DEFAULT_MODEL_URI
from similarity.state import IncidentState
from sources import Incident, read_incidents
from tables import Problems, SourceError

RANKS = (1, 3, 10)


@dataclass(frozen=True)
class Scores:
    """Shares of queries, 0 to 1: right answer at rank r or better, for each of RANKS; and the mean of 1 / rank."""

    queries: int
    recall: dict[int, float]
    mean_reciprocal_rank: float


def evaluate(
    queries: list[Incident], encoder: TextEncoder, state: IncidentState, metrics: tuple[Metric, ...]
) -> dict[Metric, Scores]:
    """Scores of the queries' texts, for each metric. Queries of incidents that the state lacks are left out."""
    known = set(state.incident_ids.tolist())
    queries = [query for query in queries if query.incident_id in known]
    ranks: dict[Metric, list[int]] = {metric: [] for metric in metrics}
    with progress_bar(len(queries), "queries") as progress:
        for query in queries:
            vector = encoder.encode(query.texts[0]).vector
            for metric in metrics:
                found = [match.incident_id for match in most_similar(vector, state, -1, metric)]
                ranks[metric].append(found.index(query.incident_id) + 1)
            progress.update()
    return {metric: _scores(found) for metric, found in ranks.items()}


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
    parser.add_argument("--query", choices=("title", "description"), default="title", help="the text that is asked for")
    parser.add_argument("--model", type=Path, default=INFERENCE_DIR / DEFAULT_MODEL_DIR, help="model folder")
    parser.add_argument("--state", type=Path, help="incident state (default incident_cls.pt in the model folder)")
    args = parser.parse_args(argv)
    if not args.incidents.is_file() or args.incidents.suffix != ".csv":
        parser.error(f"{args.incidents} is no .csv file")
    try:
        queries = read_incidents(args.incidents, Problems(), args.query)
        encoder = load_encoder(args.model)
        state = IncidentState.load(args.state or args.model / DEFAULT_INCIDENTS_FILENAME)
        state.require_made_by(encoder, encoder.name or DEFAULT_MODEL_URI)
    except (ModelError, StateError) as error:
        print(f"evaluate: {error.detail}", file=sys.stderr)
        return 1
    except SourceError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    print("metric    queries  " + "".join(f"first {limit:<4}" for limit in RANKS) + "mean 1/rank")
    for metric, scores in evaluate(queries, encoder, state, METRICS).items():
        shares = "".join(f"{scores.recall[limit]:<10.3f}" for limit in RANKS)
        print(f"{metric:<10}{scores.queries:<9}{shares}{scores.mean_reciprocal_rank:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
