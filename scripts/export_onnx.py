#!/usr/bin/env python3
"""Write encoder.onnx into a model's folder: what ENCODER_ENGINE=onnx, the default, serves with.

With --precision int8 it writes encoder.int8.onnx, for ENCODER_PRECISION=int8, which holds quantised weights.

`fetch_model.py` and `convert_encoder.py` do it by themselves; a folder that came about in another way needs it once.
The graph refers to the weights in model.safetensors, so it takes little room and stays valid as long as they do.

Example:
    python scripts/export_onnx.py inference/model
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import _inference  # noqa: F401  (makes `similarity` importable)
from command_line import argument_parser
from onnx_graph import WeightsFile, encoder_graph
from similarity.encoder import Encoder
from similarity.errors import ModelError
from similarity.model_files import GRAPH_FILENAMES
from similarity.onnx_encoder import FINGERPRINT_KEY, WORDS_KEY, OnnxEncoder
from similarity.settings import DEFAULT_MODEL_FILENAME, DEFAULT_PRECISION, Precision


def export(
    folder: Path, precision: Precision = DEFAULT_PRECISION, model_filename: str = DEFAULT_MODEL_FILENAME
) -> Path:
    """Writes the graph of the model in `folder` beside it, whole or not at all; says where.

    Raises ModelError or OSError.
    """
    reference = Encoder.load(folder, model_filename)
    weights = WeightsFile(folder / model_filename)
    words = weights.shape("embeddings.word_embeddings.weight")[0]
    metadata = {FINGERPRINT_KEY: reference.fingerprint, WORDS_KEY: str(words)}
    path = folder / GRAPH_FILENAMES[precision]
    # The graph names the weights relative to itself, so it is written where it will be.
    descriptor, temporary = tempfile.mkstemp(prefix=path.name + ".", suffix=".tmp", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(encoder_graph(reference.config, weights, metadata, precision=precision).SerializeToString())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return path


def main(argv: list[str] | None = None) -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument(
        "--precision", choices=tuple(GRAPH_FILENAMES), default=DEFAULT_PRECISION, help="default float32"
    )
    args = parser.parse_args(argv)
    if not args.model.is_dir():
        parser.error(f"there is no folder {args.model}")
    try:
        path = export(args.model, args.precision)
        OnnxEncoder.load(args.model, precision=args.precision)
    except ModelError as error:
        print(f"export_onnx: {error.detail}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"export_onnx: {error}", file=sys.stderr)
        return 1
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
