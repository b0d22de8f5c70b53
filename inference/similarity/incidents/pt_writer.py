"""Writes a dict of arrays and plain values as torch.save does, without torch. `torch.load(weights_only=True)` reads it.

The file is a zip without compression. `data.pkl` is a pickle of protocol 2. `data/0`, `data/1` … are the arrays' bytes.
The same content gives the same bytes. The format: https://docs.pytorch.org/docs/stable/notes/serialization.html
`similarity.incidents.pt_file` reads the file.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from similarity.incidents.pt_pickle import DTYPES

_KINDS = {np.dtype(code): name for name, code in DTYPES.items()}
# torch can map a storage into memory if it begins at a multiple of this.
_ALIGNMENT = 64
_FOLDER = "archive"
# zipfile adds these to the header of each member, for sizes beyond 4 GB.
_ZIP64_BYTES = 20

# torch.save also writes `.format_version`, which promises certain gaps between the members. zipfile doesn't make them.
# Without `.format_version`, torch.load doesn't expect them.
_RECORDS = {"byteorder": b"little", "version": b"3\n"}

_START, _STOP = b"\x80\x02", b"."
_EMPTY_DICT, _MARK, _SET_ITEMS, _TUPLE, _REDUCE, _BY_ID, _FALSE = b"}", b"(", b"u", b"t", b"R", b"Q", b"\x89"
_REBUILD_TENSOR, _NO_HOOKS = b"ctorch._utils\n_rebuild_tensor_v2\n", b"ccollections\nOrderedDict\n)R"


def write_pt(content: Mapping[str, Any], file: IO[bytes]) -> None:
    """Writes `content` into an open binary file that can seek. Arrays become tensors.

    Other values may be strings, numbers, bools, None, and lists, tuples and dicts of these. Raises TypeError for
    another kind of value or array, OSError if the file can't be written.
    """
    arrays: list[NDArray[Any]] = []
    parts = [_START, _EMPTY_DICT, _MARK]
    for name, value in content.items():
        parts.append(_plain(name))
        if isinstance(value, np.ndarray):
            parts.append(_tensor(value, len(arrays)))
            arrays.append(np.asarray(value, value.dtype.newbyteorder("<"), order="C"))
        else:
            parts.append(_plain(value))
    members: dict[str, Any] = {"data.pkl": b"".join([*parts, _SET_ITEMS, _STOP]), **_RECORDS}
    members |= {f"data/{number}": array.reshape(-1).view(np.uint8) for number, array in enumerate(arrays)}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, member in members.items():
            _write_member(archive, f"{_FOLDER}/{name}", member, file.tell())


def _write_member(archive: zipfile.ZipFile, name: str, content: Any, at: int) -> None:
    info = zipfile.ZipInfo(name)  # dated 1980
    info.extra = _padding(at + 30 + len(name) + _ZIP64_BYTES)
    with archive.open(info, "w", force_zip64=True) as member:
        member.write(content)


def _padding(begins_at: int) -> bytes:
    """torch's extra field of a zip. It moves the content that begins at `begins_at` to a multiple of _ALIGNMENT.

    The field's own header has 4 bytes. The format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, 4.5.
    """
    size = -(begins_at + 4) % _ALIGNMENT
    return b"FB" + size.to_bytes(2, "little") + b"Z" * size


def _tensor(array: NDArray[Any], number: int) -> bytes:
    """The pickle's instructions for a tensor with the storage `data/<number>`."""
    if array.dtype.newbyteorder("=") not in _KINDS:
        raise TypeError(f"torch.save has no tensor of {array.dtype}")
    kind = _KINDS[array.dtype.newbyteorder("=")]
    # (kind, key, device, entries), as torch names a storage.
    storage = b"".join(
        [_MARK, _plain("storage"), f"ctorch\n{kind}\n".encode(), *map(_plain, (str(number), "cpu", array.size)), _TUPLE]
    )
    stride = tuple(math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim))
    rest = b"".join(map(_plain, (0, array.shape, stride))) + _FALSE + _NO_HOOKS
    return _REBUILD_TENSOR + _MARK + storage + _BY_ID + rest + _TUPLE + _REDUCE


class _PlainPickler(pickle.Pickler):
    """Refuses objects that a reader would have to build with a call."""

    def reducer_override(self, value: object) -> Any:
        raise TypeError(f"a file of this kind holds no {type(value).__name__}")


def _plain(value: object) -> bytes:
    """The pickle's instructions for a plain value. Raises TypeError for another object."""
    stream = io.BytesIO()
    pickler = _PlainPickler(stream, protocol=2)
    # Without numbering values for later reference. Reading many strings then takes about half as long.
    pickler.fast = True
    pickler.dump(value)
    return stream.getvalue()[len(_START) : -len(_STOP)]
