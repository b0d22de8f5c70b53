"""Builds a state as the options of `build_state.py` say, and saves it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from similarity.encoder.loading import load_encoder
from similarity.encoder.model_folder import ModelFiles
from similarity.errors import ModelError
from similarity.incidents.collection import DEFAULT_COLLECTION, DEFAULT_LICENCE, DEFAULT_RECORD_URL
from similarity.incidents.pt_file import is_pt
from similarity.incidents.state import TIME_FORMAT, IncidentState
from similarity.incidents.whitening import DEFAULT_POWER, whitening
from similarity.refresh.build import Built, VectorsFrom, build_state, has_published, token_limit
from similarity.refresh.compute import Computer
from similarity.refresh.questions import DEFAULT_WORDS_FROM, WordsFrom, words_from_option
from similarity.refresh.vector_store import VectorStore
from similarity.settings import AIID_MAX_TOKENS, DEFAULT_PRECISION, Precision
from similarity.sources.database import Database, Responses, TextMode
from similarity.sources.problems import Problems, SourceError
from similarity.sources.read import read_database
from similarity.sources.records import Columns, read_records
from similarity.sources.state_files import has_vectors, read_original_state, read_state_csv, with_titles
from similarity.sources.tables import is_text
from states.mapping import map_of
from states.ray_engine import DEFAULT_CPUS, ray_compute

BuildEngine = Literal["torch", "ray"]

STORE_FILENAME = "vectors.sqlite"


@dataclass(frozen=True)
class Options:
    """The options of `build_state.py`, see there.

    cache: folder of the vectors' store. max_tokens: 0 for the default. columns: those of another database, None for
    AIID's sources. collection, record_url, licence: None for the source's own. progress: as for `Computer`. told:
    gets a sentence before a step that takes seconds.
    """

    model_dir: Path
    out: Path
    cache: Path
    vectors: VectorsFrom = "auto"
    responses: Responses = "include"
    max_tokens: int = 0
    text: TextMode = "title-and-description"
    words: tuple[WordsFrom, ...] = DEFAULT_WORDS_FROM
    columns: Columns | None = None
    collection: str | None = None
    record_url: str | None = None
    licence: str | None = None
    titles: Path | None = None
    precision: Precision = DEFAULT_PRECISION
    engine: BuildEngine = "torch"
    address: str | None = None
    workers: int | None = None
    cpus_per_worker: float = DEFAULT_CPUS
    progress: Callable[[int, int], None] | None = None
    told: Callable[[str], object] = lambda _: None

    def named(self, collection: str, record_url: str, licence: str) -> tuple[str, str, str]:
        """The collection's name, the template of its URLs and its licence. The source has the given ones."""
        pages = record_url if self.record_url is None else self.record_url
        return self.collection or collection, pages, self.licence or licence

    @property
    def snapshots(self) -> Path:
        """The folder of the snapshots that --latest has downloaded."""
        return self.cache / "snapshots"

    @property
    def model(self) -> ModelFiles | None:
        """The model's files; None if the folder has none of them."""
        files = ModelFiles(self.model_dir)
        return files if any(path.exists() for path in files.paths) else None


@dataclass(frozen=True)
class Result:
    """database and built are None if the source has vectors instead of texts.

    kept: the shares that maps keep, see `Map`; empty if the source has a map.
    """

    state: IncidentState
    database: Database | None = None
    built: Built | None = None
    kept: Mapping[str, float] = field(default_factory=dict)


def is_current(state: IncidentState, snapshot_name: str, options: Options) -> bool:
    """Whether these options would make this state again of the snapshot of that name. Raises ModelError."""
    vectors, model = state.options.get("vectors"), options.model
    source = state.source.get("kind"), state.source.get("name")
    if source != ("aiid-snapshot", snapshot_name) or state.options.get("responses") != options.responses:
        return False
    if state.options.get("words") != ",".join(options.words):  # States of earlier versions have no word index.
        return False
    if not len(state.points):  # Nor have they a map.
        return False
    named = options.named(DEFAULT_COLLECTION, DEFAULT_RECORD_URL, DEFAULT_LICENCE)
    if (state.collection, state.record_url, state.licence) != named:
        return False
    if vectors == "published":
        wanted = options.vectors == "published" or (options.vectors == "auto" and not model)
        return wanted and state.max_tokens == (options.max_tokens or AIID_MAX_TOKENS)
    # "auto" makes a state of computed vectors only if the snapshot has no others, which nobody knows before it is read.
    if not model or vectors != options.vectors:
        return False
    limit = token_limit(options.vectors, options.max_tokens, model.config().max_tokens)
    made_with = (state.model_fingerprint, state.precision, state.max_tokens)
    return made_with == (model.fingerprint(), options.precision, limit)


def build(source: Path, options: Options, problems: Problems) -> Result:
    """Builds the state of `source` and saves it.

    Raises SourceError, ModelError, StoreError, ClusterError or OSError.
    """
    if options.columns:
        collection, record_url, licence = options.named(source.stem, "", "")
        database = read_records(
            source, options.columns, problems, collection=collection, record_url=record_url, licence=licence
        )
        built = _build(database, options)
        result = Result(built.state, database, built)
    elif source.is_file() and is_pt(source):
        result = Result(read_original_state(source))
    elif source.is_file() and is_text(source) and has_vectors(source):
        result = Result(read_state_csv(source, problems))
    elif options.titles:
        raise SourceError("--titles adds titles to a state or a state.csv; this source has titles of its own.")
    else:
        database = _read(source, options, problems)
        built = _build(database, options)
        result = Result(built.state, database, built)
    state = result.state
    if options.titles:
        state = with_titles(state, options.titles, problems)
    if state.fit.whitening is None:
        state = replace(
            state, fit=replace(state.fit, whitening=whitening(state.means, DEFAULT_POWER), power=DEFAULT_POWER)
        )
    collection, record_url, licence = options.named(state.collection, state.record_url, state.licence)
    state = replace(state, collection=collection, record_url=record_url, licence=licence)
    if not len(state.points):
        options.told(f"Making a map of {len(state)} incidents ...")
        found = map_of(state)
        state, result = replace(state, points=found.points), replace(result, kept=found.kept)
    # The Lambdas find the newest state by this time.
    state = replace(state, built_at=f"{datetime.now(UTC):{TIME_FORMAT}}")
    options.out.parent.mkdir(exist_ok=True)  # published vectors need no model, but their state goes into its folder
    state.save(options.out)
    return replace(result, state=state)


def _read(source: Path, options: Options, problems: Problems) -> Database:
    try:
        return read_database(source, problems, text=options.text, responses=options.responses)
    except SourceError as error:
        if source.parent != options.snapshots:
            raise
        raise SourceError(f"{error} Delete {source}: the next run with --latest downloads it again.") from error


def _build(database: Database, options: Options) -> Built:
    vectors, model = options.vectors, options.model
    if vectors == "auto" and not has_published(database):
        vectors = "computed"
    if vectors == "auto" and not model:
        vectors = "published"
    # Published vectors alone need no model, so one that is there may be broken.
    longest_input = model.config().max_tokens if model and vectors != "published" else None
    limit = token_limit(vectors, options.max_tokens, longest_input)
    with ExitStack() as stack:
        computer = None
        # AIID's vectors of texts of another limit need the model's tokenizer.
        if vectors != "published" or (model and limit != AIID_MAX_TOKENS):
            computer = _computer(options, limit, stack)
        return build_state(
            database,
            vectors=vectors,
            responses=options.responses,
            words_from=options.words,
            max_tokens=limit,
            computer=computer,
        )


def _computer(options: Options, limit: int, stack: ExitStack) -> Computer:
    if options.precision not in ("float32", "bfloat16"):
        raise ModelError(f"the precision of a build must be float32 or bfloat16, not {options.precision}")
    encoder = load_encoder(options.model_dir, engine="torch", precision=options.precision, max_tokens=limit)
    encoder.files.require_weights_unchanged()
    store = stack.enter_context(VectorStore(options.cache / STORE_FILENAME))
    compute = None
    if options.engine == "ray":
        compute = stack.enter_context(
            ray_compute(
                options.model_dir,
                max_tokens=limit,
                precision=options.precision,
                address=options.address,
                workers=options.workers,
                fingerprint=encoder.fingerprint,
                cpus=options.cpus_per_worker,
            )
        )
    return Computer(encoder, store, compute, options.progress)


def words_option(value: str) -> tuple[WordsFrom, ...]:
    """The value of --words, for argparse."""
    parts = tuple(part.strip() for part in value.split(","))
    found = words_from_option(",".join(parts))
    if set(parts) != set(found):
        raise argparse.ArgumentTypeError(f"must be some of {','.join(get_args(WordsFrom))}, not {value!r}")
    return found
