#!/usr/bin/env python3
"""Publish a state to a deployed stack, list what was published, or take a state back. No deployment is needed.

FILE is a state that scripts/build_state.py made, e.g. inference/model/incident_cls.pt. It is refused if the deployed
model can't use it. It is also refused in these cases, unless --force is given: it lacks more than 10 % of the served
incidents; its data is older than that of the served state; a rollback has taken it or a later snapshot back; it is made
of AIID's snapshot, and the served state of other records; it is of a database of another name.
The vectors that build_state.py keeps are published with it, so that the next build elsewhere needn't compute them.

--rollback publishes an earlier state again: that of VERSION, or the newest earlier one that no rollback has taken back.
All states newer than that one count as taken back. Give it twice to go back two states.
After both, the command waits up to two minutes until the API answers with the state.

--fetch-state writes the state that is served to a file, so that a deployment from this machine keeps it. If a model
lies beside the file, it must be able to use the state. The exit code is 3 if there is no such state: the stack isn't
there, nothing is served yet, or the state is of another model. Then build one.

The stack is the one that --stack or STACK_NAME names. Its region is AWS_REGION or AWS_DEFAULT_REGION. Both variables
may also be in .env; those of the environment come first. If the API was deployed with API_AUTH=iam, the command signs
its requests with the same credentials.

Examples:
    python scripts/publish_state.py inference/model/incident_cls.pt
    python scripts/publish_state.py --list
    python scripts/publish_state.py --rollback
    python scripts/publish_state.py --fetch-state inference/model/incident_cls.pt
"""

from __future__ import annotations

from shared import command
from shared.command import ROOT, argument_parser, writing_stdout

import argparse
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aws.remedies import remedy_of
from aws.settings import SettingError, model_uri_of, region_of, require_stack_name, stack_name_of
from aws.stack import NoStackError, StackError, find_stack
from publishing.api import WAIT_S, Answer, client, health, wait_for
from publishing.fetching import NothingToFetchError, fetch_served
from publishing.tables import compared, listed
from similarity.errors import ModelError, StateError
from similarity.inbox.bucket import Bucket, InboxError, s3_client
from similarity.inbox.checks import (
    RefusedError,
    require_about_as_many,
    require_most_incidents,
    require_not_held,
    require_not_older,
    require_same_collection,
    require_same_kind,
    served_state,
)
from similarity.inbox.history import RollbackError, current_of, ends_in_nonsense, released, rollback
from similarity.inbox.notes import Hold, Served
from similarity.inbox.publications import (
    publications,
    publish,
    publish_again,
    read_facts,
    require_size,
)
from similarity.incidents.facts import StateFacts
from similarity.incidents.ranking import Ranking
from similarity.incidents.state import IncidentState, state_version
from similarity.refresh.bucket_store import fetch_vectors, share_vectors
from similarity.refresh.vector_store import StoreError
from similarity.settings import DEFAULT_STACK_NAME
from smoke.api_client import Api, NotSignedError
from states.building import STORE_FILENAME

CACHE_DIR = ROOT / ".cache"
# The exit code of --fetch-state if there is no state to fetch.
NOTHING_TO_FETCH = 3


class PublishError(Exception):
    """Nothing was published, or the API doesn't answer with it. The message is one sentence."""


@dataclass
class Run:
    """A run of this command. if_stopped: how far it is, for Ctrl-C and errors."""

    api: Api
    bucket: Bucket
    if_stopped: str = "nothing was published."

    def served(self) -> Served:
        served = Served.read(self.bucket)
        if served is None:
            raise PublishError(
                f"s3://{self.bucket.name} has no served.json, so the deployed model isn't known: the job shelve_state "
                "writes it in a deployment; deploy this version, and look at the job's log if it is still missing"
            )
        return served


def say(message: str) -> None:
    print(f"publish_state: {message}", file=sys.stderr)


@contextmanager
def checked(file: Path) -> Iterator[tuple[Path, IncidentState, StateFacts]]:
    """A copy of the state, so that the state that is published is the one that was checked. Raises PublishError."""
    with tempfile.TemporaryDirectory(prefix="state-") as folder:
        path = Path(folder, "state.pt")
        try:
            shutil.copyfile(file, path)
            require_size(path.stat().st_size)
            state = IncidentState.load(path)
            facts = state.facts(state_version(path))
            Ranking(state, facts.version).most_similar(state.means[0], 1)
        except StateError as error:
            reason = error.detail.replace(str(path), str(file))
            raise PublishError(f"{reason}; scripts/build_state.py makes a state") from error
        yield path, state, facts


def require_wanted(run: Run, served: Served, hold: Hold, state: IncidentState, facts: StateFacts, force: bool) -> None:
    """Raises PublishError for a state that may be a mistake, unless it is forced."""

    def require_no_loss() -> None:
        before = served_state(run.bucket, served)
        if before:
            require_most_incidents(state, before)
        else:
            require_about_as_many(facts, served.state)

    checks: tuple[Callable[[], None], ...] = (
        lambda: require_same_kind(facts, served.state),
        lambda: require_same_collection(facts, served.state),
        lambda: require_not_held(facts, hold),
        lambda: require_not_older(facts, served.state),
        require_no_loss,
    )
    for check in checks:
        try:
            check()
        except RefusedError as error:
            if not force:
                raise PublishError(f"refused: {error} If it is right, give --force.") from error
            say(f"forced, although {error}")


def publish_file(run: Run, file: Path, store: Path, force: bool) -> int:
    served = run.served()
    with checked(file) as (path, state, facts):
        try:
            served.deployed.require_usable(facts)
        except StateError as error:
            raise PublishError(
                f"refused: {error.detail}. A state of another model or limit of tokens comes with a deployment "
                "(npx aws-cdk@2 deploy)."
            ) from error
        hold = Hold.read(run.bucket)
        is_held = facts.version in hold.versions
        history = publications(run.bucket)
        current = current_of(history, served.deployed)
        is_current = current is not None and current.facts is not None and current.facts.version == facts.version
        # A rollback that was killed leaves the current state held.
        if not is_current or (is_held and not force):
            require_wanted(run, served, hold, state, facts, force)
        # The store goes first, also for a state that came with a deployment. If this is killed in between, the bucket
        # has more vectors, which do no harm. In the other order, a refresh would find a state whose vectors it has to
        # compute again.
        publish_vectors(run, store)
        if is_current and served.state.version == facts.version and not ends_in_nonsense(history):
            print(f"{facts.version} is served already; the state wasn't published again.", flush=True)
        else:
            run.if_stopped = "--list shows whether the state was published."
            publish(run.bucket, path)
            say_again(served.state, facts)
        if is_held:
            # Afterwards: a rollback after a kill in between would else choose this version, as one that isn't held.
            released(Hold.read(run.bucket), facts.version, history).write(run.bucket)
    return wait_and_report(run, served.state, facts)


def publish_vectors(run: Run, store: Path) -> None:
    """Adds the vectors of this machine to the bucket. A damaged store of this machine doesn't stop a publication."""
    if not store.is_file():
        return
    try:
        found = share_vectors(run.bucket, store)
    except StoreError as error:
        say(f"the vectors aren't published: {error}")
        return
    if found.damage:
        say(f"the bucket's store of vectors was damaged and has been replaced by this machine's: {found.damage}")
    if found.vectors:
        print(f"Vectors: {found.vectors} published that the bucket lacked", flush=True)


def roll_back(run: Run, version: str) -> int:
    served = run.served()
    hold = Hold.read(run.bucket)
    history = publications(run.bucket)
    found = rollback(history, served.deployed, hold, version)
    target = found.target.facts
    assert target
    is_newest = found.target is found.current and not ends_in_nonsense(history)
    if found.target is found.current and not is_newest:
        say(f"the newest publication isn't a usable state; {target.version}, which is served, replaces it")
    try:
        require_size(found.target.stored.size)
        if read_facts(run.bucket, found.target.stored).version != target.version:
            raise StateError("its file has changed")
    except StateError as error:
        raise PublishError(
            f"{target.version} can't be published again: {error.detail}; go to another with --rollback VERSION"
        ) from error
    # hold.json goes first. Else a refresh in between could publish the bad snapshot again, as if it were newer.
    run.if_stopped = "if --list doesn't show the state as published, give the same command again to finish."
    if found.hold != hold:
        found.hold.write(run.bucket)
    if not is_newest:
        publish_again(run.bucket, found.target)
        say_again(served.state, target)
    if found.released:
        found.released.write(run.bucket)
        print(f"{target.version} doesn't count as taken back any more.", flush=True)
    return wait_and_report(run, served.state, target)


def say_again(before: StateFacts, new: StateFacts) -> None:
    """Otherwise the comparison says it."""
    if before.version == new.version:
        print(f"{new.version} is published again.", flush=True)


def wait_and_report(run: Run, before: StateFacts, new: StateFacts) -> int:
    """Waits for the API, and prints both states if they differ. Raises PublishError if the API answers with another."""
    run.if_stopped = f"{new.version} is published; the API follows by itself. --list shows what is served."
    answer = health(run.api)
    if answer.version != new.version and not answer.is_refused:
        say(f"{new.version} is published; waiting up to {WAIT_S:.0f} s until the API answers with it ...")
        answer = wait_for(run.api, new.version)
    if before.version != new.version:
        with writing_stdout("publish_state"):
            print(compared(before, new))
    if answer.version != new.version:
        raise PublishError(not_switched(run, answer, new.version))
    return 0


def not_switched(run: Run, answer: Answer, version: str) -> str:
    """Says where to look."""
    if answer.is_refused:
        return (
            f"{version} is published, but the API doesn't tell whether it answers with it: {answer.problem}; the "
            "permission execute-api:Invoke is needed (docs/publishing.md#permissions). --list shows what is served."
        )
    try:
        served = Served.read(run.bucket)
    except InboxError:
        served = None
    says = f"it answers with {answer.version}" if answer.version else answer.problem
    if served and served.state.version == version:
        where = "The job shelve_state has put it on the shelf: look at the log of the API's functions"
    else:
        where = "The job shelve_state hasn't put it on the shelf: look at its log group and its dead-letter queue"
    return (
        f"{version} is published, but the API doesn't answer with it after {WAIT_S:.0f} s: {says}. {where} "
        "(docs/publishing.md#if-the-api-doesnt-switch)."
    )


def list_states(run: Run) -> int:
    served, hold = Served.read(run.bucket), Hold.read(run.bucket)
    if served is None:
        say("there is no served.json yet, so no state is marked as served or as one of another model")
    history = publications(run.bucket)
    with writing_stdout("publish_state"):
        print(listed(history, served, hold) if history else "Nothing has been published or deployed yet.")
    return 0


def fetch(run: Run, store: Path) -> int:
    run.if_stopped = "the vectors of this machine are as they were; give the same command again."
    try:
        found = fetch_vectors(run.bucket, store)
    except StoreError as error:
        raise PublishError(str(error)) from error
    if found.damage:
        say(f"the bucket's store of vectors is damaged; the next publication replaces it: {found.damage}")
    with writing_stdout("publish_state"):
        print(
            f"{store}: {found.vectors} vectors from the bucket" if found.is_there else "The bucket has no vectors yet."
        )
    return 0


def fetch_state(run: Run, path: Path) -> int:
    run.if_stopped = f"{path} is as it was."
    try:
        facts = fetch_served(run.bucket, path, model_uri_of(os.environ, ROOT / ".env"))
    except NothingToFetchError as error:
        say(str(error))
        return NOTHING_TO_FETCH
    except ModelError as error:
        raise PublishError(f"the model in {path.parent} can't be used: {error.detail}") from error
    with writing_stdout("publish_state"):
        print(f"{path}: {facts.version}, {facts.incidents} incidents, {facts.reports} reports, as it is served")
    return 0


def _version(value: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{4,16}", value):
        raise argparse.ArgumentTypeError(f"{value!r} isn't a version such as 0123456789abcdef; --list shows them")
    return value


def _parsed(argv: list[str] | None) -> argparse.Namespace:
    """Exits with 2 if the arguments can't be used."""
    parser = argument_parser(__doc__)
    parser.add_argument("file", type=Path, nargs="?", metavar="FILE", help="state to publish")
    parser.add_argument("--list", action="store_true", help="list what was published and deployed, newest first")
    parser.add_argument(
        "--rollback",
        type=_version,
        nargs="?",
        const=True,
        metavar="VERSION",
        help="publish an earlier state again (default: the newest that no rollback has taken back)",
    )
    parser.add_argument(
        "--fetch-vectors", action="store_true", help="add the bucket's vectors to those of this machine"
    )
    parser.add_argument("--fetch-state", type=Path, metavar="FILE", help="write the state that is served to FILE")
    parser.add_argument("--force", action="store_true", help="publish FILE although it may be a mistake, see below")
    parser.add_argument(
        "--stack",
        type=require_stack_name,
        metavar="NAME",
        help=f"name of the stack (default: STACK_NAME, else {DEFAULT_STACK_NAME})",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=CACHE_DIR,
        metavar="FOLDER",
        help="folder in which scripts/build_state.py keeps vectors (default .cache)",
    )
    args = parser.parse_args(argv)
    given = [bool(args.file), args.list, args.rollback is not None, args.fetch_vectors, bool(args.fetch_state)]
    if sum(given) != 1:
        parser.error("give one of FILE, --list, --rollback, --fetch-vectors and --fetch-state")
    if args.force and not args.file:
        parser.error("--force is for FILE")
    if args.file and not args.file.is_file():
        parser.error(f"there is no file {args.file}")
    if args.fetch_state and (args.fetch_state.is_dir() or not args.fetch_state.parent.is_dir()):
        parser.error(f"{args.fetch_state} must be a file in a folder that exists")
    return args


def _do(args: argparse.Namespace, run: Run) -> int:
    store = args.cache / STORE_FILENAME
    if args.list:
        return list_states(run)
    if args.fetch_vectors:
        return fetch(run, store)
    if args.fetch_state:
        return fetch_state(run, args.fetch_state)
    if args.rollback is not None:
        return roll_back(run, "" if args.rollback is True else args.rollback)
    return publish_file(run, args.file, store, args.force)


def main(argv: list[str] | None = None) -> int:
    args = _parsed(argv)
    run: Run | None = None
    try:
        region = region_of(os.environ, ROOT / ".env")
        stack = find_stack(args.stack or stack_name_of(os.environ, ROOT / ".env"), region)
        run = Run(client(stack, region), Bucket(stack.bucket, s3_client(region)))
        return _do(args, run)
    except KeyboardInterrupt:
        print(f"\npublish_state: stopped; {run.if_stopped if run else 'nothing was done.'}", file=sys.stderr)
    except NoStackError as error:
        say(str(error))
        return NOTHING_TO_FETCH if args.fetch_state else 1
    except (PublishError, RollbackError, StackError, SettingError, NotSignedError) as error:
        say(str(error))
    except InboxError as error:
        remedy = remedy_of(error.__cause__)
        say(f"{error}{f'; {remedy}' if remedy else ''}; {run.if_stopped if run else 'nothing was done.'}")
    except OSError as error:
        say(f"{error.filename or args.file or args.cache / STORE_FILENAME}: {error.strerror or error}")
    return 1


if __name__ == "__main__":
    command.run(main)
