"""Decides which state a rollback publishes again, and which states it takes back. It reads and writes nothing.

A history is the list that `similarity.inbox.publications` gives, newest on the shelf first. The current state is the
newest one that the deployed image can use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from similarity.errors import StateError
from similarity.inbox.notes import Deployed, Hold, snapshot_date_of
from similarity.inbox.publications import Publication

_HOW_TO_LIST = "--list shows all"


class RollbackError(Exception):
    """There is no state to go back to. The message is one sentence."""


@dataclass(frozen=True)
class Rollback:
    """current: the newest usable state. target: the state to publish again, which may be the current one.

    hold: to be written before that. released: to be written afterwards, because the target was held; None otherwise.
    The command can be killed between two steps. If it is given again, it decides the same, because the hold says of the
    target what it said before.
    """

    current: Publication
    target: Publication
    hold: Hold
    released: Hold | None = None


def current_of(history: Sequence[Publication], deployed: Deployed) -> Publication | None:
    return next((each for each in history if each.facts and deployed.can_use(each.facts)), None)


def ends_in_nonsense(history: Sequence[Publication]) -> bool:
    """Whether the newest publication isn't a usable state. Then the current one counts as an earlier one.

    A deployed state isn't a publication: one that was built later doesn't replace the nonsense in the bucket.
    """
    newest = next((each for each in history if not each.is_deployed), None)
    return newest is not None and newest.facts is None


def rollback(history: Sequence[Publication], deployed: Deployed, hold: Hold, version: str = "") -> Rollback:
    """The rollback to `version`, or "" for the newest earlier state that wasn't taken back. Raises RollbackError.

    It takes back all usable states that were published after the target. But if the target was taken back itself, it
    was good after all. The rollback then only releases it. If the newest publication isn't a usable state, the rollback
    takes back that one alone.
    """
    current = current_of(history, deployed)
    if current is None or current.facts is None:
        raise RollbackError("the bucket has no state that the deployed model can use")
    if version:
        target = _named(history, deployed, version)
        if version == current.facts.version:
            # A rollback that was killed has left the current state held.
            target = current
        if target is current and version not in hold.versions and not ends_in_nonsense(history):
            raise RollbackError(f"{version} is already the newest state; {_HOW_TO_LIST}")
    elif ends_in_nonsense(history) and current.facts.version not in hold.versions:
        target = current
    else:
        target = _earlier(history, deployed, current.facts.version, hold)
    assert target.facts
    if target.facts.version in hold.versions:
        return Rollback(current, target, hold, released=released(hold, target.facts.version, history))
    newer = history[: next(place for place, each in enumerate(history) if each is target)]
    for each in newer:
        if each.facts and deployed.can_use(each.facts):
            hold = hold.with_taken_back(each.facts)
    return Rollback(current, target, hold)


def released(hold: Hold, version: str, history: Sequence[Publication]) -> Hold:
    """The hold without a version that was published again. Its date is that of the states that it still holds."""
    versions = hold.versions - {version}
    held = (each.facts for each in history if each.facts and each.facts.version in versions)
    return Hold(max(map(snapshot_date_of, held), default=""), versions)


def _earlier(history: Sequence[Publication], deployed: Deployed, current: str, hold: Hold) -> Publication:
    for each in history:
        if (
            each.facts
            and each.facts.version != current
            and each.facts.version not in hold.versions
            and deployed.can_use(each.facts)
        ):
            return each
    raise RollbackError(
        "there is no earlier state of the deployed model and limit of tokens that no rollback has taken back; "
        f"{_HOW_TO_LIST}, and --rollback VERSION goes to any of them"
    )


def _named(history: Sequence[Publication], deployed: Deployed, version: str) -> Publication:
    for each in history:
        if each.facts and each.facts.version == version:
            try:
                deployed.require_usable(each.facts)
            except StateError as error:
                raise RollbackError(
                    f"the deployed image can't use {version}: {error.detail}; or deploy the image that belongs to it"
                ) from error
            return each
    known = list(dict.fromkeys(each.facts.version for each in history if each.facts))
    near = [each for each in known if each.startswith(version)] or get_close_matches(version, known)
    found = f"did you mean {' or '.join(near)}? " if near else ""
    raise RollbackError(f"the bucket has no usable state of the version {version}; {found}{_HOW_TO_LIST}")
