"""Loads the encoder of a model's folder with the engine that ENCODER_ENGINE names.

A Lambda uses `onnx`, because it starts without torch. `torch` is the reference, and it also makes the state. Their
vectors differ only by rounding. An engine's packages are imported when the engine is loaded.
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
    """The encoder in `model_dir`: config.json, tokenizer.json and safetensors weights of any `LongformerModel`.

    max_tokens: texts are cut at this number of tokens, 3 or more. 0: the model's maximum.
    Raises ModelError if a file is missing, truncated or of another kind of model, if the engine's package or graph is
    missing, and if max_tokens is less than 3 or more than the model takes.
    """
    try:
        if engine == "torch":
            from similarity.encoder.torch_encoder import TorchEncoder

            return TorchEncoder.load(model_dir, model_filename, precision).cut_at(max_tokens)
        from similarity.encoder.onnx_encoder import OnnxEncoder

        return OnnxEncoder.load(model_dir, model_filename, precision).cut_at(max_tokens)
    except ImportError as error:
        raise ModelError(f"ENCODER_ENGINE is {engine}, but the package {error.name} isn't installed") from error
