"""Settings: what the environment variables mean and what they default to."""

from __future__ import annotations

from pathlib import Path

import pytest

from similarity.errors import ModelError
from similarity.settings import Settings
from tiny import ROOT


def test_the_defaults_are_the_folder_beside_the_handlers() -> None:
    settings = Settings.from_environment({"MODEL_DIR": "", "HF_MODEL_URI": ""})
    assert settings == Settings(
        model_dir=ROOT / "inference" / "model",
        model_filename="model.safetensors",
        state_path=ROOT / "inference" / "model" / "incident_cls.pt",
        model_uri="allenai/longformer-base-4096",
        engine="onnx",
        precision="float32",
        shelf=None,
        model_on_shelf=False,
    )


def test_every_variable_counts() -> None:
    settings = Settings.from_environment(
        {
            "MODEL_DIR": "/m",
            "MODEL_FILENAME": "w.safetensors",
            "INCIDENTS_FILENAME": "/s/i.pt",
            "HF_MODEL_URI": "a/b",
            "ENCODER_ENGINE": "torch",
            "ENCODER_PRECISION": "bfloat16",
            "SHELF_DIR": "/s",
            "MODEL_ON_EFS": "true",
        }
    )
    assert settings == Settings(
        Path("/m"), "w.safetensors", Path("/s/i.pt"), "a/b", "torch", "bfloat16", Path("/s"), True
    )


@pytest.mark.parametrize("name", ["ENCODER_ENGINE", "ENCODER_PRECISION", "MODEL_ON_EFS"])
def test_an_unknown_engine_or_precision_is_an_error_on_our_side(name: str) -> None:
    with pytest.raises(ModelError) as caught:
        Settings.from_environment({name: "mystery"})
    assert caught.value.detail.startswith(f"{name} must be one of ")
    assert caught.value.status == 503


def test_names_of_files_are_relative_to_the_model_folder() -> None:
    assert Settings.from_environment({"MODEL_DIR": "m", "INCIDENTS_FILENAME": "i.pt"}).state_path == (
        ROOT / "inference" / "m" / "i.pt"
    )
