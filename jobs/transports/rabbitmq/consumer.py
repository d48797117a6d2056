"""Brings hints to a worker: keeps a connection open, and opens another when it is lost.

Nothing is lost with a connection: the broker delivers unacknowledged hints again.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from jobs import backoff
from jobs.errors import AccessRefused
from jobs.transports.base import Delivery
from jobs.transports.breaker import Breaker
from jobs.transports.rabbitmq import timeouts
from jobs.transports.rabbitmq.address import Address
from jobs.transports.rabbitmq.consuming import ConsumingConnection
from jobs.transports.rabbitmq.subscription import (
    IOState,
    Mailbox,
    Subscription,
    Wanted,
)
from jobs.transports.rabbitmq.topology import Topology

logger = logging.getLogger("jobs.rabbitmq")

#: After a connection that lasted this long, back-off starts again from its shortest delay.
STABLE_SECONDS = 10.0
#: Lower the prefetch only after a lower one was wanted for this long. While the wanted number
#: wavers, hints would be fetched in excess, grow old here, and go back.
LOWER_SECONDS = 1.0
#: Bounds of the pause before a failed queue is tried again, in seconds. Longer than the
#: relay's, which tries on a connection of its own: here a trial that fails closes the
#: connection over which all other queues are consumed.
FIRST_PAUSE = 2.0
LONGEST_PAUSE = 300.0


class RabbitMQConsumer:
    """The transport of a worker. Its methods are called by the supervisor's main thread."""

    poll_seconds: None = None
    fetches_rows = False

    def __init__(
        self,
        addresses: Sequence[Address],
        topology: Topology,
        *,
        prefetch: int,
        wake: Callable[[], None],
    ) -> None:
        # Shuffled, so that many workers spread over the nodes of a cluster.
        self._addresses = random.sample(list(addresses), k=len(addresses))
        self._attempts = enumerate(itertools.cycle(self._addresses), start=1)
        self._wake = wake
        self._slots = prefetch
        self._lower_at = 0.0  # when the prefetch may be made smaller, monotonic seconds
        self._breaker = Breaker(first=FIRST_PAUSE, longest=LONGEST_PAUSE)
        self._wanted = Wanted(prefetch=prefetch, breaker=self._breaker)
        self._mailbox = Mailbox(wake)
        # These are the mailbox's own: the supervisor calls them at every turn.
        self.ready = self._mailbox.ready
        self.fetch = self._mailbox.take
        self.oldest_waiting = self._mailbox.oldest_arrival
        self._subscription = Subscription(
            topology=topology,
            breaker=self._breaker,
            wanted=self._wanted,
            mailbox=self._mailbox,
        )
        self._is_stopping = False
        now = time.monotonic()
        self._io = self._new_io_thread(IOState(ticked_at=now, consuming_at=now))

    def __str__(self) -> str:
        return "RabbitMQ at " + ", ".join(sorted(map(str, self._addresses)))

    @property
    def connection(self) -> ConsumingConnection | None:
        """The connection that is open, opening, or was the last one."""
        return self._io.connection

    def start(self) -> None:
        self._io.state.ticked_at = self._io.state.consuming_at = time.monotonic()
        self._io.start()

    def consume(self, queues: Sequence[str]) -> None:
        self._wanted.queues = tuple(queues)
        self._on_wanted_changed()

    def set_prefetch(self, count: int) -> None:
        wanted = self._wanted
        # Each queue has a prefetch of its own, and may be the only one that has jobs.
        share = max(self._slots, count // max(1, len(wanted.queues)))
        now = time.monotonic()
        # Raise it at once: that takes few steps, and a backlog waits for each of them. Lower
        # it at once where jobs prove to be long, or while nothing is consumed.
        at_once = share == self._slots or wanted.is_paused
        if share < wanted.prefetch and not at_once and now < self._lower_at:
            return
        self._lower_at = now + LOWER_SECONDS
        if share != wanted.prefetch:
            wanted.prefetch = share
            self._call(ConsumingConnection.change_prefetch)

    def put_back(self, deliveries: Sequence[Delivery]) -> None:
        self._mailbox.put_back(deliveries)
        if any(delivery.queue not in self._wanted.queues for delivery in deliveries):
            self._on_wanted_changed()

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        if deliveries:
            self._call(ConsumingConnection.acknowledge, deliveries)

    def pause(self) -> None:
        if not self._wanted.is_paused:
            self._wanted.is_paused = True
            self._on_wanted_changed()

    def resume(self) -> None:
        if self._wanted.is_paused:
            self._wanted.is_paused = False
            self._on_wanted_changed()

    def failure(self) -> Exception | None:
        if self._io.state.failure is None and not self._is_stopping:
            self._replace_stalled_thread()
        return self._io.state.failure

    def trouble(self) -> str:
        if self._is_stopping:
            return ""
        state, connection = self._io.state, self._io.connection
        seconds = time.monotonic() - state.consuming_at
        if seconds < timeouts.TROUBLE_SECONDS:
            reasons = self._breaker.reasons
            return "; ".join(
                f"not consuming the queue {queue!r}: {reasons[queue]}"
                for queue in self._wanted.queues
                if queue in reasons
            )
        if connection is not None and connection.is_open:
            return (
                f"not consuming from RabbitMQ at {connection.address} "
                f"for {seconds:.0f} s"
            )
        reason = state.error or f"{self} does not answer"
        return f"not connected to RabbitMQ for {seconds:.0f} s: {reason}"

    def stop(self) -> None:
        self._is_stopping = True
        self._io.stop(timeouts.CONNECT_SECONDS)

    def _on_wanted_changed(self) -> None:
        """Keep to what is wanted now. `fetch` does so from this moment on."""
        unwanted = self._mailbox.take_unwanted(self._wanted.now())
        self._call(ConsumingConnection.consume, unwanted)

    def _call(self, action: Callable[..., None], *args: object) -> None:
        """Have the I/O thread do this to its connection, if it has one."""
        connection = self._io.connection
        if connection is not None:
            connection.call_if_usable(partial(action, connection, *args))

    def _new_io_thread(self, state: IOState) -> IOThread:
        return IOThread(self._attempts, self._subscription, state, self._wake)

    def _replace_stalled_thread(self) -> None:
        """Replace an I/O thread that has died, or that is stuck.

        A thread cannot be killed. If a stuck one ever goes on, it finds that it has been
        abandoned, and ends.
        """
        old, now = self._io, time.monotonic()
        silent, is_alive = now - old.state.ticked_at, old.is_alive()
        # Not at once for a dead one either, or a thread that dies as it starts would be
        # replaced at every turn.
        limit = timeouts.STALLED_SECONDS if is_alive else timeouts.TROUBLE_SECONDS
        if silent < limit:
            return
        how = f"has stood still for {silent:.0f} s" if is_alive else "has died"
        logger.error("the I/O thread of %s %s: reconnecting", self, how)
        old.abandon()
        self._io = self._new_io_thread(dataclasses.replace(old.state, ticked_at=now))
        self._io.start()


class IOThread(threading.Thread):
    """Connects, consumes until the connection is lost, waits, and connects again."""

    def __init__(
        self,
        attempts: Iterator[tuple[int, Address]],
        subscription: Subscription,
        state: IOState,
        wake: Callable[[], None],
    ) -> None:
        super().__init__(name="jobs-io", daemon=True)
        self.state = state
        self.connection: ConsumingConnection | None = None
        self._attempts = attempts
        self._subscription = subscription
        self._wake = wake
        self._stopping = threading.Event()
        self._delays = backoff.reconnect_delays()
        self._reminded_at = -math.inf

    def run(self) -> None:
        for generation, address in self._attempts:
            if self._stopping.is_set():
                return
            opened_at = self.state.ticked_at = time.monotonic()
            connection = ConsumingConnection(
                self._subscription, self.state, address, generation
            )
            self.connection = connection
            if self._stopping.is_set():
                connection.discard()
                return
            self._serve(connection)
            if self._stopping.is_set():
                return
            now = self.state.ticked_at = time.monotonic()
            if connection.usable.is_set() and now - opened_at > STABLE_SECONDS:
                self._delays = backoff.reconnect_delays()
            self._note_why_it_closed(connection)
            if self.state.failure is not None:
                self._wake()
                return
            # Without the queue that failed, the others can be consumed at once.
            if connection.failed_queue is None:
                self._wait(connection)

    def stop(self, timeout: float) -> None:
        """Close the connection properly, and wait for the thread to end."""
        self._stopping.set()
        if self.connection is not None:
            self.connection.close()
        if self.is_alive():
            self.join(timeout)

    def abandon(self) -> None:
        """Have the thread end once it can, and the broker notice at once that it is gone."""
        self._stopping.set()
        if self.connection is not None:
            self.connection.cut()
            self._subscription.mailbox.close(self.connection.generation)

    def _serve(self, connection: ConsumingConnection) -> None:
        """Consume until the connection is closed."""
        mailbox = self._subscription.mailbox
        mailbox.open(connection.generation)
        connection.run()
        mailbox.close(connection.generation)

    def _note_why_it_closed(self, connection: ConsumingConnection) -> None:
        state, error = self.state, connection.error
        state.error = error
        state.has_connected = state.has_connected or connection.usable.is_set()
        if isinstance(error, AccessRefused) and not state.has_connected:
            state.failure = error
            return
        queue = connection.failed_queue
        if queue is not None and self._subscription.breaker.trip(queue, str(error)):
            logger.warning(
                "queue %r cannot be consumed, and is tried again now and then: %s",
                queue,
                error,
            )

    def _wait(self, connection: ConsumingConnection) -> None:
        delay, now = next(self._delays), time.monotonic()
        if (
            connection.usable.is_set()
            or now - self._reminded_at > backoff.REMIND_SECONDS
        ):
            self._reminded_at = now
            logger.warning("%s; trying again until it answers", connection.error)
        self._stopping.wait(delay)
