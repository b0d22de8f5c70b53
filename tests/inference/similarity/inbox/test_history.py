"""A rollback goes to an older usable state, takes the newer ones back, and can be killed and given again."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from published import DEPLOYED
from similarity.inbox.bucket import DEPLOYED_PREFIX, STATE_KEY, Stored
from similarity.inbox.history import Rollback, RollbackError, current_of, ends_in_nonsense, rollback
from similarity.inbox.notes import Hold
from similarity.inbox.publications import Publication
from similarity.incidents.facts import StateFacts

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


def facts(letter: str, *, day: int = 0, **changes: object) -> StateFacts:
    source = {"kind": "aiid-snapshot", "name": "backup", "date": f"2026-11-{day:02}T10:00:00Z"} if day else {}
    made = StateFacts(letter * 16, 20, 20, 4, model="tiny", model_fingerprint="f1", source=source)
    return replace(made, **changes)  # type: ignore[arg-type]


def publication(found: StateFacts | None, time: int = 0, *, deployed: bool = False) -> Publication:
    key = f"{DEPLOYED_PREFIX}{found.version}.pt" if deployed and found else STATE_KEY
    return Publication(Stored(key, str(time), LONG_AGO, 1), found, f"{time:04}")


A, B, C, D = (facts(letter) for letter in "abcd")
OTHER_MODEL, OTHER_LIMIT = facts("e", model_fingerprint="f2"), facts("f", max_tokens=64)
# Newest first.
ABC = [publication(C, 3), publication(B, 2), publication(A, 1)]


def versions(*found: StateFacts) -> frozenset[str]:
    return frozenset(each.version for each in found)


def version(found: Publication) -> str:
    assert found.facts
    return found.facts.version


def published(history: list[Publication], found: Rollback) -> list[Publication]:
    """The history after the rollback: its target is the newest."""
    return [publication(found.target.facts, len(history) + 1), *history]


def test_the_newest_usable_state_is_the_current_one() -> None:
    unusable = [publication(None, 9), publication(OTHER_MODEL, 8), publication(OTHER_LIMIT, 7)]
    assert current_of([*unusable, *ABC], DEPLOYED) is ABC[0]
    assert current_of(unusable, DEPLOYED) is None


def test_two_rollbacks_go_back_two_states() -> None:
    first = rollback(ABC, DEPLOYED, Hold())
    assert (first.current, first.target, first.hold) == (ABC[0], ABC[1], Hold(versions=versions(C)))
    second = rollback(published(ABC, first), DEPLOYED, first.hold)
    assert (version(second.target), second.hold.versions) == (A.version, versions(B, C))
    with pytest.raises(RollbackError, match=r"no earlier state .* no rollback has taken back; --list shows all"):
        rollback(published(published(ABC, first), second), DEPLOYED, second.hold)


def test_a_state_that_was_published_twice_is_not_earlier_than_itself() -> None:
    history = [publication(B, 4), publication(B, 3), publication(A, 2)]
    assert rollback(history, DEPLOYED, Hold()).target is history[2]


def test_states_that_the_deployed_image_can_not_use_are_passed_over_and_not_held() -> None:
    between = [publication(None, 9), publication(OTHER_MODEL, 8), publication(OTHER_LIMIT, 7)]
    found = rollback([between[1], ABC[0], *between, ABC[1]], DEPLOYED, Hold())
    assert found.target is ABC[1]
    assert found.hold.versions == versions(C)


def test_nonsense_that_was_published_last_is_taken_back_alone() -> None:
    history = [publication(None, 9), *ABC]
    for wanted in ("", C.version):
        found = rollback(history, DEPLOYED, Hold(), wanted)
        assert (found.target, found.hold) == (ABC[0], Hold())
    assert rollback(history, DEPLOYED, Hold(), A.version).hold.versions == versions(B, C)
    assert rollback(published(history, found), DEPLOYED, found.hold).target is ABC[1]


def test_nonsense_is_taken_back_alone_also_after_a_deployment() -> None:
    """The job shelve_state names this command as long as the newest publication is nonsense."""
    history = [publication(D, 9, deployed=True), publication(None, 8), *ABC]
    for wanted in ("", D.version):
        found = rollback(history, DEPLOYED, Hold(), wanted)
        assert (found.target, found.hold) == (history[0], Hold())
    assert rollback(published(history, found), DEPLOYED, found.hold).target is ABC[0]


def test_a_deployed_state_can_be_gone_back_to() -> None:
    history = [publication(B, 2), publication(A, 1, deployed=True)]
    assert rollback(history, DEPLOYED, Hold()).target is history[1]


def test_a_version_can_be_named_also_one_that_was_taken_back() -> None:
    back = rollback(ABC, DEPLOYED, Hold(), A.version)
    assert (back.target, back.hold.versions) == (ABC[2], versions(B, C))
    forward = rollback(published(ABC, back), DEPLOYED, back.hold, B.version)
    assert (forward.target, forward.hold, forward.released) == (ABC[1], back.hold, Hold(versions=versions(C)))
    again = rollback(published(published(ABC, back), forward), DEPLOYED, Hold(versions=versions(C)))
    assert (version(again.target), again.hold.versions) == (A.version, versions(B, C)), "A wasn't taken back"


def test_a_state_that_a_killed_rollback_has_left_held_can_be_released() -> None:
    killed = rollback(ABC, DEPLOYED, Hold()).hold
    found = rollback(ABC, DEPLOYED, killed, C.version)
    assert (found.target, found.current, found.released) == (ABC[0], ABC[0], Hold())


def test_the_date_of_the_hold_is_that_of_the_states_that_it_still_holds() -> None:
    dated = [publication(facts(letter, day=day), day) for letter, day in (("d", 9), ("c", 6), ("b", 3), ("a", 2))]
    back = rollback(dated, DEPLOYED, Hold(), "a" * 16)
    assert back.hold.source_date == "2026-11-09T10:00:00Z"
    history = published(dated, back)
    for version_, date in (("d" * 16, "2026-11-06T10:00:00Z"), ("b" * 16, "2026-11-09T10:00:00Z")):
        found = rollback(history, DEPLOYED, back.hold, version_)
        assert found.released
        assert found.released.source_date == date


def test_the_hold_keeps_the_latest_date_of_a_snapshot() -> None:
    other = facts("c", source={"kind": "csv", "name": "state.csv", "date": "2026-12-24T10:00:00Z"})
    history = [publication(facts("d", day=9), 4), publication(other, 3), publication(facts("b", day=16), 2), ABC[2]]
    first = rollback(history, DEPLOYED, Hold("2026-11-01T10:00:00Z"))
    assert first.hold.source_date == "2026-11-09T10:00:00Z"
    last = rollback(history, DEPLOYED, first.hold, A.version)
    assert last.hold == Hold("2026-11-16T10:00:00Z", versions(B, C, D))
    assert rollback(history, DEPLOYED, Hold("2026-12-01T10:00:00Z")).hold.source_date == "2026-12-01T10:00:00Z"


@pytest.mark.parametrize(
    ("history", "wanted", "problem"),
    [
        ([], "", "the bucket has no state that the deployed model can use"),
        ([publication(OTHER_MODEL)], "", "the bucket has no state that the deployed model can use"),
        (ABC[:1], "", "there is no earlier state"),
        (ABC, C.version, "cccccccccccccccc is already the newest state"),
        (ABC, "bbbb", "no usable state of the version bbbb; did you mean bbbbbbbbbbbbbbbb"),
        (ABC, "bbbbbbbbbbbbbbbc", "did you mean bbbbbbbbbbbbbbbb[?] --list shows all"),
        (ABC, "0123456789abcdef", "of the version 0123456789abcdef; --list shows all"),
        ([*ABC, publication(OTHER_MODEL)], OTHER_MODEL.version, "another model .*; or deploy the image that"),
        ([*ABC, publication(OTHER_LIMIT)], OTHER_LIMIT.version, "cut at 64 tokens.*; or deploy the image that"),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else None,
)
def test_it_says_why_there_is_nothing_to_go_back_to(history: list[Publication], wanted: str, problem: str) -> None:
    with pytest.raises(RollbackError, match=problem):
        rollback(history, DEPLOYED, Hold(), wanted)


# Anything that can happen to a bucket: a publication or a deployment of a state, usable or not, and rollbacks. A
# rollback to a letter names that version.
STATES = [facts(letter, day=day) for letter, day in zip("01234567", (0, 3, 2, 5, 1, 9, 4, 8), strict=True)]
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.sampled_from([*STATES, OTHER_MODEL, OTHER_LIMIT, None])),
        st.tuples(st.just("deploy"), st.sampled_from([*STATES, OTHER_MODEL])),
        st.tuples(st.just("roll back"), st.sampled_from([None, None, None, *STATES])),
        st.tuples(st.just("killed rollback"), st.sampled_from([None, *STATES])),
    ),
    max_size=12,
)


def happened(
    history: list[Publication], hold: Hold, event: tuple[str, StateFacts | None]
) -> tuple[list[Publication], Hold]:
    """History and hold after an event, of which everything is asserted that a rollback promises."""
    kind, what = event
    time = max((int(each.time) for each in history), default=10) + 2
    if kind == "publish":
        return [publication(what, time), *history], hold
    if kind == "deploy":
        # It may have been built before the newest one was published.
        return sorted([*history, publication(what, time - 3, deployed=True)], key=lambda each: each.time)[::-1], hold
    wanted = what.version if what else ""
    try:
        found = rollback(history, DEPLOYED, hold, wanted)
    except RollbackError:
        return history, hold
    target, place = found.target, [each is found.target for each in history].index(True)
    assert target.facts
    assert DEPLOYED.can_use(target.facts)
    assert wanted in ("", version(target))
    nonsense = ends_in_nonsense(history)
    assert wanted or nonsense or version(target) not in hold.versions
    newer = {version(each) for each in history[:place] if each.facts and DEPLOYED.can_use(each.facts)}
    assert (version(found.current) in newer) == (target is not found.current)
    if target is found.current:
        assert nonsense or version(target) in hold.versions
        assert nonsense or wanted
    if version(target) in hold.versions:
        newer = set()
        assert found.released
        assert found.released.versions == hold.versions - {version(target)}
    assert found.hold.versions == hold.versions | newer
    dates = {each.facts.source.get("date", "") for each in history[:place] if each.facts and version(each) in newer}
    assert found.hold.source_date == max({hold.source_date, *dates})
    # Killed after hold.json was written, and given again.
    assert rollback(history, DEPLOYED, found.hold, wanted) == found
    if kind == "killed rollback":
        return history, found.hold
    history = [publication(target.facts, time), *history]
    current = current_of(history, DEPLOYED)
    assert current
    assert version(current) == version(target)
    return history, found.released or found.hold


@pytest.mark.slow
@given(EVENTS)
def test_whatever_happened_a_rollback_keeps_its_promises(events: list[tuple[str, StateFacts | None]]) -> None:
    history: list[Publication] = []
    hold = Hold()
    for event in events:
        history, hold = happened(history, hold, event)
    visited = []
    if ends_in_nonsense(history):
        history, hold = happened(history, hold, ("roll back", None))
    current = current_of(history, DEPLOYED)
    while current:
        visited.append(version(current))
        before = len(history)
        history, hold = happened(history, hold, ("roll back", None))
        current = current_of(history, DEPLOYED) if len(history) > before else None
    assert len(visited) == len(set(visited))
