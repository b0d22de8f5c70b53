"""Splits a BSON dump into documents. mongodump writes them one behind the other. `bson_files` knows their meaning.

`bson.decode_file_iter` stops at the first damaged document. This module goes on with the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

from bson import InvalidBSON, decode
from bson.codec_options import CodecOptions, DatetimeConversion

from similarity.sources.problems import Problems, SourceError, reading

Document = dict[str, Any]

# MongoDB's limit. MongoDB's own programs allow 16 KiB more.
# https://www.mongodb.com/docs/manual/reference/limits/#mongodb-limit-BSON-Document-Size
MAX_DOCUMENT_BYTES = 16 * 1024**2 + 16 * 1024
# In one file. A file with more is refused.
MAX_DAMAGED = 1000

# The shortest document has a length and a zero.
_SHORTEST = 5
# The start of a document behind its length: an ObjectId with the name "_id".
_FIRST_FIELD = b"\x07_id\0"
_PIECE = 65_536

# A date that Python can't hold doesn't make a document unusable.
_OPTIONS: CodecOptions[Document] = CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_AUTO)


def read_documents(file: IO[bytes], name: str, problems: Problems) -> Iterator[tuple[int, Document]]:
    """The documents and their numbers, from 1. Damaged documents are reported and left out.

    At most two documents are in memory at a time, even if the file announces great lengths. Raises SourceError if the
    file can't be read, or has more than MAX_DAMAGED damaged documents.
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
    """Reads a dump. content: the bytes that have been read, without those that the caller deleted."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file, self._name = file, name
        self.content = bytearray()

    def has(self, size: int) -> bool:
        """Reads until `content` has `size` bytes; False if the file ends before. Raises SourceError."""
        with reading(self._name):
            while len(self.content) < size:
                piece = self._file.read(max(_PIECE, size - len(self.content)))
                if not piece:
                    return False
                self.content += piece
        return True

    def length_at(self, start: int) -> int | None:
        """The length of the document that starts at `start`; None if no document starts there."""
        if not self.has(start + _SHORTEST):
            return None
        length = int.from_bytes(self.content[start : start + 4], "little", signed=True)
        if not _SHORTEST <= length <= MAX_DOCUMENT_BYTES or not self.has(start + length):
            return None
        return None if self.content[start + length - 1] else length

    def skip_damaged(self, length: int | None) -> None:
        """Deletes the damaged document at the start of `content`, up to the next document.

        length: the length that the damaged document announces. It is used if another document or the end follows.
        """
        if length is not None and (not self.has(length + 1) or self.length_at(length)):
            del self.content[:length]
            return
        del self.content[:1]
        while self.has(4 + len(_FIRST_FIELD)):
            at = self.content.find(_FIRST_FIELD, 4)
            if at < 0:
                # Keep the last bytes: they may be the start of the next document.
                del self.content[: 1 - len(_FIRST_FIELD) - 4]
                if not self.has(len(self.content) + 1):
                    break
            elif self.length_at(at - 4):
                del self.content[: at - 4]
                return
            else:
                del self.content[: at - 3]
        self.content.clear()
