"""Work in threads that nobody has to wait for, and times at which to do it again."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def in_background(work: Callable[[], T]) -> Future[T]:
    """Does `work` in a thread that the process can end without: an executor's would be waited for at the end."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, name="background", daemon=True).start()
    return future


class Timer:
    """Due at first, and again some seconds after it was set.

    By the clock on the wall: the monotonic one may stand still while a Lambda is frozen.
    """

    def __init__(self) -> None:
        self._set_at: float | None = None
        self._seconds = 0.0

    @property
    def was_set(self) -> bool:
        return self._set_at is not None

    def set(self, seconds: float) -> None:
        self._set_at, self._seconds = time.time(), seconds

    def is_due(self) -> bool:
        return self._set_at is None or abs(time.time() - self._set_at) >= self._seconds
