"""How reading a source fails: wholly, as SourceError, or in a row or document, which Problems reports."""

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

# What is counted in a file: lines of a table, documents of a dump.
Unit = Literal["line", "document"]


class SourceError(Exception):
    """The source can't be used, in one sentence."""


class Problems:
    """Counts the bad rows and documents, and says of each on stderr where it is."""

    def __init__(self) -> None:
        self.count = 0

    def report(self, file: str, number: int, what: str, unit: Unit = "line") -> None:
        self.say(f"{file}, {unit} {number}: {one_line(what)}; skipped")

    def say(self, message: str) -> None:
        self.count += 1
        print(message, file=sys.stderr)


class HeldProblems(Problems):
    """Keeps the messages until it is known whether the file counts that they are about."""

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
    """Turns every way in which a file or an archive can be broken into a SourceError that names it."""
    try:
        yield
    # RuntimeError: a zip with a password or packed in a way that zipfile doesn't know, a tar nested too deeply.
    except (
        OSError, EOFError, csv.Error, zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, RuntimeError
    ) as error:  # fmt: skip
        raise SourceError(f"{name} can't be read: {one_line(str(error))}") from error
