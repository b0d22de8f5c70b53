"""Callers that ask all the time, each with its own requests, and what they noted of the answers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Any

import requests

from load.mixture import Ask, mixture
from processes import PATIENCE_S


@dataclass(frozen=True)
class Answered:
    """at_s: when the answer came, by the monotonic clock. took_s: since the request was sent."""

    ask: Ask
    status: int
    at_s: float
    took_s: float


@dataclass
class Callers:
    """answered: of all of them. wrong: a sentence for each answer that may not come. versions: of states, as told."""

    answered: list[Answered] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    versions: set[str] = field(default_factory=set)

    def run(self, url: str, seed: int, dimension: int, end: Event) -> None:
        for ask in mixture(seed, dimension):
            if end.is_set():
                return
            start_s = time.monotonic()
            try:
                # A connection of its own for each, so that none is closed for being idle on a busy machine.
                response = requests.request(
                    ask.method, url + ask.path, data=ask.body, headers=ask.headers, timeout=PATIENCE_S
                )
            except requests.RequestException as error:
                self.wrong.append(f"{ask.kind}: {type(error).__name__}: {error}")
                continue
            now_s = time.monotonic()
            self.answered.append(Answered(ask, response.status_code, now_s, now_s - start_s))
            if trouble := self._trouble(ask, response):
                self.wrong.append(f"{ask.kind}: {trouble}: {response.text[:300]}")

    def _trouble(self, ask: Ask, response: requests.Response) -> str:
        if response.status_code != ask.status:
            return f"{response.status_code} instead of {ask.status}"
        if ask.status == 404:  # API Gateway's own
            return ""
        try:
            envelope: dict[str, Any] = response.json()
            if envelope["statusCode"] != ask.status:
                return "the envelope has another status"
            if "state" in envelope["body"]:
                self.versions.add(envelope["body"]["state"]["version"])
            is_error = str(envelope["body"].get("msg", "")).startswith("Error!")
        except (ValueError, KeyError, TypeError) as error:
            return f"no envelope ({error!r})"
        return "" if is_error == (ask.status == 400) else "a message that doesn't fit the status"

    def between(self, start_s: float, end_s: float) -> list[Answered]:
        """The answers that came in that time."""
        return [each for each in list(self.answered) if start_s <= each.at_s < end_s]

    def kinds(self) -> Counter[str]:
        return Counter(each.ask.kind for each in list(self.answered))


@contextmanager
def asking(url: str, dimension: int, callers: int) -> Iterator[Callers]:
    """dimension: of vectors to send."""
    all_of_them, end = Callers(), Event()
    with ExitStack() as stack:
        for seed in range(callers):
            thread = Thread(target=all_of_them.run, args=(url, seed, dimension, end))
            thread.start()
            stack.callback(thread.join)
        stack.callback(end.set)
        yield all_of_them
