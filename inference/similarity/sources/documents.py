"""Documents of a BSON dump, as mongodump writes it: one behind the other. What they mean is left to `bson_files`.

`bson.decode_file_iter` ends at the first document that is damaged. This reads on at the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

from bson import InvalidBSON, decode
from bson.codec_options import CodecOptions, DatetimeConversion

from similarity.sources.problems import Problems, SourceError, reading

Document = dict[str, Any]

# MongoDB's limit, and the 16 KiB that its own programs allow on top of it.
# https://www.mongodb.com/docs/manual/reference/limits/#mongodb-limit-BSON-Document-Size
MAX_DOCUMENT_BYTES = 16 * 1024**2 + 16 * 1024
# Of one file; a file that has more isn't worth reading on.
MAX_DAMAGED = 1000

# The shortest document: its length, and the zero at its end.
_SHORTEST = 5
# How a document in a dump goes on behind its length: an ObjectId that is called "_id".
_FIRST_FIELD = b"\x07_id\0"
_PIECE = 65_536

# A date beyond Python's years is no reason to refuse a document.
_OPTIONS: CodecOptions[Document] = CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_AUTO)


def read_documents(file: IO[bytes], name: str, problems: Problems) -> Iterator[tuple[int, Document]]:
    """The documents with their numbers, from 1. Damaged ones are reported and left out. Raises SourceError.

    At most two documents are in memory at a time, whatever lengths the file names.
    """
    ahead = _Ahead(file, name)
    number = damaged = 0
    while ahead.has(1):
        number += 1
        document: Document | None = None
        length = ahead.length_at(0)
        if length is None:
            reason = "it is cut off, or its length is wrong"
        else:
            try:
                document = decode(bytes(ahead.content[:length]), _OPTIONS)
            except InvalidBSON as error:
                reason = str(error)
        if length is not None and document is not None:
            del ahead.content[:length]
            yield number, document
            continue
        damaged += 1
        if damaged > MAX_DAMAGED:
            raise SourceError(f"{name} has more than {MAX_DAMAGED:,} damaged documents.")
        problems.report(name, number, f"not valid BSON: {reason}", "document")
        ahead.skip_damaged(length)


class _Ahead:
    """A file of documents, with as much of it in `content` as has been looked at and not been deleted there."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file, self._name = file, name
        self.content = bytearray()

    def has(self, size: int) -> bool:
        """Whether there are `size` more bytes. Raises SourceError."""
        with reading(self._name):
            while len(self.content) < size:
                piece = self._file.read(max(_PIECE, size - len(self.content)))
                if not piece:
                    return False
                self.content += piece
        return True

    def length_at(self, start: int) -> int | None:
        """The length of the document that starts there; None where there can't be one."""
        if not self.has(start + _SHORTEST):
            return None
        length = int.from_bytes(self.content[start : start + 4], "little", signed=True)
        if not _SHORTEST <= length <= MAX_DOCUMENT_BYTES or not self.has(start + length):
            return None
        return None if self.content[start + length - 1] else length

    def skip_damaged(self, length: int | None) -> None:
        """Deletes the damaged document at the start: up to where its length says, if it is right, or to the next."""
        if length is not None and (not self.has(length + 1) or self.length_at(length)):
            del self.content[:length]
            return
        del self.content[:1]
        while self.has(4 + len(_FIRST_FIELD)):
            at = self.content.find(_FIRST_FIELD, 4)
            if at < 0:
                # The end may be the start of the next document.
                del self.content[: 1 - len(_FIRST_FIELD) - 4]
                if not self.has(len(self.content) + 1):
                    break
            elif self.length_at(at - 4):
                del self.content[: at - 4]
                return
            else:
                del self.content[: at - 3]
        self.content.clear()
