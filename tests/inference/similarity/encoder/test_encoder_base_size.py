"""Both engines against transformers in the size of Longformer-base.

Takes minutes and 4 GB; it runs where RUN_BASE_SIZE=1 is set. RUN_BASE_SIZE=all takes all lengths of reference.py, in
three times as long.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from benchmarks.inputs import random_ids, random_model
from models.export import export
from reference import LENGTHS as ALL_LENGTHS
from reference import TOLERANCE, load_longformer, reference
from similarity.encoder.loading import load_encoder
from similarity.settings import Engine

# Just beyond half a window, a window, two windows and what the CLS vector depends on; the shortest and the longest.
LENGTHS = ALL_LENGTHS if os.environ.get("RUN_BASE_SIZE") == "all" else (1, 2, 257, 513, 1025, 3074, 4096)

pytestmark = pytest.mark.skipif(
    os.environ.get("RUN_BASE_SIZE") not in ("1", "all"),
    reason="takes minutes and 4 GB: RUN_BASE_SIZE=1 scripts/test -k base_size",
)


@pytest.fixture(scope="module")
def model_dir() -> Iterator[Path]:
    with random_model("base") as folder:
        export(folder)
        yield folder


@pytest.fixture(scope="module")
def expected(model_dir: Path) -> dict[int, np.ndarray]:
    """By length, what transformers makes of `random_ids` of that length."""
    model = load_longformer(model_dir, pooler=True)
    return {tokens: reference(model, torch.tensor(random_ids(tokens))).numpy() for tokens in LENGTHS}


@pytest.mark.parametrize("engine", get_args(Engine))
def test_texts_of_every_length_are_exact(engine: Engine, model_dir: Path, expected: dict[int, np.ndarray]) -> None:
    encoder = load_encoder(model_dir, engine=engine)
    for tokens, vector in expected.items():
        (found,) = encoder.vectors([random_ids(tokens)])
        assert np.abs(found - vector).max() <= TOLERANCE, f"{tokens} tokens"


def test_texts_in_one_pass_are_exact(model_dir: Path, expected: dict[int, np.ndarray]) -> None:
    batch = [tokens for tokens in expected if tokens < 600]
    found = load_encoder(model_dir, engine="torch").vectors([random_ids(tokens) for tokens in batch])
    for tokens, vector in zip(batch, found, strict=True):
        assert np.abs(vector - expected[tokens]).max() <= TOLERANCE, f"{tokens} tokens"
