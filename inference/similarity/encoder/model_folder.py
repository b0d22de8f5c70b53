"""A model's folder: config.json, tokenizer.json and weights. The scripts of this project add provenance.json.

This module reads and checks the files. `similarity.encoder.config` says what config.json must hold, and the encoders
read the weights into tensors. provenance.json is a JSON object:

    model           str, the model's name
    weights_sha256  str, SHA-256 hex of the weights, as the script wrote them
    graph_sha256    object, SHA-256 hex of each file that belongs to a graph, by file name

Other keys are allowed. Each key may be missing, e.g. in folders from earlier versions.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from similarity.encoder.config import LongformerConfig
from similarity.encoder.safetensors_header import read_header
from similarity.encoder.weights_identity import identity, note_in
from similarity.errors import ModelError, one_line
from similarity.settings import DEFAULT_MODEL_FILENAME, DEFAULT_PRECISION, Precision

CONFIG_FILENAME = "config.json"
TOKENIZER_FILENAME = "tokenizer.json"
PROVENANCE_FILENAME = "provenance.json"
# The graphs that scripts/export_onnx.py makes, by precision.
GRAPH_FILENAMES: dict[Precision, str] = {"float32": "encoder.onnx", "int8": "encoder.int8.onnx"}
# The integer weights that the graph of int8 names.
INT8_WEIGHTS_FILENAME = "encoder.int8.bin"
# The export's report on each precision, see `similarity.encoder.reports`.
REPORT_FILENAMES: dict[Precision, str] = {
    "float32": "encoder.json",
    "bfloat16": "encoder.bfloat16.json",
    "int8": "encoder.int8.json",
}
# All files that scripts/export_onnx.py makes.
EXPORTED_FILENAMES = (INT8_WEIGHTS_FILENAME, *GRAPH_FILENAMES.values(), *REPORT_FILENAMES.values())


def exported_filenames(precision: Precision) -> frozenset[str]:
    """The files that scripts/export_onnx.py makes for a precision. bfloat16 needs no graph."""
    names = {REPORT_FILENAMES[precision], GRAPH_FILENAMES.get(precision, REPORT_FILENAMES[precision])}
    return frozenset(names | ({INT8_WEIGHTS_FILENAME} if precision == "int8" else set()))


def export_script(precision: Precision) -> str:
    """The script that makes the files of a precision, with its option, for a message."""
    return "scripts/export_onnx.py" + ("" if precision == DEFAULT_PRECISION else f" --precision {precision}")


def _export_script_of(name: str) -> str:
    """As `export_script`, for the precision that a file of the export belongs to."""
    found = (precision for precision in REPORT_FILENAMES if name in exported_filenames(precision))
    return export_script(next(found, DEFAULT_PRECISION))


# The files of a new model wait in this folder while they are moved one by one (scripts/models/install_files.py).
INSTALLING_DIRNAME = ".installing"
HOW_TO_GET_ONE = (
    "scripts/fetch_model.py fetches one, and scripts/convert_encoder.py --quick-start --out FOLDER makes a small one"
)

# Other forms of weights: pickled, or in shards.
_OTHER_WEIGHTS = ("pytorch_model*.bin", "*.ckpt", "*.safetensors.index.json")

# Git LFS leaves a pointer in place of a large file: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
# Longformer-base's graphs have 80 and 600 KB, because they refer to weights. A graph that holds weights (of a float16
# checkpoint) has at least 96 MB. Hashing it at each start would take 0.07 s of 0.3 s.
_SMALL_BYTES = 4 << 20


@dataclass(frozen=True)
class ModelFiles:
    """The files of a model's folder: paths, checks, name and fingerprint."""

    folder: Path
    weights_filename: str = DEFAULT_MODEL_FILENAME

    @property
    def config_path(self) -> Path:
        return self.folder / CONFIG_FILENAME

    @property
    def tokenizer_path(self) -> Path:
        return self.folder / TOKENIZER_FILENAME

    @property
    def weights_path(self) -> Path:
        return self.folder / self.weights_filename

    @property
    def paths(self) -> tuple[Path, Path, Path]:
        return self.config_path, self.tokenizer_path, self.weights_path

    @property
    def exported_paths(self) -> tuple[Path, ...]:
        """All files of the export. Some may be missing: the engine onnx needs only the graph of its precision."""
        return tuple(self.folder / name for name in EXPORTED_FILENAMES)

    def config(self) -> LongformerConfig:
        """Raises ModelError if the config is missing, broken or of another kind of model."""
        if (self.folder / INSTALLING_DIRNAME).is_dir():
            raise ModelError(
                f"the installation of a model in {self.folder} was stopped halfway; to finish it, give the same "
                "command again (scripts/fetch_model.py, convert_encoder.py or export_onnx.py)"
            )
        if not self.config_path.exists():
            raise ModelError(f"there is no model in {self.folder}: {HOW_TO_GET_ONE}")
        try:
            return LongformerConfig.from_json(read_object(self.config_path))
        except ValueError as error:
            raise ModelError(f"{self.config_path}: {error}") from error

    def name(self) -> str | None:
        """The model's name in provenance.json, e.g. `allenai/longformer-base-4096`. Raises ModelError."""
        name = self.provenance().get("model")
        return None if name is None else one_line(str(name))

    def provenance(self) -> dict[str, Any]:
        """The content of provenance.json, {} if there is none. Raises ModelError if it can't be read."""
        path = self.folder / PROVENANCE_FILENAME
        try:
            return read_object(path) if path.exists() else {}
        except ValueError as error:
            raise ModelError(f"{path}: {error}") from error

    def require_weights(self) -> None:
        """Raises ModelError if the weights are missing, or their size isn't the one in their safetensors header."""
        if not self.weights_path.exists() and any(
            path.exists() for name in _OTHER_WEIGHTS for path in self.folder.glob(name)
        ):
            raise ModelError(
                f"the weights in {self.folder} are pickled or in shards; install them with "
                f"scripts/fetch_model.py --from {self.folder}"
            )
        require_content(self.weights_path)
        read_header(self.weights_path)

    def require_weights_unchanged(self) -> None:
        """Raises ModelError if the weights have changed since they were installed, or can't be read.

        Reads all weights, which takes half a second for 600 MB.
        """
        expected = self.provenance().get("weights_sha256")
        if expected is not None and sha256_of(self.weights_path) != expected:
            raise ModelError(
                f"{self.weights_path} isn't the file that was installed (its SHA-256 isn't the one in "
                f"{PROVENANCE_FILENAME}): install the model again, or delete {PROVENANCE_FILENAME} if you changed it"
            )

    def require_graph_unchanged(self, name: str) -> None:
        """Raises ModelError if the graph has changed since the export, or can't be read."""
        expected = self.graph_sha256().get(name)
        if expected is not None and sha256_of(self.folder / name) != expected:
            raise ModelError(
                f"{self.folder / name} isn't the file that was exported (its SHA-256 isn't the one in "
                f"{PROVENANCE_FILENAME}); export it again with {_export_script_of(name)}"
            )

    def require_graph_at_start(self, name: str) -> None:
        """As `require_graph_unchanged`, but skips a graph that holds weights: reading it would slow down the start."""
        try:
            is_small = (self.folder / name).stat().st_size <= _SMALL_BYTES
        except OSError as error:
            raise ModelError(f"{self.folder / name} can't be read: {error.strerror or error}") from error
        if is_small:
            self.require_graph_unchanged(name)

    def has_graph(self, precision: Precision) -> bool:
        """Whether the files are there that the engine onnx needs for this precision."""
        names = [GRAPH_FILENAMES[precision], *([INT8_WEIGHTS_FILENAME] if precision == "int8" else [])]
        return all((self.folder / name).exists() for name in names)

    def require_graph(self, precision: Precision) -> None:
        """Raises ModelError if the engine onnx lacks a file for this precision."""
        if precision not in GRAPH_FILENAMES:
            raise ModelError(
                f"ENCODER_PRECISION for the engine onnx must be one of {', '.join(GRAPH_FILENAMES)}, not {precision}"
            )
        if not self.has_graph(precision):
            path = self.folder / GRAPH_FILENAMES[precision]
            option = "" if precision == DEFAULT_PRECISION else f" --precision {precision}"
            remedy = f"with scripts/export_onnx.py {self.folder}{option}"
            if path.exists():
                raise ModelError(f"there are no weights for {path}; make them {remedy}")
            raise ModelError(f"there is no graph {path}; make it {remedy}")

    def graph(self, precision: Precision) -> Path:
        """The graph that the engine onnx runs with this precision. Raises ModelError if it can't be the exported one.

        See `require_graph_at_start`.
        """
        self.require_graph(precision)
        path = self.folder / GRAPH_FILENAMES[precision]
        self.require_graph_at_start(path.name)
        return path

    def require_graph_fits(self, name: str) -> None:
        """Raises ModelError if the export wrote another model's fingerprint into a graph. Skips graphs as above."""
        path = self.folder / name
        try:
            fits = (
                path.stat().st_size > _SMALL_BYTES or self.graph_key(self.fingerprint()).encode() in path.read_bytes()
            )
        except OSError as error:
            raise ModelError(f"{path} can't be read: {error.strerror or error}") from error
        if not fits:
            raise ModelError(
                f"{path} was made from other files than those beside it; export it again with {_export_script_of(name)}"
            )

    def require_unchanged(self) -> None:
        """Raises ModelError if weights or graphs have changed, or the folder is unusable. Reads all of them."""
        self.config()
        self.require_weights()
        self.require_weights_unchanged()
        for path in self.exported_paths:
            if path.exists():
                self.require_graph_unchanged(path.name)

    def graph_sha256(self) -> dict[str, Any]:
        """SHA-256 hex of graphs by file name, from provenance.json. Raises ModelError."""
        noted = self.provenance().get("graph_sha256")
        return noted if isinstance(noted, dict) else {}

    def fingerprint(self) -> str:
        """SHA-256 hex over config, tokenizer, and the weights' size, header and samples.

        It reads 2 MB instead of 500 MB, so that every cold start can afford it. It tells models apart, but doesn't
        notice every flipped bit. Weights that lack the tensors that no text touches give the fingerprint of the whole
        weights. Raises ModelError if a file can't be read.
        """
        config = self.config()
        require_content(self.weights_path)
        digest = hashlib.sha256(config.identity().encode())
        try:
            digest.update(self.tokenizer_path.read_bytes())
            for part in identity(self.weights_path):
                digest.update(part)
        except OSError as error:
            raise ModelError(f"{self.folder}: {error}") from error
        return digest.hexdigest()

    def graph_key(self, fingerprint: str) -> str:
        """A graph's entry that says which weights it fits. fingerprint: from `fingerprint()`.

        A graph names places in the file of weights. Smaller weights have other places than the whole ones, though the
        fingerprint is the same. Raises ModelError.
        """
        try:
            if not note_in(self.weights_path):
                return fingerprint
            size = self.weights_path.stat().st_size
        except OSError as error:
            raise ModelError(f"{self.folder}: {error}") from error
        return hashlib.sha256(f"{fingerprint} {size}".encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """SHA-256 hex of a file's bytes. Raises ModelError if it can't be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error.strerror or error}") from error


def require_content(path: Path) -> None:
    """Raises ModelError if the file is missing, empty, a folder, or a pointer of Git LFS."""
    if path.is_dir():
        raise ModelError(f"{path} is a folder where a file should be; copy or fetch the file")
    try:
        with path.open("rb") as file:
            start = file.read(len(_LFS_POINTER))
    except FileNotFoundError as error:
        if path.is_symlink():
            raise ModelError(f"{path} links to a file that isn't there; copy it with `cp -rL`") from error
        raise ModelError(f"there is no file {path}; copy or fetch it") from error
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error.strerror or error}") from error
    if not start:
        raise ModelError(f"{path} is empty; copy or fetch it again")
    if start == _LFS_POINTER:
        raise ModelError(f"{path} is a pointer of Git LFS, not the file; run `git lfs pull` in {path.parent}")


def read_object(path: Path) -> dict[str, Any]:
    """Raises ValueError if the file doesn't hold a JSON object, ModelError if it can't be read."""
    require_content(path)
    try:
        values = json.loads(path.read_bytes())
    except RecursionError as error:
        raise ValueError("its JSON is nested too deeply") from error
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"it isn't JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"it holds a {type(values).__name__}, not an object")
    return values


def main(argv: list[str] | None = None) -> int:
    """Returns 1 if weights or graphs of the folder have changed since they were installed. The Dockerfile runs this."""
    [folder] = map(Path, sys.argv[1:] if argv is None else argv)
    try:
        ModelFiles(folder).require_unchanged()
    except ModelError as error:
        print(f"similarity.encoder.model_folder: {error.detail}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
