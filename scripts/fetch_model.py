#!/usr/bin/env python3
"""Fetch a Longformer from Hugging Face into inference/model/, at a pinned revision, as safetensors.

Files are checked against the hub's checksums. Give the same command again to resume a stopped download. If the revision
is installed already, nothing is downloaded.

If this machine can't reach the hub, do one of these:
    set HF_ENDPOINT to a mirror;
    copy the model's folder from another machine, and give it with --from;
    use the quick-start model: python scripts/convert_encoder.py --quick-start --out inference/model

Example:
    python scripts/fetch_model.py
Example with a folder that holds config.json, tokenizer.json (or vocab.json and merges.txt) and weights:
    python scripts/fetch_model.py --from ~/longformer-base-4096
"""

from __future__ import annotations

from shared import command
from shared.command import INFERENCE_DIR, argument_parser

import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from models.checkpoint_tokenizer import (
    ADDED_TOKENS_FILENAME,
    MERGES_FILENAME,
    OPTIONS_FILENAME,
    VOCABULARY_FILENAME,
    read_tokenizer,
)
from models.checkpoints import (
    INDEX_SUFFIX,
    CheckpointError,
    read_config,
    read_encoder,
    read_note,
    read_object,
    shards,
    weights_filename,
)
from models.hub import PART_SUFFIX, HubError, HubModel
from models.install_files import finish_install
from models.write_model import exported_precisions, misfit, removed_exports, write_model
from similarity.encoder.loading import load_encoder
from similarity.encoder.model_folder import (
    CONFIG_FILENAME,
    PROVENANCE_FILENAME,
    TOKENIZER_FILENAME,
    ModelFiles,
    sha256_of,
)
from similarity.errors import ModelError
from similarity.settings import DEFAULT_MODEL_DIR, DEFAULT_MODEL_FILENAME, DEFAULT_MODEL_URI

# A commit, not a branch: a later push must not change the model, because a state fits only one model.
PINNED_REVISIONS = {DEFAULT_MODEL_URI: "301e6a42cb0d9976a6d6a26a079fef81c18aa895"}

MADE_BY = "fetch_model.py"


class FetchError(Exception):
    """The model can't be used. The message is one sentence."""


def download(hub: HubModel, folder: Path) -> None:
    """Downloads config, tokenizer and weights to `folder`. Raises FetchError, HubError, CheckpointError or OSError."""
    weights = weights_filename(hub.files, hub.name)
    wanted = [CONFIG_FILENAME, *_tokenizer_filenames(hub), weights]
    _require_files(wanted, hub)
    hub.download(CONFIG_FILENAME, folder)
    require_longformer(folder, hub.name)  # before downloading 600 MB
    if weights.endswith(INDEX_SUFFIX):
        wanted += shards(hub.download(weights, folder))
        _require_files(wanted, hub)
    # A stopped download of another model may have left files here.
    for path in folder.iterdir():
        if path.name not in wanted and path.suffix != PART_SUFFIX:
            path.unlink()
    for name in wanted:
        hub.download(name, folder)
    if unchecked := [name for name in wanted if not hub.verifies(name)]:
        print(
            f"fetch_model: the hub has no checksums for these files, so they weren't verified: {', '.join(unchecked)}",
            file=sys.stderr,
        )


def require_longformer(folder: Path, called: str) -> None:
    """Raises FetchError if config.json doesn't describe a usable Longformer. called: the model's name in the error."""
    try:
        ModelFiles(folder).config()
    except ModelError as error:
        raise _unusable(called, error) from error


def name_of(source: Path) -> str | None:
    """The model's name, if a script of this project made the folder. Raises FetchError."""
    try:
        return ModelFiles(source).name()
    except ModelError as error:
        raise _unusable(str(source), error) from error


def _unusable(called: str, error: ModelError) -> FetchError:
    return FetchError(f"{called} isn't a usable Longformer: {error.detail}.")


def install(source: Path, out: Path, *, called: str, provenance: Mapping[str, str]) -> None:
    """Installs the model of the folder `source` in `out`, as safetensors. called: the model's name in errors.

    Raises FetchError, CheckpointError or OSError.
    """
    require_longformer(source, called)
    try:
        write_model(
            out,
            config=read_config(source),
            tokenizer_json=read_tokenizer(source),
            weights=read_encoder(source),
            source={**provenance, "made_by": MADE_BY},
            note=read_note(source),
        )
    except ModelError as error:
        raise _unusable(called, error) from error
    except RecursionError as error:  # json can read deeper nesting than it can write
        raise FetchError(f"the {CONFIG_FILENAME} of {called} is nested too deeply.") from error


def is_installed(out: Path, model: str, commit: str) -> bool:
    """Whether `out` holds the model at this commit, unchanged since this script installed it."""
    try:
        provenance = read_object(out / PROVENANCE_FILENAME)
        # Older folders lack `commit`. If they were made with the default revision, that is a commit.
        there = provenance.get("model"), provenance.get("commit", provenance.get("revision")), provenance.get("made_by")
        if there != (model, commit, MADE_BY):
            return False
        if sha256_of(out / DEFAULT_MODEL_FILENAME) != provenance.get("weights_sha256"):
            return False
        load_encoder(out)
    except (CheckpointError, ModelError, OSError):
        return False
    return True


def fetch(model: str, revision: str, out: Path) -> bool:
    """Installs the model from the hub in `out`. Returns False if the revision is installed already.

    Raises FetchError, HubError, CheckpointError or OSError.
    """
    # A commit never changes. A branch or tag may have moved, so the hub must be asked.
    if re.fullmatch("[0-9a-f]{40}", revision) and is_installed(out, model, revision):
        return False
    hub = HubModel.find(model, revision)
    if hub.commit is not None and is_installed(out, model, hub.commit):
        return False
    staging = out / ".download"
    download(hub, staging)
    commit = {} if hub.commit is None else {"commit": hub.commit}
    install(staging, out, called=model, provenance={"model": model, "revision": revision, **commit})
    shutil.rmtree(staging)
    return True


def main(argv: list[str] | None = None) -> int:
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--model", help=f"name on the hub (default {DEFAULT_MODEL_URI}; with --from, the name in its provenance.json)"
    )
    parser.add_argument("--revision", help="commit, tag or branch (default: the pinned commit, else main)")
    parser.add_argument("--from", dest="source", type=Path, help="folder that holds the model; nothing is downloaded")
    parser.add_argument(
        "--out",
        type=Path,
        default=INFERENCE_DIR / DEFAULT_MODEL_DIR,
        help="folder to install the model in (default inference/model)",
    )
    args = parser.parse_args(argv)
    if args.source is not None and not args.source.is_dir():
        parser.error(f"--from: there is no folder {args.source}")
    model = args.model or DEFAULT_MODEL_URI
    revision = args.revision or PINNED_REVISIONS.get(model, "main")
    try:
        exported = exported_precisions(args.out)
        finish_install(args.out)
        if args.source is not None:
            model = args.model or name_of(args.source) or DEFAULT_MODEL_URI
            provenance = {"model": model, "revision": args.revision or ""}
            install(args.source, args.out, called=str(args.source), provenance=provenance)
            outcome = f"revision as in {args.source}"
        elif fetch(model, revision, args.out):
            outcome = f"revision {revision}"
        else:
            outcome = f"revision {revision}, is installed already; nothing was downloaded"
    except KeyboardInterrupt:
        print("\nfetch_model: stopped; give the same command again to resume.", file=sys.stderr)
        return 1
    except (FetchError, HubError, CheckpointError, OSError) as error:
        print(f"fetch_model: {error}", file=sys.stderr)
        return 1
    for note in [*removed_exports(args.out, exported), *misfit(args.out)]:
        print(f"fetch_model: {note}.", file=sys.stderr)
    print(f"{args.out}: {model}, {outcome}")
    return 0


def _tokenizer_filenames(hub: HubModel) -> list[str]:
    older = [VOCABULARY_FILENAME, MERGES_FILENAME]
    if TOKENIZER_FILENAME in hub.files or not hub.files.keys() & set(older):
        return [TOKENIZER_FILENAME]
    return older + [name for name in (OPTIONS_FILENAME, ADDED_TOKENS_FILENAME) if name in hub.files]


def _require_files(names: list[str], hub: HubModel) -> None:
    if absent := [name for name in names if name not in hub.files]:
        raise FetchError(f"{hub.name} on the hub has no {' and no '.join(absent)}.")


if __name__ == "__main__":
    command.run(main)
