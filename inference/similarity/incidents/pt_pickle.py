"""Executes the pickles that torch.save writes, as far as tensors, lists, dicts, strings and numbers need it.

Python's own unpickler isn't used: it believes the sizes that a pickle names, and it calls and changes whatever the
pickle tells it to. Here a few instructions are executed and nothing is called. A budget bounds the memory that they may
ask for. Where pickle and storages stand in a file is left to `similarity.incidents.pt_file`.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

# torch's storages and numpy's names for what they hold.
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
# numpy lacks bfloat16, which is the upper half of a float32.
_BFLOAT16 = "BFloat16Storage"
_DTYPES = {**DTYPES, _BFLOAT16: "u2"}
# numpy's own limit.
_MAX_DIMENSIONS = 64

# What a file may make: so much, and a multiple of its size. An instruction makes one small object at most.
_FREE_BYTES, _BYTES_PER_BYTE, _BYTES_PER_INSTRUCTION = 16 << 20, 8, 64


class PtFileError(ValueError):
    """The file is damaged, or torch.save didn't write it, or it holds something that no state needs."""


class Budget:
    """Counts the bytes that a file makes us hold, against what a file of its size may."""

    def __init__(self, file_bytes: int) -> None:
        self.file_bytes = file_bytes
        self._left = _FREE_BYTES + _BYTES_PER_BYTE * file_bytes

    def spend(self, size: int) -> None:
        """Raises PtFileError where the file asks for more than it may."""
        self._left -= size
        if self._left < 0:
            raise PtFileError(f"the file has {self.file_bytes} bytes but asks for far more memory")


@dataclass(frozen=True)
class Kind:
    """A class of torch that holds numbers, by its name, e.g. FloatStorage."""

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
    """The numbers of one or more tensors, (entries,); None as long as only the instructions are looked at."""

    array: NDArray[Any] | None


# What a persistent id names: kind, key and number of entries.
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
    """Executes one pickle's instructions. What they mean is written in Python's `pickletools`."""

    def __init__(self, budget: Budget, load_storage: LoadStorage) -> None:
        self._budget = budget
        self._load_storage = load_storage
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self, stream: IO[bytes]) -> Any:
        """Reads up to and with the pickle's end. Raises PtFileError, or nearly anything for a damaged pickle."""
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
                    # Whoever computes with it does so once more.
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
        # Other keys may be made so that comparing them takes for ever.
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
            # What comes sixth, hooks, is for training; seventh may be that all signs are turned around, say.
            storage, offset, size, stride, *others = arguments
            if any(others[2:]):
                raise PtFileError("a tensor isn't plain: save a copy of it (clone, resolve_neg, resolve_conj)")
            return self._tensor(expect(storage, Storage), offset, expect(size, tuple), expect(stride, tuple))
        if function is _REBUILD_PARAMETER:
            # A parameter is its tensor, and whether gradients are wanted.
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
        # It may show the same entry again and again: whoever computes with it needs room for all of them.
        self._budget.spend(math.prod(size) * item_bytes)
        # The stride of a dimension of size 1 says nothing, and may be more than numpy holds.
        steps = [step * item_bytes if n > 1 else 0 for n, step in zip(size, stride, strict=True)]
        return np.lib.stride_tricks.as_strided(storage.array[offset:], size, steps)


def expect(value: Any, kind: type) -> Any:
    """`value`, which must be of that very type: True, say, isn't an int here. Raises PtFileError."""
    if type(value) is not kind:
        raise PtFileError(f"it has a value of type {type(value).__name__} where one of type {kind.__name__} is needed")
    return value
