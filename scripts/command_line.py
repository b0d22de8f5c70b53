"""The command line that the scripts have in common."""

from __future__ import annotations

import argparse
import io
import sys


def argument_parser(docstring: str | None, *, prog: str | None = None) -> argparse.ArgumentParser:
    """A parser whose help is a script's docstring: the first paragraph above the options, the rest below them.

    From then on, stdout takes every letter, as stderr does: a path may hold letters that the terminal's encoding lacks,
    and bytes that are no letters in it. They come out as escapes such as \\xe9.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    summary, _, details = (docstring or "").partition("\n\n")
    return argparse.ArgumentParser(
        prog=prog, description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
