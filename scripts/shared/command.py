"""Help, a progress bar, the import root and a short reaction to Ctrl-C, for all commands.

A command imports this first, because importing torch takes a second in which Ctrl-C may come. It ends with `run(main)`.
Importing this makes `inference/` an import root, as in the image: `from similarity.incidents.state import …`. It does
the same with the project's folder: `from infrastructure.config import …`.
"""

from __future__ import annotations

import argparse
import io
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Never

if TYPE_CHECKING:
    from tqdm import tqdm

SCRIPTS_DIR = Path(__file__).resolve().parent.parent
ROOT = SCRIPTS_DIR.parent
INFERENCE_DIR = ROOT / "inference"

STOPPED = "\nStopped.\n"

# The shell's `>&-` and `2>&-` close them. Both stay open until the process ends.
if sys.stdout is None:
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
if sys.stderr is None:
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115

# First: scripts/similar.py has the name of a handler.
sys.path[:] = [str(INFERENCE_DIR), *(folder for folder in sys.path if folder != str(INFERENCE_DIR))]
# Last, for `infrastructure`: the other folders there aren't meant to be imported.
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))


def _end(number: int, frame: FrameType | None) -> None:
    """Ends the process as the signal itself would. It raises no exception, because an import may catch it."""
    del frame
    os.write(2, STOPPED.encode())
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write(STOPPED)
    elif isinstance(error, ModuleNotFoundError) and Path(sys.prefix).resolve() != (ROOT / ".venv").resolve():
        made = "" if (ROOT / ".venv").is_dir() else " (scripts/deploy --check makes it)"
        sys.stderr.write(
            f"{error}. This Python, {sys.executable}, isn't that of the project{made}. Give this command first: "
            f"source {shlex.quote(str(ROOT / '.venv' / 'bin' / 'activate'))}\n"
        )
    else:
        sys.__excepthook__(kind, error, trace)


def _runs_a_command() -> bool:
    """Whether this process runs one of these commands, and Ctrl-C has Python's own handler."""
    started = Path(sys.argv[0]).resolve() if sys.argv else Path()
    return started.is_relative_to(SCRIPTS_DIR) and signal.getsignal(signal.SIGINT) is signal.default_int_handler


_RUNS_A_COMMAND = _runs_a_command()
if _RUNS_A_COMMAND:
    signal.signal(signal.SIGINT, _end)
    sys.excepthook = _report


def run(main: Callable[[], int]) -> None:
    """Exits with the code that `main` returns. In `main`, Ctrl-C raises KeyboardInterrupt, so that it can clean up."""
    if _RUNS_A_COMMAND:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    code = main()
    if _RUNS_A_COMMAND:
        signal.signal(signal.SIGINT, _end)
    sys.exit(code)


@contextmanager
def writing_stdout(command: str) -> Iterator[None]:
    """Exits with 1 if stdout can't be written. One line says why, unless its reader has ended, as `head` does."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        # Else Python would write again when it ends, and report that error too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            print(f"{command}: stdout can't be written: {error.strerror}", file=sys.stderr)
        sys.exit(1)


def argument_parser(docstring: str | None, *, prog: str | None = None) -> argparse.ArgumentParser:
    """A parser with a command's docstring as help: the first paragraph above the options, the rest below them.

    It also makes stdout write characters that the terminal's encoding lacks, e.g. in a path, as escapes such as \\xe9.
    stderr does so by default.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    summary, _, details = (docstring or "").partition("\n\n")
    return argparse.ArgumentParser(
        prog=prog, description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def asked(question: str) -> bool:
    """Asks at the terminal, after an empty line. Anything but yes is a no."""
    try:
        return input(f"\n{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def progress_bar(total: int | None, unit: str) -> tqdm[Never]:
    """A bar on stderr with rate and remaining time. It is updated every 10 s if stderr isn't a terminal."""
    from tqdm import tqdm

    mininterval_s = 0.1 if sys.stderr.isatty() else 10.0
    return tqdm(
        total=total, unit=f" {unit}", unit_scale=True, file=sys.stderr, mininterval=mininterval_s, dynamic_ncols=True
    )


class Bar:
    """A progress bar that appears with the first call, and ends with the `with` block."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._bar: tqdm[Never] | None = None

    def __enter__(self) -> Bar:
        return self

    def __call__(self, done: int, total: int | None) -> None:
        self._bar = self._bar or progress_bar(total, self._unit)
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def clear(self) -> None:
        """Takes the bar off the terminal, until it changes."""
        if self._bar:
            self._bar.clear()

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.close()
