"""Reads the parts of a weights file that the model's fingerprint is made of: the size, the header, and samples.

The scripts of this project leave out tensors that no text touches (`scripts/models/touched_weights.py`). The smaller
file holds the same model as the whole one, so both give the same fingerprint. For this, the metadata of the smaller
file has a *note* about the whole one. It is a JSON object, as text under the key NOTE_KEY:

    header      str, the header
    left_out    for each tensor that was left out, its first byte in the file, and the byte after its last one
    samples     str, base64: the samples that overlap such a tensor, one after another

All other samples are read from the file itself. So they show a change, as they do in the whole file.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from similarity.encoder.safetensors_header import MAX_HEADER_BYTES, damaged, read_header

NOTE_KEY = "similarity.whole_file"
_SAMPLES, _SAMPLE_BYTES = 64, 4096
# Of a longer header, only so many bytes count.
_COUNTED_BYTES = 1 << 20


@dataclass(frozen=True)
class _Outline:
    """A file without its tensors. header: with the 8 bytes of its length before it. size: of the whole, in bytes."""

    header: bytes
    size: int

    @classmethod
    def read(cls, file: BinaryIO, path: Path) -> _Outline:
        """`require_weights` checks the header. Here a wrong length must do no harm."""
        size, length = path.stat().st_size, file.read(8)
        return cls(length + file.read(min(int.from_bytes(length, "little"), MAX_HEADER_BYTES)), size)

    def samples(self) -> Iterator[tuple[int, int]]:
        """The first byte of each sample, and the byte after its last one."""
        data = len(self.header)
        for sample in range(_SAMPLES):
            start = data + (self.size - data) * sample // _SAMPLES
            yield start, min(start + _SAMPLE_BYTES, self.size)

    def note(self) -> str:
        """The note about the whole file, "" if this is the whole file."""
        try:
            return str(json.loads(self.header[8:])["__metadata__"][NOTE_KEY])
        except (ValueError, KeyError, TypeError, RecursionError):
            return ""


@dataclass(frozen=True)
class _Whole:
    """The content of a note. header: with the 8 bytes of its length before it."""

    header: bytes
    left_out: list[tuple[int, int]]
    samples: bytes

    @classmethod
    def read(cls, note: str, path: Path) -> _Whole:
        try:
            values = json.loads(note)
            header = values["header"].encode()
            places = [(int(start), int(end)) for start, end in values["left_out"]]
            if not all(0 <= start <= end < 1 << 63 for start, end in places):
                raise ValueError("a place outside of any file")
            samples = base64.b64decode(values["samples"], validate=True)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise damaged(path) from error
        return cls(len(header).to_bytes(8, "little") + header, places, samples)


def identity(path: Path) -> Iterator[bytes]:
    """Size, header and samples of the whole file, in parts. Raises ModelError or OSError."""
    with path.open("rb") as file:
        own = _Outline.read(file, path)
        note = own.note()
        whole = _Whole.read(note, path) if note else _Whole(own.header, [], b"")
        missing = sum(end - start for start, end in whole.left_out)
        outline = _Outline(whole.header, own.size - len(own.header) + len(whole.header) + missing)
        yield str(outline.size).encode()
        yield outline.header[:_COUNTED_BYTES]
        noted = whole.samples
        for start, end in outline.samples():
            if _touch(start, end, whole.left_out):
                sample, noted = noted[: end - start], noted[end - start :]
            else:
                before = sum(last - first for first, last in whole.left_out if last <= start)
                place = start - before - len(whole.header) + len(own.header)
                if not 0 <= place <= own.size:
                    raise damaged(path)
                file.seek(place)
                sample = file.read(end - start)
            if len(sample) < end - start:
                raise damaged(path)
            yield sample


def note_in(path: Path) -> str:
    """The note in a file, "" if it is a whole file. Raises OSError."""
    with path.open("rb") as file:
        return _Outline.read(file, path).note()


def make_note(path: Path, left_out: set[str]) -> str:
    """The note for the file that lacks these tensors of the whole file `path`. Raises ModelError or OSError."""
    places = sorted((place.start, place.end) for name, place in read_header(path).items() if name in left_out)
    with path.open("rb") as file:
        whole = _Outline.read(file, path)
        samples = b""
        for start, end in whole.samples():
            if _touch(start, end, places):
                file.seek(start)
                samples += file.read(end - start)
    values = {"header": whole.header[8:].decode(), "left_out": places, "samples": base64.b64encode(samples).decode()}
    return json.dumps(values, separators=(",", ":"))


def _touch(start: int, end: int, places: list[tuple[int, int]]) -> bool:
    return any(start < last and first < end for first, last in places)
