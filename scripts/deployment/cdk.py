"""The CDK's command line: its release, and how it is run.

As a program: `python scripts/deployment/cdk.py ARGUMENTS`, in any folder.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

# 2.1148 is the first that reads the cloud assembly of aws-cdk-lib 2.275. 3.0.0, npm's highest number but an older and
# deprecated release, refuses it.
CDK = "aws-cdk@2.1148.1"


def command(*arguments: str) -> list[str]:
    """npx is Node's, which scripts/local/venv.sh puts into PATH."""
    return ["npx", "--yes", CDK, *arguments]


def run(arguments: Sequence[str], root: Path, environment: Mapping[str, str]) -> int:
    """Runs a command of the CDK with this process's terminal, and returns its exit code.

    Ctrl-C reaches the child too, which may have something to clean up. So this waits until the child has ended, and
    then raises KeyboardInterrupt.
    """
    # Else what this process has printed may come after what the child prints.
    sys.stdout.flush()
    stopped: KeyboardInterrupt | None = None
    with subprocess.Popen(command(*arguments), cwd=root, env={**os.environ, **environment}) as child:
        while True:
            try:
                code = child.wait()
                break
            except KeyboardInterrupt as error:
                stopped = error
    if stopped:
        raise stopped
    return code


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], Path(__file__).resolve().parents[2], {}))
