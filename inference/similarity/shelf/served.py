"""Which state is served: the newest on the shelf that this process can use.

A look at the shelf runs in a thread, so that a file system that hangs keeps no request waiting for longer than WAIT_S.
A new state is copied to this process's own disk, compared with the hash in its name, tried, and only then served. A
state that can't be used is refused, with one line in the log, and tried again after pauses that grow. Whatever goes
wrong, the last state that worked is served on. A process that never had one serves the image's own, which is left to
the caller.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock, Thread

from similarity.errors import SimilarityError, StateError, reason_of
from similarity.incidents.ranking import Ranking
from similarity.incidents.state import IncidentState
from similarity.shelf.versions import STATE_FILENAME, STATES, copy_hashed, digest_in, state_names

log = logging.getLogger(__name__)

# How often a process that is in use looks; how old its last look may be before a request waits for a new one.
LOOK_S, STALE_S = 10.0, 60.0
# How long a request waits for a look.
WAIT_S = 1.0
# How long a refused state is left alone at first, and at most.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 10.0, 3600.0


@dataclass(frozen=True)
class _Refused:
    """A state that could not be used: until when it is left alone, and for how long that was."""

    until: float
    pause_s: float


class ServedState:
    """Safe to use from several threads.

    shelf: the folder that `similarity.shelf.versions` describes. check: raises SimilarityError for a state that this
    process can't use.
    """

    def __init__(self, shelf: Path, check: Callable[[IncidentState], None]) -> None:
        self._shelf = shelf
        self._check = check
        self._lock = Lock()
        self._name = ""
        self._ranking: Ranking | None = None
        self._refused: dict[str, _Refused] = {}
        self._trouble = ""
        # By the clock on the wall: the monotonic one may stand still while a Lambda is frozen.
        self._looked_at: float | None = None
        self._look = _done()
        self._is_waited_for = True

    def look(self) -> Look:
        """To be called when a request begins. Starts a look where one is due, and returns at once."""
        with self._lock:
            age_s = float("inf") if self._looked_at is None else abs(time.time() - self._looked_at)
            if self._look.is_set() and age_s >= LOOK_S:
                self._look, self._is_waited_for = Event(), True
                Thread(target=self._run, args=(self._look,), name="shelf", daemon=True).start()
            waits = age_s > STALE_S and self._is_waited_for
            return Look(self, self._look if waits else _done(), time.monotonic() + WAIT_S)

    def newest(self) -> Ranking | None:
        """The newest state that a look has found, ready to be searched; None where there was none."""
        return self._ranking

    def give_up(self, look: Event) -> None:
        """No further request waits for this look: it may hang for ever."""
        with self._lock:
            if look is self._look:
                self._is_waited_for = False
        self._report(f"no answer within {WAIT_S:g} s")

    def _run(self, look: Event) -> None:
        try:
            self._take_newest()
        except OSError as error:
            self._report(reason_of(error))
        except Exception:
            log.exception("looking at the shelf failed")
        else:
            self._trouble = ""
        finally:
            self._looked_at = time.time()
            look.set()

    def _take_newest(self) -> None:
        names = state_names(self._shelf)
        self._refused = {name: self._refused[name] for name in names if name in self._refused}
        for name in names:
            if name == self._name:
                return
            if name in self._refused and time.time() < self._refused[name].until:
                continue
            try:
                ranking = self._load(name)
            except (SimilarityError, OSError) as error:
                self._refuse(name, error)
                continue
            self._refused.pop(name, None)
            self._name, self._ranking = name, ranking
            log.info("state served", extra={"state": name, "incidents": len(ranking.state)})
            return

    def _load(self, name: str) -> Ranking:
        """Raises OSError, also where this process's own disk is full, or SimilarityError for a state of no use."""
        descriptor, copy_name = tempfile.mkstemp(prefix="state-")
        os.close(descriptor)
        copy = Path(copy_name)
        try:
            digest = copy_hashed(self._shelf / STATES / name / STATE_FILENAME, copy)
            if digest[:16] != digest_in(name):
                raise StateError(f"the state {name} is damaged: the SHA-256 of its file begins with {digest[:16]}")
            state = IncidentState.load(copy)
        finally:
            copy.unlink()
        self._check(state)
        ranking = Ranking(state, digest[:16])
        ranking.most_similar(state.means[0], 1)
        return ranking

    def _refuse(self, name: str, error: Exception) -> None:
        before = self._refused.get(name)
        pause_s = min(2 * before.pause_s, LONGEST_PAUSE_S) if before else FIRST_PAUSE_S
        self._refused[name] = _Refused(time.time() + pause_s, pause_s)
        if before is None:
            serves = self._name or "the image's own"
            log.error("state refused", extra={"state": name, "reason": reason_of(error), "serves": serves})

    def _report(self, trouble: str) -> None:
        """Once, until the shelf works again."""
        if trouble != self._trouble:
            self._trouble = trouble
            log.warning("shelf unavailable", extra={"reason": trouble, "serves": self._name or "the image's own"})


@dataclass(frozen=True)
class Look:
    """A request's view of the shelf."""

    states: ServedState
    pending: Event
    deadline: float

    def newest(self) -> Ranking | None:
        """As `ServedState.newest`, once the look has ended that this request has to wait for, or its second has."""
        if not self.pending.wait(max(0.0, self.deadline - time.monotonic())):
            self.states.give_up(self.pending)
        return self.states.newest()


def _done() -> Event:
    event = Event()
    event.set()
    return event
