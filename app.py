#!/usr/bin/env python3
"""The CDK app: environment and `.env` to the stack in `infrastructure/`. `.env.example` explains every variable."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from infrastructure.config import Config, ConfigError, env_file
from infrastructure.stack import build_app
from similarity.api.routes import HandlerFileError

ROOT = Path(__file__).resolve().parent


def main() -> int:
    try:
        # A variable that is empty in the shell counts as not set there, so it doesn't hide the line in .env.
        environment = {
            **env_file(ROOT / ".env"),
            **{name: value for name, value in os.environ.items() if value.strip()},
        }
        # The CDK's command line names the folder that it reads; by hand it is the one that it would name.
        app = build_app(
            Config.from_environment(environment), outdir=os.environ.get("CDK_OUTDIR", str(ROOT / "cdk.out"))
        )
    except (ConfigError, HandlerFileError) as error:
        print(f"app.py: {error}", file=sys.stderr)
        return 1
    app.synth()
    return 0


if __name__ == "__main__":
    sys.exit(main())
