"""The findings of the checks before a deployment, and how they are printed."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

_WIDTH = 120
# A narrower terminal would break every line anew.
_NARROWEST = 60
_INDENT = 26


class Outcome(Enum):
    """PROBLEM: the deployment would fail. NOTE: it wouldn't, but this is good to know. NOT_CHECKED: not known."""

    OK = "ok"
    NOTE = "note"
    NOT_CHECKED = "not checked"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """What a check found.

    name: one or two words. detail: a sentence without its full stop. remedy: commands or settings, one a line; ""
    without one.
    """

    name: str
    outcome: Outcome
    detail: str
    remedy: str = ""

    @property
    def is_problem(self) -> bool:
        return self.outcome is Outcome.PROBLEM

    def __str__(self) -> str:
        """Lines for a terminal. A line of a remedy isn't broken, so that a command can be copied."""
        head = f"{self.outcome.value:<12}{self.name:<{_INDENT - 12}}"
        lines = _wrapped(head, self.detail)
        lines += [
            f"{'':<{_INDENT}}{'   ' if number else '-> '}{line}" for number, line in enumerate(self.remedy.splitlines())
        ]
        return "\n".join(lines)


def _wrapped(head: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        max(_NARROWEST, min(_WIDTH, shutil.get_terminal_size((_WIDTH, 0)).columns)),
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_long_words=False,
        break_on_hyphens=False,
    )


def ok(name: str, detail: str) -> Finding:
    return Finding(name, Outcome.OK, detail)


def note(name: str, detail: str, remedy: str = "") -> Finding:
    return Finding(name, Outcome.NOTE, detail, remedy)


def not_checked(name: str, why: str, remedy: str = "") -> Finding:
    return Finding(name, Outcome.NOT_CHECKED, why, remedy)


def problem(name: str, detail: str, remedy: str) -> Finding:
    return Finding(name, Outcome.PROBLEM, detail, remedy)


def summary(findings: Iterable[Finding]) -> str:
    """The number of findings of each kind, e.g. `12 ok, 1 not checked, 2 problems.`"""
    found = [finding.outcome for finding in findings]
    counts = [(found.count(outcome), outcome) for outcome in Outcome if outcome in found]
    return ", ".join(f"{count} {_plural(outcome.value, count)}" for count, outcome in counts) + "."


def _plural(word: str, count: int) -> str:
    return word if count == 1 or word in ("ok", "not checked") else f"{word}s"
