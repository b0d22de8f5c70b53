#!/usr/bin/env python3
"""Find the recorded incidents most like a text. `asking.similar` is the command.

Its code isn't here, because the handler `inference/similar.py` is the module of this name.
"""

from __future__ import annotations

from shared import command

from asking.similar import main

if __name__ == "__main__":
    command.run(main)
