"""Ctrl-C ends a script with one line instead of a traceback, whatever the script is doing.

A script imports this before anything else, since torch alone takes a second to import, and ends with `run(main)`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType

SAID = "\nStopped.\n"


def _end(number: int, frame: FrameType | None) -> None:
    """Ends the process as the signal would by itself. Not by an exception: imports may catch those."""
    del frame
    os.write(2, SAID.encode())
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write(SAID)
    else:
        sys.__excepthook__(kind, error, trace)


def _is_in_charge() -> bool:
    """Whether this process runs a script of this folder, and nobody has seen to Ctrl-C, or switched it off, before."""
    started = Path(sys.argv[0]).resolve() if sys.argv else Path()
    return started.parent == Path(__file__).resolve().parent and (
        signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )


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
