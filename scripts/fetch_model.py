#!/usr/bin/env python3
"""Bring a Longformer from Hugging Face into inference/model/, at a pinned revision, as safetensors.

Files are checked against the hub's checksums. A download that was stopped resumes when the same command is given again.
If the hub can't be reached from here: set HF_ENDPOINT to a mirror, or copy the model's folder from a machine that
reaches it and give it with --from; or use the quick-start model
(python scripts/convert_encoder.py --quick-start --out inference/model).

Example:
    python scripts/fetch_model.py
Example, from a folder that holds config.json, tokenizer.json and weights:
    python scripts/fetch_model.py --from ~/longformer-base-4096
"""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import sys
from pathlib import Path

import httpx2
import torch
from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.file_download import http_get
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # listed for lazy import only
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from _inference import INFERENCE_DIR
from command_line import argument_parser
from model_folder import sha256_of, write_model
from similarity.errors import ModelError
from similarity.model_files import CONFIG_FILENAME, TOKENIZER_FILENAME
from similarity.settings import DEFAULT_MODEL_DIR, DEFAULT_MODEL_FILENAME, DEFAULT_MODEL_URI

# A commit rather than a branch: a later push must not change what a state compares with.
PINNED_REVISIONS = {DEFAULT_MODEL_URI: "301e6a42cb0d9976a6d6a26a079fef81c18aa895"}

PICKLED_WEIGHTS = "pytorch_model.bin"

ADVICE = (
    "If the hub can't be reached from here, set HF_ENDPOINT to a mirror, or copy the model's folder from a machine "
    "that reaches it and give it with --from, or make the quick-start model: "
    "python scripts/convert_encoder.py --quick-start --out inference/model"
)


class FetchError(Exception):
    """The model can't be had or is not what it should be, in one sentence."""


def download(model: str, revision: str, folder: Path) -> None:
    """Downloads config, tokenizer and weights of `model` into `folder` and checks them. Raises FetchError."""
    try:
        info = HfApi().model_info(model, revision=revision, files_metadata=True)
        files = {file.rfilename: file for file in info.siblings or []}
        weights = next((name for name in (DEFAULT_MODEL_FILENAME, PICKLED_WEIGHTS) if name in files), None)
        absent = [name for name in (CONFIG_FILENAME, TOKENIZER_FILENAME) if name not in files]
        if weights is None or absent:
            raise FetchError(f"{model} has no {' and no '.join(absent) or 'weights that torch reads'}.")
        for name in (CONFIG_FILENAME, TOKENIZER_FILENAME, weights):
            # Names the commit, so that a branch which moves meanwhile gives no mixture.
            url = hf_hub_url(model, name, revision=info.sha or revision)
            _download_file(url, files[name], folder / name)
    except HFValidationError as error:
        raise FetchError(f"{model!r} is no model name: {error}") from error
    except (HfHubHTTPError, httpx2.HTTPError, ValueError) as error:  # ValueError: the answer of what is no hub
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FetchError(f"{model} at {revision} could not be downloaded: {reason}\n{ADVICE}") from error


def _download_file(url: str, file: RepoSibling, path: Path) -> None:
    """Brings what is missing of the file to `path`. Raises FetchError, HfHubHTTPError, httpx2.HTTPError or OSError.

    What has arrived stays beside it when this is stopped, under the file's id; `hf_hub_download` would throw it away.
    """
    if path.exists() and _is_what_the_hub_says(path, file):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{file.blob_id}.part")
    if part.exists() and part.stat().st_size > (file.size or 0):  # a page of some proxy, say
        part.unlink()
    with part.open("ab") as content:
        http_get(
            url,
            content,
            resume_size=content.tell(),
            headers=build_hf_headers(),
            expected_size=file.size,
            displayed_filename=path.name,
        )
    if not _is_what_the_hub_says(part, file):
        part.unlink()
        raise FetchError(f"{path.name} arrived damaged (its checksum differs from the hub's); try again.")
    part.replace(path)


def _is_what_the_hub_says(path: Path, file: RepoSibling) -> bool:
    """Large files are known to the hub by their SHA-256, small ones by their git blob id."""
    if file.lfs is not None:
        return sha256_of(path) == file.lfs.sha256
    content = path.read_bytes()
    blob_id = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    return file.blob_id in (None, blob_id)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The weights in `folder`, safetensors preferred; of a pickle nothing but tensors is read. Raises FetchError."""
    safetensors, pickled = folder / DEFAULT_MODEL_FILENAME, folder / PICKLED_WEIGHTS
    try:
        if safetensors.exists():
            weights = load_file(safetensors)
        else:
            weights = torch.load(pickled, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        # Behind its first sentence torch goes on for a page, which advises to load the file without protection.
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise FetchError(f"the weights in {folder} can't be read: {reason}") from error
    prefix = "longformer." if any(name.startswith("longformer.") for name in weights) else ""
    # The head of a masked language model, the pooler and the position counters have no part in a CLS vector.
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in weights.items()
        if name.removeprefix(prefix).startswith(("embeddings.", "encoder.")) and not name.endswith("position_ids")
    }


def install(source: Path, out: Path, *, model: str, revision: str) -> None:
    """Puts the model in `source` into `out`, as safetensors, if it can be used. Raises FetchError or OSError."""
    try:
        config = json.loads((source / CONFIG_FILENAME).read_bytes())
        tokenizer = (source / TOKENIZER_FILENAME).read_bytes()
    except (OSError, ValueError) as error:
        raise FetchError(f"{source} holds no model: {error}") from error
    try:
        write_model(
            out,
            config=config,
            tokenizer_json=tokenizer,
            weights=read_weights(source),
            source={"model": model, "revision": revision, "made_by": "fetch_model.py"},
        )
    except ModelError as error:
        raise FetchError(f"{model} is no Longformer that can be used here: {error.detail}") from error


def main(argv: list[str] | None = None) -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--model", default=DEFAULT_MODEL_URI, help=f"name on the hub (default {DEFAULT_MODEL_URI})")
    parser.add_argument("--revision", help="commit, tag or branch (default: the pinned commit, else main)")
    parser.add_argument("--from", dest="source", type=Path, help="folder that holds the model already")
    parser.add_argument("--out", type=Path, default=INFERENCE_DIR / DEFAULT_MODEL_DIR, help="default inference/model")
    args = parser.parse_args(argv)
    if args.source is not None and not args.source.is_dir():
        parser.error(f"there is no folder {args.source}")
    revision = args.revision or PINNED_REVISIONS.get(args.model, "main")
    try:
        if args.source is not None:
            install(args.source, args.out, model=args.model, revision=args.revision or "")
        else:
            staging = args.out / ".download"
            download(args.model, revision, staging)
            install(staging, args.out, model=args.model, revision=revision)
            shutil.rmtree(staging)
    except KeyboardInterrupt:
        print("\nfetch_model: stopped; give the same command again to resume.", file=sys.stderr)
        return 1
    except (FetchError, OSError) as error:
        print(f"fetch_model: {error}", file=sys.stderr)
        return 1
    print(f"{args.out}: {args.model}, revision {revision if args.source is None else 'as in ' + str(args.source)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
