"""Find the recorded incidents most like a text, without a server.

ASKED is one of
    a text,
    - for a text on standard input,
    with --column, a table: CSV with a header, or JSON lines with an object a line.
With --column, ASKED is always a file. Without it, ASKED is always a text; the name of a file is refused, because it was
hardly meant as a text. --incident asks with a recorded incident instead, and needs no model.

--num, --metric, --exclude, --explain and --embedding are the parameters of /similar; docs/api.md explains them.

A text's incidents are printed for a person. With --json, one line of JSON is printed: the `body` that /similar answers.

A table's answers go to --out, which is written whole or not at all, or to stdout. Each row keeps its columns:
    CSV         a line for each match, with rank, incident_id, similarity, confidence, match, title, date, url. With
                --explain, words and sentence. warnings, and error for a row without an answer, which has one line
    JSON lines  a line for each row, with the `body` that /similar answers as `similar`
The end of --out, .csv or .jsonl, says the form of the answers. On stdout they have the table's form, or they are JSON
lines with --json. Texts are computed once and kept in --cache, so that a stopped run resumes.

Examples:
    python scripts/similar.py "A chatbot insulted its users" --quick-start
    python scripts/similar.py "A chatbot insulted its users" --num 5 --metric hybrid --explain
    python scripts/similar.py - < report.txt
    python scripts/similar.py --incident 23
    python scripts/similar.py texts.csv --column text --out matches.csv
"""

from __future__ import annotations

from shared.command import INFERENCE_DIR, ROOT, Bar, argument_parser, writing_stdout

import argparse
import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TextIO

from asking.answers import (
    STORE_FILENAME,
    Body,
    body_of,
    body_of_error,
    load_encoder_of,
    load_ranking,
    of_table,
    of_text,
    text_of,
)
from asking.shown import lines_of, writer, written_whole
from asking.tables import Form, Table, TableError
from similarity.answer import Answer, Ranked
from similarity.answering import answer_to_incident, require_usable
from similarity.api import parameters
from similarity.api.request import Request
from similarity.asked import DEFAULT_NUM, Asked
from similarity.errors import RequestError, SimilarityError, StateError
from similarity.incidents.metrics import METRICS
from similarity.incidents.ranking import Ranking
from similarity.refresh.vector_store import StoreError, VectorStore
from similarity.settings import DEFAULT_INCIDENTS_FILENAME, DEFAULT_MODEL_DIR, DEFAULT_PRECISION, PRECISIONS, Engine

STDIN = "-"
# The end of a name, and the form of what is in the file.
FORMS: dict[str, Form] = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
# A word that ends so is the name of a file that isn't there.
_FILE_ENDS = (*FORMS, ".json", ".tsv", ".txt")


class InputError(Exception):
    """Standard input has no text. The message is one sentence."""


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(__doc__)
    parser.add_argument("source", nargs="?", metavar="ASKED", help="a text, - or a table, see below")
    parser.add_argument("--column", metavar="NAME", help="ask with each row of a table: its column with the texts")
    parser.add_argument("--incident", metavar="ID", help="ask with this incident of the state instead of a text")
    parser.add_argument(
        "--num",
        type=int,
        default=DEFAULT_NUM,
        metavar="N",
        help=f"the number of incidents; a negative number asks for all (default {DEFAULT_NUM})",
    )
    parser.add_argument("--metric", choices=METRICS, default=METRICS[0], help=f"how to compare (default {METRICS[0]})")
    parser.add_argument("--exclude", default="", metavar="IDS", help="incidents to leave out, with commas: 1,2,3")
    parser.add_argument("--explain", action="store_true", help="say why each incident was found, in words of the text")
    parser.add_argument("--embedding", action="store_true", help="give the text's vector too, in JSON")
    parser.add_argument("--json", action="store_true", help="print JSON; for a table, JSON lines")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write a table's answers to a file (default stdout)")
    parser.add_argument("--model", type=Path, help="model folder (default inference/model)")
    parser.add_argument("--state", type=Path, help="incident state (default incident_cls.pt in the model folder)")
    parser.add_argument(
        "--quick-start",
        action="store_true",
        help="take the model and the sample of scripts/serve instead; they are made once",
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        default=DEFAULT_PRECISION,
        help="bfloat16 is faster on CPUs that can multiply it (default float32)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=ROOT / ".cache",
        metavar="FOLDER",
        help="folder that keeps the vectors of a table's texts (default .cache)",
    )
    return parser


def _is_file(name: str) -> bool:
    with suppress(OSError, ValueError):  # the text is too long for a name
        return Path(name).is_file()
    return False


def _require_usable(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Exits with 2 if the arguments don't fit each other."""
    source = args.source
    if (source is None) == (args.incident is None):
        parser.error("give a text, - or a table, or --incident" + ("" if source is None else "; not both"))
    if args.incident is not None and not args.incident.strip():
        parser.error("--incident needs an id")
    if args.quick_start and (args.model or args.state):
        parser.error("--quick-start is instead of --model and --state")
    if args.column is not None:
        _require_usable_table(parser, args)
        return
    if args.out:
        parser.error("--out is for a table, which needs --column")
    if args.embedding and not args.json:
        parser.error("--embedding is for JSON: give --json too")
    if source is None or source == STDIN:
        return
    if _is_file(source):
        parser.error(
            f"{source} is a file. --column NAME asks with each row of a table, and `- < {source}` with the whole file"
        )
    if source.lower().endswith(_FILE_ENDS) and not any(map(str.isspace, source)):
        parser.error(f"there is no file {source}")


def _require_usable_table(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    source, out = args.source, args.out
    if source is None or source == STDIN:
        parser.error("--column is for a file with a table")
    if not _is_file(source):
        exists = os.path.lexists(source)
        parser.error(f"{source} isn't a file" if exists else f"there is no file {source}")
    if out:
        if out.exists() and not out.is_file():
            parser.error(f"--out must be a file, and {out} isn't one")
        if not out.parent.is_dir():
            parser.error(f"there is no folder {out.parent}")
        if out.exists() and out.samefile(source):
            parser.error("--out is the table itself")
        form = FORMS.get(out.suffix.lower())
        if args.json and form == "csv":
            parser.error(f"--json is JSON lines, and {out} is a CSV by its name")
        if not (args.json or form):
            parser.error(f"the name of --out must end in .csv or .jsonl, and {out} doesn't; or give --json")


def _form(args: argparse.Namespace) -> Form | None:
    """The form of a table's answers; None for that of the table."""
    if args.json:
        return "jsonl"
    return FORMS.get(args.out.suffix.lower()) if args.out else None


def _parameters(parser: argparse.ArgumentParser, args: argparse.Namespace) -> tuple[int | None, Asked, list[str]]:
    """The incident, all else that is asked, and the API's warnings about that. Exits with 2 for a bad value."""
    given = {"num": args.num, "metric": args.metric, "exclude": args.exclude, "explain": args.explain}
    request = Request({**given, "embedding": args.embedding, "incident_id": args.incident})
    try:
        asked = parameters.asked(request)
        incident = None if args.incident is None else int(parameters.text_or_incident(request))
    except RequestError as error:
        parser.error(str(error).removeprefix("Error! "))
    return incident, asked, request.warnings


def _table(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Table:
    """Exits with 2 if its answers can't have what is asked. Raises TableError or OSError."""
    if sys.stderr.isatty():  # a table of 1 GB takes 10 s
        print(f"Reading {args.source} ...", file=sys.stderr)
    table = Table.of(Path(args.source), args.column)
    if args.embedding and (_form(args) or table.form) == "csv":
        parser.error("--embedding is for JSON lines: give --json too, or --out FILE.jsonl")
    return table


def _standard_input() -> str:
    """Raises InputError or OSError."""
    if sys.stdin is None:
        raise InputError("standard input is closed.")
    if sys.stdin.isatty():
        print("Write or paste a text, and end it with Ctrl-D:", file=sys.stderr)
    content = sys.stdin.buffer.read()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"standard input isn't valid UTF-8: see byte {error.start + 1:,}.") from error


def _paths(args: argparse.Namespace) -> tuple[Path, Path]:
    """Model and state. Raises ModelError, StateError, StoreError or OSError for those of the quick start."""
    if args.quick_start:
        # Not at the top, since it imports a web server.
        from local.server import quick_start_model, sample_state

        model = quick_start_model()
        return model, sample_state(model)
    model = args.model or INFERENCE_DIR / DEFAULT_MODEL_DIR
    return model, args.state or model / DEFAULT_INCIDENTS_FILENAME


def ask(by: str | int, asked: Asked, warnings: list[str], args: argparse.Namespace) -> int:
    """Answers a text or an incident, and prints. Returns the exit code. Raises StoreError or OSError.

    warnings: about `asked`.
    """
    failed: SimilarityError | None = None
    body: Body
    try:
        # First, as in the API, whose answer to a blank text has no warnings.
        text = by if isinstance(by, int) else text_of(by)
        if isinstance(text, RequestError):
            warnings = []
            raise text
        body = body_of(_answer(text, asked, args), warnings)
    except SimilarityError as error:
        failed = error
        body = body_of_error(error, warnings)
    for warning in body["warnings"]:
        _say(warning)
    if failed:
        _say(_reason(failed))
    with writing_stdout("similar"):
        if args.json:
            print(json.dumps(body, allow_nan=False))
        elif not failed:
            print("\n".join(lines_of(body)))
    return 1 if failed else 0


def _answer(by: str | int, asked: Asked, args: argparse.Namespace) -> Answer[Ranked]:
    """Raises SimilarityError, StoreError or OSError."""
    model, ranking = _model_and_ranking(args)
    if isinstance(by, int):
        return answer_to_incident(ranking, by, asked)
    require_usable(ranking, asked.metric)
    # onnx starts sooner than torch, but it has no bfloat16.
    engine: Engine = "onnx" if args.precision in PRECISIONS["onnx"] else "torch"
    return of_text(load_encoder_of(ranking.state, model, engine, args.precision), ranking, by, asked)


def ask_table(table: Table, asked: Asked, warnings: list[str], args: argparse.Namespace) -> int:
    """Answers the rows of a table, and writes them. Returns the exit code.

    Raises SimilarityError, StoreError, TableError or OSError.
    """
    form = _form(args) or table.form
    if form == "jsonl":
        table.require_different_columns()
    model, ranking = _model_and_ranking(args)
    require_usable(ranking, asked.metric)
    encoder = load_encoder_of(ranking.state, model, "torch", args.precision)
    failed = 0
    with VectorStore(args.cache / STORE_FILENAME) as store, Bar("texts") as bar, _writing(args.out) as file:
        with _problems_of(args.out):
            written = writer(file, form, table, explain=args.explain)
        for row, body in of_table(encoder, ranking, table, asked, warnings, store, bar):
            if not args.out and sys.stdout.isatty():
                bar.clear()  # else the row would stand behind it
            with _problems_of(args.out):
                written.write(row, body)
            failed += "code" in body
    for warning in warnings:
        _say(warning)
    if failed:
        _say(f"{failed:,} of {table.rows:,} rows have no answer; their lines say why.")
    return 0


@contextmanager
def _writing(out: Path | None) -> Iterator[TextIO]:
    if out:
        with written_whole(out) as file:
            yield file
        return
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The table is UTF-8 for whoever reads it, whatever the terminal's encoding is.
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace", newline="")
    yield sys.stdout


def _problems_of(out: Path | None) -> AbstractContextManager[None]:
    return nullcontext() if out else writing_stdout("similar")


def _model_and_ranking(args: argparse.Namespace) -> tuple[Path, Ranking]:
    """The model's folder, and the state. Raises ModelError, StateError, StoreError or OSError."""
    model, state = _paths(args)
    if not state.exists():
        raise StateError(
            f"there is no state {state}: scripts/build_state.py builds one, and --quick-start takes that of the sample"
        )
    return model, load_ranking(state)


def _say(message: str) -> None:
    print(f"similar: {message}", file=sys.stderr)


def _reason(error: SimilarityError) -> str:
    """An error for the person at this machine, who may see causes."""
    return error.detail or str(error)


def main(argv: list[str] | None = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    _require_usable(parser, args)
    incident, asked, warnings = _parameters(parser, args)
    try:
        if args.column is not None:
            return ask_table(_table(parser, args), asked, warnings, args)
        by = incident or (_standard_input() if args.source == STDIN else args.source)
        return ask(by, asked, warnings, args)
    except KeyboardInterrupt:
        print("", file=sys.stderr)
        _say("stopped; give the same command again to resume." if args.column is not None else "stopped.")
    except SimilarityError as error:
        _say(_reason(error))
    except (InputError, StoreError, TableError) as error:
        _say(str(error))
    except OSError as error:
        _say(f"{error.filename or args.out or args.source}: {error.strerror or error}")
    return 1
