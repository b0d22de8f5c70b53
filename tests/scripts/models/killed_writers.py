"""Writes a model's folder again and again, each time in a process that is killed one step later.

`killed_writers.py first|replacement|export|int8 OLD NEW ROOT` leaves one folder a step in ROOT and prints their number.
A step is a call that renames, removes or syncs something. The last folder is that of the process that wasn't killed.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from integer_products import int8_on_every_cpu
from models.export import export
from models.write_model import write_model

STEPS = ("rename", "replace", "unlink", "rmdir", "fsync", "link")


def die_before(step: int) -> None:
    """From here on this process ends, as a kill ends it, right before its step with that number."""
    left = [step]

    def dying(call: Callable[..., Any]) -> Callable[..., Any]:
        def call_or_die(*args: Any, **options: Any) -> Any:
            if not left[0]:
                os._exit(9)
            left[0] -= 1
            return call(*args, **options)

        return call_or_die

    for name in STEPS:
        setattr(os, name, dying(getattr(os, name)))


def write(form: str, old: Path, new: Path, folder: Path) -> None:
    if form == "export":
        export(folder)
        return
    if form == "int8":
        export(folder, "int8")
        return
    write_model(
        folder,
        config=json.loads((new / "config.json").read_bytes()),
        tokenizer_json=(new / "tokenizer.json").read_bytes(),
        weights=load_file(new / "model.safetensors"),
        source={"model": "new"},
    )


def main() -> None:
    form, old, new, root = sys.argv[1], *map(Path, sys.argv[2:])
    with pytest.MonkeyPatch.context() as patch, int8_on_every_cpu(patch):
        # A calibration with one text takes less time.
        patch.setattr("models.export.texts_of", lambda _: [np.arange(4, 60)])
        write_again_and_again(form, old, new, root)


def write_again_and_again(form: str, old: Path, new: Path, root: Path) -> None:
    # Threads don't outlive a fork.
    torch.set_num_threads(1)
    for step in range(1000):
        folder = root / f"{step:03}"
        if form == "first":
            folder.mkdir()
        else:
            shutil.copytree(old, folder)
        child = os.fork()
        if not child:
            die_before(step)
            write(form, old, new, folder)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code not in (0, 9):
            sys.exit(f"step {step} ended with {code}")
        if code == 0:
            print(step + 1)
            return


if __name__ == "__main__":
    main()
