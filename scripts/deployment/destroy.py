#!/usr/bin/env python3
"""Remove a deployed stack and its images. It lists the parts first, and asks.

All published states are removed with the stack. The list has a command that keeps the newest one.

A stack may be protected from removal (TERMINATION_PROTECTION=true). At a terminal, the command asks whether to lift the
protection. With --yes it needs --unprotect. If the removal doesn't begin, the stack is protected again.

All CDK apps of an account and region keep their images in one repository. Only images of this project are deleted, and
only those that no Lambda and no other stack of this account and region uses.

The exit code is 0 if the stack isn't there, and the unused images are deleted. It is 1 if anything failed or was
refused, and 2 for wrong arguments. After a failure, give the same command again.

Examples:
    scripts/destroy
    scripts/destroy --stack Staging --yes
    scripts/destroy --yes --unprotect --keep-images
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a script: its own folder stands where scripts/ has to be
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from shared import command
from shared.command import argument_parser, asked, writing_stdout

import argparse
import os
from collections.abc import Iterable
from dataclasses import dataclass

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from aws.remedies import explained
from aws.settings import require_stack_name
from aws.stack import CONFIG, NoStackError, StackError, status_of
from deployment import cdk
from deployment.failures import failures, newest_event
from deployment.given import Given
from deployment.removal.contents import Contents, plural, stacks_of_project
from deployment.removal.images import Images, report
from deployment.removal.protection import ProtectionError, unprotected
from deployment.removal.remains import remaining
from deployment.removal.repository import Image, ImagesError
from infrastructure.config import Config
from similarity.errors import reason_of

GONE = ("", "DELETE_COMPLETE")


class DestroyError(Exception):
    """The stack isn't removed, or images are still there. The message is one sentence, or several lines."""


def say(message: str) -> None:
    print(f"destroy: {message}", file=sys.stderr, flush=True)


def require_own_account(config: Config) -> None:
    """Raises DestroyError if the credentials are of another account, or of none."""
    try:
        client = boto3.client("sts", region_name=config.region, config=CONFIG)
        account = client.get_caller_identity()["Account"]
    except (ClientError, BotoCoreError) as error:
        raise DestroyError(f"AWS doesn't tell whose credentials these are: {explained(error)}") from error
    if account != config.account:
        raise DestroyError(
            f"the credentials are of account {account}, but AWS_ACCOUNT_ID is {config.account}: log in to that one, or "
            "set AWS_PROFILE"
        )


def require_removable(stack: Contents) -> None:
    """Raises DestroyError for a stack that isn't this project's, and for one that is being deployed."""
    where = f"the stack {stack.name} in {stack.region}"
    if stack.status == "REVIEW_IN_PROGRESS":
        raise DestroyError(
            f"{where} has only been prepared: a deployment is about to begin, or was stopped. It holds nothing. If "
            f"nobody deploys: aws cloudformation delete-stack --region {stack.region} --stack-name {stack.name}"
        )
    if not stack.is_ours:
        raise DestroyError(f"{where} isn't one of this project, by its description; name another with --stack")
    if stack.status.endswith("_IN_PROGRESS") and not is_going(stack.status):
        raise DestroyError(f"{where} is {stack.status}: wait until that has ended, and give the same command again")


def is_going(status: str) -> bool:
    return status == "DELETE_IN_PROGRESS"


def destroy(given: Given, stack: Contents) -> None:
    """Removes the stack with the CDK. Raises DestroyError or ProtectionError if it is still there."""
    again = "give the same command again"
    before = newest_event(stack.id, stack.region)
    print(
        "\nThis can take 40 minutes: AWS is slow to release the network interfaces of Lambdas.\n\n== cdk destroy",
        flush=True,
    )
    stopped: KeyboardInterrupt | None = None
    try:
        with unprotected(stack, say):
            cdk.run(["destroy", stack.name, "--force"], given.root, {"STACK_NAME": stack.name})
    except KeyboardInterrupt as error:
        stopped = error
    except OSError as error:
        raise DestroyError(f"`cdk destroy` can't be started: {error.strerror}; nothing was removed") from error
    try:
        status = status_of(stack.id, stack.region)
    except StackError as error:
        raise DestroyError(f"{error}. So nobody knows how far the removal is: {again}") from error
    if status in GONE and not stopped:
        return
    if status in GONE:
        raise DestroyError(f"stopped; the stack is removed. For its images, {again}") from stopped
    if is_going(status):
        raise DestroyError(
            f"{'stopped' if stopped else 'the CDK has ended'}; CloudFormation continues the removal. This "
            f"command prints its status: aws cloudformation describe-stacks --region {stack.region} "
            f"--stack-name {stack.id} --query 'Stacks[].StackStatus'\n"
            f"To wait for its end, and to delete the images then, {again}"
        ) from stopped
    if status == "DELETE_FAILED":
        causes = "".join(f"\n  {cause}" for cause in failures(stack.id, stack.region, before))
        raise DestroyError(f"CloudFormation couldn't remove all of the stack; {again} to go on{causes}") from stopped
    raise DestroyError(f"{'stopped' if stopped else 'the CDK failed, see above'}; nothing was removed") from stopped


def look(config: Config) -> Contents | None:
    """The stack, after a table of what goes with it. None if it isn't there. Raises DestroyError or StackError."""
    name, region = config.stack_name, config.region
    try:
        stack = Contents.read(name, region)
    except NoStackError:
        print(f"There is no stack {name} in {region} of account {config.account}.", flush=True)
        if others := stacks_of_project(region):
            print(f"Stacks of this project there: {', '.join(others)}", flush=True)
        return None
    require_removable(stack)
    print(f"The stack {name} in {region} of account {config.account} ({stack.status}):", flush=True)
    print(stack.table(), flush=True)
    if is_going(stack.status):
        print("Its removal has begun already. This waits for the end.", flush=True)
    return stack


def agreed(stack: Contents, args: argparse.Namespace) -> bool:
    """Whether the stack shall go. Raises DestroyError for a protected one with --yes alone."""
    if is_going(stack.status):
        return True
    if stack.is_protected and not args.unprotect:
        if args.yes:
            raise DestroyError("the stack is protected (TERMINATION_PROTECTION=true): give --unprotect too")
        return asked("The stack is protected from removal. Lift the protection, and remove all this?")
    return args.yes or asked("Remove all this?")


@dataclass
class Run:
    """A run of this command. if_stopped: how far it is, for Ctrl-C."""

    given: Given
    args: argparse.Namespace
    if_stopped: str = "nothing was removed"

    def remove(self) -> int:
        """The exit code. Raises DestroyError, ProtectionError or StackError if the stack is still there."""
        config, args = self.given.config, self.args
        require_own_account(config)
        stack = look(config)
        images = Images(config, stack)
        going, known = ([], True) if args.keep_images else unused(images)
        if stack and not agreed(stack, args):
            say(self.if_stopped)
            return 1
        if going and not args.yes and not asked(f"Delete {plural(len(going), 'unused image')} too?"):
            going = []
        if stack:
            self.if_stopped = "the removal may have begun: give the same command again to go on"
            destroy(self.given, stack)
        self.if_stopped = "give the same command again to go on with the images"
        done = known
        if going:
            try:
                images.delete(going)
            except ImagesError as error:
                say(str(error))
                done = False
        if left := remaining(config):
            print(f"\nThis remains:\n{left}", flush=True)
        return 0 if done else 1


def unused(images: Images) -> tuple[list[Image], bool]:
    """The images that nobody needs, after a report of them, and whether AWS has told all that decides it."""
    say("looking which images are in use ...")
    try:
        found = images.look()
    except ImagesError as error:
        say(f"no image will be deleted: {error}. --keep-images doesn't look at them")
        return [], False
    if lines := report(found):
        print(f"Images of this project:\n{lines}", flush=True)
    return found.unused, True


def say_all(problems: Iterable[str]) -> None:
    say("the CDK needs all settings, so nothing was removed:")
    for problem in problems:
        print(f"  {problem}", file=sys.stderr)


def _parsed(argv: list[str] | None) -> argparse.Namespace:
    """Exits with 2 if the arguments can't be used."""
    parser = argument_parser(__doc__, prog="destroy")
    parser.add_argument(
        "--stack", type=require_stack_name, metavar="NAME", help="name of the stack; it wins over STACK_NAME"
    )
    parser.add_argument("--yes", action="store_true", help="remove the stack and its images without asking")
    parser.add_argument("--unprotect", action="store_true", help="remove a protected stack too")
    parser.add_argument("--keep-images", action="store_true", help="delete no images")
    args = parser.parse_args(argv)
    if not (args.yes or (sys.stdin and sys.stdin.isatty())):
        parser.error("there is no terminal at which to ask: give --yes to remove the stack without being asked")
    return args


def main(argv: list[str] | None = None) -> int:
    args = _parsed(argv)
    with writing_stdout("destroy"):
        return removed(args)


def removed(args: argparse.Namespace) -> int:
    """The exit code."""
    given = Given.read(os.environ, stack_name=args.stack)
    if given.problems:
        say_all(given.problems)
        return 1
    run = Run(given, args)
    try:
        return run.remove()
    except (DestroyError, ProtectionError, StackError) as error:
        say(str(error))
    except KeyboardInterrupt:
        say(f"stopped; {run.if_stopped}")
    except OSError:  # stdout can't be written
        raise
    except Exception as error:
        say(f"AWS's answer has an unforeseen form: {reason_of(error)}; {run.if_stopped}")
    return 1


if __name__ == "__main__":
    command.run(main)
