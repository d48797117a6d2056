"""What the supervisor's thread and the I/O thread share, whatever connection there is."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from jobs.transports.base import Delivery
from jobs.transports.breaker import Breaker
from jobs.transports.rabbitmq.topology import Topology


class Mailbox:
    """Hints that have arrived and have not been fetched.

    The I/O thread fills it, the supervisor empties it. `wake` tells the supervisor that
    something has arrived; it is called once until the supervisor looks.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._wake_sent = False
        self._lock = threading.Lock()
        self._deliveries: deque[Delivery] = deque()
        self._open_generation: int | None = None
        self._latest_generation = 0

    def ready(self) -> bool:
        return bool(self._deliveries)

    def open(self, generation: int) -> None:
        """From now on accept the hints of this connection, unless a later one was opened."""
        with self._lock:
            if generation > self._latest_generation:
                self._open_generation = self._latest_generation = generation
                self._deliveries.clear()

    def close(self, generation: int) -> None:
        """Accept no more hints of this connection, and forget those that are here.

        Their tags mean nothing on another connection: the broker delivers them again.
        """
        with self._lock:
            if generation == self._open_generation:
                self._open_generation = None
                self._deliveries.clear()

    def put(self, deliveries: Sequence[Delivery]) -> None:
        with self._lock:
            if deliveries[0].generation != self._open_generation:
                return  # of a connection that was given up: the broker delivers it again
            self._deliveries.extend(deliveries)
        if not self._wake_sent:
            self._wake_sent = True
            self._wake()

    def take(self, limit: int) -> list[Delivery]:
        self._wake_sent = False
        with self._lock:
            count = min(limit, len(self._deliveries))
            return [self._deliveries.popleft() for _ in range(count)]

    def put_back(self, deliveries: Sequence[Delivery]) -> None:
        with self._lock:
            self._deliveries.extendleft(reversed(deliveries))

    def take_unwanted(self, wanted: Collection[str]) -> list[Delivery]:
        """The hints of all other queues than these."""
        with self._lock:
            unwanted = [d for d in self._deliveries if d.queue not in wanted]
            if unwanted:
                kept = [d for d in self._deliveries if d.queue in wanted]
                self._deliveries.clear()
                self._deliveries.extend(kept)
        return unwanted

    def oldest_arrival(self) -> float | None:
        with self._lock:
            return self._deliveries[0].arrived if self._deliveries else None


class Wanted:
    """What the supervisor wants consumed, and with which prefetch.

    The supervisor replaces each attribute as a whole, so that reading it needs no lock.
    """

    def __init__(self, *, prefetch: int, breaker: Breaker) -> None:
        self.queues: tuple[str, ...] = ()
        self.prefetch = prefetch
        self.is_paused = False
        self._breaker = breaker

    def now(self) -> list[str]:
        """The queues to consume at this moment: none while paused, and no tripped ones."""
        if self.is_paused:
            return []
        return [queue for queue in self.queues if self._breaker.allows(queue)]


@dataclass(frozen=True, kw_only=True)
class Subscription:
    """Everything that outlives a connection."""

    topology: Topology
    breaker: Breaker
    wanted: Wanted
    mailbox: Mailbox


@dataclass(kw_only=True)
class IOState:
    """How an I/O thread is doing. That thread writes it, the supervisor reads it."""

    #: When it last showed a sign of life, monotonic seconds.
    ticked_at: float
    #: When hints could last have arrived, had there been any, monotonic seconds.
    consuming_at: float
    has_connected: bool = False
    #: Why the last connection was closed.
    error: Exception | None = None
    #: Why no connection can ever succeed.
    failure: Exception | None = None
