#!/usr/bin/env python3
"""Find the incidents most like each incident, for all incidents of a state at once.

The result goes to stdout, in ascending order of incident_id. An incident isn't matched with itself, with incidents that
were merged with it, or with incidents that people marked as dissimilar. No model is needed.

jsonl has a line for each incident, in the form that the AI Incident Database stores:
    {"incident_id": 23, "nlp_similar_incidents": [{"incident_id": 297, "similarity": 0.91}, ...]}
csv has a line for each pair: incident_id, rank, similar_incident_id, similarity.

Example:
    python scripts/neighbours.py --state inference/model/incident_cls.pt > neighbours.jsonl
docs/aiid.md has a command that writes them into the database.
"""

from __future__ import annotations

from shared import command
from shared.command import INFERENCE_DIR, argument_parser, progress_bar, writing_stdout

import csv
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from similarity.errors import StateError
from similarity.incidents.metrics import VECTOR_METRICS
from similarity.incidents.neighbours import neighbours
from similarity.incidents.ranking import Match, Ranking
from similarity.incidents.state import IncidentState
from similarity.settings import DEFAULT_INCIDENTS_FILENAME, DEFAULT_MODEL_DIR

Found = Sequence[tuple[int, Sequence[Match]]]


def json_lines(found: Found) -> Iterable[str]:
    """One line an incident, as docs/aiid.md writes them into the database."""
    for incident_id, matches in found:
        similar = [{"incident_id": match.incident_id, "similarity": match.similarity} for match in matches]
        yield json.dumps({"incident_id": incident_id, "nlp_similar_incidents": similar}) + "\n"


def write_csv(found: Found) -> None:
    """A header, and one line a pair, to stdout."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("incident_id", "rank", "similar_incident_id", "similarity"))
    for incident_id, matches in found:
        writer.writerows(
            (incident_id, rank, match.incident_id, match.similarity) for rank, match in enumerate(matches, start=1)
        )


def main(argv: list[str] | None = None) -> int:
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--state",
        type=Path,
        default=INFERENCE_DIR / DEFAULT_MODEL_DIR / DEFAULT_INCIDENTS_FILENAME,
        help="incident state (default inference/model/incident_cls.pt)",
    )
    parser.add_argument("--num", type=int, default=3, help="most similar ones of each incident, 1 or more (default 3)")
    parser.add_argument(
        "--metric",
        choices=VECTOR_METRICS,
        default="cosine",
        help="as in the API, see docs/api.md (default cosine)",
    )
    parser.add_argument(
        "--format",
        choices=("jsonl", "csv"),
        default="jsonl",
        help="jsonl: a line for each incident; csv: a line for each pair (default jsonl)",
    )
    args = parser.parse_args(argv)
    if args.num < 1:
        parser.error(f"--num must be 1 or more, not {args.num}")
    try:
        state = IncidentState.load(args.state)
    except StateError as error:
        print(f"neighbours: {error.detail}; scripts/build_state.py makes a state", file=sys.stderr)
        return 1
    if args.metric not in Ranking(state).metrics:
        remedy = f"scripts/build_state.py {args.state} --out {args.state} adds one"
        print(f"neighbours: {args.state} has no whitening map; {remedy}", file=sys.stderr)
        return 1
    found = []
    with progress_bar(len(state), "incidents") as progress:
        for each in neighbours(state, args.num, args.metric):
            found.append(each)
            progress.update()
    with writing_stdout("neighbours"):
        if args.format == "csv":
            write_csv(found)
        else:
            sys.stdout.writelines(json_lines(found))
    return 0


if __name__ == "__main__":
    command.run(main)
