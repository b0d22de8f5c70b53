"""The checks of this machine before a deployment. They don't ask AWS.

`settings`, `model`, `docker`, `emulation` and `disk` have most of the checks. This module has the others, and the order
of all.
"""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Callable, Iterator

from deployment import cdk
from deployment.findings import Finding, not_checked, ok, problem
from deployment.given import Given
from deployment.machine.disk import disk_findings
from deployment.machine.docker import find_engine
from deployment.machine.emulation import platform_finding
from deployment.machine.model import model_findings
from deployment.machine.programs import Said, ask
from deployment.machine.settings import settings_findings
from infrastructure.build_context import find_jobs, require_no_link_around
from infrastructure.config import ConfigError
from similarity.api.routes import HandlerFileError, find_handlers
from similarity.errors import one_line, reason_of

# scripts/local/venv.sh names the same.
PYTHONS = ((3, 11), (3, 14))
NODE_TIMEOUT_S = 30.0
# The first run fetches the CDK's command line from npm's registry.
CDK_TIMEOUT_S = 120.0


def local_findings(given: Given) -> Iterator[Finding]:
    """All findings, in a reader's order. Takes seconds, but minutes if Docker or npm hang."""
    yield python_finding(sys.version_info[:2])
    yield from _made("Settings", settings_findings, given)
    yield from _made("Handlers", handlers_findings, given)
    yield from _made("Model", model_findings, given)
    yield from _made("Docker", _docker_findings, given)
    yield from _made("CDK", cdk_findings, given)


def _docker_findings(given: Given) -> Iterator[Finding]:
    engine, found = find_engine()
    yield found
    yield platform_finding(engine, given.config.architecture)
    yield from disk_findings(given, engine)


def _made(name: str, check: Callable[[Given], Iterator[Finding]], given: Given) -> Iterator[Finding]:
    """The findings of a check. An unforeseen error must not hide those of other checks."""
    try:
        yield from check(given)
    except Exception as error:
        yield not_checked(name, f"the check has failed: {reason_of(error)}")


def python_finding(version: tuple[int, int]) -> Finding:
    oldest, newest = PYTHONS
    if oldest <= version <= newest:
        return ok("Python", platform.python_version())
    supported = " to ".join(".".join(map(str, each)) for each in PYTHONS)
    return problem("Python", f"{'.'.join(map(str, version))} isn't supported", f"install Python {supported}")


def handlers_findings(given: Given) -> Iterator[Finding]:
    name, folder = "Handlers", given.root / "inference"
    found = []
    for kind, find in (("handlers", find_handlers), ("jobs", find_jobs)):
        try:
            files = [file for file in find(folder) if given.config.deploys(file)]
            found.append(f"{len(files)} {kind}: {', '.join(file.module for file in files)}")
        except (HandlerFileError, OSError) as error:
            yield problem(name, one_line(str(error)).removesuffix("."), "correct that file in inference/")
    try:
        require_no_link_around(folder)
    except ConfigError as error:
        link, _, _ = str(error).partition(" is a symbolic link")
        found_there, _, _ = str(error).rpartition(": ")
        yield problem("Links", found_there, f"rm {link}\nor let it lead to the model's folder")
    if len(found) == 2:
        yield ok(name, "; ".join(found))


def cdk_findings(given: Given) -> Iterator[Finding]:
    """Node, and the CDK's pinned command line, which runs on it."""
    activate = "source .venv/bin/activate\nscripts/deploy does so itself"
    try:
        said = ask(["node", "--version"], NODE_TIMEOUT_S)
    except OSError as error:
        yield problem("Node", f"node can't be started: {error.strerror}", activate)
    else:
        version = said.stdout.strip().removeprefix("v")
        if said.code == 0:
            yield ok("Node", version)
        else:
            yield problem("Node", f"`node --version` fails: {_last_line(said)}", activate)
    try:
        said = ask(cdk.command("--version"), CDK_TIMEOUT_S, folder=given.root, more=cdk.NPM)
    except OSError as error:
        yield problem("CDK", f"npx can't be started: {error.strerror}", activate)
        return
    if said.code == 0:
        yield ok("CDK", f"command line {one_line(said.stdout.strip())}")
    elif said.code is None:
        yield problem(
            "CDK",
            f"{cdk.CDK} hasn't come from npm's registry within {CDK_TIMEOUT_S:g} s",
            f"try it alone: {' '.join(cdk.command('--version'))}",
        )
    else:
        yield problem(
            "CDK",
            f"{cdk.CDK} can't be fetched or started: {_npm_error(said)}",
            "check the network, and npm's registry and proxy: npm config list",
        )


def _npm_error(said: Said) -> str:
    """npm's sentence. npm prints codes before it, and advice and the path of its log after it."""
    lines = re.findall(r"^npm error +(.+)", said.stderr, re.MULTILINE)
    sentences = [line for line in lines if not re.match(r"(code|errno|syscall|path|dest|file) \S", line)]
    return one_line(sentences[0]).removesuffix(".") if sentences else _last_line(said)


def _last_line(said: Said) -> str:
    lines = (said.stderr.strip() or said.stdout.strip()).splitlines()
    return one_line(lines[-1]).removesuffix(".") if lines else f"it ended with {said.code}"
