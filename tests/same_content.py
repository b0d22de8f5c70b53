"""Whether two files of torch's hold the same, for contents of dicts, lists, tensors, strings and numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def as_arrays(content: Any) -> Any:
    """What torch loaded, with numpy arrays instead of tensors."""
    match content:
        case torch.Tensor():
            tensor = content.detach()
            return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        case dict():
            return {key: as_arrays(value) for key, value in content.items()}
        case list() | tuple():
            return type(content)(map(as_arrays, content))
    return content


def assert_same(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    match expected:
        case np.ndarray():
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected, strict=True)
        case dict():
            assert list(found) == list(expected)
            assert_same(list(found.values()), list(expected.values()))
        case list() | tuple():
            assert len(found) == len(expected)
            for one, other in zip(found, expected, strict=True):
                assert_same(one, other)
        case _:
            assert found == expected
