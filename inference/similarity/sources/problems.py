"""Errors of a source. SourceError ends the reading. Problems reports a bad row or document, and reading goes on."""

from __future__ import annotations

import csv
import lzma
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from similarity.errors import one_line

# A table has lines, a dump has documents.
Unit = Literal["line", "document"]


class SourceError(Exception):
    """The source can't be used. Its message is one sentence."""


class Problems:
    """Counts the bad rows and documents, and names each on stderr."""

    def __init__(self) -> None:
        self.count = 0

    def report(self, file: str, number: int, reason: str, unit: Unit = "line", then: str = "skipped") -> None:
        self.say(f"{file}, {unit} {number}: {one_line(reason)}; {then}")

    def say(self, message: str) -> None:
        self.count += 1
        print(message, file=sys.stderr)


class HeldProblems(Problems):
    """Keeps the messages about a file until it is known whether the file counts."""

    def __init__(self) -> None:
        super().__init__()
        self._messages: list[str] = []

    def say(self, message: str) -> None:
        self._messages.append(message)

    def release(self, problems: Problems) -> None:
        for message in self._messages:
            problems.say(message)


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turns the errors of a broken file or archive into a SourceError that contains `name`."""
    try:
        yield
    # RuntimeError: a zip has a password or an unknown compression, or a tar is nested too deeply.
    except (
        OSError, EOFError, csv.Error, zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, RuntimeError
    ) as error:  # fmt: skip
        raise SourceError(f"{name} can't be read: {one_line(str(error))}") from error
