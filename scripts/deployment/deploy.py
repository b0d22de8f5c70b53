#!/usr/bin/env python3
"""Deploy the stack: check everything first, show what will change, deploy, and test the deployed API.

The checks are of this machine (settings, model, state, Docker, disk) and of the AWS account (credentials, region,
bootstrap, quotas, the stack as it is). All of them run, and each problem comes with its remedy. With a problem, nothing
is deployed. A check that can't be made doesn't stop a deployment.

Settings are those of the environment and of .env, as for `cdk deploy`. What is shown is what is deployed: both use the
same synthesised templates, in cdk.out.

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
from shared.command import INFERENCE_DIR, argument_parser

import argparse
import os
import shlex
from collections.abc import Iterable, Mapping

import smoke_test
from aws.settings import require_stack_name
from aws.stack import Stack, StackError, find_stack, status_of
from costing.rows import at_rest
from deployment import cdk
from deployment.aws_checks import aws_findings
from deployment.failures import failures, newest_event
from deployment.findings import Finding, summary
from deployment.given import Given
from deployment.local_checks import local_findings
from infrastructure.config import Config

ASSEMBLY = "cdk.out"
_EXAMPLE = "A chatbot insulted its users"


class DeployError(Exception):
    """The deployment failed, or didn't begin. The message is one sentence, or several lines."""


def say(message: str) -> None:
    print(f"deploy: {message}", file=sys.stderr, flush=True)


def checked(given: Given) -> list[Finding]:
    """Prints each finding when it is there."""
    findings = []
    for found in (local_findings, aws_findings):
        for finding in found(given):
            findings.append(finding)
            print(finding, flush=True)
    print(f"\n{summary(findings)}", flush=True)
    return findings


def preparation(root: Path, folder: Path, environment: Mapping[str, str]) -> str:
    """What a shell needs before it takes the commands of remedies, "" if nothing. folder: the one that it is in."""
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


def confirmed(config: Config) -> bool:
    """Asks at the terminal. Anything but yes is a no."""
    question = f"\nDeploy this to account {config.account} in {config.region}, as {config.stack_name}? [y/N] "
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False


def show_changes(given: Given) -> None:
    """Synthesises the stack, and prints how it differs from the deployed one. Raises DeployError."""
    environment = {"STACK_NAME": given.config.stack_name}
    for arguments in (["synth", "--quiet", "--output", ASSEMBLY], ["diff", "--app", ASSEMBLY]):
        print(f"\n== cdk {arguments[0]}", flush=True)
        if cdk.run(arguments, given.root, environment):
            raise DeployError(f"`cdk {arguments[0]}` failed, see above; nothing was deployed")


def deploy(given: Given) -> None:
    """Deploys what was shown. Raises DeployError with the reasons."""
    name, region = given.config.stack_name, given.config.region
    before = newest_event(name, region)
    print("\n== cdk deploy", flush=True)
    arguments = ["deploy", name, "--app", ASSEMBLY, "--require-approval", "never"]
    try:
        code = cdk.run(arguments, given.root, {"STACK_NAME": name})
    except KeyboardInterrupt:
        say(
            f"stopped; CloudFormation goes on with what it has begun. This tells how far it is: aws cloudformation "
            f"describe-stacks --region {region} --stack-name {name} --query 'Stacks[].StackStatus'"
        )
        raise
    if code:
        causes = "".join(f"\n  {cause}" for cause in failures(name, region, before))
        raise DeployError(f"the deployment failed, see above. {how_it_stands(name, region, before)}{causes}")


def how_it_stands(name: str, region: str, before: str) -> str:
    """What a failed deployment has left. before: the stack's newest event before it."""
    if newest_event(name, region) == before:
        return "The stack wasn't touched."
    status = status_of(name, region)
    meaning = {
        "ROLLBACK_COMPLETE": "Nothing of it is left but its name. The next deployment removes that first.",
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


def closing(config: Config, stack: Stack, named: bool) -> str:
    """What a user needs to know of the deployed stack. named: whether its name was given to this command."""
    rows = [("API", stack.api_url)]
    if stack.takes_signed_only:
        rows.append(("try it", f"python scripts/smoke_test.py {stack.api_url} --sign"))
    else:
        rows.append(("try it", f"curl -G {stack.api_url}/similar --data-urlencode 'text={_EXAMPLE}'"))
    if config.domain_name:
        rows.append(("domain", f"make a CNAME record of {config.domain_name} that leads to {stack.domain_target}"))
    if stack.dashboard_url:
        rows.append(("dashboard", stack.dashboard_url))
    if config.alarms and config.alarm_email:
        rows.append(("alarms", f"AWS has sent {config.alarm_email} a mail; alarms come once its link was clicked"))
    rows.append(("costs", at_rest(config, INFERENCE_DIR).text))
    rows.append(("remove it", f"scripts/destroy{f' --stack {config.stack_name}' if named else ''}"))
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
    begun = False
    try:
        given = Given.read(os.environ, stack_name=args.stack)
        problems = problems_in(checked(given))
        if problems:
            say_what_to_do(problems, given)
            return 1
        if args.check:
            say("nothing is in the way of a deployment: the same command without --check begins it")
            return 0
        show_changes(given)
        print(f"\nIt costs {at_rest(given.config, INFERENCE_DIR).text}.", flush=True)
        if not args.yes and not confirmed(given.config):
            say("nothing was deployed")
            return 1
        begun = True
        deploy(given)
        stack = find_stack(given.config.stack_name, given.config.region)
        passed = tested(given.config, stack)
        print(f"\n{closing(given.config, stack, bool(args.stack))}", flush=True)
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
