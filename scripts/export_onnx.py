#!/usr/bin/env python3
"""Write encoder.onnx into a model's folder. ENCODER_ENGINE=onnx, the default, needs this graph.

`fetch_model.py` and `convert_encoder.py` write it themselves. Run this once for a folder from another source.
encoder.onnx refers to the weights in model.safetensors. So it is small, and a change of the weights makes it invalid.

With --precision int8 this writes encoder.int8.onnx and its integer weights, encoder.int8.bin. bfloat16 needs no graph.
For both, this measures how well the vectors agree with those of float32, on the titles of the folder's state.
ENCODER_PRECISION=auto uses a precision only if they agree.

Examples:
    python scripts/export_onnx.py inference/model
    python scripts/export_onnx.py inference/model --precision int8
"""

from __future__ import annotations

from shared import command
from shared.command import argument_parser

import argparse
import sys
from pathlib import Path
from typing import get_args

from models.export import export
from similarity.encoder.model_folder import GRAPH_FILENAMES
from similarity.encoder.reports import ENOUGH, Report
from similarity.errors import ModelError, StateError
from similarity.incidents.state import IncidentState
from similarity.settings import DEFAULT_INCIDENTS_FILENAME, DEFAULT_PRECISION, Precision


def main(argv: list[str] | None = None) -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument(
        "--precision",
        choices=get_args(Precision),
        default=DEFAULT_PRECISION,
        help="precision of the vectors (default float32)",
    )
    parser.add_argument(
        "--state",
        type=Path,
        metavar="FILE.pt",
        help=f"state of this model; its titles show the agreement (default: {DEFAULT_INCIDENTS_FILENAME} in the "
        "model's folder, if it is there)",
    )
    args = parser.parse_args(argv)
    if not args.model.is_dir():
        parser.error(f"there is no folder {args.model}")
    if args.state and args.precision == DEFAULT_PRECISION:
        parser.error("--state needs another --precision than float32: it shows how well that one agrees with float32")
    try:
        report = export(args.model, args.precision, state=_state(args))
    except (ModelError, StateError) as error:
        print(f"export_onnx: {error.detail}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"export_onnx: {error}", file=sys.stderr)
        return 1
    if args.precision in GRAPH_FILENAMES:
        path = args.model / GRAPH_FILENAMES[args.precision]
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    if args.precision != DEFAULT_PRECISION:
        print(_agreement(report))
    return 0


def _state(args: argparse.Namespace) -> IncidentState | None:
    """The state that shows the agreement. Raises StateError."""
    path = args.state or args.model / DEFAULT_INCIDENTS_FILENAME
    if args.precision == DEFAULT_PRECISION or not (args.state or path.exists()):
        return None
    return IncidentState.load(path)


def _agreement(report: Report) -> str:
    found = report.agreement
    if found is None:
        return (
            "agreement not measured, because there is no state with titles; build one or name one with --state, then "
            "export again (ENCODER_PRECISION=auto needs the agreement)"
        )
    uses = "uses" if found.is_enough else "doesn't use"
    return f"{found}\nENCODER_PRECISION=auto {uses} it (needed: {ENOUGH})"


if __name__ == "__main__":
    command.run(main)
