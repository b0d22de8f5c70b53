"""The command line that the scripts have in common."""

from __future__ import annotations

import argparse


def argument_parser(docstring: str | None, *, prog: str | None = None) -> argparse.ArgumentParser:
    """A parser whose help is a script's docstring: the first paragraph above the options, the rest below them."""
    summary, _, details = (docstring or "").partition("\n\n")
    return argparse.ArgumentParser(
        prog=prog, description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
