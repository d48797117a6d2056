"""The circuit breaker: how long a queue is left alone, and how often one is warned."""

from __future__ import annotations

import time

import pytest

from jobs import backoff
from jobs.transports.breaker import Breaker


def pause(breaker: Breaker, queue: str = "sick") -> float:
    trials = {breaker.next_trial()}
    ((found, retry_at),) = (trial for trial in trials if trial is not None)
    assert found == queue
    return retry_at - time.monotonic()


def test_queue_that_failed_is_left_alone_and_no_other() -> None:
    breaker = Breaker(first=10, longest=100)

    breaker.trip("sick", "it is full")

    assert not breaker.allows("sick")
    assert breaker.allows("well")
    assert breaker.reasons == {"sick": "it is full"}


def test_pauses_grow_up_to_the_longest() -> None:
    breaker = Breaker(first=10, longest=30)

    for bound in (10, 20, 30, 30):
        breaker.trip("sick", "it is full")
        assert bound / 4 - 1 < pause(breaker) <= bound


def test_queue_that_did_part_of_its_work_starts_with_the_shortest_pause() -> None:
    breaker = Breaker(first=10, longest=1000)
    for _ in range(5):
        breaker.trip("sick", "it is full")

    breaker.trip("sick", "it is full", restart=True)

    assert pause(breaker) <= 10


def test_queue_may_be_tried_when_its_pause_is_over() -> None:
    breaker = Breaker(first=0, longest=0)

    breaker.trip("sick", "it is full")

    assert breaker.allows("sick")
    assert breaker.reasons


def test_postponed_trial_keeps_the_reason() -> None:
    breaker = Breaker(first=10, longest=1000)
    breaker.trip("sick", "it is full")

    breaker.postpone("sick")

    assert 5 - 1 < pause(breaker) <= 20
    assert breaker.reasons == {"sick": "it is full"}


def test_queue_that_works_again_starts_from_the_shortest_pause() -> None:
    breaker = Breaker(first=10, longest=1000)
    for _ in range(5):
        breaker.trip("sick", "it is full")

    breaker.reset("sick")

    assert breaker.next_trial() is None
    assert breaker.allows("sick")
    breaker.trip("sick", "it is full")
    assert pause(breaker) <= 10


def test_queue_whose_pause_ends_first_is_tried_first() -> None:
    breaker = Breaker(first=1, longest=1000)
    for _ in range(10):
        breaker.trip("slow", "no answer")
    breaker.trip("quick", "it is full")

    assert pause(breaker, "quick") <= 1


def test_one_warning_for_each_queue_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    breaker = Breaker(first=0, longest=0)

    assert [breaker.trip("sick", "it is full") for _ in range(3)] == [
        True,
        False,
        False,
    ]
    breaker.reset("sick")
    assert not breaker.trip("sick", "it is full")
    assert breaker.trip("other", "it is full")

    monkeypatch.setattr(backoff, "REMIND_SECONDS", 0.0)
    assert breaker.trip("sick", "it is full")
