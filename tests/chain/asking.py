"""Callers that ask a server all the time, each on a route, and note what answers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from threading import Event, Thread
from typing import Any

import requests

from processes import PATIENCE_S, wait_until

# Callers leave the machine some time for the rest of the chain.
PAUSE_S = 0.02


@dataclass
class Caller:
    """Sends the same request again and again. answers: the status and the state's version of each, in order."""

    url: str
    body: dict[str, Any] | None = None
    answers: list[tuple[int, str]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    last: dict[str, Any] = field(default_factory=dict)

    def run(self, end: Event) -> None:
        with requests.Session() as session:
            while not end.is_set():
                self.ask(session)
                time.sleep(PAUSE_S)

    def ask(self, session: requests.Session) -> None:
        try:
            if self.body is None:
                response = session.get(self.url, timeout=PATIENCE_S)
            else:
                response = session.post(self.url, json=self.body, timeout=PATIENCE_S)
            body = response.json()["body"]
            self.answers.append((response.status_code, body["state"]["version"]))
            self.last = body
        except (requests.RequestException, ValueError, KeyError, TypeError) as error:
            self.failures.append(f"{type(error).__name__}: {error}")

    def versions(self) -> list[str]:
        """The versions that answered, each as often as it began to answer."""
        return [version for version, _ in groupby(version for _, version in self.answers)]


@dataclass
class Callers:
    """Of one or several servers."""

    callers: Sequence[Caller]

    def wait_for(self, version: str) -> None:
        """Returns once a state of this version has answered all of them, after they have asked again."""
        before = [len(caller.answers) for caller in self.callers]

        def served() -> bool:
            self.require_no_failure()
            return all(
                len(caller.answers) > start and caller.answers[-1][1] == version
                for caller, start in zip(self.callers, before, strict=True)
            )

        wait_until(served, f"an answer of the state {version}")

    def require_no_failure(self) -> None:
        for caller in self.callers:
            assert not caller.failures, (caller.url, caller.failures)
            assert {status for status, _ in caller.answers} <= {200}, (caller.url, caller.answers)

    @property
    def count(self) -> int:
        return sum(len(caller.answers) for caller in self.callers)


@contextmanager
def asking(url: str, text: str, vector: Sequence[float]) -> Iterator[Callers]:
    """Two callers for each ranking route, one for the state."""
    callers = [
        *(Caller(f"{url}/similar", {"text": text, "num": -1}) for _ in range(2)),
        *(Caller(f"{url}/embed-to-db-similar", {"embed": json.dumps(list(vector)), "num": "3"}) for _ in range(2)),
        Caller(f"{url}/health"),
    ]
    end = Event()
    with ExitStack() as stack:
        for caller in callers:
            thread = Thread(target=caller.run, args=(end,))
            thread.start()
            stack.callback(thread.join)
        stack.callback(end.set)
        yield Callers(callers)
