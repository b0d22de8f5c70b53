#!/usr/bin/env python3
"""The CDK app: environment and `.env` to the stack in `infrastructure/`. `.env.example` explains every variable."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from infrastructure.config import Config, ConfigError, settings
from infrastructure.stack import build_app
from similarity.api.routes import HandlerFileError

ROOT = Path(__file__).resolve().parent


def main() -> int:
    try:
        config = Config.from_environment(settings(os.environ, ROOT / ".env"))
        # The CDK's command line names the folder that it reads; by hand it is the one that it would name.
        app = build_app(config, outdir=os.environ.get("CDK_OUTDIR", str(ROOT / "cdk.out")))
    except (ConfigError, HandlerFileError) as error:
        for line in str(error).splitlines():
            print(f"app.py: {line}", file=sys.stderr)
        return 1
    app.synth()
    return 0


if __name__ == "__main__":
    sys.exit(main())
