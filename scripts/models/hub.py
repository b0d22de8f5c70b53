"""Downloads a checkpoint's files from a Hugging Face hub and checks them against the hub's checksums.

A stopped download keeps the part that has arrived. The next download asks for the rest.
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

from similarity.encoder.model_folder import sha256_of

PART_SUFFIX = ".part"

ADVICE = (
    "If the hub can't be reached from here, set HF_ENDPOINT to a mirror, or copy the model's folder from a machine "
    "that reaches it and give it with --from, or make the quick-start model: "
    "python scripts/convert_encoder.py --quick-start --out inference/model"
)


class HubError(Exception):
    """The hub doesn't give the model. The message is one sentence, with ADVICE where it helps."""


@dataclass(frozen=True)
class HubModel:
    """A model on the hub, at a commit. `commit` is None if a mirror doesn't give it."""

    name: str
    revision: str
    commit: str | None
    files: Mapping[str, RepoSibling]

    @classmethod
    def find(cls, name: str, revision: str) -> HubModel:
        """Asks the hub for the model. revision: a commit, tag or branch. Raises HubError."""
        with _as_hub_errors(name, revision):
            _require_certificates()
            info = HfApi().model_info(name, revision=revision, files_metadata=True)
            return cls(name, revision, info.sha, {file.rfilename: file for file in info.siblings or []})

    def verifies(self, name: str) -> bool:
        """Whether the hub has a checksum of the file. Some mirrors don't."""
        return self.files[name].lfs is not None or self.files[name].blob_id is not None

    def download(self, name: str, folder: Path) -> Path:
        """Downloads the missing part of a file to `folder`. Returns its path. Raises HubError or OSError."""
        file, path = self.files[name], folder / name
        if self.verifies(name) and path.exists() and _has_hub_checksum(path, file):
            return path
        folder.mkdir(parents=True, exist_ok=True)
        # `hf_hub_download` isn't used, because it drops the arrived part when it is stopped.
        part = folder / f"{name}.{file.blob_id}{PART_SUFFIX}"
        # A part that is longer than the file may be a proxy's page. Without a checksum, it may be of another revision.
        if part.exists() and (not self.verifies(name) or part.stat().st_size > (file.size or 0)):
            part.unlink()
        with part.open("ab") as content, _as_hub_errors(self.name, self.revision):
            http_get(
                # The URL names the commit, so that all files have the same one even if a branch moves meanwhile.
                hf_hub_url(self.name, name, revision=self.commit or self.revision),
                content,
                resume_size=content.tell(),
                headers=build_hf_headers(),
                expected_size=file.size,
                displayed_filename=name,
            )
        if self.verifies(name) and not _has_hub_checksum(part, file):
            part.unlink()
            raise HubError(f"{name} arrived damaged (its checksum differs from the hub's); try again.")
        part.replace(path)
        return path


def _has_hub_checksum(path: Path, file: RepoSibling) -> bool:
    """The hub has the SHA-256 of large files, and the git blob id of small ones."""
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
        if error.errno is not None:  # an error of this machine, e.g. a full disk
            raise
        raise HubError(_failure(model, revision, error)) from error
    except UnicodeEncodeError as error:
        raise HubError(
            f"the token from {_token_source()} has characters that a token can't have; correct it."
        ) from error
    # huggingface_hub raises the last four if the answer doesn't come from a hub.
    except (httpx2.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise HubError(_failure(model, revision, error)) from error


def _failure(model: str, revision: str, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return f"{model} at {revision} could not be downloaded: {reason}\n{ADVICE}"


def _refusal(model: str, error: HfHubHTTPError) -> str:
    """The message if the hub refuses access to the model, or says that there is none."""
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
    """The variable or file with the token for the hub, searched in huggingface_hub's order. None without a token."""
    if "authorization" not in build_hf_headers():
        return None
    for name in ("HF_OIDC_RESOURCE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if os.environ.get(name, "").strip():
            return f"the variable {name}"
    return f"the file {constants.HF_TOKEN_PATH}"


def _require_certificates() -> None:
    """Raises HubError if SSL_CERT_FILE has no certificates. The HTTP client's own error doesn't name the file."""
    path = os.environ.get("SSL_CERT_FILE")
    try:
        if path:
            ssl.create_default_context(cafile=path)
    except OSError as error:
        raise HubError(
            f"SSL_CERT_FILE is {path}, but no certificates can be read from it ({error}); correct it."
        ) from error
