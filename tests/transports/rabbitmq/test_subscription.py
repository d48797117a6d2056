"""What the supervisor and the I/O thread share: the mailbox, and what is wanted."""

from __future__ import annotations

from jobs.transports.base import Delivery
from jobs.transports.breaker import Breaker
from jobs.transports.rabbitmq.subscription import Mailbox, Wanted


def delivery(number: int, queue: str = "default", generation: int = 1) -> Delivery:
    return Delivery(f"job {number}", float(number), queue, generation, number)


def mailbox(wakes: list[None] | None = None) -> Mailbox:
    wakes = [] if wakes is None else wakes
    opened = Mailbox(lambda: wakes.append(None))
    opened.open(1)
    return opened


def test_supervisor_is_woken_once_until_it_takes_something() -> None:
    wakes: list[None] = []
    box = mailbox(wakes)

    box.put([delivery(1)])
    box.put([delivery(2)])
    assert len(wakes) == 1

    assert box.take(10) == [delivery(1), delivery(2)]
    box.put([delivery(3)])
    assert len(wakes) == 2


def test_hints_that_were_put_back_come_first_in_their_order() -> None:
    box = mailbox()
    box.put([delivery(number) for number in range(4)])

    box.put_back(box.take(2))

    assert box.oldest_arrival() == 0.0
    assert box.take(10) == [delivery(number) for number in range(4)]


def test_unwanted_hints_are_taken_out_and_the_others_keep_their_order() -> None:
    box = mailbox()
    box.put([delivery(1), delivery(2, "mail"), delivery(3)])

    assert box.take_unwanted({"default"}) == [delivery(2, "mail")]
    assert box.take(10) == [delivery(1), delivery(3)]


def test_closed_connection_leaves_no_hints_and_adds_none() -> None:
    box = mailbox()
    box.put([delivery(1)])

    box.close(1)
    box.put([delivery(2)])

    assert not box.ready()
    assert box.oldest_arrival() is None


def test_stuck_connection_cannot_disturb_its_successor() -> None:
    box = mailbox()
    box.open(2)
    box.put([delivery(1, generation=2)])

    box.put([delivery(2, generation=1)])
    box.open(1)
    box.close(1)

    assert box.take(10) == [delivery(1, generation=2)]


def test_paused_and_tripped_queues_are_not_wanted() -> None:
    breaker = Breaker(first=10, longest=10)
    wanted = Wanted(prefetch=1, breaker=breaker)
    wanted.queues = ("default", "sick")
    breaker.trip("sick", "it is full")

    assert wanted.now() == ["default"]
    wanted.is_paused = True
    assert wanted.now() == []
