"""Errors of a source. SourceError ends the reading. Problems reports a bad row or document, and reading goes on."""

from __future__ import annotations

import csv
import lzma
import re
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from similarity.errors import one_line

# Of a reason, so many lines are named; so many reasons are told apart.
_NAMED, _MOST_REASONS = 5, 50

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


class GroupedProblems(Problems):
    """Keeps the messages, and tells them in a sentence for each reason, with its first lines.

    Reasons that differ only in numbers are the same. A large table may have the same trouble in each row.
    """

    def __init__(self) -> None:
        super().__init__()
        self._reasons: dict[tuple[str, str, str, str], _Reason] = {}

    def report(self, file: str, number: int, reason: str, unit: Unit = "line", then: str = "skipped") -> None:
        self.count += 1
        key = (file, unit, re.sub(r"[0-9]+", "0", reason), then)
        if key not in self._reasons and len(self._reasons) >= _MOST_REASONS:
            key = (file, unit, "", then)
            reason = "other reasons"
        found = self._reasons.setdefault(key, _Reason(reason))
        found.count += 1
        if len(found.first) < _NAMED:
            found.first.append(number)

    def release(self, problems: Problems) -> None:
        for (file, unit, _, then), found in self._reasons.items():
            more = found.count - len(found.first)
            numbers = ", ".join(map(str, found.first)) + (f" and {more:,} more" if more else "")
            plural = "s" if found.count > 1 else ""
            problems.say(f"{file}, {unit}{plural} {numbers}: {one_line(found.reason)}; {then}")
            problems.count += found.count - 1


@dataclass
class _Reason:
    reason: str
    count: int = 0
    first: list[int] = field(default_factory=list)


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
