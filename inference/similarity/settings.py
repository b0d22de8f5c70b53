"""Names and defaults of the environment variables that the handlers read.

The stack (`infrastructure/functions.py`) sets them on the Lambdas.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, get_args

from similarity.errors import ModelError

T = TypeVar("T")

HANDLERS_DIR = Path(__file__).resolve().parent.parent

# The name of the stack, unless it is deployed under another one.
DEFAULT_STACK_NAME = "AiidSimilarIncidents"
# Which names CloudFormation takes.
STACK_NAME = r"[A-Za-z][A-Za-z0-9-]{0,127}"
# Names of AWS regions, such as us-east-1 and eusc-de-east-1.
REGION = r"[a-z]{2,4}(-[a-z]+)+-[0-9]"
DEFAULT_MODEL_DIR = "model"
DEFAULT_MODEL_FILENAME = "model.safetensors"
DEFAULT_INCIDENTS_FILENAME = "incident_cls.pt"
DEFAULT_MODEL_URI = "allenai/longformer-base-4096"
# AIID cuts texts here, with special tokens: model_max_length in text-to-embed.py of AIID's nlp-lambdas.
AIID_MAX_TOKENS = 2000
# How a text is prepared before it becomes tokens: transliterated to ASCII by `unidecode`, or left as it is.
TextPreparation = Literal["unidecode", "none"]
DEFAULT_TEXT_PREPARATION: TextPreparation = "unidecode"
# Where a text may be cut at least: two special tokens and one of its own.
FEWEST_TOKENS = 3

Engine = Literal["onnx", "torch"]
Precision = Literal["float32", "bfloat16", "int8"]
# auto: the fastest precision that this CPU multiplies natively and that agrees with float32.
PrecisionSetting = Literal["float32", "bfloat16", "int8", "auto"]
DEFAULT_ENGINE: Engine = "onnx"
DEFAULT_PRECISION: Precision = "float32"
# The precisions of each engine, the most exact first.
PRECISIONS: dict[Engine, tuple[Precision, ...]] = {"onnx": ("float32", "int8"), "torch": ("float32", "bfloat16")}


@dataclass(frozen=True)
class Settings:
    """Where model and state are.

    model_dir: holds config.json, tokenizer.json and the weights. MODEL_DIR; a relative path counts from the handlers.
    model_filename: the weights, safetensors. MODEL_FILENAME.
    state_path: the incident state. INCIDENTS_FILENAME, relative to model_dir or absolute.
    model_uri: the model's name if its folder doesn't say it. HF_MODEL_URI.
    engine: computes the encoder. ENCODER_ENGINE.
    precision: of the engine's arithmetic. ENCODER_PRECISION.
    shelf: the folder that all Lambdas share, see `similarity.shelf`; None without one. SHELF_DIR.
    model_on_shelf: whether the model is on the shelf too. MODEL_ON_EFS, "true" or "false".
    bucket: the name of the S3 bucket of `similarity.inbox`, for jobs; None without one. STATE_BUCKET.
    """

    model_dir: Path
    model_filename: str
    state_path: Path
    model_uri: str
    engine: Engine
    precision: PrecisionSetting
    shelf: Path | None = None
    model_on_shelf: bool = False
    bucket: str | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """The settings of this process. An empty variable counts as unset.

        Raises ModelError for a value that isn't allowed.
        """
        given = os.environ if environment is None else environment
        model_dir = HANDLERS_DIR / (given.get("MODEL_DIR") or DEFAULT_MODEL_DIR)
        return cls(
            model_dir=model_dir,
            model_filename=given.get("MODEL_FILENAME") or DEFAULT_MODEL_FILENAME,
            state_path=model_dir / (given.get("INCIDENTS_FILENAME") or DEFAULT_INCIDENTS_FILENAME),
            model_uri=given.get("HF_MODEL_URI") or DEFAULT_MODEL_URI,
            engine=_one_of(get_args(Engine), "ENCODER_ENGINE", given, DEFAULT_ENGINE),
            precision=_one_of(get_args(PrecisionSetting), "ENCODER_PRECISION", given, DEFAULT_PRECISION),
            shelf=Path(shelf) if (shelf := given.get("SHELF_DIR")) else None,
            model_on_shelf=_one_of(("true", "false"), "MODEL_ON_EFS", given, "false") == "true",
            bucket=given.get("STATE_BUCKET") or None,
        )


def _one_of(allowed: tuple[T, ...], name: str, given: Mapping[str, str], default: T) -> T:
    value = given.get(name) or default
    for known in allowed:
        if value == known:
            return known
    raise ModelError(f"{name} must be one of {', '.join(map(str, allowed))}, not {value!r}")
