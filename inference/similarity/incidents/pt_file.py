"""Reads what torch.save has written, without torch: numpy arrays instead of tensors, in lists and dicts.

A file of torch 1.6 or newer is a zip that holds a pickle and the bytes of each storage. An older one is a row of
pickles, followed by the storages. Both: https://docs.pytorch.org/docs/stable/notes/serialization.html

Reading is as safe as `torch.load(..., weights_only=True)`: nothing that the file names is called, and a file can't make
more than a small multiple of its own size. What the pickle says is executed by `similarity.incidents.pt_pickle`.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from similarity.incidents.pt_pickle import Budget, Kind, LoadStorage, PickleMachine, PtFileError, Storage, expect

# How the two kinds of file begin. The second is the first pickle of the older format, a number that torch chose.
_ZIP_START = b"PK\x03\x04"
_OLD_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_OLD_PROTOCOL = 1001


def is_pt(path: Path) -> bool:
    """Whether a file begins as torch.save begins one: as that older format, or as a zip with a pickle in it.

    Raises OSError.
    """
    with path.open("rb") as file:
        start = file.read(len(_OLD_START))
        if not start.startswith(_ZIP_START):
            return start == _OLD_START
        try:
            with zipfile.ZipFile(file) as archive:
                return any(name.endswith("/data.pkl") for name in archive.namelist())
        except Exception:  # a damaged zip; zipfile raises many kinds
            return False


def read_pt(path: str | Path) -> Any:
    """The content of the file: lists, tuples, dicts, strings, numbers, None, and numpy arrays instead of tensors.

    Arrays may share memory, as the tensors did. Raises PtFileError, or OSError where the file can't be read.
    """
    with Path(path).open("rb") as file:
        start = file.read(len(_OLD_START))
        budget = Budget(file.seek(0, io.SEEK_END))
        file.seek(0)
        try:
            if start.startswith(_ZIP_START):
                return _read_zip(file, budget)
            if start == _OLD_START:
                return _read_old(file, budget)
        except (PtFileError, OSError):
            raise
        except MemoryError as error:
            raise PtFileError("there isn't enough memory to read the file") from error
        except Exception as error:  # depending on where it is broken, nearly anything is raised
            raise PtFileError(f"the file is damaged ({type(error).__name__} while reading it)") from error
    raise PtFileError("torch.save didn't write this file" if start else "the file is empty")


def _read_zip(file: IO[bytes], budget: Budget) -> Any:
    try:
        archive = zipfile.ZipFile(file)
    except Exception as error:  # zipfile raises many kinds, OSError among them, where a file was cut off
        raise PtFileError("the file is cut off or damaged: its table of contents can't be read") from error
    members = {info.filename: info for info in archive.infolist()}
    folder = next((name.removesuffix("data.pkl") for name in members if name.endswith("/data.pkl")), None)
    if folder is None:
        raise PtFileError("it is a zip without data.pkl, so torch.save didn't write it")

    def read(name: str) -> NDArray[np.uint8]:
        if folder + name not in members:
            raise PtFileError(f"the zip has no {name[:80]!r}")
        return _read_member(file, members[folder + name], budget)

    byte_order = ">" if folder + "byteorder" in members and read("byteorder").tobytes() == b"big" else "<"
    loaded: dict[tuple[Kind, str], Storage] = {}

    def load_storage(kind: Kind, key: str, entries: int) -> Storage:
        if (kind, key) not in loaded:
            loaded[kind, key] = Storage(kind.array(read(f"data/{key}"), byte_order, budget))
        storage = loaded[kind, key]
        if storage.array is None or len(storage.array) != entries:
            raise PtFileError("a storage has another size than the file says")
        return storage

    return PickleMachine(budget, load_storage).run(io.BytesIO(read("data.pkl").tobytes()))


def _read_member(file: IO[bytes], info: zipfile.ZipInfo, budget: Budget) -> NDArray[np.uint8]:
    """The bytes of a zip's member. `zipfile` isn't asked: it refuses what torch writes without checksums.

    The format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, section 4.3.7.
    """
    budget.spend(info.file_size)
    misplaced = PtFileError("the file is cut off or damaged: a member isn't where its table of contents says")
    if not 0 <= info.header_offset < budget.file_bytes:
        raise misplaced
    file.seek(info.header_offset)
    header = file.read(30)
    start = info.header_offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    if header[:4] != _ZIP_START or start + info.compress_size > budget.file_bytes:
        raise misplaced
    file.seek(start)
    content = np.empty(info.compress_size, dtype=np.uint8)
    if file.readinto(content) != info.compress_size:  # type: ignore[attr-defined]  # an open binary file has it
        raise PtFileError("the file is cut off")
    if info.compress_type == zipfile.ZIP_DEFLATED:  # torch.save doesn't compress; somebody may have packed it again
        inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content.data, info.file_size + 1)
        content = np.frombuffer(bytearray(inflated), dtype=np.uint8)
    elif info.compress_type != zipfile.ZIP_STORED:
        raise PtFileError("the zip is compressed in a way that torch doesn't read")
    if len(content) != info.file_size or info.flag_bits & 1:
        raise PtFileError("a member of the zip is encrypted or has another size than the zip says")
    # 0: torch.serialization.set_crc32_options(False) leaves checksums out.
    if info.CRC and zlib.crc32(content.data) != info.CRC:
        raise PtFileError("the file is damaged: a checksum differs")
    return content


def _read_old(file: IO[bytes], budget: Budget) -> Any:
    """The older format: magic number, protocol, machine, content and keys as pickles, then each key's storage.

    A storage is its number of entries (int64) and the entries, little-endian. Their kinds stand in the content, so this
    is executed twice: once to learn the kinds, once to make the tensors.
    """
    budget.spend(2 * budget.file_bytes)
    whole = file.read()
    stream = io.BytesIO(whole)
    kinds: dict[str, Kind] = {}

    def note_kind(kind: Kind, key: str, entries: int) -> Storage:
        del entries
        kinds[key] = kind
        return Storage(None)

    def run(load_storage: LoadStorage) -> Any:
        return PickleMachine(budget, load_storage).run(stream)

    run(note_kind)  # the magic number, which the file begins with
    if run(note_kind) != _OLD_PROTOCOL:
        raise PtFileError(f"its protocol isn't {_OLD_PROTOCOL}")
    run(note_kind)  # sizes of the numbers of C on the machine that wrote it
    content_at = stream.tell()
    run(note_kind)
    keys = expect(run(note_kind), list)
    at = stream.tell()
    storages: dict[str, Storage] = {}
    for key in keys:
        kind = kinds[key]
        end = at + 8 + int.from_bytes(whole[at : at + 8], "little") * kind.item_bytes
        if end > len(whole):
            raise PtFileError("the file is cut off")
        content = np.frombuffer(whole, np.uint8)[at + 8 : end].copy()
        storages[key] = Storage(kind.array(content, "<", budget))
        at = end

    def load_storage(kind: Kind, key: str, entries: int) -> Storage:
        storage = storages[key]
        if kind != kinds[key] or storage.array is None or len(storage.array) != entries:
            raise PtFileError("a storage has another size or kind than the file says")
        return storage

    stream.seek(content_at)
    return run(load_storage)
