#!/usr/bin/env python3
"""Build the incident state, incident_cls.pt: the mean CLS vector of the reports of every incident.

SOURCE is one of
    a snapshot of the AI Incident Database (folder, zip or tar with incidents.csv and reports.csv),
    an incidents.csv alone (title and description replace the reports),
    a state.csv of nlp-lambdas (vectors of allenai/longformer-base-4096; no model is run),
    a state in the original's list form (no model is run).

A stopped build keeps its vectors in OUT.partial. Give the same command again to resume it.

Example:
    python scripts/build_state.py scripts/sample --model inference/model --out inference/model/incident_cls.pt
"""

from __future__ import annotations

from shared import command
from shared.command import INFERENCE_DIR, argument_parser, progress_bar

import sqlite3
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import numpy as np

from similarity.encoder.loading import load_encoder
from similarity.encoder.model_folder import HOW_TO_GET_ONE
from similarity.encoder.text_encoder import TextEncoder
from similarity.errors import ModelError, one_line
from similarity.incidents.pt_file import is_pt
from similarity.incidents.state import TIME_FORMAT, IncidentState
from similarity.settings import DEFAULT_INCIDENTS_FILENAME, DEFAULT_MODEL_DIR, DEFAULT_PRECISION, Precision
from similarity.sources.database import Incident, TextMode
from similarity.sources.problems import Problems, SourceError
from similarity.sources.read import read_database
from similarity.sources.state_files import has_vectors, read_original_state, read_state_csv
from similarity.sources.tables import is_text
from similarity.vectors import Vector
from states.vector_store import VectorStore

# Characters that are encoded in one pass. These are about 4,096 tokens, as many as in the longest text.
BATCH_CHARS = 16_384


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """The texts, each once, longest first. A batch has one text, or at most BATCH_CHARS characters.

    The same texts always make the same batches. So a resumed build gives the same state as one without a stop, to the
    bit.
    """
    batch: list[str] = []
    for text in sorted(set(texts), key=lambda text: (-len(text), text)):
        if batch and sum(map(len, batch)) + len(text) > BATCH_CHARS:
            yield batch
            batch = []
        batch.append(text)
    if batch:
        yield batch


@dataclass(frozen=True)
class EncodedBatch:
    """vectors: of each text, (hidden,); empty for a blank text. tokens: how many were encoded just now."""

    vectors: dict[str, Vector]
    tokens: int


def encode_batch(texts: Sequence[str], encoder: TextEncoder, store: VectorStore) -> EncodedBatch:
    """Takes the vectors from the store if it has all of them. Otherwise encodes `texts` and stores the vectors."""
    known = {text: vector for text in texts if (vector := store.get(text)) is not None}
    if len(known) == len(texts):
        return EncodedBatch(known, 0)
    encodings = list(zip(texts, encoder.encode_batch(texts), strict=True))
    vectors = {text: np.empty(0, dtype=np.float32) if each.tokens.is_blank else each.vector for text, each in encodings}
    store.put(vectors)
    return EncodedBatch(vectors, sum(len(each.tokens.ids) for _, each in encodings))


def _work(batch: Sequence[str]) -> int:
    """Characters to encode. The model cuts long texts, so they cost no more than BATCH_CHARS characters."""
    return sum(min(len(text), BATCH_CHARS) for text in batch)


def encode_incidents(incidents: Sequence[Incident], encoder: TextEncoder, store: VectorStore) -> IncidentState:
    """The state of `incidents`. Each batch is saved in `store` as soon as it is encoded.

    A text that is blank once it is transliterated (e.g. only emoji) isn't counted as a report. An incident that has
    only such texts is left out. Raises SourceError if no incident is left.
    """
    todo = list(batches(text for incident in incidents for text in incident.texts))
    vector_of: dict[str, Vector] = {}
    tokens, start = 0, time.monotonic()
    # The bar counts characters: texts come longest first, so a count of texts would give a bad estimate.
    with progress_bar(sum(map(_work, todo)), "chars") as progress:
        for batch in todo:
            found = encode_batch(batch, encoder, store)
            vector_of.update(found.vectors)
            tokens += found.tokens
            progress.set_postfix_str(f"{tokens / (time.monotonic() - start):.0f} tokens/s", refresh=False)
            progress.update(_work(batch))
    kept, counts, means = [], [], []
    for incident in incidents:
        vectors = [vector_of[text] for text in incident.texts if len(vector_of[text])]
        if vectors:
            kept.append(incident)
            counts.append(len(vectors))
            means.append(
                np.mean(vectors, axis=0, dtype=np.float64).astype(np.float32)
            )  # (reports, hidden) -> (hidden,)
    if not kept:
        raise SourceError("no incident has a text: all texts are blank once they are transliterated to ASCII.")
    try:
        return IncidentState(
            incident_ids=np.array([incident.incident_id for incident in kept]),
            report_counts=np.array(counts),
            means=np.stack(means),
            titles=[incident.title for incident in kept],
            model=encoder.name or "",
            model_fingerprint=encoder.fingerprint,
            precision=encoder.precision,
        )
    except ValueError as error:
        raise SourceError(f"the vectors of this model don't make a usable state: {error}") from error


def build(
    source: Path,
    model_dir: Path,
    out: Path,
    problems: Problems,
    text: TextMode,
    precision: Precision = DEFAULT_PRECISION,
) -> IncidentState:
    """Builds the state of `source` and saves it at `out`. Raises SourceError, ModelError, OSError or sqlite3.Error."""
    if source.is_file() and is_pt(source):
        return _save(read_original_state(source), out)
    if source.is_file() and is_text(source) and has_vectors(source):
        return _save(read_state_csv(source, problems), out)
    incidents = read_database(source, problems, text=text).incidents
    encoder = load_encoder(model_dir, engine="torch", precision=precision)
    encoder.files.require_weights_unchanged()
    partial = out.with_name(out.name + ".partial")
    store = VectorStore(partial, f"{encoder.fingerprint} {encoder.precision}")
    try:
        state = _save(encode_incidents(incidents, encoder, store), out)
    finally:
        store.close()
    partial.unlink(missing_ok=True)
    return state


def _save(state: IncidentState, out: Path) -> IncidentState:
    """Saves the state with the time now, by which Lambdas find the newest state. Raises OSError."""
    state = replace(state, built_at=f"{datetime.now(UTC):{TIME_FORMAT}}")
    state.save(out)
    return state


def main(argv: list[str] | None = None) -> int:
    parser = argument_parser(__doc__)
    model_dir = INFERENCE_DIR / DEFAULT_MODEL_DIR
    parser.add_argument("source", type=Path, help="data to build the state from, see below")
    parser.add_argument("--model", type=Path, default=model_dir, help="model folder (default inference/model)")
    parser.add_argument("--out", type=Path, help="file to write (default incident_cls.pt in the model folder)")
    parser.add_argument(
        "--text",
        choices=get_args(TextMode),
        default="title-and-description",
        help="columns that replace the reports for an incidents.csv alone (default title-and-description)",
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        default=DEFAULT_PRECISION,
        help="bfloat16 is faster on CPUs that can multiply it (default float32)",
    )
    parser.add_argument("--strict", action="store_true", help="exit 1 if any row was skipped")
    args = parser.parse_args(argv)
    out: Path = args.out or args.model / DEFAULT_INCIDENTS_FILENAME
    if not args.source.exists():
        parser.error(f"there is no file or folder {args.source}")
    if not out.parent.is_dir():
        missing = f"folder {out.parent}" if args.out else f"model folder {out.parent}: {HOW_TO_GET_ONE}"
        parser.error(f"there is no {missing}")
    problems = Problems()
    try:
        state = build(args.source, args.model, out, problems, args.text, args.precision)
    except KeyboardInterrupt:
        print("\nbuild_state: stopped; give the same command again to resume.", file=sys.stderr)
        return 1
    except ModelError as error:
        print(f"build_state: the model can't be loaded: {error.detail}", file=sys.stderr)
        return 1
    except (SourceError, OSError) as error:
        print(f"build_state: {error}", file=sys.stderr)
        return 1
    except sqlite3.Error as error:
        print(
            f"build_state: {out}.partial: {error}; if the file is damaged, delete it and start again.", file=sys.stderr
        )
        return 1
    print(
        f"{out}: {len(state)} incidents, {int(state.report_counts.sum())} reports, {state.dimension} dimensions, "
        f"model {one_line(state.model) or 'unknown'}"
    )
    if problems.count:
        print(f"build_state: rows skipped: {problems.count}; the lines above say why.", file=sys.stderr)
    return 1 if args.strict and problems.count else 0


if __name__ == "__main__":
    command.run(main)
