"""Reads the header of a safetensors file, without the package: the place of each tensor.

The format: https://huggingface.co/docs/safetensors (Format). The callers read the tensors.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from similarity.errors import ModelError

# Longformer-base has 31 KB, or 96 KB with the note of `similarity.encoder.weights_identity`. A far larger number comes
# from a damaged file.
MAX_HEADER_BYTES = 16 << 20


@dataclass(frozen=True)
class Place:
    """A tensor's dtype as the format names it ("F32"), its shape, and the bytes start <= byte < end in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(path: Path) -> dict[str, Place]:
    """The tensors' places, by name. Raises ModelError if the file is cut off, damaged or of another format."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
            if not 2 <= header_bytes <= min(size - 8, MAX_HEADER_BYTES):
                raise ModelError(f"{path} is cut off, or isn't a safetensors file; copy or install it again")
            header = json.loads(file.read(header_bytes))
        places = {name: _place(entry, 8 + header_bytes) for name, entry in header.items() if name != "__metadata__"}
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(path) from error
    needed = max((place.end for place in places.values()), default=8 + header_bytes)
    if size != needed:
        raise ModelError(f"{path} has {size} bytes, but its header describes {needed}; copy or install it again")
    return places


def damaged(path: Path) -> ModelError:
    """The error for a header that can't be read."""
    return ModelError(f"{path} has a damaged header, or isn't a safetensors file; copy or install it again")


def _place(entry: Any, data: int) -> Place:
    start, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    if not all(type(number) is int and number >= 0 for number in (start, end, *shape)) or start > end:
        raise ValueError("sizes must be natural numbers")
    return Place(str(entry["dtype"]), shape, data + start, data + end)
