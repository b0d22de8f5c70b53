"""Chooses the state to serve: the newest on the shelf that this process can use.

A look at the shelf runs in a thread. So a request waits at most WAIT_S, even if the file system hangs. A new state is
copied to this process's own disk, compared with the hash in its name, and tried. Only then is it served. An unusable
state is refused with one line in the log. It is tried again after growing pauses.

If anything goes wrong, the last good state is still served. Without one, the caller serves the image's own state.
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
from similarity.metrics import Metric, write_metrics
from similarity.shelf.usable import tried
from similarity.shelf.versions import STATE_FILENAME, STATES, copy_hashed, digest_in, state_names

log = logging.getLogger(__name__)

# A process in use looks every LOOK_S. If its last look is older than STALE_S, a request waits for a new one.
LOOK_S, STALE_S = 10.0, 60.0
# A request waits so long for a look.
WAIT_S = 1.0
# The pauses before a refused state is tried again: the first, and the longest.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 10.0, 3600.0


@dataclass(frozen=True)
class _Refused:
    """A state that couldn't be used. until: the time of the next try. pause_s: how long it waits for that."""

    until: float
    pause_s: float


class ServedState:
    """The state that this process serves. Safe to use from several threads.

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
        # Wall-clock time, because the monotonic clock may stop while a Lambda is frozen.
        self._looked_at: float | None = None
        self._look = _done()
        self._is_waited_for = True

    def look(self) -> Look:
        """Call this when a request begins. It starts a look if one is due, and returns at once."""
        with self._lock:
            age_s = float("inf") if self._looked_at is None else abs(time.time() - self._looked_at)
            if self._look.is_set() and age_s >= LOOK_S:
                self._look, self._is_waited_for = Event(), True
                Thread(target=self._run, args=(self._look,), name="shelf", daemon=True).start()
            waits = age_s > STALE_S and self._is_waited_for
            return Look(self, self._look if waits else _done(), time.monotonic() + WAIT_S)

    def newest(self) -> Ranking | None:
        """The newest usable state that a look has found; None without one."""
        return self._ranking

    def give_up(self, look: Event) -> None:
        """Makes further requests not wait for this look, because it may hang for ever."""
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
        """Raises SimilarityError if the state is unusable, or OSError, e.g. if this process's own disk is full."""
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
        return tried(state, digest[:16])

    def _refuse(self, name: str, error: Exception) -> None:
        before = self._refused.get(name)
        pause_s = min(2 * before.pause_s, LONGEST_PAUSE_S) if before else FIRST_PAUSE_S
        self._refused[name] = _Refused(time.time() + pause_s, pause_s)
        if before is None:
            serves = self._name or "the image's own"
            log.error("state refused", extra={"state": name, "reason": reason_of(error), "serves": serves})
            write_metrics({Metric.STATES_REFUSED: 1})

    def _report(self, trouble: str) -> None:
        """Logs the same trouble only once until the shelf works again."""
        if trouble != self._trouble:
            self._trouble = trouble
            log.warning("shelf unavailable", extra={"reason": trouble, "serves": self._name or "the image's own"})


@dataclass(frozen=True)
class Look:
    """A look at the shelf, from the view of one request."""

    states: ServedState
    pending: Event
    deadline: float

    def newest(self) -> Ranking | None:
        """As `ServedState.newest`, after waiting for the end of a pending look, at most until the deadline."""
        if not self.pending.wait(max(0.0, self.deadline - time.monotonic())):
            self.states.give_up(self.pending)
        return self.states.newest()


def _done() -> Event:
    event = Event()
    event.set()
    return event
