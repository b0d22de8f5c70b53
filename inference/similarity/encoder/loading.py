"""The encoder of a model's folder, by the engine that ENCODER_ENGINE names.

An engine's packages are imported when it is loaded. `onnx` is what a Lambda serves with, because it starts without
torch. `torch` is the reference, which also makes the state. Their vectors differ by rounding alone.
"""

from __future__ import annotations

from pathlib import Path

from similarity.encoder.text_encoder import TextEncoder
from similarity.errors import ModelError
from similarity.settings import DEFAULT_ENGINE, DEFAULT_MODEL_FILENAME, DEFAULT_PRECISION, Engine, Precision


def load_encoder(
    model_dir: str | Path,
    model_filename: str = DEFAULT_MODEL_FILENAME,
    *,
    engine: Engine = DEFAULT_ENGINE,
    precision: Precision = DEFAULT_PRECISION,
    max_tokens: int = 0,
) -> TextEncoder:
    """The checkpoint in `model_dir`: config.json, tokenizer.json and safetensors weights of any `LongformerModel`.

    max_tokens: where texts are cut, at 3 or more; 0: at the model's maximum.
    Raises ModelError for files that are missing, truncated or of another kind of model, and where the engine, or the
    graph that it needs, is not there; for a limit of tokens that the model doesn't take too.
    """
    try:
        if engine == "torch":
            from similarity.encoder.torch_encoder import TorchEncoder

            return TorchEncoder.load(model_dir, model_filename, precision).cut_at(max_tokens)
        from similarity.encoder.onnx_encoder import OnnxEncoder

        return OnnxEncoder.load(model_dir, model_filename, precision).cut_at(max_tokens)
    except ImportError as error:
        raise ModelError(f"ENCODER_ENGINE is {engine}, but the package {error.name} isn't installed") from error
