"""What a process makes once is made once, however many threads ask first."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from similarity import service as service_module
from similarity.once import Once
from similarity.service import Service, service
from similarity.settings import Settings
from tiny import Deployed


def test_it_is_made_when_first_asked_for_and_once() -> None:
    made: list[int] = []

    def make() -> int:
        made.append(1)
        return len(made)

    once = Once(make)
    assert made == []
    assert [once(), once()] == [1, 1]
    once.cache_clear()
    assert once() == 2


@pytest.mark.parametrize("value", [None, 0, ""])
def test_a_value_that_is_false_is_made_once_too(value: object) -> None:
    made: list[int] = []

    def make() -> object:
        made.append(1)
        return value

    once = Once(make)
    assert [once(), once()] == [value, value]
    assert made == [1]


def test_what_could_not_be_made_is_tried_again() -> None:
    errors = [ValueError("for now")]

    @Once
    def make() -> int:
        if errors:
            raise errors.pop()
        return 1

    with pytest.raises(ValueError, match="for now"):
        make()
    assert make() == 1


def test_simultaneous_first_requests_share_one_service(deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = 8
    barrier, may_go_on, made = threading.Barrier(threads), threading.Event(), []

    class SlowService(Service):
        def __init__(self, settings: Settings) -> None:
            made.append(self)
            may_go_on.wait(0.2)  # time for the other threads to ask as well
            super().__init__(settings)

    monkeypatch.setattr(service_module, "Service", SlowService)

    def ask() -> Service:
        barrier.wait()
        return service()

    with ThreadPoolExecutor(threads) as pool:
        found = [answer.result() for answer in [pool.submit(ask) for _ in range(threads)]]
    assert len(made) == 1
    assert set(found) == set(made)
