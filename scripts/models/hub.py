"""Bringing a checkpoint's files from a Hugging Face hub, each checked against the hub's checksums.

What has arrived of a file stays when a download is stopped, and the next one asks for the rest.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, constants, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # listed for lazy import only

from models.write_model import sha256_of

PART_SUFFIX = ".part"

ADVICE = (
    "If the hub can't be reached from here, set HF_ENDPOINT to a mirror, or copy the model's folder from a machine "
    "that reaches it and give it with --from, or make the quick-start model: "
    "python scripts/convert_encoder.py --quick-start --out inference/model"
)


class HubError(Exception):
    """The hub doesn't give the model, in one sentence and, where it helps, ADVICE."""


@dataclass(frozen=True)
class HubModel:
    """A model on the hub, at a commit. `commit` is None where a mirror doesn't say it."""

    name: str
    revision: str
    commit: str | None
    files: Mapping[str, RepoSibling]

    @classmethod
    def find(cls, name: str, revision: str) -> HubModel:
        """Asks the hub; `revision` is a commit, tag or branch. Raises HubError."""
        with _as_hub_errors(name, revision):
            _require_certificates()
            info = HfApi().model_info(name, revision=revision, files_metadata=True)
            return cls(name, revision, info.sha, {file.rfilename: file for file in info.siblings or []})

    def verifies(self, name: str) -> bool:
        """Whether the hub names a checksum of the file. Some mirrors don't."""
        return self.files[name].lfs is not None or self.files[name].blob_id is not None

    def download(self, name: str, folder: Path) -> Path:
        """Brings what is missing of a file into `folder`; says where it is. Raises HubError or OSError."""
        file, path = self.files[name], folder / name
        if self.verifies(name) and path.exists() and _is_what_the_hub_says(path, file):
            return path
        folder.mkdir(parents=True, exist_ok=True)
        # `hf_hub_download` would throw away what has arrived when it is stopped.
        part = folder / f"{name}.{file.blob_id}{PART_SUFFIX}"
        # Longer than the file: a page of some proxy, say. Without a checksum: perhaps of another revision.
        if part.exists() and (not self.verifies(name) or part.stat().st_size > (file.size or 0)):
            part.unlink()
        with part.open("ab") as content, _as_hub_errors(self.name, self.revision):
            http_get(
                # Names the commit, so that a branch which moves meanwhile gives no mixture.
                hf_hub_url(self.name, name, revision=self.commit or self.revision),
                content,
                resume_size=content.tell(),
                headers=build_hf_headers(),
                expected_size=file.size,
                displayed_filename=name,
            )
        if self.verifies(name) and not _is_what_the_hub_says(part, file):
            part.unlink()
            raise HubError(f"{name} arrived damaged (its checksum differs from the hub's); try again.")
        part.replace(path)
        return path


def _is_what_the_hub_says(path: Path, file: RepoSibling) -> bool:
    """Large files are known to the hub by their SHA-256, small ones by their git blob id."""
    if file.lfs is not None:
        return sha256_of(path) == file.lfs.sha256
    content = path.read_bytes()
    return file.blob_id == hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@contextlib.contextmanager
def _as_hub_errors(model: str, revision: str) -> Iterator[None]:
    """Turns what huggingface_hub and its HTTP client raise into HubError."""
    try:
        yield
    except HFValidationError as error:
        raise HubError(f"{model!r} isn't a valid model name: {error}") from error
    except RevisionNotFoundError as error:
        raise HubError(f"{model} has no revision {revision} on the hub; check --revision.") from error
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403) or isinstance(error, RepositoryNotFoundError):
            raise HubError(_refusal(model, error)) from error
        raise HubError(_failure(model, revision, error)) from error
    except ImportError as error:
        names = [name for name, value in os.environ.items() if name.upper().endswith("_PROXY") and "socks" in value]
        raise HubError(
            f"{', '.join(names) or 'the system'} names a SOCKS proxy, but the package for SOCKS isn't installed; "
            "pip install socksio, or unset the proxy."
        ) from error
    except OSError as error:
        if error.errno is not None:  # of this machine: a full disk, say
            raise
        raise HubError(_failure(model, revision, error)) from error
    except UnicodeEncodeError as error:
        raise HubError(
            f"the token from {_token_source()} has characters that a token can't have; correct it."
        ) from error
    # The last four are what huggingface_hub makes of an answer that doesn't come from a hub.
    except (httpx2.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise HubError(_failure(model, revision, error)) from error


def _failure(model: str, revision: str, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return f"{model} at {revision} could not be downloaded: {reason}\n{ADVICE}"


def _refusal(model: str, error: HfHubHTTPError) -> str:
    """Where the hub doesn't let the caller have the model, or says that there is none."""
    status, token = error.response.status_code, _token_source()
    page = f"{constants.ENDPOINT}/{model}"
    if isinstance(error, GatedRepoError):
        account = f"the account of the token from {token}" if token else "an account, and set HF_TOKEN to its token"
        return f"{model} is gated ({status}): ask for access on {page} with {account}."
    if token is None:
        return (
            f"the hub has no public model {model} ({status}); check the name. For a private model, set HF_TOKEN to a "
            "token that may read it."
        )
    return (
        f"the hub refuses {model} with the token from {token} ({status}); check the name and renew the token, or "
        "remove it: public models need no token."
    )


def _token_source() -> str | None:
    """Where the token comes from that is sent to the hub, in the order in which huggingface_hub looks."""
    if "authorization" not in build_hf_headers():
        return None
    for name in ("HF_OIDC_RESOURCE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if os.environ.get(name, "").strip():
            return f"the variable {name}"
    return f"the file {constants.HF_TOKEN_PATH}"


def _require_certificates() -> None:
    """Raises HubError where SSL_CERT_FILE names no certificates; the HTTP client wouldn't say which file it means."""
    path = os.environ.get("SSL_CERT_FILE")
    try:
        if path:
            ssl.create_default_context(cafile=path)
    except OSError as error:
        raise HubError(
            f"SSL_CERT_FILE is {path}, but no certificates can be read from it ({error}); correct it."
        ) from error
