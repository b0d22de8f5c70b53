"""Executes pickles of torch.save that contain tensors, lists, dicts, strings and numbers.

Python's own unpickler isn't used: it trusts the sizes in a pickle, and it calls every function that the pickle names.
Here only a few instructions are executed, and nothing is called. A budget limits their memory.
`similarity.incidents.pt_file` finds the pickle and the storages in a file.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

# torch's kind of storage -> numpy's name for the type of its numbers.
DTYPES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
# numpy lacks bfloat16. It is the upper half of a float32.
_BFLOAT16 = "BFloat16Storage"
_DTYPES = {**DTYPES, _BFLOAT16: "u2"}
# numpy's limit.
_MAX_DIMENSIONS = 64

# The memory that a file may use: a fixed part, and a multiple of its size. An instruction makes at most a small object.
_FREE_BYTES, _BYTES_PER_BYTE, _BYTES_PER_INSTRUCTION = 16 << 20, 8, 64


class PtFileError(ValueError):
    """The file is damaged, isn't from torch.save, or holds an object that a state doesn't contain."""


class Budget:
    """Counts the memory that reading a file takes, against the limit for a file of its size."""

    def __init__(self, file_bytes: int) -> None:
        self.file_bytes = file_bytes
        self._left = _FREE_BYTES + _BYTES_PER_BYTE * file_bytes

    def spend(self, size: int) -> None:
        """Raises PtFileError if the limit is exceeded. size: in bytes."""
        self._left -= size
        if self._left < 0:
            raise PtFileError(f"the file has {self.file_bytes} bytes but asks for far more memory")


@dataclass(frozen=True)
class Kind:
    """torch's class of a storage. name: e.g. FloatStorage."""

    name: str

    @property
    def item_bytes(self) -> int:
        return np.dtype(_DTYPES[self.name]).itemsize

    def array(self, content: NDArray[np.uint8], byte_order: str, budget: Budget) -> NDArray[Any]:
        """The bytes of a storage as numbers, (bytes,) -> (entries,)."""
        array: NDArray[Any] = content.view(byte_order + _DTYPES[self.name])
        if self.name == _BFLOAT16:
            budget.spend(4 * array.nbytes)
            return (array.astype("u4") << 16).view("f4")
        return array.astype(array.dtype.newbyteorder("="), copy=False)


@dataclass(frozen=True, eq=False)
class Storage:
    """The numbers of one or more tensors, (entries,). None while a file's kinds of storage are being learnt."""

    array: NDArray[Any] | None


# Kind, key and number of entries, as a persistent id names them -> the storage.
LoadStorage = Callable[[Kind, str, int], Storage]

# The functions that a file may name. None of them is called.
_REBUILD_TENSOR, _REBUILD_PARAMETER, _ORDERED_DICT = object(), object(), object()
_GLOBALS: dict[str, object] = {
    "torch._utils _rebuild_tensor_v2": _REBUILD_TENSOR,
    "torch._utils _rebuild_parameter": _REBUILD_PARAMETER,
    "collections OrderedDict": _ORDERED_DICT,
    **{f"{module} {name}": Kind(name) for module in ("torch", "torch.cuda") for name in _DTYPES},
}


class PickleMachine:
    """Executes the instructions of one pickle. Python's `pickletools` documents them."""

    def __init__(self, budget: Budget, load_storage: LoadStorage) -> None:
        self._budget = budget
        self._load_storage = load_storage
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self, stream: IO[bytes]) -> Any:
        """Reads to the end of the pickle. Raises PtFileError; for a damaged pickle also nearly anything else."""
        for opcode, argument, _ in pickletools.genops(stream):
            self._budget.spend(_BYTES_PER_INSTRUCTION)
            self._execute(opcode.name, argument)
        return self._stack.pop()

    def _execute(self, name: str, argument: Any) -> None:  # noqa: C901 (one instruction a case)
        stack = self._stack
        match name:
            case "PROTO":
                if argument not in (2, 3):
                    raise PtFileError(
                        f"its pickle has protocol {argument}; save it with torch's default pickle_protocol"
                    )
            case "BINUNICODE" | "SHORT_BINSTRING" | "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "NONE":
                if isinstance(argument, str):
                    self._budget.spend(4 * len(argument))
                stack.append(argument)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(name == "NEWTRUE")
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_TUPLE":
                stack.append(())
            case "MARK":
                self._marks.append(len(stack))
            case "TUPLE":
                stack.append(tuple(self._since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(self._last(int(name[-1]))))
            case "APPEND" | "APPENDS":
                values = self._since_mark() if name == "APPENDS" else self._last(1)
                expect(stack[-1], list).extend(values)
            case "SETITEM" | "SETITEMS":
                self._set_items(self._since_mark() if name == "SETITEMS" else self._last(2))
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                value = self._memo[argument]
                if isinstance(value, np.ndarray):
                    # Each further use may be computed with, and takes memory then.
                    self._budget.spend(value.nbytes)
                stack.append(value)
            case "GLOBAL":
                if argument not in _GLOBALS:
                    raise PtFileError(f"it asks for {argument[:80]!r}, which a state doesn't contain")
                stack.append(_GLOBALS[argument])
            case "BINPERSID":
                stack.append(self._storage(stack.pop()))
            case "REDUCE":
                function, arguments = self._last(2)
                stack.append(self._rebuild(function, expect(arguments, tuple)))
            case "STOP":
                pass
            case "BUILD":
                raise PtFileError("it holds weights or another Python object, not a state")
            case _:
                raise PtFileError(f"its pickle has the instruction {name}, which a state doesn't contain")

    def _last(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise PtFileError("its pickle takes values that it hasn't made")
        values = self._stack[-count:]
        del self._stack[-count:]
        return values

    def _since_mark(self) -> list[Any]:
        mark = self._marks.pop()
        values = self._stack[mark:]
        del self._stack[mark:]
        return values

    def _set_items(self, values: list[Any]) -> None:
        target = expect(self._stack[-1], dict)
        # Keys must be strings: comparing hostile tuples would take for ever.
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[expect(key, str)] = value

    def _storage(self, identity: Any) -> Storage:
        tag, kind, key, _, entries, *view = expect(identity, tuple)
        if tag != "storage" or any(part is not None for part in view):
            raise PtFileError("it names a storage in another way than torch.save does")
        return self._load_storage(expect(kind, Kind), expect(key, str), expect(entries, int))

    def _rebuild(self, function: object, arguments: tuple[Any, ...]) -> Any:
        if function is _ORDERED_DICT and not arguments:
            return {}
        if function is _REBUILD_TENSOR:
            # Hooks, the sixth argument, are for training. The seventh may e.g. change all signs.
            storage, offset, size, stride, *others = arguments
            if any(others[2:]):
                raise PtFileError("a tensor isn't plain: save a copy of it (clone, resolve_neg, resolve_conj)")
            return self._tensor(expect(storage, Storage), offset, expect(size, tuple), expect(stride, tuple))
        if function is _REBUILD_PARAMETER:
            # A parameter has its tensor first, then whether it needs gradients.
            tensor, *_ = arguments
            return None if tensor is None else expect(tensor, np.ndarray)
        raise PtFileError("it calls something that isn't a tensor, a parameter or an OrderedDict")

    def _tensor(
        self, storage: Storage, offset: Any, size: tuple[Any, ...], stride: tuple[Any, ...]
    ) -> NDArray[Any] | None:
        """A tensor of shape `size` from the storage's entries; offset and strides count entries."""
        if len(size) != len(stride) or len(size) > _MAX_DIMENSIONS:
            raise PtFileError(f"a tensor has {len(size)} sizes and {len(stride)} strides")
        if min(expect(number, int) for number in (offset, *size, *stride)) < 0 or 0 in size[1:]:
            raise PtFileError(
                "a tensor is empty in another dimension than its first, or has a negative size, stride or offset"
            )
        if storage.array is None:
            return None
        if 0 in size:
            # Whoever computes with it may make an array of one row.
            self._budget.spend(math.prod(size[1:]) * storage.array.itemsize)
            return np.empty(size, storage.array.dtype)
        if offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) >= len(storage.array):
            raise PtFileError("a tensor reaches beyond its storage")
        item_bytes = storage.array.itemsize
        # With strides of 0, few entries make a large tensor. Computing with it takes memory for all its numbers.
        self._budget.spend(math.prod(size) * item_bytes)
        # The stride of a dimension of size 1 has no meaning, and may be too large for numpy.
        steps = [step * item_bytes if n > 1 else 0 for n, step in zip(size, stride, strict=True)]
        return np.lib.stride_tricks.as_strided(storage.array[offset:], size, steps)


def expect(value: Any, kind: type) -> Any:
    """Returns `value` if its type is exactly `kind`; True isn't an int here. Otherwise raises PtFileError."""
    if type(value) is not kind:
        raise PtFileError(f"it has a value of type {type(value).__name__} where one of type {kind.__name__} is needed")
    return value
