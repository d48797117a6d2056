"""The relay's thread: publishes what is due, and marks what the broker has confirmed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from django.db import DatabaseError, InterfaceError

from jobs import backoff, crashpoints, events
from jobs.errors import TransportError
from jobs.models import JobQuerySet
from jobs.relay import outbox
from jobs.relay.healer import Healer
from jobs.relay.prober import Prober
from jobs.transports.base import Hint, Publisher
from jobs.transports.breaker import Breaker

logger = logging.getLogger("jobs.relay")

#: How long a broker may confirm nothing before it counts as frozen, in seconds.
CONFIRM_SECONDS = 10.0
#: When to try again what could not be published or marked, in seconds.
RETRY_SECONDS = 1.0
#: Once a burst is seen, collect jobs for this long and publish them as one batch, in seconds.
#: A lone job never waits.
GATHER_SECONDS = 0.05
#: A burst is two jobs in one batch; while it lasts, this many, or collecting did not pay.
BURST = 2
BURST_GOES_ON = 10
#: Delay marking a lone job, so that the UPDATE does not contend with the worker's claim.
MARK_SECONDS = 0.01
#: If others keep coming, mark them once there are this many.
MARK_BATCH = 50
#: The relay of a saving process ends after this long without work, in seconds.
IDLE_SECONDS = 60.0
#: Bounds of the pause before a failed queue is tried again, in seconds. A trial disturbs no
#: other queue, because it has connections of its own.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0


class Inbox:
    """What a relay was nudged for. Any thread fills it, the relay's thread empties it."""

    def __init__(self, breaker: Breaker) -> None:
        self._breaker = breaker
        self._lock = threading.Lock()
        self._nudged = threading.Event()
        # Set while nothing that this process knows of is waiting to be published.
        self._flushed = threading.Event()
        self._flushed.set()
        # Jobs that this process has just saved. They need not be looked for in the table,
        # unless something went wrong, or they are many.
        self._newborn: list[Hint] = []
        self._must_look = True
        self._is_closed = False

    def add(self, newborn: Hint | None) -> bool:
        """False if the relay has ended because it was idle."""
        with self._lock:
            if newborn is None or len(self._newborn) >= outbox.BATCH:
                self._must_look = True
            else:
                self._newborn.append(newborn)
            self._flushed.clear()
            self._nudged.set()
            return not self._is_closed

    def take(self) -> tuple[list[Hint], bool]:
        """The jobs that were added, and whether the table must be looked at."""
        with self._lock:
            newborn, self._newborn = self._newborn, []
            must_look, self._must_look = self._must_look, False
            return newborn, must_look

    def look_again(self) -> None:
        with self._lock:
            self._must_look = True

    def recover(self, queue: str) -> None:
        """This queue takes hints again: have the table looked at now."""
        with self._lock:
            self._breaker.reset(queue)
            self._must_look = True
            self._nudged.set()

    def wake(self) -> None:
        self._nudged.set()

    def wait(self, seconds: float) -> bool:
        """Wait for a nudge that has come since the turn began."""
        return self._nudged.wait(seconds)

    def begin_turn(self) -> None:
        self._nudged.clear()

    def end_turn(self) -> None:
        with self._lock:
            if self._is_quiet:
                self._flushed.set()

    def close_if_quiet(self) -> bool:
        with self._lock:
            self._is_closed = self._is_quiet
            return self._is_closed

    def wait_until_flushed(self, timeout: float) -> bool:
        return self._flushed.wait(timeout)

    @property
    def _is_quiet(self) -> bool:
        return not self._nudged.is_set() and not self._breaker.reasons


class Relay:
    """A thread that publishes.

    With `poll_seconds` (a worker's) it also looks at the table that often, publishes rows in
    the moment in which they fall due, and heals. With None (that of a process which saves jobs)
    it works when nudged, and ends when idle.
    """

    def __init__(self, publisher: Publisher, *, poll_seconds: float | None) -> None:
        self._publisher = publisher
        self._poll_seconds = poll_seconds
        self._stopping = threading.Event()
        self._breaker = Breaker(first=FIRST_PAUSE, longest=LONGEST_PAUSE)
        self._inbox = Inbox(self._breaker)
        # Newborn jobs that the broker has confirmed, and that are not marked yet.
        self._confirmed: list[Hint] = []
        # What the last look has found. Nudges for some of these jobs may come only now.
        self._found: set[str] = set()
        self._burst = BURST
        self._is_burst = False
        self._healer: Healer | None = None
        if poll_seconds is not None:
            self._healer = Healer(publisher, self._breaker, self._trip)
        self._prober: Prober | None = None  # made when the first queue trips
        self._thread = threading.Thread(
            target=self._run, name="jobs-relay", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def nudge(self, newborn: Hint | None = None) -> bool:
        """There is something to publish: this job, or whatever is due in the table.

        Returns at once; False if this relay has ended.
        """
        is_open = self._inbox.add(newborn)
        return is_open and self._thread.is_alive() and not self._stopping.is_set()

    def flush(self, timeout: float) -> bool:
        """Wait until everything nudged for is confirmed; False if that took too long."""
        return self._inbox.wait_until_flushed(timeout)

    def stop(self, timeout: float = 1.0) -> None:
        self._stopping.set()
        self._inbox.wake()
        self._thread.join(timeout)
        if self._prober is not None:
            self._prober.join(timeout)

    # What follows runs on the relay's thread, unless it says something else.

    def _run(self) -> None:
        delays = backoff.reconnect_delays()
        is_troubled = False
        try:
            while not self._stopping.is_set():
                self._inbox.begin_turn()
                try:
                    idle_seconds = self._work()
                except (TransportError, DatabaseError, InterfaceError) as error:
                    if not is_troubled:
                        logger.warning("%s; jobs wait, and are published later", error)
                    is_troubled = True
                # A bug of ours. Without this thread nothing would be published.
                except Exception:
                    logger.exception("the relay met an unexpected error, and goes on")
                else:
                    if is_troubled:
                        logger.info("publishing again")
                        delays, is_troubled = backoff.reconnect_delays(), False
                    self._sleep(idle_seconds)
                    continue
                outbox.close_database()
                self._stopping.wait(next(delays))
        finally:
            self._publisher.close()
            outbox.close_database()

    def _work(self) -> float:
        """One turn. Returns the seconds until there is more to do, as far as is known."""
        if self._healer is not None:
            self._healer.heal_if_due()
        # Before any row is read: while the broker is away, a turn costs next to nothing.
        self._publisher.connect()
        self._is_burst = False
        if self._poll_seconds is None:
            self._publish_newborn()
            idle_seconds = IDLE_SECONDS
        else:
            idle_seconds = min(self._publish_due(), self._poll_seconds)
        if self._confirmed and (
            not self._inbox.wait(MARK_SECONDS) or len(self._confirmed) >= MARK_BATCH
        ):
            self._mark_confirmed()
        return idle_seconds

    def _sleep(self, seconds: float) -> None:
        """Wait for a nudge, at most this long. Ends an idle relay of a saving process."""
        self._inbox.end_turn()
        self._burst = BURST_GOES_ON if self._is_burst else BURST
        if self._is_burst:
            self._stopping.wait(GATHER_SECONDS)
        self._inbox.wait(seconds)
        if self._poll_seconds is None and self._inbox.close_if_quiet():
            self._stopping.set()

    def _publish_due(self) -> float:
        """Publish all that is due. Returns the seconds until the next row falls due."""
        if (left := self._due_in()) > 0:
            return left
        self._publish_all()
        left = self._due_in()
        return left if left > 0 else RETRY_SECONDS

    def _due_in(self) -> float:
        return outbox.due_in(self._backlog().exclude(queue__in=self._breaker.reasons))

    def _publish_newborn(self) -> None:
        """Publish what this process was nudged for; look at the table only if need be."""
        newborn, must_look = self._inbox.take()
        tripped = self._breaker.reasons
        hints = [
            hint
            for hint in newborn
            if hint.queue not in tripped and hint.job_id not in self._found
        ]
        try:
            if must_look or (
                hints and not self._publish_batch(self._publisher, hints, None)
            ):
                self._publish_all()
        except BaseException:
            self._inbox.look_again()
            raise

    def _publish_all(self) -> None:
        self._mark_confirmed()  # otherwise they would be selected
        more = True
        while more and not self._stopping.is_set():
            rows = self._backlog().due().exclude(queue__in=self._breaker.reasons)
            hints, selected_at = outbox.select(rows)
            self._found = {hint.job_id for hint in hints}
            taken = self._publish_batch(self._publisher, hints, selected_at)
            more = not taken or len(hints) == outbox.BATCH

    def _publish_queue(self, publisher: Publisher, queue: str) -> bool:
        """Called by the prober's thread: try one queue."""
        hints, selected_at = outbox.select(self._backlog().due().filter(queue=queue))
        return self._publish_batch(publisher, hints, selected_at)

    def _publish_batch(
        self, publisher: Publisher, hints: Sequence[Hint], selected_at: str | None
    ) -> bool:
        """Publish these, and mark them now or soon. False if a queue refused any.

        `selected_at`: when they were found in the table; None if they were just saved.
        """
        if not hints:
            return True
        crashpoints.reach("relay_after_select")
        if publisher is self._publisher:
            self._is_burst = len(hints) >= self._burst
        mark_later = selected_at is None and not self._is_burst

        def on_confirmed(part: Sequence[Hint]) -> None:
            if events.job_published.listeners:
                events.job_published.send(
                    [events.Published(hint.job_id, hint.queue) for hint in part]
                )
            if mark_later:
                self._confirmed += part
            else:
                self._mark(part, selected_at)

        receipt = publisher.publish(hints, CONFIRM_SECONDS, on_confirmed)
        taking = {hint.queue for hint in receipt.confirmed}
        for queue, reason in receipt.refused.items():
            self._trip(queue, reason, restart=queue in taking)
        if receipt.failure is not None:
            raise receipt.failure
        return not receipt.refused

    def _mark_confirmed(self) -> None:
        if self._confirmed:
            self._mark(self._confirmed, None)
            self._confirmed = []

    def _mark(self, hints: Sequence[Hint], selected_at: str | None) -> None:
        crashpoints.reach("relay_before_mark")
        outbox.mark(hints, selected_at)
        crashpoints.reach("relay_after_mark")

    def _backlog(self) -> JobQuerySet:
        return outbox.backlog(of_worker=self._poll_seconds is not None)

    def _trip(self, queue: str, reason: str, *, restart: bool = False) -> None:
        """One broken queue must not stop the others: leave it to the prober."""
        warn = self._breaker.trip(queue, reason, restart=restart)
        if self._prober is None:
            self._prober = Prober(
                self._breaker,
                self._stopping,
                publish=self._publish_queue,
                on_recovery=self._inbox.recover,
            )
        self._prober.start()
        if warn:
            logger.warning(
                "queue %r does not take its hints (%s): its jobs wait, those of other "
                "queues are published",
                queue,
                reason,
            )
