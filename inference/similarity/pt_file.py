"""Reads what torch.save has written, without torch: a zip with a pickle and the bytes of the tensors.

Like `torch.load(..., weights_only=True)` it makes tensors (here: numpy arrays), lists, dicts, strings and numbers and
refuses to call anything else. The format: https://docs.pytorch.org/docs/stable/notes/serialization.html
"""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# bfloat16, which numpy lacks, is the upper half of a float32.
_BFLOAT16 = "BFloat16Storage"
_DTYPES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    _BFLOAT16: "u2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{folder}/data.pkl")))
        self._archive, self._folder = archive, folder
        self._order = "<"
        if f"{folder}/byteorder" in archive.namelist() and archive.read(f"{folder}/byteorder") == b"big":
            self._order = ">"

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _DTYPES:
            return name
        raise pickle.UnpicklingError(f"{module}.{name} is nothing that a state is made of")

    def persistent_load(self, pid: Any) -> NDArray[Any]:
        _, kind, key, _, entries = pid
        content = self._archive.read(f"{self._folder}/data/{key}")
        array = np.frombuffer(content, dtype=self._order + _DTYPES[kind], count=entries)
        if kind == _BFLOAT16:
            return (array.astype("u4") << 16).view("f4")
        return array.astype(array.dtype.newbyteorder("="), copy=False)


def _rebuild(
    storage: NDArray[Any], offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> NDArray[Any]:
    """A tensor of shape `size` from the storage's entries; strides count entries."""
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if min((offset, *size, *stride)) < 0 or (all(size) and last >= len(storage)):
        raise pickle.UnpicklingError("a tensor reaches beyond its storage")
    steps = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps, writeable=False).copy()


def read_pt(path: str | Path) -> Any:
    """What `path` holds, its tensors as numpy arrays. Raises nearly anything for a file that is broken or no such file.

    Files in torch's older format, from before 1.6, are read by torch where it is installed.
    """
    if not zipfile.is_zipfile(path):
        return _read_by_torch(path)
    with zipfile.ZipFile(path) as archive:
        folder = next(name for name in archive.namelist() if name.endswith("/data.pkl")).rpartition("/")[0]
        return _Unpickler(archive, folder).load()


def _read_by_torch(path: str | Path) -> Any:
    with Path(path).open("rb") as file:
        if not file.read(1):
            raise EOFError("the file is empty")
    try:
        import torch
    except ImportError as error:
        raise ValueError("no file in the format of torch 1.6 or newer") from error
    return _map_tensors(torch.load(path, map_location="cpu", weights_only=True), lambda tensor: tensor.numpy())


def _map_tensors(content: Any, convert: Callable[[Any], Any]) -> Any:
    if isinstance(content, dict):
        return {key: _map_tensors(value, convert) for key, value in content.items()}
    if isinstance(content, list):
        return [_map_tensors(value, convert) for value in content]
    return convert(content) if isinstance(content, sys.modules["torch"].Tensor) else content
