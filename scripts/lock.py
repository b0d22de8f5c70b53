#!/usr/bin/env python3
"""Write the lock files anew: versions and hashes of all packages that get installed, also those that others need.

Run it after a change to a requirements file. Versions stay where the requirements allow it; --upgrade takes the newest.
A lock holds for Python 3.11 to 3.14, on Linux (x86_64 and ARM) and on macOS (Apple silicon). This needs a package
index; pip and uv each read their own settings for it. uv does the work; it is installed for that and removed again.

Example:
    python scripts/lock.py
Example, the newest of what the requirements don't pin:
    python scripts/lock.py --upgrade
"""

from __future__ import annotations

from shared import command
from shared.command import ROOT, SCRIPTS_DIR, argument_parser

import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from local.locks import UNLOCKED

# Requirements files and their locks. Each file includes the next, so that a package has the same version in all locks.
LOCKS = {
    "scripts/benchmarks/requirements.txt": "scripts/locks/requirements-benchmarks.txt",
    "requirements-dev.txt": "scripts/locks/requirements-dev.txt",
    "requirements.txt": "scripts/locks/requirements.txt",
    "inference/requirements-torch.txt": "inference/locks/requirements-torch.txt",
    "inference/requirements.txt": "inference/locks/requirements.txt",
}
UV_LOCK = SCRIPTS_DIR / "locks" / "requirements-uv.txt"
# What torch's ordinary build for Linux asks for, and its CPU build doesn't: several GB.
EXCLUDED = (
    *("cuda-bindings", "cuda-toolkit", "triton"),
    *("nvidia-cudnn-cu13", "nvidia-cusparselt-cu13", "nvidia-nccl-cu13", "nvidia-nvshmem-cu13"),
)
OPTIONS = (
    *("--quiet", "--universal", "--python-version=3.11", "--no-python-downloads"),
    # One version of a package for all Pythons: the one that the tests run with.
    "--fork-strategy=fewest",
    # Builds only: a source package would fetch what it is built with, and nothing checks that.
    *("--generate-hashes", "--only-binary=:all:", "--emit-build-options"),
    *(f"--no-emit-package={UNLOCKED}", "--no-annotate", "--custom-compile-command=python scripts/lock.py"),
)


def install_uv(folder: Path) -> Path:
    """Makes a venv with the pinned uv. Returns the path of the program. Raises CalledProcessError."""
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # Into that venv, whatever pip's settings say, as in scripts/local/venv.sh.
    there = ["--no-user", "--target=", "--root=/", f"--prefix={folder}"]
    subprocess.run([*pip, *there, "--require-hashes", "--no-deps", "-r", str(UV_LOCK)], check=True)
    return folder / "bin" / "uv"


def lock(folder: Path, upgrade: bool) -> None:
    """Writes all locks, or none. Raises CalledProcessError where uv finds no versions that go together."""
    uv = install_uv(folder / "venv")
    excluded = folder / "excluded.txt"
    excluded.write_text("".join(f"{name}\n" for name in EXCLUDED))
    written: dict[Path, Path] = {}
    before = ROOT / next(iter(LOCKS.values()))
    for requirements, name in LOCKS.items():
        made = folder / f"{len(written)}.txt"
        # uv keeps the versions that its output file has.
        if before.exists():
            shutil.copyfile(before, made)
        options = [*OPTIONS, f"--excludes={excluded}", f"--output-file={made}"]
        if upgrade and not written:
            options.append("--upgrade")
        subprocess.run([uv, "pip", "compile", *options, requirements], cwd=ROOT, check=True)
        written[ROOT / name] = before = made
    for path, made in written.items():
        beside = path.with_suffix(".partial")
        shutil.copyfile(made, beside)
        beside.replace(path)
        print(path.relative_to(ROOT))


def main(argv: list[str] | None = None) -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that the requirements allow")
    args = parser.parse_args(argv)
    try:
        with tempfile.TemporaryDirectory() as folder:
            lock(Path(folder), args.upgrade)
    except subprocess.CalledProcessError as error:
        # The program has said why.
        print(f"lock: no lock was changed, because {Path(error.cmd[0]).name} failed", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    command.run(main)
