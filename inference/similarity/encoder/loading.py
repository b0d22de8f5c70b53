"""Loads the encoder of a model's folder with the engine that ENCODER_ENGINE names.

A Lambda uses `onnx`, because it starts without torch. `torch` is the reference, and it also makes the state. Their
vectors differ only by rounding. An engine's packages are imported when the engine is loaded.

After loading, the encoder computes the vector of a short text. `similarity.encoder.reports` has the expected one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from similarity.encoder.cpu import lack_of
from similarity.encoder.model_folder import ModelFiles, export_script
from similarity.encoder.reports import ENOUGH, read_report
from similarity.encoder.text_encoder import TextEncoder
from similarity.errors import ModelError
from similarity.settings import (
    DEFAULT_ENGINE,
    DEFAULT_MODEL_FILENAME,
    DEFAULT_PRECISION,
    PRECISIONS,
    Engine,
    Precision,
    PrecisionSetting,
)

log = logging.getLogger(__name__)


def load_encoder(
    model_dir: str | Path,
    model_filename: str = DEFAULT_MODEL_FILENAME,
    *,
    engine: Engine = DEFAULT_ENGINE,
    precision: Precision = DEFAULT_PRECISION,
    max_tokens: int = 0,
) -> TextEncoder:
    """The encoder in `model_dir`: config.json, tokenizer.json and safetensors weights of any `LongformerModel`.

    max_tokens: texts are cut at this number of tokens, 3 or more. 0: the model's maximum.
    Raises ModelError if a file is missing, truncated or of another kind of model, if the engine's package or graph is
    missing, if the CPU would compute wrong vectors in this precision, if the encoder fails its self-test, and if
    max_tokens is less than 3 or more than the model takes.
    """
    _require_offered(engine, precision)
    if precision == "int8" and (lack := lack_of(precision)):
        raise ModelError(lack)
    try:
        encoder = _loaded(model_dir, model_filename, engine, precision)
    except ImportError as error:
        raise ModelError(f"ENCODER_ENGINE is {engine}, but the package {error.name} isn't installed") from error
    _require_expected_vector(encoder)
    return encoder.cut_at(max_tokens)


def _loaded(model_dir: str | Path, model_filename: str, engine: Engine, precision: Precision) -> TextEncoder:
    if engine == "torch":
        from similarity.encoder.torch_encoder import TorchEncoder

        return TorchEncoder.load(model_dir, model_filename, precision)
    from similarity.encoder.onnx_encoder import OnnxEncoder

    return OnnxEncoder.load(model_dir, model_filename, precision)


def _require_expected_vector(encoder: TextEncoder) -> None:
    """The self-test. It reads the weights of all layers, and the embeddings of the text's tokens. Raises ModelError.

    It notices damage and wrong arithmetic if they change the vector. The low bits of a number hardly change it.
    """
    report = read_report(encoder.files.folder, encoder.precision)
    if report is None:
        return
    advice = f"export it again with {export_script(encoder.precision)}"
    try:
        (vector,) = encoder.vectors([report.ids.tolist()])
    except Exception as error:  # the engines' exceptions have no common base class
        raise ModelError(
            f"the model in {encoder.files.folder} fails its self-test in {encoder.precision}: it can't compute the "
            f"vector; {advice}: {error}"
        ) from error
    distance = report.distance(vector)
    if not distance <= report.tolerance:
        raise ModelError(
            f"the model in {encoder.files.folder} fails its self-test in {encoder.precision}: its vector differs from "
            f"the exported one by {distance:.1e} of the length (allowed: {report.tolerance:.1e}), so a file is damaged "
            f"or this CPU computes wrongly; install the model again, or {advice}"
        )


def _require_offered(engine: Engine, setting: PrecisionSetting) -> None:
    """Raises ModelError if the engine doesn't have a precision."""
    if setting not in ("auto", *PRECISIONS[engine]):
        offered = ", ".join(PRECISIONS[engine])
        raise ModelError(f"ENCODER_PRECISION for the engine {engine} must be one of {offered} or auto, not {setting}")


@dataclass(frozen=True)
class Choice:
    """The precision that serves.

    reason: why it is float32 instead of another one; None if no other one was wanted. level: of the reason's log line.
    """

    precision: Precision
    reason: str | None = None
    level: int = logging.WARNING


def choose(files: ModelFiles, engine: Engine, setting: PrecisionSetting, *, any_cpu: bool = False) -> Choice:
    """The precision that ENCODER_PRECISION means on this CPU, for these files. Loads no weights.

    any_cpu: for a CPU that multiplies every precision natively, instead of this one. Raises ModelError if the engine
    doesn't have the precision, or if there is no graph for it.
    """
    _require_offered(engine, setting)
    if setting != "auto":
        if engine == "onnx" and setting != DEFAULT_PRECISION:
            files.require_graph(setting)
        if setting == "int8" and not any_cpu and (lack := lack_of(setting)):
            return Choice(DEFAULT_PRECISION, lack)
        return Choice(setting)
    # With auto, float32 is as usual as the others.
    reasons, level = [], logging.INFO
    for precision in reversed(PRECISIONS[engine][1:]):
        try:
            reason = next(_objections(files, engine, precision, any_cpu), None)
        except ModelError as error:
            reason, level = error.detail, logging.WARNING
        if reason is None:
            return Choice(precision)
        reasons.append(reason)
    return Choice(DEFAULT_PRECISION, "; ".join(reasons), level)


def _objections(files: ModelFiles, engine: Engine, precision: Precision, any_cpu: bool) -> Iterator[str]:
    """Reasons against a precision, in the order of the checks. Raises ModelError if its report can't be read."""
    if not any_cpu and (lack := lack_of(precision)):
        yield lack
    report = read_report(files.folder, precision)
    if report is None or (engine == "onnx" and not files.has_graph(precision)):
        yield f"{precision} wasn't exported"
    elif report.agreement is None:
        yield f"{precision}'s agreement with float32 wasn't measured (the export had no state with titles)"
    elif not report.agreement.is_enough:
        yield f"{precision} doesn't agree enough with float32 ({report.agreement}; needed: {ENOUGH})"


def load_serving_encoder(
    model_dir: str | Path,
    model_filename: str = DEFAULT_MODEL_FILENAME,
    *,
    engine: Engine = DEFAULT_ENGINE,
    precision: PrecisionSetting = DEFAULT_PRECISION,
) -> TextEncoder:
    """As `load_encoder`, in the precision that `choose` finds. Falls back to float32 if that one can't be loaded.

    It logs one line if it serves another precision than asked for. Raises ModelError if float32 can't be loaded either,
    and as `choose`.
    """
    choice = choose(ModelFiles(Path(model_dir), model_filename), engine, precision)
    reason, level = choice.reason, choice.level
    if choice.precision != DEFAULT_PRECISION:
        try:
            return load_encoder(model_dir, model_filename, engine=engine, precision=choice.precision)
        except ModelError as error:
            reason, level = error.detail, logging.WARNING
    encoder = load_encoder(model_dir, model_filename, engine=engine)
    extra = {"asked_for": precision, "reason": reason}
    if reason and level == logging.INFO:
        log.info("float32 serves", extra=extra)
    elif reason:
        log.warning("float32 serves", extra=extra)
    return encoder
