#!/usr/bin/env python3
"""Write the lock files: versions and hashes of all packages to install, with the packages that these need.

Run this after a change to a requirements file. It keeps the locked versions that the requirements allow. --upgrade
takes the newest versions instead. A lock is for Python 3.11 to 3.14, on Linux (x86_64 and ARM) and macOS (Apple
silicon).

uv does the work. It is installed for this and removed afterwards. pip and uv need a package index, and each reads its
own settings for it.

Example:
    python scripts/lock.py
Example that takes the newest versions that the requirements allow:
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
    "scripts/states/requirements-ray.txt": "scripts/locks/requirements-ray.txt",
    "requirements.txt": "scripts/locks/requirements.txt",
    "inference/requirements-torch.txt": "inference/locks/requirements-torch.txt",
    "inference/requirements.txt": "inference/locks/requirements.txt",
}
# The same for separate environments, whose packages may have other versions.
APART = {"scripts/benchmarks/requirements-peers.txt": "scripts/locks/requirements-peers.txt"}
UV_LOCK = SCRIPTS_DIR / "locks" / "requirements-uv.txt"
# torch's ordinary build for Linux needs these packages of several GB. Its CPU build doesn't.
EXCLUDED = (
    *("cuda-bindings", "cuda-toolkit", "triton"),
    *("nvidia-cudnn-cu13", "nvidia-cusparselt-cu13", "nvidia-nccl-cu13", "nvidia-nvshmem-cu13"),
)
OPTIONS = (
    *("--quiet", "--universal", "--python-version=3.11", "--no-python-downloads"),
    # One version of a package for all Pythons, so that the tests run with it.
    "--fork-strategy=fewest",
    # Only wheels: building a source package would fetch other packages without checking hashes.
    *("--generate-hashes", "--only-binary=:all:", "--emit-build-options"),
    *(f"--no-emit-package={UNLOCKED}", "--no-annotate", "--custom-compile-command=python scripts/lock.py"),
)


def install_uv(folder: Path) -> Path:
    """Makes a venv with the pinned uv. Returns the path of the program. Raises CalledProcessError."""
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # These override pip's settings, so that it installs into this venv. scripts/local/venv.sh does the same.
    there = ["--no-user", "--target=", "--root=/", f"--prefix={folder}"]
    subprocess.run([*pip, *there, "--require-hashes", "--no-deps", "-r", str(UV_LOCK)], check=True)
    return folder / "bin" / "uv"


def lock(folder: Path, upgrade: bool) -> None:
    """Writes all locks, or none. Raises CalledProcessError if uv finds no versions that fit together."""
    uv = install_uv(folder / "venv")
    excluded = folder / "excluded.txt"
    excluded.write_text("".join(f"{name}\n" for name in EXCLUDED))
    written: dict[Path, Path] = {}
    largest = next(iter(LOCKS))
    before = ROOT / LOCKS[largest]
    for requirements, name in {**LOCKS, **APART}.items():
        made = folder / f"{len(written)}.txt"
        is_first = requirements in (largest, *APART)
        # uv keeps the versions that its output file has.
        kept = ROOT / name if is_first else before
        if kept.exists():
            shutil.copyfile(kept, made)
        options = [*OPTIONS, f"--excludes={excluded}", f"--output-file={made}"]
        if upgrade and is_first:
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
        # The program has printed the reason.
        print(f"lock: no lock was changed, because {Path(error.cmd[0]).name} failed", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    command.run(main)
