"""Serves a model on a CPU that QEMU emulates: `emulated.py FOLDER TEXT` prints what happens as JSON.

FOLDER has the precision int8. `forced` is int8 where nothing asks the CPU for its instructions.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

from similarity.encoder import loading
from similarity.encoder.loading import load_encoder, load_serving_encoder
from similarity.encoder.text_encoder import TextEncoder
from similarity.errors import ModelError
from similarity.settings import PrecisionSetting


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[list[str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append([record.levelname, record.getMessage(), str(vars(record).get("reason"))])


def served(folder: Path, setting: PrecisionSetting, text: str) -> dict[str, Any]:
    kept = Lines()
    log = logging.getLogger("similarity")
    log.setLevel(logging.INFO)
    log.addHandler(kept)
    encoder = load_serving_encoder(folder, precision=setting)
    log.removeHandler(kept)
    return {"precision": encoder.precision, "log": kept.lines, "vector": encoder.encode(text).vector.tolist()}


def main() -> None:
    folder, text = Path(sys.argv[1]), sys.argv[2]
    settings: tuple[PrecisionSetting, ...] = ("float32", "auto", "int8")
    result: dict[str, Any] = {setting: served(folder, setting, text) for setting in settings}
    try:
        strict: TextEncoder | str = load_encoder(folder, precision="int8")
    except ModelError as error:
        strict = error.detail
    result["strict"] = str(strict)
    vars(loading)["lack_of"] = lambda _: None
    result["forced"] = served(folder, "int8", text)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
