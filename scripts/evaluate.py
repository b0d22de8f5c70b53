#!/usr/bin/env python3
"""Measure how often a text about an incident finds that incident first.

Each incident's title (or description) is a query. The only right answer is the incident itself. Without --state, the
incidents' vectors are those of the other column. They are kept in --cache, so that a stopped evaluation resumes.

This prints the share of queries that find their incident at rank 1, 3 or 10 or better, and the mean reciprocal rank.
Incidents with the same text share a rank.

It also prints how well the best similarity tells one kind of text from another. The AUC is the share of pairs in which
the first kind has the larger one. 1 is perfect, and 0.5 is chance. `without their incident`: the right incident is
removed from the state. The unrelated texts are those of scripts/sample/unrelated.csv.

--surround N puts each query and each unrelated text into N words of unrelated news. So it measures long texts.

For another precision than float32, this also prints how often the first incident by cosine is the same as with float32,
and the smallest cosine between the vectors of both precisions.

If the state of --state was made from the query's own text, the query finds its incident almost every time. Such queries
are left out and counted. They are recognised by the incident's vector: it equals the vector of the query, or of title
and description together, which build_state.py uses for an incidents.csv. This works only for incidents with one report.

Example: how well do titles find descriptions?
    python scripts/evaluate.py incidents.csv --model inference/model
Example: does a title still count at the start of a long text?
    python scripts/evaluate.py incidents.csv --surround 1000 --place start --queries 150
Example: is int8 good enough?
    python scripts/export_onnx.py inference/model --precision int8
    python scripts/evaluate.py incidents.csv --precision int8
"""

from __future__ import annotations

from shared import command
from shared.command import INFERENCE_DIR, ROOT, argument_parser, progress_bar, writing_stdout

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from evaluation.figures import RANKS, Answer, answer, auc, scores
from evaluation.tasks import NothingToMeasureError, Task, in_memory, of_state
from evaluation.texts import Column, Place, Surroundings, Unrelated, read_unrelated
from similarity.encoder.loading import load_encoder
from similarity.encoder.text_encoder import TextEncoder
from similarity.errors import ModelError, StateError
from similarity.incidents.metrics import METRICS, Metric
from similarity.incidents.ranking import Ranking
from similarity.incidents.state import IncidentState
from similarity.refresh.vector_store import StoreError
from similarity.settings import (
    DEFAULT_ENGINE,
    DEFAULT_MODEL_DIR,
    DEFAULT_MODEL_URI,
    DEFAULT_PRECISION,
    PRECISIONS,
    Precision,
)
from similarity.sources.database import Incident
from similarity.sources.problems import SourceError
from similarity.vectors import Vector, unit

# Words around a query. No model takes as many tokens, and texts of so many words fit in memory.
MOST_WORDS = 100_000


def encode(texts: Sequence[str], encoder: TextEncoder, unit_name: str) -> list[Vector]:
    """The vectors (hidden,) of texts to ask with."""
    vectors = []
    with progress_bar(len(texts), unit_name) as progress:
        for text in texts:
            vectors.append(encoder.encode(text).vector)
            progress.update()
    return vectors


def answers(
    queries: Sequence[Incident], vectors: Sequence[Vector], ranking: Ranking, metrics: Sequence[Metric] = METRICS
) -> dict[Metric, list[Answer]]:
    """The answer to each query, by metric. The state must have the queries' incidents."""
    asked = [(query.incident_id, vector) for query, vector in zip(queries, vectors, strict=True)]
    return {metric: [answer(vector, id_, ranking, metric) for id_, vector in asked] for metric in metrics}


def agreement(vectors: Sequence[Vector], reference: Sequence[Vector], ranking: Ranking) -> tuple[float, float]:
    """Share of queries with the same first incident, and the smallest cosine, for vectors of two precisions."""
    pairs = list(zip(vectors, reference, strict=True))
    first = [[ranking.most_similar(vector, 1)[0].incident_id for vector in pair] for pair in pairs]
    cosines = [float(unit(found) @ unit(expected)) for found, expected in pairs]
    return sum(found == expected for found, expected in first) / max(len(pairs), 1), min([1.0, *cosines])


def print_ranks(found: dict[Metric, list[Answer]], title: str = "metric") -> None:
    print(f"{title:<10}queries  " + "".join(f"first {limit:<4}" for limit in RANKS) + "mean 1/rank")
    for metric, each in found.items():
        figures = scores(each)
        shares = "".join(f"{figures.recall[limit]:<10.3f}" for limit in RANKS)
        print(f"{metric:<10}{figures.queries:<9}{shares}{figures.mean_reciprocal_rank:.3f}")


def print_no_match(found: dict[Metric, list[Answer]], unrelated: dict[Metric, list[tuple[str, float]]]) -> None:
    """found: the queries' answers. unrelated: the kind and the best similarity of each unrelated text."""
    rows: dict[str, list[float]] = {}
    for metric, each in found.items():
        there, removed = [one.best for one in each], [one.best_without for one in each]
        every = [best for _, best in unrelated[metric]]
        news = [best for kind, best in unrelated[metric] if kind == "news"]
        for name, positive, negative in (
            (f"queries, {len(news)} unrelated news", there, news),
            (f"queries, all {len(every)} unrelated texts", there, every),
            (f"without their incident, {len(news)} unrelated news", removed, news),
            (f"without their incident, all {len(every)} unrelated texts", removed, every),
            ("queries, the same without their incident", there, removed),
        ):
            rows.setdefault(name, []).append(auc(positive, negative))
    print(f"{'AUC of the best similarity':<52}" + "".join(f"{metric:<10}" for metric in found).rstrip())
    for name, values in rows.items():
        print(f"{name:<52}" + "".join(f"{value:<10.3f}" for value in values).rstrip())


def measure(task: Task, encoder: TextEncoder, reference: TextEncoder, unrelated: Sequence[Unrelated]) -> None:
    """Encodes the texts, and prints all figures. reference: `encoder` in float32. Raises ModelError."""
    ranking = Ranking(task.state)
    texts = [query.texts[0] for query in task.queries]
    vectors = encode(texts, encoder, "queries")
    found = answers(task.queries, vectors, ranking)
    others = list(zip(unrelated, encode([each.text for each in unrelated], encoder, "unrelated texts"), strict=True))
    best = {
        metric: [(each.kind, ranking.most_similar(vector, 1, metric)[0].similarity) for each, vector in others]
        for metric in found
    }
    float32 = encode(texts, reference, "queries in float32") if encoder.precision != reference.precision else None
    with writing_stdout("evaluate"):
        print_ranks(found)
        for note in task.notes:
            print(note)
        print()
        print_no_match(found, best)
        if float32:
            same_first, smallest = agreement(vectors, float32, ranking)
            print(f"first as in float32: {same_first:.3f}, smallest cosine: {smallest:.4f}")


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(__doc__)
    parser.add_argument("incidents", type=Path, help="an incidents.csv")
    parser.add_argument(
        "--query", choices=get_args(Column), default="title", help="the queries' column (default title)"
    )
    parser.add_argument(
        "--model", type=Path, default=INFERENCE_DIR / DEFAULT_MODEL_DIR, help="model folder (default inference/model)"
    )
    parser.add_argument("--state", type=Path, help="incident state (default: made in memory of the other column)")
    parser.add_argument("--queries", type=int, metavar="N", help="take N queries in even steps (default all)")
    parser.add_argument("--surround", type=int, metavar="N", help="put each query into N words of unrelated news")
    parser.add_argument("--place", choices=get_args(Place), help="of the query in these words (default start)")
    engines = tuple(PRECISIONS)
    parser.add_argument("--engine", choices=engines, default=DEFAULT_ENGINE, help="encodes the texts (default onnx)")
    parser.add_argument(
        "--precision",
        choices=get_args(Precision),
        default=DEFAULT_PRECISION,
        help="precision of the queries' vectors (default float32)",
    )
    parser.add_argument(
        "--cache", type=Path, default=ROOT / ".cache", metavar="FOLDER", help="keeps vectors (default .cache)"
    )
    return parser


def _checked(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """Exits with 2 if the arguments can't be used."""
    args = parser.parse_args(argv)
    if args.precision not in PRECISIONS[args.engine]:
        parser.error(f"--precision for --engine {args.engine} must be one of {', '.join(PRECISIONS[args.engine])}")
    for name in ("queries", "surround"):
        if (value := getattr(args, name)) is not None and value < 1:
            parser.error(f"--{name} must be 1 or more, not {value}")
    if args.surround and args.surround > MOST_WORDS:
        parser.error(f"--surround must be at most {MOST_WORDS}, not {args.surround}")
    if args.place and not args.surround:
        parser.error("--place is for --surround")
    if not args.incidents.is_file():
        parser.error(f"{args.incidents} isn't a file")
    return args


def main(argv: list[str] | None = None) -> int:
    args = _checked(_parser(), argv)
    try:
        unrelated = read_unrelated()
        encoder = load_encoder(args.model, engine=args.engine, precision=args.precision)
        is_reduced = args.precision != DEFAULT_PRECISION
        reference = load_encoder(args.model, engine=args.engine) if is_reduced else encoder
        if args.state:
            state = IncidentState.load(args.state)
            state.require_made_by(encoder, encoder.name or DEFAULT_MODEL_URI)
            encoder, reference = (each.cut_at(state.max_tokens) for each in (encoder, reference))
            task = of_state(args.incidents, args.query, reference, state, args.queries)
        else:
            task = in_memory(args.incidents, args.query, reference, args.cache, args.queries)
        if args.surround:
            around = Surroundings.of(unrelated, args.surround, args.place or "start")
            task = replace(task, queries=around.around_each(task.queries))
            unrelated = around.around_unrelated(unrelated)
        measure(task, encoder, reference, unrelated)
    except (ModelError, StateError) as error:
        print(f"evaluate: {error.detail}", file=sys.stderr)
        return 1
    except NothingToMeasureError as error:
        print(f"evaluate: nothing to measure: {error}", file=sys.stderr)
        return 1
    except (SourceError, StoreError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    command.run(main)
