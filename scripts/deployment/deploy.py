#!/usr/bin/env python3
"""Deploy the stack: check everything first, show what will change, deploy, and test the deployed API.

The checks are of this machine (settings, model, state, Docker, disk) and of the AWS account (credentials, region,
bootstrap, quotas, the stack as it is). All of them run, and each problem comes with its remedy. With a problem, nothing
is deployed. A check that can't be made doesn't stop the deployment.

It reads the settings from the environment and .env, as `cdk deploy` does. It deploys the changes that it has shown:
both steps use the same synthesised templates. These are in a new folder in cdk.out, to which nothing else writes.

The exit code is 0 if the deployed API passes the smoke test, 1 if anything went wrong or was refused, 2 for wrong
arguments. With --check it is 0 if there is no problem.

Examples:
    scripts/deploy --check
    scripts/deploy
    scripts/deploy --stack Staging --yes
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a script: its own folder stands where scripts/ has to be
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from shared import command
from shared.command import INFERENCE_DIR, argument_parser, asked, writing_stdout

import argparse
import os
import shlex
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from tempfile import TemporaryDirectory

import smoke_test
from aws.settings import require_stack_name
from aws.stack import Stack, StackError, find_stack, status_of
from costing.rows import at_rest
from deployment import cdk
from deployment.account.checks import aws_findings
from deployment.failures import failures, newest_event
from deployment.findings import Finding, summary
from deployment.given import Given
from deployment.machine.checks import local_findings
from infrastructure.config import Config

CDK_OUT = "cdk.out"
_PREFIX = "deploy-"
_OLD_S = 86_400.0
_EXAMPLE = "A chatbot insulted its users"


class DeployError(Exception):
    """The deployment failed, or didn't begin. The message is one sentence, or several lines."""


def say(message: str) -> None:
    print(f"deploy: {message}", file=sys.stderr, flush=True)


def checked(given: Given) -> list[Finding]:
    """Prints each finding at once."""
    findings = []
    for found in (local_findings, aws_findings):
        for finding in found(given):
            findings.append(finding)
            print(finding, flush=True)
    print(f"\n{summary(findings)}", flush=True)
    return findings


def preparation(root: Path, folder: Path, environment: Mapping[str, str]) -> str:
    """The command that a shell needs before those of the remedies, "" if none. folder: the shell's."""
    steps = [] if folder == root else [f"cd {shlex.quote(str(root))}"]
    if Path(environment.get("VIRTUAL_ENV", "")).resolve() != (root / ".venv").resolve():
        steps.append("source .venv/bin/activate")
    return " && ".join(steps)


def say_what_to_do(problems: int, given: Given) -> None:
    count = "the problem" if problems == 1 else f"the {problems} problems"
    say(f"nothing was deployed: solve {count} above, and give the same command again")
    if first := preparation(given.root, Path.cwd(), os.environ):
        say(f"before the commands above, give this one: {first}")


def problems_in(findings: Iterable[Finding]) -> int:
    return sum(finding.is_problem for finding in findings)


def _remove_old(cdk_out: Path) -> None:
    """Removes the folders of killed runs, each with a copy of the model. A run takes less than a day."""
    for folder in cdk_out.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > _OLD_S:
                shutil.rmtree(folder)


@contextmanager
def new_assembly(root: Path) -> Iterator[str]:
    """A new folder for the synthesised stack, as a path below `root`. It is removed at the end. Raises DeployError.

    In an old folder, the CDK would use the copy of `inference/` that it finds there, even an incomplete one. And
    another run could write to the folder while this one waits for an answer.
    """
    try:
        (root / CDK_OUT).mkdir(exist_ok=True)
        _remove_old(root / CDK_OUT)
        folder = TemporaryDirectory(prefix=_PREFIX, dir=root / CDK_OUT, ignore_cleanup_errors=True)
    except OSError as error:
        raise DeployError(f"{CDK_OUT} can't be written: {error.strerror}; nothing was deployed") from error
    with folder as path:
        yield str(Path(path).relative_to(root))


def question(config: Config) -> str:
    return f"Deploy this to account {config.account} in {config.region}, as {config.stack_name}?"


def show_changes(given: Given, assembly: str) -> None:
    """Synthesises the stack, and prints how it differs from the deployed one. Raises DeployError."""
    for arguments in (["synth", "--quiet", "--output", assembly], ["diff", "--app", assembly]):
        print(f"\n== cdk {arguments[0]}", flush=True)
        if run_cdk(arguments, given):
            raise DeployError(f"`cdk {arguments[0]}` failed, see above; nothing was deployed")
        now = Given.read(os.environ, stack_name=given.config.stack_name)
        if (now.config, now.problems) != (given.config, given.problems):
            raise DeployError("the settings have changed since the checks, so nothing was deployed: begin again")


def run_cdk(arguments: list[str], given: Given) -> int:
    """The exit code. Raises DeployError if the command line can't be started."""
    try:
        return cdk.run(arguments, given.root, {"STACK_NAME": given.config.stack_name})
    except OSError as error:
        raise DeployError(f"`cdk {arguments[0]}` can't be started: {error.strerror}") from error


def deploy(given: Given, assembly: str) -> None:
    """Deploys what was shown. Raises DeployError with the reasons."""
    name, region = given.config.stack_name, given.config.region
    before = newest_event(name, region)
    print("\n== cdk deploy", flush=True)
    arguments = ["deploy", name, "--app", assembly, "--require-approval", "never"]
    try:
        code = run_cdk(arguments, given)
    except KeyboardInterrupt:
        say(
            f"stopped; CloudFormation continues the deployment. This command prints its status: aws cloudformation "
            f"describe-stacks --region {region} --stack-name {name} --query 'Stacks[].StackStatus'"
        )
        raise
    if code:
        causes = "".join(f"\n  {cause}" for cause in failures(name, region, before))
        raise DeployError(f"the deployment failed, see above. {how_it_stands(name, region, before)}{causes}")


def how_it_stands(name: str, region: str, before: str | None) -> str:
    """What a failed deployment has left. before: the stack's newest event before it, None if AWS didn't tell it."""
    now = newest_event(name, region)
    if now is not None and now == before:
        return "The stack is unchanged."
    try:
        status = status_of(name, region)
    except StackError as error:
        return f"The stack's status isn't known: {error}."
    meaning = {
        "ROLLBACK_COMPLETE": "Only the name of the stack is left. The next deployment removes it first.",
        "UPDATE_ROLLBACK_COMPLETE": "The stack is as it was before.",
    }
    return meaning.get(status, f"The stack is {status or 'unknown'}: see docs/operations.md#undo-the-last-deployment.")


def tested(config: Config, stack: Stack) -> bool:
    """Runs the smoke test with the stack's own settings."""
    print("\n== smoke test", flush=True)
    arguments = [stack.api_url, "--origin", config.allowed_origins[0]]
    if stack.takes_signed_only:
        arguments.append("--sign")
    return smoke_test.main(arguments) == 0


def closing(config: Config, stack: Stack) -> str:
    """The lines about the deployed stack that end the output."""
    rows = [("API", stack.api_url)]
    if stack.takes_signed_only:
        rows.append(("try it", f"python scripts/smoke_test.py {stack.api_url} --sign"))
    else:
        rows.append(("try it", f"curl -G {stack.api_url}/similar --data-urlencode 'text={_EXAMPLE}'"))
    if stack.page_url:
        rows.append(("page", stack.page_url))
    if config.domain_name:
        rows.append(("domain", f"make a CNAME record of {config.domain_name} that leads to {stack.domain_target}"))
    if stack.dashboard_url:
        rows.append(("dashboard", stack.dashboard_url))
    if config.alarms and config.alarm_email:
        rows.append(("alarms", f"AWS has sent a mail to {config.alarm_email}: click its link to get the alarms"))
    rows.append(("costs", at_rest(config, INFERENCE_DIR).text))
    rows.append(("remove it", f"scripts/destroy --stack {config.stack_name}"))
    return "\n".join(f"{name:<12}{value}" for name, value in rows)


def _parsed(argv: list[str] | None) -> argparse.Namespace:
    """Exits with 2 if the arguments can't be used."""
    parser = argument_parser(__doc__, prog="deploy")
    parser.add_argument("--check", action="store_true", help="only check")
    parser.add_argument("--yes", action="store_true", help="deploy without asking")
    parser.add_argument(
        "--stack", type=require_stack_name, metavar="NAME", help="name of the stack; it wins over STACK_NAME"
    )
    args = parser.parse_args(argv)
    if not (args.check or args.yes or (sys.stdin and sys.stdin.isatty())):
        parser.error("there is no terminal at which to ask: give --yes to deploy without being asked, or --check")
    return args


def main(argv: list[str] | None = None) -> int:
    args = _parsed(argv)
    with writing_stdout("deploy"):
        return checked_and_deployed(args)


def checked_and_deployed(args: argparse.Namespace) -> int:
    """The exit code."""
    begun = False
    try:
        given = Given.read(os.environ, stack_name=args.stack)
        problems = problems_in(checked(given))
        if problems:
            say_what_to_do(problems, given)
            return 1
        if args.check:
            say("there is no problem: the same command without --check deploys")
            return 0
        with new_assembly(given.root) as assembly:
            show_changes(given, assembly)
            print(f"\nIt costs {at_rest(given.config, INFERENCE_DIR).text}.", flush=True)
            if not args.yes and not asked(question(given.config)):
                say("nothing was deployed")
                return 1
            begun = True
            deploy(given, assembly)
        stack = find_stack(given.config.stack_name, given.config.region)
        passed = tested(given.config, stack)
        print(f"\n{closing(given.config, stack)}", flush=True)
        if not passed:
            raise DeployError(
                "the stack is deployed, but it didn't pass the smoke test; docs/operations.md says what to do about it"
            )
    except (DeployError, StackError) as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        if not begun:
            say("stopped; nothing was deployed")
        return 1
    return 0


if __name__ == "__main__":
    command.run(main)
