"""axe-core, which finds faults that keep people from using a page. It comes from npm's registry, once."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

from processes import PATIENCE_S

# Another release has other rules.
AXE_CORE = "axe-core@4.14.1"


class NoAxeError(RuntimeError):
    """It can't be had here."""


@dataclass(frozen=True)
class Findings:
    """Of one view of the page: how many rules it keeps, those that it breaks, and what a person has to look at.

    undecided: selectors of the elements for which a rule can't tell.
    """

    passes: int
    violations: list[dict[str, Any]]
    undecided: set[str]

    def sentences(self) -> list[str]:
        return [
            f"{broken['id']} ({broken['impact']}): {node['html']} {node['failureSummary']}"
            for broken in self.violations
            for node in broken["nodes"]
        ]


def fetch_axe(folder: Path) -> Path:
    """Its script, kept in `folder`. Raises NoAxeError."""
    script = folder / f"{AXE_CORE}.min.js"
    if script.exists():
        return script
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with tempfile.TemporaryDirectory(dir=folder) as beside:
        npm = ["npm", "install", "--prefix", beside, "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]
        try:
            subprocess.run(
                # Without a network it gives up after seconds.
                [*npm, "--fetch-retries=1", AXE_CORE],
                env={**os.environ, "PATH": programs},
                check=True,
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
            )
        except (OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", None) or error
            raise NoAxeError(f"{AXE_CORE} can't be had from npm's registry: {said}") from error
        (Path(beside) / "node_modules" / "axe-core" / "axe.min.js").replace(script)
    return script


# With no more elements than are read here, and without the style sheets of other sites: that takes half the time.
_RUN = """axe.run(document, {
    rules: {"target-size": {enabled: true}}, resultTypes: ["violations", "incomplete"], preload: false
})"""


@cache
def _source(script: Path) -> str:
    return script.read_text(encoding="utf-8")


def run_axe(page: Page, script: Path) -> Findings:
    """Runs all rules but the experimental ones. Not as a script of the page, which its policy would stop.

    Of the others, only `target-size` has to be switched on.
    """
    if not page.evaluate("'axe' in window"):
        page.evaluate(_source(script))
    found = page.evaluate(_RUN)
    undecided = {" ".join(node["target"]) for rule in found["incomplete"] for node in rule["nodes"]}
    return Findings(len(found["passes"]), found["violations"], undecided)
