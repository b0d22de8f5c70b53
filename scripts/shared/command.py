"""What all commands share: help, a progress bar, the import root, and an end by Ctrl-C that takes one line.

A command imports this before anything else, since torch alone takes a second to import, and ends with `run(main)`.
Importing it makes `inference/` an import root, as it is in the image: `from similarity.incidents.state import …`.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Never

if TYPE_CHECKING:
    from tqdm import tqdm

SCRIPTS_DIR = Path(__file__).resolve().parent.parent
ROOT = SCRIPTS_DIR.parent
INFERENCE_DIR = ROOT / "inference"

STOPPED = "\nStopped.\n"

if str(INFERENCE_DIR) not in sys.path:
    sys.path.insert(0, str(INFERENCE_DIR))


def _end(number: int, frame: FrameType | None) -> None:
    """Ends the process as the signal would by itself. Not by an exception: imports may catch those."""
    del frame
    os.write(2, STOPPED.encode())
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write(STOPPED)
    else:
        sys.__excepthook__(kind, error, trace)


def _is_in_charge() -> bool:
    """Whether this process runs one of these commands, and nobody has seen to Ctrl-C, or switched it off, before."""
    started = Path(sys.argv[0]).resolve() if sys.argv else Path()
    return started.is_relative_to(SCRIPTS_DIR) and signal.getsignal(signal.SIGINT) is signal.default_int_handler


_IN_CHARGE = _is_in_charge()
if _IN_CHARGE:
    signal.signal(signal.SIGINT, _end)
    sys.excepthook = _report


def run(main: Callable[[], int]) -> None:
    """Exits with what `main` returns. While it runs, Ctrl-C raises KeyboardInterrupt, so that it can clean up."""
    if _IN_CHARGE:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    code = main()
    if _IN_CHARGE:
        signal.signal(signal.SIGINT, _end)
    sys.exit(code)


def argument_parser(docstring: str | None, *, prog: str | None = None) -> argparse.ArgumentParser:
    """A parser whose help is a command's docstring: the first paragraph above the options, the rest below them.

    From then on, stdout takes every letter, as stderr does: a path may hold letters that the terminal's encoding lacks,
    and bytes that are no letters in it. They come out as escapes such as \\xe9.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    summary, _, details = (docstring or "").partition("\n\n")
    return argparse.ArgumentParser(
        prog=prog, description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def progress_bar(total: int, unit: str) -> tqdm[Never]:
    """Counts to `total` on stderr with a rate and an estimate; in a log file, which can't redraw a line, every 10 s."""
    from tqdm import tqdm

    mininterval_s = 0.1 if sys.stderr.isatty() else 10.0
    return tqdm(
        total=total, unit=f" {unit}", unit_scale=True, file=sys.stderr, mininterval=mininterval_s, dynamic_ncols=True
    )
