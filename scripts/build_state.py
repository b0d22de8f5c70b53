#!/usr/bin/env python3
"""Build the incident state, incident_cls.pt: the mean CLS vector of the reports of every incident.

SOURCE is one of
    a snapshot of the AI Incident Database (tar, zip or folder with its dumps, *.bson, or its tables, *.csv),
    an incidents.csv alone (title and description replace the reports),
    a state.csv of nlp-lambdas (vectors of allenai/longformer-base-4096; no model is run),
    a state (no model is run),
    with --columns, the records of another database: a CSV, or JSON lines (an object a line).
--latest downloads the newest snapshot instead. SNAPSHOTS_URL is the page that links to it.

A snapshot has AIID's own vectors of most reports. --vectors says whether they are used:
    auto       AIID's vectors, and computed ones for the other reports if the model is there (default)
    published  only AIID's vectors, without a model
    computed   only computed vectors
Computed vectors are kept, so that the next build computes only those of new texts. A stopped build resumes.

Examples:
    python scripts/build_state.py --latest
    python scripts/build_state.py scripts/sample --out sample.pt
    python scripts/build_state.py state.csv --titles incidents.csv
    python scripts/build_state.py cves.csv --columns id=number,title=name,text=description,url=link,date=published
    python scripts/build_state.py inference/model/incident_cls.pt --record-url https://example.org/{id}
"""

from __future__ import annotations

from shared import command
from shared.command import INFERENCE_DIR, ROOT, Bar, argument_parser, writing_stdout

import argparse
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from similarity.encoder.model_folder import HOW_TO_GET_ONE
from similarity.errors import ModelError, StateError, one_line
from similarity.incidents.collection import (
    DEFAULT_COLLECTION,
    DEFAULT_LICENCE,
    DEFAULT_RECORD_URL,
    require_name,
    require_template,
)
from similarity.incidents.state import IncidentState
from similarity.refresh.build import VectorsFrom
from similarity.refresh.changes import changes
from similarity.refresh.questions import DEFAULT_WORDS_FROM, Kind, WordsFrom
from similarity.refresh.vector_store import StoreError
from similarity.settings import DEFAULT_INCIDENTS_FILENAME, DEFAULT_MODEL_DIR, DEFAULT_PRECISION, FEWEST_TOKENS
from similarity.sources.database import Responses, TextMode
from similarity.sources.download import download
from similarity.sources.page import newest_snapshot, snapshots_url
from similarity.sources.problems import Problems, SourceError
from similarity.sources.records import Columns, Part, columns_option
from states.building import BuildEngine, Options, Result, build, is_current, words_option
from states.ray_engine import DEFAULT_CPUS, ClusterError

CACHE_DIR = ROOT / ".cache"
# How many ids a line names.
_NAMED = 10


def latest(options: Options) -> Path | None:
    """The newest snapshot, downloaded into the cache; None if the state is already made of it. Raises SourceError."""
    snapshot = newest_snapshot(snapshots_url())
    before = _state_before(options.out)
    if before and is_current(before, snapshot.name, options):
        with writing_stdout("build_state"):
            print(f"{options.out}: already made of {snapshot.name}, the newest snapshot; nothing to do")
        return None
    with Bar("B") as bar:
        return download(snapshot, options.snapshots, bar)


def _state_before(path: Path) -> IncidentState | None:
    try:
        return IncidentState.load(path)
    except StateError:
        return None


def report(result: Result, before: IncidentState | None, out: Path) -> None:
    """Prints the new state, the origin of its vectors, and the changes since the state before."""
    state = result.state
    print(
        f"{out}: {len(state)} incidents, {int(state.report_counts.sum())} reports, {state.dimension} dimensions, "
        f"model {one_line(state.model) or 'unknown'}"
    )
    print(_fit(result))
    if result.kept:
        (best, share), *others = result.kept.items()
        also = "".join(f", {method} {_percent(other)}" for method, other in others)
        print(f"Map: {best} keeps {_percent(share)} of the ten nearest incidents{also}")
    names = state.collection, state.record_url, state.licence or DEFAULT_LICENCE
    if names != (DEFAULT_COLLECTION, DEFAULT_RECORD_URL, DEFAULT_LICENCE) or state.urls:
        own = sum(map(bool, state.urls))
        pages = [*filter(None, [state.record_url]), *([f"{own} URLs of their own"] if own else [])]
        licence = f"; licence: {state.licence}" if state.licence else ""
        print(f"Collection: {state.collection}; pages: {', '.join(pages) or 'none'}{licence}")
    if not result.built or not result.database:
        return
    count = result.built.reports
    saved = (count["published"] + count["stored"]) / state.report_counts.sum()
    published = "" if result.database.source.kind == "other" else f"{count['published']} published by AIID, "
    print(
        f"Vectors: {published}{count['stored']} from earlier builds, {count['computed']} computed now"
        f"{f'; {saved:.1%} of the work was saved' if saved else ''}"
    )
    if result.built.without:
        print(
            f"Reports left out, because AIID has no vector of their present text: {_listed(result.built.without)}. "
            "With the model (scripts/fetch_model.py), --vectors auto computes them."
        )
    if count["blank"]:
        print(f"Reports left out, because they are blank once they are prepared: {count['blank']}")
    if result.built.left_out:
        print(f"Incidents left out, because no report has a vector: {_listed(result.built.left_out)}")
    untranslated = result.database.untranslated
    if untranslated:
        print(
            f"Reports in another language without an English translation: {len(untranslated)} "
            f"({', '.join(map(str, untranslated))})"
        )
    if before:
        found = changes(before, state)
        if found:
            parts = (("added", found.added), ("changed", found.changed), ("removed", found.removed))
            print("Incidents: " + ", ".join(f"{_listed(ids)} {kind}" for kind, ids in parts))
        else:
            print("Incidents: all are new, because the state before was of another model, precision or limit of tokens")


def _fit(result: Result) -> str:
    """What the ranking and the confidence were fitted to."""
    fit, built = result.state.fit, result.built
    words = f"word index of {len(fit.words.words)} words" if fit.words else "no word index"
    parts = [f"whitening power {fit.power:g}", words]
    if fit.calibration and built:
        count = Counter(each.kind for each in built.questions)
        asked = " and ".join(f"{count[kind]} {kind}s" for kind in get_args(Kind) if count[kind])
        parts.append(f"confidence from {asked}")
    elif fit.calibration:
        parts.append("confidence as before")
    else:
        parts.append("no confidence, because there are too few reports and titles that could be asked")
    return f"Fitted: {', '.join(parts)}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _listed(ids: Sequence[int]) -> str:
    """The number of ids, and the first of them."""
    more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    return f"{len(ids)} ({', '.join(map(str, ids[:_NAMED]))}{more})" if ids else "0"


def _number(least: int, also: str = "") -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not value.isascii() or not value.isdigit() or int(value) < least:
            raise argparse.ArgumentTypeError(f"{also}must be a whole number from {least}, not {value!r}")
        return int(value)

    return parse


def _columns(value: str) -> Columns:
    try:
        return columns_option(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _checked_by(require: Callable[[str], None], variable: str) -> Callable[[str], str]:
    """A parser of a value that stands in a variable too."""

    def parse(value: str) -> str:
        try:
            require(value)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"or {variable} {error}, not {one_line(repr(value))}") from error
        return value

    return parse


def _share(value: str) -> float:
    try:
        share = float(value)
    except ValueError:
        share = 0
    if not 0 < share < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {value!r}")
    return share


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(__doc__)
    model_dir = INFERENCE_DIR / DEFAULT_MODEL_DIR
    parser.add_argument("source", type=Path, nargs="?", help="data to build the state from, see below")
    parser.add_argument(
        "--latest", action="store_true", help="download AIID's newest snapshot into the cache, and build from it"
    )
    parser.add_argument("--model", type=Path, default=model_dir, help="model folder (default inference/model)")
    parser.add_argument(
        "--out", type=Path, help="file to write, in a folder that exists (default incident_cls.pt in the model folder)"
    )
    parser.add_argument("--vectors", choices=get_args(VectorsFrom), default="auto", help="see below (default auto)")
    parser.add_argument(
        "--responses",
        choices=get_args(Responses),
        default="include",
        help="whether companies' answers, tagged `response`, count as reports (default include)",
    )
    parser.add_argument(
        "--max-tokens",
        type=_number(FEWEST_TOKENS, "or MAX_TOKENS "),
        metavar="N",
        default=os.environ.get("MAX_TOKENS") or None,
        help="cut texts at N tokens (default: the variable MAX_TOKENS; without it 2,000 if AIID's vectors may be used, "
        "else the model's maximum)",
    )
    parser.add_argument(
        "--columns",
        type=_columns,
        metavar="PART=COLUMN,…",
        help=f"columns of another database's table: {', '.join(get_args(Part))}; id and text are required",
    )
    parser.add_argument(
        "--record-url",
        type=_checked_by(require_template, "RECORD_URL"),
        metavar="TEMPLATE",
        default=os.environ.get("RECORD_URL") or None,
        help="URL of a record's page with {id} for its id, '' for none (default: the variable RECORD_URL; without it "
        "that of AIID, with --columns none, of a state its own)",
    )
    parser.add_argument(
        "--collection-name",
        type=_checked_by(require_name, "COLLECTION_NAME"),
        metavar="NAME",
        default=os.environ.get("COLLECTION_NAME") or None,
        help="name of the database (default: the variable COLLECTION_NAME; without it that of AIID, with --columns the "
        "file's name without its ending, of a state its own)",
    )
    parser.add_argument(
        "--licence",
        type=_checked_by(require_name, "LICENCE"),
        metavar="NAME",
        default=os.environ.get("LICENCE") or None,
        help="licence of the database's data (default: the variable LICENCE; without it that of AIID, with --columns "
        "none, of a state its own)",
    )
    parser.add_argument("--titles", type=Path, help="incidents.csv with titles and dates for a state.csv or a state")
    parser.add_argument(
        "--text",
        choices=get_args(TextMode),
        default="title-and-description",
        help="columns that replace the reports for an incidents.csv alone (default title-and-description)",
    )
    parser.add_argument(
        "--words",
        type=words_option,
        metavar="PARTS",
        help=f"parts of an incident in the word index: {', '.join(get_args(WordsFrom))} (default title,description; "
        "with --text description, the description alone; with --columns without a description, title,reports)",
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        default=DEFAULT_PRECISION,
        help="bfloat16 is faster on CPUs that can multiply it; it can't be combined with AIID's vectors, and the "
        "engine onnx can't refresh such a state (default float32)",
    )
    parser.add_argument(
        "--engine",
        choices=get_args(BuildEngine),
        default="torch",
        help="where vectors are computed: torch in this process (default), ray on a Ray cluster",
    )
    parser.add_argument(
        "--address", help="HOST:PORT of a Ray cluster, or auto (default RAY_ADDRESS; without it, a Ray on this machine)"
    )
    parser.add_argument(
        "--workers", type=_number(1), metavar="N", help="processes on the Ray cluster (default: as many as fit)"
    )
    parser.add_argument(
        "--cpus-per-worker", type=_share, metavar="N", help=f"CPUs of each process (default {DEFAULT_CPUS:g})"
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=CACHE_DIR,
        metavar="FOLDER",
        help="folder that keeps vectors and snapshots (default .cache)",
    )
    parser.add_argument(
        "--strict", action="store_true", help="exit 1 if any row or document was skipped; the state is written anyway"
    )
    return parser


def _words(args: argparse.Namespace) -> tuple[WordsFrom, ...]:
    """The parts of an incident in the word index."""
    if args.columns and not args.words and "description" not in args.columns:
        return ("title", "reports")
    words: tuple[WordsFrom, ...] = args.words or DEFAULT_WORDS_FROM
    if args.text == "description":  # A state without titles can be asked with titles.
        return tuple(part for part in words if part != "title") or ("description",)
    return words


def _check_columns(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Exits with 2 if --columns stands with an argument that is for AIID's data."""
    if args.latest:
        parser.error("--columns is for the table of another database, not for --latest")
    for name, given in {
        "--titles": args.titles,
        "--text": args.text != "title-and-description",
        "--responses": args.responses != "include",
        "--vectors published": args.vectors == "published",
    }.items():
        if given:
            parser.error(f"{name} is for AIID's data, not for --columns")
    if args.source.is_dir():
        parser.error(f"{args.source} is a folder; with --columns, the source is a file")
    if not args.collection_name:
        try:
            require_name(args.source.stem)
        except ValueError as error:
            parser.error(f"the file's name can't be the database's: it {error}; give --collection-name")


def _checked(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Options:
    """Exits with 2 if the arguments can't be used."""
    if bool(args.source) == args.latest:
        parser.error("give a source or --latest" if not args.source else "give a source or --latest, not both")
    if args.engine != "ray" and (args.address or args.workers or args.cpus_per_worker):
        parser.error("--address, --workers and --cpus-per-worker are for --engine ray")
    if args.latest and args.titles:
        parser.error("--titles is for a state or a state.csv, not for --latest, which has titles")
    if args.columns:
        _check_columns(parser, args)
    for path in (args.source, args.titles):
        if path and not path.exists():
            parser.error(f"there is no file or folder {path}")
    out: Path = args.out or args.model / DEFAULT_INCIDENTS_FILENAME
    if out.is_dir():
        parser.error(f"{out} is a folder; --out is a file")
    if args.out and not out.parent.is_dir():
        parser.error(f"there is no folder {out.parent}")
    if not args.model.is_dir() and (args.vectors == "computed" or args.columns):
        parser.error(f"there is no model folder {args.model}: {HOW_TO_GET_ONE}")
    return Options(
        model_dir=args.model,
        out=out,
        cache=args.cache,
        vectors=args.vectors,
        responses=args.responses,
        max_tokens=args.max_tokens or 0,
        text=args.text,
        words=_words(args),
        columns=args.columns,
        collection=args.collection_name,
        record_url=args.record_url,
        licence=args.licence,
        titles=args.titles,
        precision=args.precision,
        engine=args.engine,
        address=args.address,
        workers=args.workers,
        cpus_per_worker=args.cpus_per_worker or DEFAULT_CPUS,
    )


def main(argv: list[str] | None = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    options = _checked(parser, args)
    problems = Problems()
    try:
        source = latest(options) if args.latest else args.source
        if source is None:
            return 0
        before = _state_before(options.out)
        if sys.stderr.isatty():  # reading a snapshot takes 20 s
            print(f"Reading {source} ...", file=sys.stderr)
        with Bar("chars") as bar:

            def tell(sentence: str) -> None:
                if sys.stderr.isatty():
                    bar.clear()
                    print(sentence, file=sys.stderr)

            result = build(source, replace(options, progress=bar, told=tell), problems)
    except KeyboardInterrupt:
        print("\nbuild_state: stopped; give the same command again to resume.", file=sys.stderr)
        return 1
    except ModelError as error:
        print(f"build_state: the model can't be loaded: {error.detail}", file=sys.stderr)
        return 1
    except (SourceError, StoreError, ClusterError) as error:
        print(f"build_state: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"build_state: {error.filename or options.out}: {error.strerror or error}", file=sys.stderr)
        return 1
    with writing_stdout("build_state"):
        report(result, before, options.out)
    if problems.count:
        print(f"build_state: skipped: {problems.count}; the lines above say why.", file=sys.stderr)
    return 1 if args.strict and problems.count else 0


if __name__ == "__main__":
    command.run(main)
