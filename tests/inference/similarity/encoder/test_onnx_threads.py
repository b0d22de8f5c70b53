"""How many threads ONNX Runtime gets."""

from __future__ import annotations

import os

import pytest

from similarity.encoder import onnx_encoder


@pytest.mark.parametrize(
    ("memory_mib", "threads"), [(None, 3), ("", 3), ("128", 1), ("1769", 1), ("1770", 3), ("8096", 3), ("much", 3)]
)
def test_a_lambda_that_has_no_more_than_one_cpu_gets_one_thread(
    memory_mib: str | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    monkeypatch.delenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", raising=False)
    if memory_mib is not None:
        monkeypatch.setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", memory_mib)
    assert onnx_encoder._options("float32").intra_op_num_threads == threads
