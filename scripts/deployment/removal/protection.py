"""Lifts the protection of a stack from removal, and puts it back if the removal doesn't begin."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Never

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from aws.remedies import explained
from aws.stack import CONFIG, NoStackError, StackError, described
from deployment import cdk
from deployment.removal.contents import Contents
from similarity.errors import reason_of


class ProtectionError(Exception):
    """The protection can't be lifted. The message is one sentence."""


def protect(stack: Contents, on: bool) -> None:
    """Raises ClientError or BotoCoreError."""
    client = boto3.client("cloudformation", region_name=stack.region, config=CONFIG)
    client.update_termination_protection(StackName=stack.id, EnableTerminationProtection=on)


@contextmanager
def unprotected(stack: Contents, say: Callable[[str], None]) -> Iterator[None]:
    """Lifts a stack's protection. At the end, a stack whose removal hasn't begun is protected again.

    say: tells the user of it. Raises ProtectionError.
    """
    if not stack.is_protected:
        yield
        return
    with raising_signals():
        try:
            try:
                protect(stack, on=False)
            except (ClientError, BotoCoreError) as error:
                raise ProtectionError(f"the protection can't be lifted: {explained(error)}") from error
            yield
        finally:
            protect_again(stack, say)


@contextmanager
def raising_signals() -> Iterator[None]:
    """Meanwhile, a closed terminal and `kill` raise KeyboardInterrupt. Otherwise they would end this process at once.

    A signal that is ignored stays so, as with `nohup`.
    """
    before = {
        number: signal.signal(number, _stop)
        for number in (signal.SIGHUP, signal.SIGTERM)
        if signal.getsignal(number) is signal.SIG_DFL
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> Never:
    del number, frame
    raise cdk.Terminated


def protect_again(stack: Contents, say: Callable[[str], None]) -> None:
    try:
        found = described(stack.id, stack.region)
        if not found["StackStatus"].startswith("DELETE_") and not found.get("EnableTerminationProtection"):
            protect(stack, on=True)
            say("the stack is protected again")
    except NoStackError:
        return
    except (Exception, KeyboardInterrupt) as error:
        say(
            f"the stack may be without its protection: {_reason(error)}. This command puts it back: aws cloudformation "
            f"update-termination-protection --region {stack.region} --stack-name {stack.name} "
            "--enable-termination-protection"
        )
        if isinstance(error, KeyboardInterrupt):
            raise


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "stopped"
    return explained(error) if isinstance(error, ClientError | BotoCoreError | StackError) else reason_of(error)
