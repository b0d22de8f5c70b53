#!/usr/bin/env python3
"""Measure how often a text about an incident finds that incident first, and how sure the answers are.

SOURCE is an incidents.csv, or a snapshot with reports as build_state.py takes it. A task says which texts ask; the only
right answer is their own incident. Several --task are measured one after the other.

Tasks of an incidents.csv:
    title            titles ask for descriptions (default)
    description      descriptions ask for titles
    first-sentence, first-20-words, first-60-words
                     of the descriptions; they ask for titles
Without --state, the state is made in memory of the column that is asked for. With --state, queries that the state was
made from are left out. They are recognised by the incident's vector, if it has one report.

Tasks of a snapshot, whose state is made in memory as build_state.py makes it:
    report           each report, left out of its incident first (default). Needs no model where AIID publishes vectors
    title            titles; neither the vectors nor the word index hold them
    first-sentence, first-20-words, first-60-words
                     of the reports, each left out of its incident first
    pairs            pairs of incidents that editors marked as similar or dissimilar: which is nearer?

--texts FILE asks with texts of your own: a CSV with the columns text and incident_id, perhaps language. A blank
incident_id says that no incident is about the text. They are asked of SOURCE's state or of --state.

Figures, for each metric and for BM25 alone ("words"): the shares of queries that find their incident at rank 1, 3 or 10
or better; how well the largest score tells texts with an incident from unrelated ones (scripts/sample/unrelated.csv),
and from the same texts with their incident removed; how evenly incidents are recommended; whether the confidence is
right. docs/evaluation.md explains them.

All that is fitted (the power of `whitened`, the confidence) is fitted to the incidents of four folds and measured on
the fifth, five times. Only texts of your own are asked of a state as it is.

--surround N puts each query and each unrelated text into N words of unrelated news. So it measures long texts.

For another precision than float32, this also prints how often the first incident is the same as with float32, by cosine
and by centered, and the smallest cosine between the vectors of both precisions.

Vectors are kept in --cache, so that a stopped evaluation resumes.

Example: how well do titles find descriptions?
    python scripts/evaluate.py incidents.csv --model inference/model
Example: how well do reports find their incident?
    python scripts/evaluate.py backup.tar.bz2 --task report
Example: does a title still count at the start of a long text?
    python scripts/evaluate.py incidents.csv --surround 1000 --place start --queries 150
Example: is int8 good enough?
    python scripts/export_onnx.py inference/model --precision int8
    python scripts/evaluate.py incidents.csv --precision int8
"""

from __future__ import annotations

from shared import command
from shared.command import INFERENCE_DIR, ROOT, Bar, argument_parser, writing_stdout

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast, get_args

from evaluation.beginnings import Beginning
from evaluation.measuring import Encoders, Measured, fitted_rankings, measure
from evaluation.own_tasks import own_task_in_memory, own_task_of_state
from evaluation.pairs import PairResult, marked_pairs, pair_result
from evaluation.report import lines, pair_lines, to_json
from evaluation.snapshot_tasks import SnapshotTask, snapshot_task
from evaluation.snapshots import Snapshot, build_snapshot
from evaluation.table_tasks import TableTask, state_task, table_task
from evaluation.tasks import NothingToMeasureError, Task
from evaluation.texts import Place, Surroundings, Unrelated, read_own, read_unrelated
from similarity.encoder.loading import load_encoder
from similarity.encoder.model_folder import HOW_TO_GET_ONE, ModelFiles
from similarity.errors import ModelError, StateError
from similarity.incidents.state import IncidentState
from similarity.refresh.build import VectorsFrom, has_published, token_limit
from similarity.refresh.compute import Computer
from similarity.refresh.questions import DEFAULT_WORDS_FROM
from similarity.refresh.vector_store import StoreError, VectorStore
from similarity.settings import (
    DEFAULT_ENGINE,
    DEFAULT_MODEL_DIR,
    DEFAULT_MODEL_URI,
    DEFAULT_PRECISION,
    PRECISIONS,
    Precision,
)
from similarity.sources.database import Database
from similarity.sources.problems import Problems, SourceError
from similarity.sources.read import read_database
from similarity.sources.tables import is_text
from states.building import STORE_FILENAME, words_option

# Words around a query. No model takes as many tokens, and texts of so many words fit in memory.
MOST_WORDS = 100_000

TABLE_TASKS: tuple[str, ...] = ("title", "description", *get_args(Beginning))
SNAPSHOT_TASKS: tuple[str, ...] = ("report", "title", *get_args(Beginning), "pairs")
# The name of the task of a user's own texts, among results.
OWN = "texts"


class Evaluation:
    """What the tasks of one call share. Each part is made when the first task needs it. Its properties raise
    SourceError, ModelError, StateError and StoreError.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self.store_path: Path = args.cache / STORE_FILENAME

    @cached_property
    def database(self) -> Database:
        return read_database(self._args.source, Problems())

    @cached_property
    def state(self) -> IncidentState | None:
        """The one of --state."""
        return IncidentState.load(self._args.state) if self._args.state else None

    @cached_property
    def vectors(self) -> VectorsFrom:
        """The vectors of the snapshot's reports."""
        wanted: VectorsFrom = self._args.vectors
        if wanted == "auto" and not has_published(self.database):
            return "computed"
        has_model = any(path.exists() for path in ModelFiles(self._args.model).paths)
        return "published" if wanted == "auto" and not has_model else wanted

    @cached_property
    def encoders(self) -> Encoders:
        """They cut texts where the texts of the state are cut."""
        args, limit = self._args, 0
        if not self._args.is_table and not self.state:
            limit = token_limit(self.vectors, 0, ModelFiles(args.model).config().max_tokens)
        encoder = load_encoder(args.model, engine=args.engine, precision=args.precision)
        is_reduced = args.precision != DEFAULT_PRECISION
        reference = load_encoder(args.model, engine=args.engine) if is_reduced else encoder
        if self.state:
            self.state.require_made_by(encoder, encoder.name or DEFAULT_MODEL_URI)
            limit = self.state.max_tokens
        return Encoders(encoder.cut_at(limit), reference.cut_at(limit))

    @cached_property
    def snapshot(self) -> Snapshot:
        """The source as build_state.py builds it, also if it is a table."""
        if self.vectors == "published":
            return build_snapshot(self.database, self.vectors, None, self._args.words)
        with VectorStore(self.store_path) as store, Bar("chars") as progress:
            computer = Computer(self.encoders.reference, store, progress=progress, equals=("torch", "onnx"))
            return build_snapshot(self.database, self.vectors, computer, self._args.words)

    def task(self, name: str) -> Task:
        """A task of the source, or of the user's own texts. Raises NothingToMeasureError too."""
        args = self._args
        if name == OWN:
            queries, unrelated = read_own(args.texts, Problems())
            if self.state:
                return own_task_of_state(queries, unrelated, self.state, self.encoders.reference, args.queries)
            return own_task_in_memory(queries, unrelated, self.snapshot, args.queries)
        if not args.is_table:
            return snapshot_task(cast(SnapshotTask, name), self.snapshot, args.queries)
        table, reference = cast(TableTask, name), self.encoders.reference
        if self.state:
            return state_task(table, args.source, reference, self.state, args.queries)
        return table_task(table, args.source, reference, args.cache, args.queries)

    def measured(self, name: str, unrelated: Sequence[Unrelated]) -> tuple[Task, Measured]:
        """Raises NothingToMeasureError too."""
        task = self.task(name)
        if self._args.surround:
            around = Surroundings.of(unrelated, self._args.surround, self._args.place or "start")
            task = replace(task, queries=around.around_each(task.queries))
            unrelated = around.around_unrelated(unrelated)
        without_model = not self._args.is_table and not self.state and self.vectors == "published"
        if without_model and any(query.vector is None for query in task.queries):
            raise ModelError(f"these texts need a model, and published vectors are used: {HOW_TO_GET_ONE}")
        if without_model:
            task = replace(task, notes=[*task.notes, "Without a model, no unrelated text was asked."])
        return task, measure(task, None if without_model else self.encoders, unrelated, self.store_path)

    def pairs(self) -> PairResult:
        """Raises NothingToMeasureError too."""
        similar, dissimilar = marked_pairs(self.snapshot)
        rankings = fitted_rankings(self.snapshot.state, self.snapshot.questions)
        return pair_result(self.snapshot, rankings, similar, dissimilar)


def evaluate(args: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any], list[str]]]:
    """Measures one task after the other: its name, its figures for JSON, and the lines that show them.

    Raises NothingToMeasureError, SourceError, ModelError, StateError, StoreError, and OSError for a plot.
    """
    unrelated = read_unrelated()
    if args.plots:
        args.plots.mkdir(parents=True, exist_ok=True)  # An evaluation takes long, so it begins with what may fail.
    evaluation = Evaluation(args)
    for name in args.tasks:
        if name == "pairs":
            result = evaluation.pairs()
            yield name, asdict(result), list(pair_lines(result))
            continue
        task, measured = evaluation.measured(name, unrelated)
        if args.plots:
            from evaluation.plots import write_plots

            write_plots(args.plots, name, measured.plots)
        shown = list(lines(measured.result, task.notes))
        content: dict[str, Any] = {"notes": list(task.notes), **asdict(measured.result)}
        if measured.agreement:
            shown.append(str(measured.agreement))
            content["float32"] = asdict(measured.agreement)
        yield name, content, shown


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(__doc__)
    parser.add_argument("source", type=Path, nargs="?", metavar="SOURCE", help="an incidents.csv or a snapshot")
    parser.add_argument(
        "--task",
        action="append",
        choices=list(dict.fromkeys([*TABLE_TASKS, *SNAPSHOT_TASKS])),
        help="texts that ask, see below (default title for an incidents.csv, report for a snapshot)",
    )
    parser.add_argument("--texts", type=Path, metavar="FILE", help="ask with texts of your own, see below")
    parser.add_argument(
        "--model", type=Path, default=INFERENCE_DIR / DEFAULT_MODEL_DIR, help="model folder (default inference/model)"
    )
    parser.add_argument("--state", type=Path, help="incident state (default: made in memory)")
    parser.add_argument(
        "--vectors",
        choices=get_args(VectorsFrom),
        default="auto",
        help="of a snapshot's reports, as for build_state.py (default auto)",
    )
    parser.add_argument(
        "--words",
        type=words_option,
        default=DEFAULT_WORDS_FROM,
        metavar="PARTS",
        help="parts of an incident in the word index of a snapshot's state, as for build_state.py "
        "(default title,description)",
    )
    parser.add_argument("--queries", type=int, metavar="N", help="take N queries in even steps (default all)")
    parser.add_argument("--surround", type=int, metavar="N", help="put each query into N words of unrelated news")
    parser.add_argument("--place", choices=get_args(Place), help="where --surround puts the query (default start)")
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
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="write plots as PNG files into a folder")
    return parser


def _checked(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """Exits with 2 if the arguments can't be used. Adds is_table, whether the source is an incidents.csv, and tasks."""
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
    for path in (args.source, args.texts):
        if path and not path.exists():
            parser.error(f"there is no file or folder {path}")
    try:
        args.is_table = bool(args.source) and args.source.is_file() and is_text(args.source)
    except SourceError as error:
        parser.error(str(error))
    args.tasks = _tasks(parser, args)
    return args


def _tasks(parser: argparse.ArgumentParser, args: argparse.Namespace) -> list[str]:
    """The tasks to measure, each once. Exits with 2 if they don't fit the source."""
    if not args.source and not (args.texts and args.state):
        parser.error("give a source, or --texts and --state")
    if args.source and not args.is_table and args.state:
        parser.error("--state is for an incidents.csv or for --texts alone; a snapshot's state is made of its reports")
    known = TABLE_TASKS if args.is_table else SNAPSHOT_TASKS if args.source else ()
    for task in args.task or ():
        if task not in known:
            kind = "an incidents.csv" if args.is_table else "a snapshot" if args.source else "--texts alone"
            parser.error(f"--task {task} isn't for {kind}")
    own = [OWN] if args.texts else []
    return list(dict.fromkeys([*(args.task or ()), *own])) or [known[0]]


def main(argv: list[str] | None = None) -> int:
    args = _checked(_parser(), argv)
    contents: dict[str, dict[str, Any]] = {}
    try:
        for number, (name, content, shown) in enumerate(evaluate(args)):
            contents[name] = content
            if not args.json:
                title = [f"Task {name}"] if len(args.tasks) > 1 else []
                with writing_stdout("evaluate"):
                    print("\n".join([*([""] if number else []), *title, *shown]))
    except (ModelError, StateError) as error:
        print(f"evaluate: {error.detail}", file=sys.stderr)
        return 1
    except NothingToMeasureError as error:
        print(f"evaluate: nothing to measure: {error}", file=sys.stderr)
        return 1
    except (SourceError, StoreError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"evaluate: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    if args.json:
        with writing_stdout("evaluate"):
            print(to_json(contents))
    return 0


if __name__ == "__main__":
    command.run(main)
