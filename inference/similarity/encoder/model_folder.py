"""A model's folder: config.json, tokenizer.json, weights and, where a script of this project made it, provenance.json.

Says what the folder holds; reading weights into tensors is the encoder's job. provenance.json is a JSON object:

    model           str, the model's name
    weights_sha256  str, SHA-256 hex of the weights, as the script wrote them
    graph_sha256    object, SHA-256 hex of each graph by its file's name

and what else the script knows. Each key may be missing, as in folders from earlier versions.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from similarity.encoder.safetensors_header import read_header
from similarity.errors import ModelError, one_line
from similarity.settings import DEFAULT_MODEL_FILENAME, Precision

CONFIG_FILENAME = "config.json"
TOKENIZER_FILENAME = "tokenizer.json"
PROVENANCE_FILENAME = "provenance.json"
# What scripts/export_onnx.py makes of the weights, by precision.
GRAPH_FILENAMES: dict[Precision, str] = {"float32": "encoder.onnx", "int8": "encoder.int8.onnx"}

# While a new model's files take their places one by one, they wait in this folder (scripts/models/install_files.py).
INSTALLING_DIRNAME = ".installing"
HOW_TO_GET_ONE = (
    "scripts/fetch_model.py fetches one, and scripts/convert_encoder.py --quick-start --out FOLDER makes a small one"
)
# What scripts/convert_encoder.py makes a Longformer of.
CONVERTIBLE_KINDS = ("bert", "roberta", "xlm-roberta", "camembert")

# How checkpoints have their weights elsewhere: pickled, or in shards.
_OTHER_WEIGHTS = ("pytorch_model*.bin", "*.ckpt", "*.safetensors.index.json")

_SAMPLES, _SAMPLE_BYTES = 64, 4096
# What Git LFS leaves in place of a large file: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
# Far more than any model has; a larger number comes from a damaged file. With 2^24 layers, a start took 5 s and 700 MB.
_MAX_SIZE = 1 << 20
# Longformer-base's graph has 80 KB, since it refers to the weights. One that holds weights (int8, or of a float16
# checkpoint) has 96 MB and more; hashing it at each start would take 0.07 s of 0.3.
_SMALL_BYTES = 4 << 20


@dataclass(frozen=True)
class LongformerConfig:
    """The part of a checkpoint's config.json that the forward pass depends on.

    attention_window holds, for each layer, the whole window in tokens: half of it to each side (Beltagy et al. 2020,
    section 3.1). global_attention_on_cls is a key of this project's own, for checkpoints that were trained with the
    CLS token attending to all tokens and all of them to it, as `LongformerForSequenceClassification` does it.
    """

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    attention_window: tuple[int, ...]
    hidden_act: str
    layer_norm_eps: float
    pad_token_id: int
    max_position_embeddings: int
    global_attention_on_cls: bool = False

    @property
    def max_tokens(self) -> int:
        """Positions start behind the padding index (as in RoBERTa), which costs the table pad_token_id + 1 rows."""
        return self.max_position_embeddings - self.pad_token_id - 1

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> LongformerConfig:
        """Raises ValueError where `values` don't describe a Longformer."""
        kind = values.get("model_type")
        if kind != "longformer":
            remedy = "; convert it with scripts/convert_encoder.py" if kind in CONVERTIBLE_KINDS else ""
            raise ValueError(f"model_type is {kind!r}, not 'longformer'{remedy}")
        layers, hidden = _size(values, "num_hidden_layers"), _size(values, "hidden_size")
        heads, pad = _size(values, "num_attention_heads"), _size(values, "pad_token_id", least=0, default=1)
        window: Any = values.get("attention_window")
        windows: tuple[Any, ...] = tuple(window) if isinstance(window, list) else (window,) * layers
        if len(windows) != layers or any(type(w) is not int or not 2 <= w <= _MAX_SIZE or w % 2 for w in windows):
            raise ValueError(
                f"attention_window must be an even number, or a list of {layers} even numbers, one for each layer"
            )
        eps = values.get("layer_norm_eps", 1e-12)
        if not isinstance(eps, float | int) or not 0 < eps < 1:
            raise ValueError("layer_norm_eps must be a number between 0 and 1")
        on_cls = values.get("global_attention_on_cls", False)
        if not isinstance(on_cls, bool):
            raise ValueError("global_attention_on_cls must be true or false")
        if hidden % heads:
            raise ValueError(f"hidden_size {hidden} isn't a multiple of num_attention_heads {heads}")
        config = cls(
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            attention_window=windows,
            hidden_act=str(values.get("hidden_act", "gelu")),
            layer_norm_eps=float(eps),
            pad_token_id=pad,
            max_position_embeddings=_size(values, "max_position_embeddings"),
            global_attention_on_cls=on_cls,
        )
        if config.max_tokens < 3:
            raise ValueError(
                f"max_position_embeddings leaves room for {config.max_tokens} tokens; at least 3 are needed"
            )
        return config


def _size(values: Mapping[str, Any], name: str, *, least: int = 1, default: int | None = None) -> int:
    value = values.get(name, default)
    if type(value) is not int or not least <= value <= _MAX_SIZE:
        raise ValueError(f"{name} must be a whole number from {least} to {_MAX_SIZE}")
    return value


@dataclass(frozen=True)
class ModelFiles:
    """Paths of a model's files, and which model they are."""

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
    def graph_paths(self) -> tuple[Path, ...]:
        """Of which the engine onnx needs the one of its precision, the engine torch none."""
        return tuple(self.folder / name for name in GRAPH_FILENAMES.values())

    def config(self) -> LongformerConfig:
        """Raises ModelError for a config that is missing, broken or of another kind of model."""
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
        """What the script that made the folder calls the model, e.g. `allenai/longformer-base-4096`."""
        name = self.provenance().get("model")
        return None if name is None else one_line(str(name))

    def provenance(self) -> dict[str, Any]:
        """What provenance.json says, nothing where there is none. Raises ModelError for one that can't be read."""
        path = self.folder / PROVENANCE_FILENAME
        try:
            return read_object(path) if path.exists() else {}
        except ValueError as error:
            raise ModelError(f"{path}: {error}") from error

    def require_weights(self) -> None:
        """Raises ModelError where the weights' file isn't there, or isn't a whole safetensors file by its header."""
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
        """Reads all of the weights: half a second for 600 MB.

        Raises ModelError where they aren't what the script that made the folder wrote, or can't be read.
        """
        expected = self.provenance().get("weights_sha256")
        if expected is not None and sha256_of(self.weights_path) != expected:
            raise ModelError(
                f"{self.weights_path} isn't the file that was installed (its SHA-256 isn't the one in "
                f"{PROVENANCE_FILENAME}): install the model again, or delete {PROVENANCE_FILENAME} if you changed it"
            )

    def require_graph_unchanged(self, name: str) -> None:
        """Raises ModelError where the graph isn't what the export wrote, or can't be read."""
        expected = self.graph_sha256().get(name)
        if expected is not None and sha256_of(self.folder / name) != expected:
            raise ModelError(
                f"{self.folder / name} isn't the file that was exported (its SHA-256 isn't the one in "
                f"{PROVENANCE_FILENAME}); export it again with scripts/export_onnx.py"
            )

    def require_graph_at_start(self, name: str) -> None:
        """As `require_graph_unchanged`, but a graph that holds weights isn't read: that is for those who can wait."""
        try:
            is_small = (self.folder / name).stat().st_size <= _SMALL_BYTES
        except OSError as error:
            raise ModelError(f"{self.folder / name} can't be read: {error.strerror or error}") from error
        if is_small:
            self.require_graph_unchanged(name)

    def require_unchanged(self) -> None:
        """Reads all of weights and graphs. Raises ModelError where one has changed, or the folder can't be used."""
        self.config()
        self.require_weights()
        self.require_weights_unchanged()
        for path in self.graph_paths:
            if path.exists():
                self.require_graph_unchanged(path.name)

    def graph_sha256(self) -> dict[str, Any]:
        """SHA-256 hex by file name of a graph, as far as provenance.json has them. Raises ModelError."""
        noted = self.provenance().get("graph_sha256")
        return noted if isinstance(noted, dict) else {}

    def fingerprint(self) -> str:
        """SHA-256 hex over config, tokenizer and weights; of the weights their size, their header and samples.

        Reads 2 MB rather than 600, so that every cold start can afford it: it tells models apart, it does not prove
        that no bit has flipped. Raises ModelError where a file can't be read.
        """
        config = self.config()
        require_content(self.weights_path)
        # As long as there was no other kind of attention, fingerprints did not mention it.
        digest = hashlib.sha256(repr(config).replace(", global_attention_on_cls=False", "").encode())
        try:
            digest.update(self.tokenizer_path.read_bytes())
            size = self.weights_path.stat().st_size
            digest.update(str(size).encode())
            with self.weights_path.open("rb") as weights:
                # Whether the header is sound, `require_weights` says.
                header_bytes = 8 + min(int.from_bytes(weights.read(8), "little"), max(size - 8, 0))
                weights.seek(0)
                digest.update(weights.read(min(header_bytes, 1 << 20)))
                for sample in range(_SAMPLES):
                    weights.seek(header_bytes + (size - header_bytes) * sample // _SAMPLES)
                    digest.update(weights.read(_SAMPLE_BYTES))
        except OSError as error:
            raise ModelError(f"{self.folder}: {error}") from error
        return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """SHA-256 hex of a file's bytes. Raises ModelError where it can't be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error.strerror or error}") from error


def require_content(path: Path) -> None:
    """Raises ModelError for a file that isn't there, is a folder, is empty, or only points to another file."""
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
    """Raises ValueError for a file that doesn't hold a JSON object, ModelError for one that can't be read."""
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
    """Fails where the weights or graphs of a folder aren't the files that were installed; the Dockerfile runs it."""
    [folder] = map(Path, sys.argv[1:] if argv is None else argv)
    try:
        ModelFiles(folder).require_unchanged()
    except ModelError as error:
        print(f"similarity.encoder.model_folder: {error.detail}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
