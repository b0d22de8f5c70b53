"""Which version of model and state a folder holds: names, sizes and digests of files, and one hash over them.

The image is built with a manifest of its model folder (`python -m similarity.manifest model`), so that a Lambda knows
its versions without reading 600 MB; a version in the cache carries its own. Copying and choosing between versions is
left to `similarity.cache`.

A file's digest is the SHA-256 of the SHA-256s of its chunks, because those can be computed in parallel: hashlib
releases the GIL. 595 MB that are in memory already take 0.22 s on two cores, 0.41 s as one plain SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from similarity.errors import ModelError
from similarity.model_files import CONFIG_FILENAME, PROVENANCE_FILENAME, TOKENIZER_FILENAME, ModelFiles
from similarity.settings import DEFAULT_INCIDENTS_FILENAME

MANIFEST_FILENAME = "manifest.json"
STATE_FILENAME = DEFAULT_INCIDENTS_FILENAME
# The weights and the graph may have any name.
MODEL_PATTERNS = (CONFIG_FILENAME, TOKENIZER_FILENAME, PROVENANCE_FILENAME, "*.safetensors", "*.onnx")

# Part of what a digest is: another size makes another version of everything.
CHUNK_BYTES = 8 << 20
# More than most Lambdas have cores: a network file system answers several reads at once.
_THREADS = 4


class MismatchError(ValueError):
    """Files, or a manifest, are not what they should be."""


@dataclass(frozen=True)
class FileEntry:
    """A file of a version: its size in bytes and its digest, hex, as this module's docstring defines it."""

    name: str
    size: int
    digest: str


@dataclass(frozen=True)
class Version:
    """The files that make up a model or a state, sorted by name."""

    files: tuple[FileEntry, ...]

    @property
    def id(self) -> str:
        """SHA-256 hex over names, sizes and digests."""
        return hashlib.sha256(json.dumps([asdict(entry) for entry in self.files]).encode()).hexdigest()

    @classmethod
    def of(cls, paths: Iterable[Path]) -> Version:
        """The version that these files are. Raises OSError."""
        by_name = sorted(paths, key=lambda path: path.name)
        return cls(tuple(FileEntry(path.name, path.stat().st_size, digest_of(path)) for path in by_name))

    @classmethod
    def from_json(cls, values: Any) -> Version:
        """Raises MismatchError for anything that `to_json` does not write."""
        try:
            return cls(tuple(FileEntry(str(v["name"]), int(v["size"]), str(v["digest"])) for v in values["files"]))
        except (KeyError, TypeError, ValueError) as error:
            raise MismatchError(f"no manifest: {type(error).__name__}: {error}") from error

    def to_json(self) -> dict[str, Any]:
        return {"files": [asdict(entry) for entry in self.files]}

    def require_sizes(self, folder: Path) -> None:
        """Raises MismatchError where a file in `folder` has another size, OSError where it is missing."""
        for entry in self.files:
            size = (folder / entry.name).stat().st_size
            if size != entry.size:
                raise MismatchError(f"{folder / entry.name} has {size} bytes, not {entry.size}")

    def require_same(self, folder: Path) -> None:
        """Reads all of it. Raises MismatchError where a bit differs, OSError where a file can't be read."""
        self.require_sizes(folder)
        for entry in self.files:
            if digest_of(folder / entry.name) != entry.digest:
                raise MismatchError(f"{folder / entry.name} is not what was written")


class Digest:
    """A file's digest, from its chunks in order."""

    def __init__(self) -> None:
        self._over_chunks = hashlib.sha256()

    def add(self, chunk_digest: bytes) -> None:
        self._over_chunks.update(chunk_digest)

    def hex(self) -> str:
        return self._over_chunks.hexdigest()


def digest_of(path: Path) -> str:
    """The digest of a file, chunks read and hashed in parallel. Raises OSError."""
    digest = Digest()
    descriptor = os.open(path, os.O_RDONLY)
    try:

        def chunk_digest(offset: int) -> bytes:
            return hashlib.sha256(os.pread(descriptor, CHUNK_BYTES, offset)).digest()

        offsets = range(0, os.fstat(descriptor).st_size, CHUNK_BYTES)
        if len(offsets) < 2:
            chunk_digests: Iterator[bytes] = map(chunk_digest, offsets)
            for each in chunk_digests:
                digest.add(each)
        else:
            with ThreadPoolExecutor(_THREADS) as pool:
                for each in pool.map(chunk_digest, offsets):
                    digest.add(each)
    finally:
        os.close(descriptor)
    return digest.hex()


@dataclass(frozen=True)
class ImageManifest:
    """The versions that an image holds."""

    model: Version
    state: Version

    @classmethod
    def of(cls, model_dir: Path) -> ImageManifest:
        """Of the files in a model's folder. Raises OSError."""
        names = {path for pattern in MODEL_PATTERNS for path in model_dir.glob(pattern)}
        return cls(Version.of(names), Version.of([model_dir / STATE_FILENAME]))

    @classmethod
    def read(cls, model_dir: Path) -> ImageManifest | None:
        """None where the folder has no manifest. Raises MismatchError where it has changed since, or OSError."""
        try:
            values = json.loads((model_dir / MANIFEST_FILENAME).read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise MismatchError(f"{model_dir / MANIFEST_FILENAME} is not JSON: {error}") from error
        if not isinstance(values, Mapping):
            raise MismatchError(f"{model_dir / MANIFEST_FILENAME} is not a JSON object")
        manifest = cls(Version.from_json(values.get("model")), Version.from_json(values.get("state")))
        manifest.model.require_sizes(model_dir)
        manifest.state.require_sizes(model_dir)
        return manifest

    def write(self, model_dir: Path) -> None:
        content = {"model": self.model.to_json(), "state": self.state.to_json()}
        (model_dir / MANIFEST_FILENAME).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    """Writes the manifest of the model folder that is named; the Dockerfile runs it.

    Fails where weights or graphs aren't what was installed: such an image must not be deployed.
    """
    [model_dir] = map(Path, sys.argv[1:] if argv is None else argv)
    try:
        ModelFiles(model_dir).require_unchanged()
    except ModelError as error:
        print(f"similarity.manifest: {error.detail}", file=sys.stderr)
        return 1
    manifest = ImageManifest.of(model_dir)
    manifest.write(model_dir)
    print(f"model {manifest.model.id}\nstate {manifest.state.id}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
