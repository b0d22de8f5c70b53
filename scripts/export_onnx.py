#!/usr/bin/env python3
"""Write encoder.onnx into a model's folder: what ENCODER_ENGINE=onnx, the default, serves with.

With --precision int8 it writes encoder.int8.onnx, for ENCODER_PRECISION=int8, which holds quantised weights.

`fetch_model.py` and `convert_encoder.py` do it by themselves; a folder that came about in another way needs it once.
The graph refers to the weights in model.safetensors, so it takes little room and stays valid as long as they do.

Example:
    python scripts/export_onnx.py inference/model
"""

from __future__ import annotations

from shared import command
from shared.command import argument_parser

import sys
from pathlib import Path

from models.export import export
from similarity.encoder.model_folder import GRAPH_FILENAMES
from similarity.errors import ModelError
from similarity.settings import DEFAULT_PRECISION


def main(argv: list[str] | None = None) -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument(
        "--precision",
        choices=tuple(GRAPH_FILENAMES),
        default=DEFAULT_PRECISION,
        help="precision of the graph (default float32)",
    )
    args = parser.parse_args(argv)
    if not args.model.is_dir():
        parser.error(f"there is no folder {args.model}")
    try:
        path = export(args.model, args.precision)
    except ModelError as error:
        print(f"export_onnx: {error.detail}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"export_onnx: {error}", file=sys.stderr)
        return 1
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    command.run(main)
